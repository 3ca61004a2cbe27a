//! When a rollup is due: an interval (`'30 seconds'`) or a cron line (`'*/5 * * * *'`), both in UTC.

use std::time::Duration;

use chrono::DateTime;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use pgrx::PgSqlErrorCode;

use crate::error::{Error, Result};

const MICROS_PER_SECOND: i64 = 1_000_000;
/// PostgreSQL's epoch, 2000-01-01, in microseconds of Unix time.
const POSTGRES_EPOCH: i64 = 946_684_800 * MICROS_PER_SECOND;
/// Intervals count from Monday 2000-01-03, so that days begin at midnight UTC and weeks on Monday.
const INTERVAL_ORIGIN: i64 = 2 * 86_400 * MICROS_PER_SECOND;
/// No interval reaches further: far above any use, far below overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A parsed `schedule`.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// At every multiple of so many microseconds, counted from a fixed origin: two servers, and one
    /// server before and after a restart, agree on when the next one is.
    Interval(i64),
    Cron(Box<Cron>),
}

impl Schedule {
    /// Reads an interval of at least one second in seconds, minutes, hours, days and weeks
    /// (`'1 hour 30 minutes'`), a five-field cron line as vixie cron and pg_cron take it (names of months and
    /// weekdays, lists, ranges, steps, `$` for the last day of the month), or one of `@hourly`, `@daily`,
    /// `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually`.
    ///
    /// Anything else is an error 22023.
    pub fn parse(text: &str) -> Result<Schedule> {
        let lower = text.trim().to_lowercase();
        let parsed =
            if lower.starts_with('@') || lower.split_whitespace().count() == 5 && !is_interval(&lower) {
                parse_cron(&lower)
            } else {
                parse_interval(&lower)
            };
        parsed.map_err(|reason| {
            Error::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("invalid schedule: \"{text}\""),
            )
            .detail(reason)
            .hint(
                "Write an interval such as '30 seconds' or '1 hour 30 minutes', \
                 or a cron line in UTC such as '*/5 * * * *'.",
            )
        })
    }

    /// The first time after `time` at which it is due; both are PostgreSQL timestamps (microseconds
    /// since 2000-01-01 UTC). `None` when no day of the calendar matches.
    pub fn next_after(&self, time: i64) -> Option<i64> {
        match self {
            Schedule::Interval(step) => {
                let passed = time.checked_sub(INTERVAL_ORIGIN)?.div_euclid(*step);
                passed.checked_add(1)?.checked_mul(*step)?.checked_add(INTERVAL_ORIGIN)
            }
            Schedule::Cron(cron) => {
                let now = DateTime::from_timestamp_micros(time.checked_add(POSTGRES_EPOCH)?)?;
                let next = cron.find_next_occurrence(&now.naive_utc(), false).ok()?;
                // The search keeps the fraction of the second it starts from.
                Some(next.and_utc().timestamp() * MICROS_PER_SECOND - POSTGRES_EPOCH)
            }
        }
    }
}

/// `1 hour 30 minutes 10` has five words too; a cron line never holds a word that is a unit.
fn is_interval(lower: &str) -> bool {
    lower.contains("second") || lower.contains("minute") || lower.contains("hour") || lower.contains("day")
}

fn parse_interval(lower: &str) -> std::result::Result<Schedule, String> {
    let interval = humantime::parse_duration(lower).map_err(|error| match error {
        humantime::DurationError::Empty => "It is empty.".to_string(),
        humantime::DurationError::UnknownUnit { unit, .. } if !unit.is_empty() => {
            format!("\"{unit}\" is no unit of time: seconds, minutes, hours, days and weeks are.")
        }
        humantime::DurationError::UnknownUnit { value, .. } => {
            format!("The number {value} has no unit of time.")
        }
        humantime::DurationError::NumberOverflow => "The interval is too long or too fine.".to_string(),
        _ => "It is neither an interval nor a cron line of five fields.".to_string(),
    })?;
    if lower.split(|c: char| !c.is_alphabetic()).any(|unit| unit.starts_with("mon") || unit.starts_with('y'))
    {
        return Err("Months and years differ in length: use a cron line such as '0 0 1 * *'.".into());
    }
    if interval < Duration::from_secs(1) {
        return Err("The shortest interval is 1 second.".into());
    }
    if interval > LONGEST {
        return Err("The longest interval is ten years.".into());
    }
    Ok(Schedule::Interval(interval.as_micros() as i64))
}

fn parse_cron(lower: &str) -> std::result::Result<Schedule, String> {
    let line = match lower {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ if lower.starts_with('@') => {
            return Err("The names are @hourly, @daily, @weekly, @monthly and @yearly.".into());
        }
        line => line,
    };
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        return Err("A cron line has five fields.".into());
    };
    check_field("minute", minute, &[])?;
    check_field("hour", hour, &[])?;
    if day != "$" {
        check_field("day of the month", day, &[])?;
    }
    check_field("month", month, &MONTHS)?;
    check_field("day of the week", weekday, &WEEKDAYS)?;

    // Vixie cron: with both day fields restricted either one will do; one that begins with a star,
    // even `*/2`, does not count as restricted and both must match.
    let both = day.starts_with('*') || weekday.starts_with('*');
    let parser =
        CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).dom_and_dow(both).build();
    let day = if day == "$" { "L" } else { day };
    let cron = parser
        .parse(&format!("{minute} {hour} {day} {month} {weekday}"))
        .map_err(|error| format!("The cron line is out of range: {error}"))?;
    let schedule = Schedule::Cron(Box::new(cron));
    match schedule.next_after(0) {
        Some(_) => Ok(schedule),
        None => Err("No day of the calendar matches it.".into()),
    }
}

/// One field of a cron line holds what vixie cron takes, which is less than the parser behind it does.
fn check_field(field: &str, text: &str, names: &[&str]) -> std::result::Result<(), String> {
    let number = |s: &str| !s.is_empty() && s.len() <= 2 && s.bytes().all(|b| b.is_ascii_digit());
    let value = |s: &str| number(s) || names.contains(&s);
    let valid = text.split(',').all(|item| {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let spans = match range.split_once('-') {
            Some((first, last)) => value(first) && value(last),
            None => range == "*" || step.is_none() && value(range),
        };
        spans && step.is_none_or(number)
    });
    if valid { Ok(()) } else { Err(format!("The {field} \"{text}\" is not one that cron knows.")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        let time = DateTime::parse_from_rfc3339(text).expect("an RFC 3339 time");
        time.timestamp_micros() - POSTGRES_EPOCH
    }

    fn next(schedule: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule).unwrap_or_else(|e| panic!("{schedule}: {e:?}"));
        let next = schedule.next_after(at(after)).expect("a next time");
        DateTime::from_timestamp_micros(next + POSTGRES_EPOCH).expect("in range").naive_utc().to_string()
    }

    fn next_is(schedule: &str, after: &str, expected: &str) {
        assert_eq!(next(schedule, after), expected.replace("T", " "), "{schedule} after {after}");
    }

    fn reason(schedule: &str) -> String {
        format!("{:?}", Schedule::parse(schedule).expect_err(schedule))
    }

    #[test]
    fn intervals_are_multiples_from_midnight() {
        next_is("30 seconds", "2026-03-04T05:06:07.5Z", "2026-03-04T05:06:30");
        next_is("1 second", "2026-03-04T05:06:07.999999Z", "2026-03-04T05:06:08");
        next_is("1s", "2026-03-04T05:06:07Z", "2026-03-04T05:06:08");
        next_is("5 minutes", "2026-03-04T05:05:00Z", "2026-03-04T05:10:00");
        next_is("  5 MIN ", "2026-03-04T05:05:00Z", "2026-03-04T05:10:00");
        next_is("1 hour 30 minutes", "2026-03-04T05:05:00Z", "2026-03-04T06:00:00");
        next_is("1.5 hours", "2026-03-04T05:05:00Z", "2026-03-04T06:00:00");
        next_is("1 day", "2026-03-04T05:05:00Z", "2026-03-05T00:00:00");
        next_is("1 day 1 hour 1 min", "2000-01-03T00:00:00Z", "2000-01-04T01:01:00");
        next_is("1 week", "2026-03-04T05:05:00Z", "2026-03-09T00:00:00");
        next_is("1 day", "1999-03-04T05:05:00Z", "1999-03-05T00:00:00");
    }

    #[test]
    fn cron_lines_as_cron_reads_them() {
        next_is("* * * * *", "2026-03-04T05:06:07.5Z", "2026-03-04T05:07:00");
        next_is("* * * * *", "2026-03-04T05:06:00Z", "2026-03-04T05:07:00");
        next_is("*/5 * * * *", "2026-03-04T05:55:01Z", "2026-03-04T06:00:00");
        next_is("10-20/5 3,4 * * *", "2026-03-04T03:20:00Z", "2026-03-04T04:10:00");
        next_is("0 0 1 jan *", "2026-03-04T05:06:07Z", "2027-01-01T00:00:00");
        next_is("0 12 * Feb-Apr Mon", "2026-03-04T05:06:07Z", "2026-03-09T12:00:00");
        next_is("0 0 * * 0", "2026-03-04T05:06:07Z", "2026-03-08T00:00:00");
        next_is("0 0 * * 7", "2026-03-04T05:06:07Z", "2026-03-08T00:00:00");
        next_is("0 0 * * fri-sun", "2026-03-07T05:06:07Z", "2026-03-08T00:00:00");
        next_is("0 0 29 2 *", "2026-03-04T05:06:07Z", "2028-02-29T00:00:00");
        next_is("0 0 $ * *", "2026-02-04T05:06:07Z", "2026-02-28T00:00:00");
        next_is("59 23 $ * *", "2024-02-04T05:06:07Z", "2024-02-29T23:59:00");
        next_is("@hourly", "2026-03-04T05:06:07Z", "2026-03-04T06:00:00");
        next_is("@midnight", "2026-03-04T05:06:07Z", "2026-03-05T00:00:00");
        next_is("@weekly", "2026-03-04T05:06:07Z", "2026-03-08T00:00:00");
        next_is("@Yearly", "2026-03-04T05:06:07Z", "2027-01-01T00:00:00");
    }

    #[test]
    fn days_combine_as_in_vixie_cron() {
        // Both restricted: the 13th or a Friday.
        next_is("0 0 13 * 5", "2026-03-04T00:00:00Z", "2026-03-06T00:00:00");
        next_is("0 0 5 * 5", "2026-03-04T00:00:00Z", "2026-03-05T00:00:00");
        // A star, even with a step, restricts nothing by itself: odd days that are Fridays.
        next_is("0 0 */2 * 5", "2026-03-04T00:00:00Z", "2026-03-13T00:00:00");
        next_is("0 0 13 * */5", "2026-03-04T00:00:00Z", "2026-03-13T00:00:00");
        next_is("0 0 $ * 1", "2026-03-25T00:00:00Z", "2026-03-30T00:00:00");
    }

    #[test]
    fn a_late_tick_is_one_tick() {
        let schedule = Schedule::parse("10 seconds").unwrap();
        let slept = at("2026-03-04T05:10:03Z");
        assert_eq!(schedule.next_after(slept), Some(at("2026-03-04T05:10:10Z")));
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for (schedule, expected) in [
            ("", "It is empty"),
            ("soon", "neither an interval nor a cron line"),
            ("5", "has no unit"),
            ("5 parsecs", "parsecs"),
            ("-5 minutes", "neither"),
            ("0 seconds", "shortest interval"),
            ("500 ms", "shortest interval"),
            ("1 month", "Months and years"),
            ("2 years", "Months and years"),
            ("20000 weeks", "longest interval"),
            ("99999999999999999999 seconds", "too long"),
            ("* * * *", "neither"),
            ("* * * * * *", "neither"),
            ("60 * * * *", "out of range"),
            ("* 24 * * *", "out of range"),
            ("* * 0 * *", "out of range"),
            ("* * * 13 *", "out of range"),
            ("* * * * 8", "out of range"),
            ("*/0 * * * *", "out of range"),
            ("5-1 * * * *", "out of range"),
            ("1, * * * *", "minute"),
            ("5/10 * * * *", "minute"),
            ("a * * * *", "minute"),
            ("* * 1 mon *", "month \\\"mon\\\""),
            ("* * * * jan", "day of the week"),
            ("* * L * *", "day of the month"),
            ("* * 15w * *", "day of the month"),
            ("* * * * 5#2", "day of the week"),
            ("0 0 30 2 *", "No day of the calendar"),
            ("@reboot", "@hourly"),
        ] {
            let reason = reason(schedule);
            assert!(reason.contains(expected), "{schedule}: {reason}");
            assert!(reason.contains("INVALID_PARAMETER_VALUE") && reason.contains("hint: Some"), "{reason}");
        }
    }
}
