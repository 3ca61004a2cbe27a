//! The safe window: which events are new and complete.
//!
//! Ids are drawn before their rows are committed, so the sequence runs ahead of what can be seen. A window ends at an
//! id that the sequence had reached when everyone who may have drawn an id up to there has ended.

use crate::error::{Error, Result};
use crate::pg::locks::{self, Writer};
use crate::pg::{session, spi};
use crate::rollup::catalog::{self, Rollup};
use crate::rollup::citus;
use crate::rollup::run::AsRollup;
use crate::rollup::source;
use crate::rollup::trust;
use std::time::Duration;

use pgrx::PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE;
use pgrx::pg_sys::Oid;

/// How long the worker lets writers on other nodes of a Citus cluster end before it comes back at the next tick.
const PATIENCE: Duration = Duration::from_millis(200);

/// An end of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// The last id inside.
    Id(i64),
    /// The first moment outside, in microseconds since 2000-01-01 UTC.
    Time(i64),
}

/// The events after `start` up to `end`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    pub start: Bound,
    pub end: Bound,
}

impl Window {
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }
}

/// How far events may exist, and who could still add some below that. Once every writer has ended, the head is safe.
#[derive(Clone, Debug)]
pub struct Observation {
    pub head: Bound,
    pub writers: Vec<Writer>,
    /// The file of the sequence before its head was read.
    pub sequence_file: Oid,
}

/// A window that its finder knows to be safe, as long as the sequence is the one it looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Safe {
    pub window: Window,
    pub sequence_file: Oid,
}

/// A window of the events that were inserted through one node: on Citus each node draws ids from a range of its own.
#[derive(Clone, Copy, Debug)]
pub struct NodeWindow {
    /// Group of the node in Citus; 0 is the coordinator, and the only one without Citus.
    pub group: i32,
    pub window: Window,
}

/// Looks without waiting: the head first, the writers after it, in that order.
pub fn observe(rollup: &Rollup) -> Result<Observation> {
    // An empty table can be made a view.
    source::check_kind(rollup.source)?;
    catalog::internally(|| {
        let tables = source::with_partitions(rollup.source);
        let Some(sequence) = rollup.id_sequence else {
            source::clock_zone(rollup)?;
            // A session that prepares its transaction meanwhile is seen by one of the two.
            let head = Bound::Time(time_horizon(rollup)?);
            let writers = locks::writers(&tables).into_iter().filter(|writer| writer.pid == 0).collect();
            let column = rollup.time_column.as_deref().unwrap_or_default();
            trust::check_origin(rollup.source, column)?;
            return Ok(Observation { head, writers, sequence_file: Oid::INVALID });
        };
        let sequence_file = trust::sequence_file(sequence);
        let head = source::sequence_head(rollup, sequence)?;
        trust::check_origin(rollup.source, rollup.id_column.as_deref().unwrap_or_default())?;
        // Writers that draw ids hold the sequence; those that bring their own hold the table or a partition of it.
        let mut relations = tables;
        relations.push(sequence);
        Ok(Observation { head: Bound::Id(head), writers: locks::writers(&relations), sequence_file })
    })
}

/// Whether what was seen of the sequence still holds: it was neither restarted nor moved back, so that nobody draws
/// an id below the head that was seen.
fn still_holds(rollup: &Rollup, seen: &Observation) -> bool {
    let (Some(sequence), Bound::Id(head)) = (rollup.id_sequence, seen.head) else { return true };
    catalog::internally(|| {
        let has_reached = source::last_value(sequence).is_none_or(|last| last >= head);
        has_reached && trust::sequence_file(sequence) == seen.sequence_file
    })
}

/// The windows that a run takes now: one for each node that events are inserted through, that of this node first.
/// Without `safe` it waits for the writers that are open; with it, the caller knows from a while ago that everything in
/// there is complete, and the windows of other nodes are left for later where writers are open.
pub fn next(rollup: &Rollup, safe: Option<Safe>) -> Result<Vec<NodeWindow>> {
    if session::has_fixed_snapshot() {
        return Err(Error::new(
            ERRCODE_INVALID_TRANSACTION_STATE,
            format!("rollup \"{}\" cannot run in a transaction above READ COMMITTED", rollup.name),
        )
        .detail("Its snapshot is older than the wait for open writers, so it would miss their rows.")
        .hint("SET TRANSACTION ISOLATION LEVEL READ COMMITTED; or run it in a transaction of its own."));
    }
    let start = rollup.position();
    let (end, file, mut elsewhere) = match safe {
        None => loop {
            let seen = observe(rollup)?;
            let elsewhere = citus::windows_elsewhere(rollup, None)?;
            locks::wait_for(&seen.writers);
            citus::wait_for_prepared(None)?;
            if still_holds(rollup, &seen) {
                break (seen.head, seen.sequence_file, elsewhere);
            }
        },
        Some(Safe { window, sequence_file }) => {
            let seen = observe(rollup)?;
            let elsewhere = citus::windows_elsewhere(rollup, Some(PATIENCE))?;
            // Since the caller looked, the rollup may have been reset, and its sequence restarted or moved back.
            let is_stale = window.start != start
                || sequence_file != seen.sequence_file
                || matches!(seen.head, Bound::Id(_)) && seen.head < window.end;
            if is_stale || !citus::wait_for_prepared(Some(PATIENCE))? {
                return Ok(vec![NodeWindow { group: 0, window: Window { start, end: start } }]);
            }
            (window.end, sequence_file, elsewhere)
        }
    };
    if let Some(sequence) = rollup.id_sequence {
        trust::check_restart(rollup, sequence, file)?;
    }
    let window = limit_to_batch(rollup, Window { start, end: end.max(start) })?;
    elsewhere.insert(0, NodeWindow { group: 0, window });
    Ok(elsewhere)
}

/// Shortens a window to at most `batch_size` events. Ids have gaps, so the span is found by counting in growing
/// stretches; a stretch no longer than the room that is left always fits, because no id occurs twice.
fn limit_to_batch(rollup: &Rollup, window: Window) -> Result<Window> {
    let (Some(batch), Bound::Id(start), Bound::Id(end)) = (rollup.batch_size, window.start, window.end)
    else {
        return Ok(window);
    };
    let column = pgrx::spi::quote_identifier(rollup.id_column.as_deref().unwrap_or_default());
    let count = format!(
        "SELECT pg_catalog.count(*) FROM {} \
         WHERE {column} OPERATOR(pg_catalog.>) $1 AND {column} OPERATOR(pg_catalog.<=) $2",
        rollup.source_name
    );
    let _session = AsRollup::new(rollup);
    let (mut reached, mut room, mut span) = (start, batch, batch);
    while reached < end && room > batch / 8 {
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
    Ok(Window { start: window.start, end: Bound::Id(reached) })
}

/// The moment before which no event can appear any more: the start of the oldest transaction that is still running
/// in this database, less the rollup's lag and a margin for the time between taking a start and publishing it.
/// A column with DEFAULT now() gets the start of its transaction; our own counts, for it may insert after the run.
/// On Citus every node has its clock and its transactions, and the earliest of all counts.
fn time_horizon(rollup: &Rollup) -> Result<i64> {
    const LAG: &str = "SELECT (extract(epoch FROM r.lag) * 1000000)::bigint + 1000000 \
                         FROM @extschema@.rollups r WHERE r.name = $1";
    let behind =
        spi::query_one(&catalog::sql(LAG), &[spi::text(Some(&rollup.name))], |row| row.int8(1)).flatten();
    let mut oldest = oldest_start().unwrap_or(i64::MIN);
    for node in citus::ask_other_nodes("oldest_transaction_start()")? {
        oldest = oldest.min(node.answer.and_then(|start| start.parse().ok()).unwrap_or(i64::MIN));
    }
    // -infinity, as long as one is unknown: nothing new is safe.
    Ok(if oldest == i64::MIN { oldest } else { oldest - behind.unwrap_or(0) })
}

/// The start of the oldest transaction that is running in this database of this node, in microseconds since 2000-01-01
/// UTC; `None` when somebody's is unknown (track_activities is off there). Called under `catalog::internally`.
pub fn oldest_start() -> Option<i64> {
    const OLDEST_START: &str = "
        SELECT (extract(epoch FROM CASE WHEN bool_and(a.xact_start IS NOT NULL)
                                        THEN LEAST(clock_timestamp(), min(a.xact_start)) END) * 1000000)::bigint
               - 946684800000000
          FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid IS NOT NULL
           AND (a.pid IS NULL OR a.datname = current_database())";
    for tries_left in (0..5).rev() {
        // What this transaction saw of the others before is kept, and may be old.
        spi::execute("SELECT pg_stat_clear_snapshot()", &[]);
        let oldest = spi::query_one(OLDEST_START, &[], |row| row.int8(1)).flatten();
        if oldest.is_some() || tries_left == 0 {
            return oldest;
        }
        // Somebody has begun and is about to say when.
        session::sleep(Duration::from_millis(2));
    }
    None
}

/// A bound of a time window as the column sees it: as it is for `timestamptz`; for `timestamp` the reading of the
/// writers' clock, in microseconds, below which no later moment can fall. Where that clock is about to be set back
/// this is the reading after it, so that the repeated hour is not cut in two.
pub fn column_time(bound: i64, clock_zone: Option<&str>) -> i64 {
    let Some(zone) = clock_zone else { return bound };
    const READING: &str = "
        SELECT CASE WHEN isfinite(r) THEN (extract(epoch FROM r) * 1000000)::bigint - 946684800000000 END FROM (
            SELECT LEAST(timezone($2, $1), min(timezone($2, later))) AS r
              FROM generate_series(1, 24) k, LATERAL (
                   SELECT date_trunc('hour', $1) + k * interval '15 minutes') AS l(later)
             WHERE later > $1 OR NOT isfinite($1)) AS s";
    catalog::internally(|| {
        spi::query_one(READING, &[spi::timestamptz(Some(bound)), spi::text(Some(zone))], |row| row.int8(1))
    })
    .flatten()
    // Infinite stays infinite.
    .unwrap_or(bound)
}
