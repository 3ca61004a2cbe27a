//! Where a window has to end so that a run takes at most `batch_size` events: by counting them, not by the span, because
//! ids have gaps and times have quiet hours. The stretch to count grows, so that it costs what the batch holds.

use pgrx::pg_sys::{self, Datum};
use pgrx::spi::quote_identifier;

use crate::error::Result;
use crate::pg::{session, spi};
use crate::rollup::catalog::Rollup;
use crate::rollup::ids::Ids;
use crate::rollup::passing;
use crate::rollup::run::AsRollup;
use crate::rollup::source;
use crate::rollup::window;

/// The first stretch of time that is counted; the next one is twice as long. In microseconds.
const FIRST_SPAN: i64 = 1_000_000;
/// The first time there is, in microseconds since 2000-01-01; what is before it has no beginning.
const FIRST_TIME: i64 = -211_813_488_000_000_000;

/// The last id of a batch of at most `size` events after `start` up to `end`, and how many it has, apart from those
/// with ids that do not count. A stretch no longer than the room that is left always fits, because no id occurs twice.
pub fn by_id(rollup: &Rollup, start: i64, end: i64, except: &Ids, size: i64) -> (i64, i64) {
    let column = quote_identifier(rollup.id_column.as_deref().unwrap_or_default());
    let count = format!(
        "SELECT pg_catalog.count(*) FROM {} \
         WHERE {column} OPERATOR(pg_catalog.>) $1 AND {column} OPERATOR(pg_catalog.<=) $2{}",
        rollup.source_name,
        passing::and_not_among(&column, except),
    );
    let _session = AsRollup::new(rollup);
    let (mut reached, mut room, mut span) = (start, size, size);
    while reached < end && room > size / 8 {
        session::check_for_interrupts();
        let next = reached.saturating_add(span).min(end);
        let args = [spi::int8(Some(reached)), spi::int8(Some(next))];
        let events = spi::query_one(&count, &args, |row| row.int8(1)).flatten().unwrap_or(0);
        if events > room && span > room {
            span = room;
            continue;
        }
        reached = next;
        room -= events;
        span = span.saturating_mul(2);
    }
    (reached, size - room)
}

/// The first moment behind a batch of at most `size` events from `start` to before `end`. Events of one moment, such as
/// those of one transaction, stay together: a batch that has no other may be larger.
pub fn by_time(rollup: &Rollup, start: i64, end: i64, size: i64) -> Result<i64> {
    let zone = source::clock_zone(rollup)?;
    // In between, a time is what the column holds.
    let [from, to] = [start, end].map(|moment| window::column_time(moment, zone.as_deref()));
    let behind = Times::of(rollup, zone.is_some()).batch_end(from, to, size);
    Ok(match (behind, zone) {
        (behind, _) if behind >= to => end,
        (behind, None) => behind,
        (behind, Some(zone)) => window::moment(behind, &zone).min(end),
    })
}

/// The times of the events of a rollup, as their column has them.
struct Times<'a> {
    rollup: &'a Rollup,
    column: String,
    type_oid: pg_sys::Oid,
}

impl Times<'_> {
    fn of(rollup: &Rollup, is_reading: bool) -> Times<'_> {
        let column = quote_identifier(rollup.time_column.as_deref().unwrap_or_default());
        let type_oid = if is_reading { pg_sys::TIMESTAMPOID } else { pg_sys::TIMESTAMPTZOID };
        Times { rollup, column, type_oid }
    }

    fn batch_end(&self, from: i64, to: i64, size: i64) -> i64 {
        let _session = AsRollup::new(self.rollup);
        let mut reached = from;
        if from < FIRST_TIME {
            // The search begins where the events do; those before all times come with the first of them.
            let first = format!("pg_catalog.min({})", self.column);
            match self.ask(&first, FIRST_TIME, to, "") {
                Some(first) => reached = first,
                None => return to,
            }
        }
        let (mut room, mut span) = (size, FIRST_SPAN);
        while reached < to && room > size / 8 {
            session::check_for_interrupts();
            let next = reached.saturating_add(span).min(to);
            let events = self.count(reached, next);
            if events > room {
                return self.cut(reached, next, room, size);
            }
            reached = next;
            room -= events;
            span = span.saturating_mul(2);
        }
        reached
    }

    /// The time of the event that finds no room any more; behind it, if there is none before it in the whole batch.
    fn cut(&self, from: i64, to: i64, room: i64, size: i64) -> i64 {
        let order = format!("ORDER BY {} OFFSET {room} LIMIT 1", self.column);
        let Some(time) = self.ask(&self.column, from, to, &order) else { return to };
        let is_first = room == size && self.count(from, time) == 0;
        if is_first { time.saturating_add(1) } else { time }
    }

    fn count(&self, from: i64, to: i64) -> i64 {
        self.ask("pg_catalog.count(*)", from, to, "").unwrap_or(0)
    }

    /// Asks about the events from one time to before another.
    fn ask(&self, what: &str, from: i64, to: i64, order: &str) -> Option<i64> {
        let (source, column) = (&self.rollup.source_name, &self.column);
        let query = format!(
            "SELECT {what} FROM {source} \
             WHERE {column} OPERATOR(pg_catalog.>=) $1 AND {column} OPERATOR(pg_catalog.<) $2 {order}"
        );
        let args = [from, to].map(|time| spi::datum(self.type_oid, Some(Datum::from(time))));
        spi::query_one(&query, &args, |row| row.int8(1)).flatten()
    }
}
