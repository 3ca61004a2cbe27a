//! One run of a rollup: the next safe window, aggregated and merged, and the position moved, in one transaction.

use std::time::Duration;

use pgrx::PgSqlErrorCode::*;

use crate::error::{Error, Result};
use crate::pg::locks;
use crate::pg::query::{End, Limit};
use crate::pg::session::{self, AsRole, WithSettings};
use crate::pg::spi;
use crate::rollup::catalog::{self, Kind, Rollup};
use crate::rollup::definition::Definition;
use crate::rollup::ids::Ids;
use crate::rollup::passing::{self, Share};
use crate::rollup::window::{self, Bound, NodeWindow, Window, Writers};
use crate::rollup::{citus, source, target};

use pgrx::pg_sys;

/// What a run did. Without `rows_written` there was nothing to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// First and last id of the window.
    pub window_start: Option<i64>,
    pub window_end: Option<i64>,
    /// Start (inclusive) and end (exclusive) of a time window, in microseconds since 2000-01-01 UTC.
    pub time_start: Option<i64>,
    pub time_end: Option<i64>,
    pub rows_written: Option<i64>,
}

impl Outcome {
    fn of(window: Window, rows_written: Option<i64>) -> Self {
        match (window.start, window.end) {
            (Bound::Id(start), Bound::Id(end)) => Outcome {
                window_start: Some(start.saturating_add(1)),
                window_end: Some(end),
                rows_written,
                ..Default::default()
            },
            (Bound::Time(start), Bound::Time(end)) => {
                Outcome { time_start: Some(start), time_end: Some(end), rows_written, ..Default::default() }
            }
            _ => unreachable!("both ends of a window are of one kind"),
        }
    }
}

/// Runs a rollup by hand; `patience` is an interval.
pub fn by_hand(name: &str, patience: Option<pg_sys::Datum>) -> Result<Outcome> {
    const MICROSECONDS: &str = "SELECT GREATEST(extract(epoch FROM $1) * 1000000, 0)::bigint";
    let patience = patience.and_then(|interval| {
        let argument = [spi::datum(pg_sys::INTERVALOID, Some(interval))];
        catalog::internally(|| spi::query_one(MICROSECONDS, &argument, |row| row.int8(1))).flatten()
    });
    run(name, Writers::Await(patience.map(|micros| Duration::from_micros(micros as u64))))
}

/// Runs a rollup. By hand it waits: for another run of the same rollup, then for the writers that may still add to the
/// window. The worker has watched them, and skips a rollup that somebody else is running.
pub fn run(name: &str, writers: Writers) -> Result<Outcome> {
    let started = clock();
    keep_source(name);
    let is_watched = matches!(writers, Writers::Watched(_));
    let rollup = match is_watched {
        false => catalog::lock_owned(name)?,
        true => match catalog::try_lock(name) {
            Some(rollup) => rollup,
            None => return Ok(Outcome::default()),
        },
    };
    check_may_run(&rollup)?;
    if matches!(writers, Writers::Await(Some(_))) {
        passing::check(&rollup)?;
    }
    if matches!(rollup.kind, Kind::WindowOnly) {
        return Err(Error::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("rollup \"{name}\" has neither a query nor a command to run"),
        )
        .detail("It was registered for windows only: your own function aggregates them.")
        .hint(format!("SELECT * FROM incremental_rollup_window('{name}'); gives the next window.")));
    }
    let next = window::next(&rollup, writers)?;
    catalog::note_time_column(&rollup);
    let mut shares = vec![(0, passing::share(&rollup, &next)?)];
    shares.extend(next.parts[1..].iter().map(|part| (part.group, Share::whole(part.window))));
    let mut rows = None;
    if shares.iter().any(|(_, share)| !share.is_empty()) {
        citus::commit_everywhere(&rollup);
    }
    for (group, share) in shares.iter().filter(|(_, share)| !share.is_empty()) {
        // First the position: a trigger of the target that runs this rollup again finds nothing left to do.
        catalog::advance(&rollup, &NodeWindow { group: *group, window: share.window })?;
        if let Some(passed_over) = &share.passed_over {
            catalog::set_passed_over(&rollup.name, passed_over);
        }
        rows = Some(rows.unwrap_or(0) + aggregate(&rollup, share)? as i64);
    }
    let outcome = Outcome::of(shares[0].1.span(), rows);
    if rows.is_none() {
        return Ok(outcome);
    }
    if !is_watched {
        record(&rollup, started, outcome);
    }
    Ok(outcome)
}

/// The next windows for a caller that aggregates them, each by its first and last id: `incremental_rollup_windows`.
pub fn take_windows(name: &str) -> Result<Vec<(i64, i64)>> {
    keep_source(name);
    let rollup = catalog::lock_owned(name)?;
    check_may_run(&rollup)?;
    if !matches!(rollup.kind, Kind::WindowOnly) {
        return Err(Error::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("rollup \"{name}\" aggregates its windows itself"),
        )
        .detail("Events of a window taken from it would be missing in its target.")
        .hint(format!("SELECT * FROM run_rollup('{name}');")));
    }
    citus::commit_everywhere(&rollup);
    window::next(&rollup, Writers::Await(None))?
        .parts
        .iter()
        .map(|part| match (part.window.start, part.window.end) {
            (Bound::Id(start), Bound::Id(end)) => {
                if !part.window.is_empty() {
                    catalog::advance(&rollup, part)?;
                }
                Ok((start.saturating_add(1), end))
            }
            _ => Err(Error::new(
                ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("rollup \"{name}\" follows a time column, and a window of ids was asked for"),
            )
            .hint("Register it with a command: command => 'INSERT ... WHERE t >= $1 AND t < $2 ...'.")),
        })
        .collect()
}

/// The only next window: `incremental_rollup_window`. Refused once other nodes have inserted events.
pub fn take_window(name: &str) -> Result<(i64, i64)> {
    match take_windows(name)?[..] {
        [window] => Ok(window),
        _ => Err(Error::new(
            ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("the events of rollup \"{name}\" come from more than one node"),
        )
        .detail(
            "Each node draws ids from a range of its own, and incremental_rollup_window returns one range.",
        )
        .hint(format!("SELECT * FROM incremental_rollup_windows('{name}'); and aggregate each of them."))),
    }
}

/// Waits for whoever is replacing the event table, before the rollup is locked: that command ends with pointing the
/// rollup to the new table.
fn keep_source(name: &str) {
    if let Ok(rollup) = catalog::get(name)
        && rollup.check_owner().is_ok()
    {
        locks::keep(rollup.source);
    }
}

fn check_may_run(rollup: &Rollup) -> Result<()> {
    if rollup.paused {
        return Err(Error::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("rollup \"{}\" is paused", rollup.name),
        )
        .hint(format!("SELECT resume_rollup('{}');", rollup.name)));
    }
    Ok(())
}

/// Under this the SQL of a rollup runs: as its owner, with the settings of its registration.
pub struct AsRollup(#[allow(dead_code)] WithSettings, #[allow(dead_code)] AsRole);

impl AsRollup {
    pub fn new(rollup: &Rollup) -> Self {
        let path = match rollup.search_path.trim() {
            "" | "\"\"" => "pg_catalog, pg_temp".to_owned(),
            // Temporary tables last: those of the caller must not stand in for the owner's.
            path => format!("{path}, pg_temp"),
        };
        let settings = WithSettings::new(&[
            ("search_path", &path),
            ("TimeZone", &rollup.time_zone),
            // A run is maintenance work: few at a time, and large.
            ("work_mem", &session::run_memory()),
            ("DateStyle", "ISO, YMD"),
            ("IntervalStyle", "postgres"),
        ]);
        AsRollup(settings, AsRole::owner(rollup.owner))
    }
}

/// Aggregates the events of a share into the target; returns the rows written.
fn aggregate(rollup: &Rollup, share: &Share) -> Result<u64> {
    match &rollup.kind {
        Kind::Declarative { .. } if share.stretches.is_empty() => Ok(0),
        Kind::Declarative { target_name, .. } => {
            let mut definition = load_definition(rollup)?;
            restrict(&mut definition, rollup, &share.stretches, &share.except)?;
            let _session = AsRollup::new(rollup);
            let is_first_fill = rollup.is_at_beginning() && !target::has_rows(target_name);
            let statement = match is_first_fill {
                true => definition.fill_sql(target_name)?,
                false => definition.merge_sql(target_name)?,
            };
            Ok(spi::execute(&statement, &[]))
        }
        Kind::Command(command) => {
            let bounds = match (share.window.start, share.window.end) {
                (Bound::Id(start), Bound::Id(end)) => {
                    [spi::int8(Some(start.saturating_add(1))), spi::int8(Some(end))]
                }
                (Bound::Time(start), Bound::Time(end)) => {
                    [spi::timestamptz(Some(start)), spi::timestamptz(Some(end))]
                }
                _ => unreachable!("both ends of a window are of one kind"),
            };
            let _session = AsRollup::new(rollup);
            Ok(spi::execute(command, &bounds))
        }
        Kind::WindowOnly => Ok(0),
    }
}

/// The definition of a declarative rollup, read again from its view: renamed tables and columns are followed.
pub fn load_definition(rollup: &Rollup) -> Result<Definition> {
    rollup.check_target()?;
    match rollup.kind {
        Kind::Declarative { definition, .. } => Definition::of_view(definition, rollup.source),
        _ => {
            Err(Error::new(ERRCODE_FEATURE_NOT_SUPPORTED, format!("rollup \"{}\" has no query", rollup.name))
                .detail("What a command or a function of yours writes is not known to the extension.")
                .hint("Register it in the declarative form, with a query."))
        }
    }
}

/// Narrows a definition to the events of some windows, all of one kind, without those of some ids.
pub fn restrict(
    definition: &mut Definition,
    rollup: &Rollup,
    windows: &[Window],
    except: &Ids,
) -> Result<()> {
    let zone = match rollup.time_column {
        Some(_) => source::clock_zone(rollup)?,
        None => None,
    };
    let time_type = if zone.is_some() { pg_sys::TIMESTAMPOID } else { pg_sys::TIMESTAMPTZOID };
    let limit = |operator, bound| match bound {
        Bound::Id(id) => Limit { operator, end: End::Constant { type_oid: pg_sys::INT8OID, value: id } },
        Bound::Time(time) => {
            let value = window::column_time(time, zone.as_deref());
            Limit { operator, end: End::Constant { type_oid: time_type, value } }
        }
    };
    // The position is the last id inside, but the first moment outside.
    let (after, until) = if rollup.time_column.is_some() { (">=", "<") } else { (">", "<=") };
    let ranges: Vec<_> =
        windows.iter().map(|window| vec![limit(after, window.start), limit(until, window.end)]).collect();
    let column = rollup.time_column.as_deref().or(rollup.id_column.as_deref()).unwrap_or_default();
    let except = (!except.is_empty()).then(|| End::Ids(except.to_string()));
    definition.restrict(column, &ranges, except.as_ref())
}

fn clock() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Leaves a row in the history; it stands or falls with the run.
fn record(rollup: &Rollup, started: i64, outcome: Outcome) {
    catalog::internally(|| {
        spi::execute(
            &catalog::sql(
                "INSERT INTO @extschema@.rollup_runs (rollup_name, status, window_start, window_end, time_start, \
                 time_end, rows_written, started_at, finished_at, pid) \
                 VALUES ($1, 'succeeded', $2, $3, $4, $5, $6, $7, clock_timestamp(), pg_backend_pid())",
            ),
            &[
                spi::text(Some(&rollup.name)),
                spi::int8(outcome.window_start),
                spi::int8(outcome.window_end),
                spi::timestamptz(outcome.time_start),
                spi::timestamptz(outcome.time_end),
                spi::int8(outcome.rows_written),
                spi::timestamptz(Some(started)),
            ],
        )
    });
}
