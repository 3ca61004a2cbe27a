//! The safe window: which events are new and complete.
//!
//! Ids are drawn before their rows are committed, so the sequence runs ahead of what can be seen. A window ends at an
//! id that the sequence had reached when everyone who may have drawn an id up to there has ended; one that ends later
//! goes past those who are open, see [`passing`].

use crate::error::{Error, Result};
use crate::pg::locks::{self, Writer};
use crate::pg::{session, spi};
use crate::rollup::batch;
use crate::rollup::catalog::{self, Rollup};
use crate::rollup::ids::Ids;
use crate::rollup::nodes;
use crate::rollup::passing;
use crate::rollup::source;
use crate::rollup::trust;
use std::time::{Duration, Instant};

use pgrx::PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE;
use pgrx::pg_sys::{self, Oid};

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

/// What a run does about writers that are open.
#[derive(Clone, Copy, Debug)]
pub enum Writers {
    /// Waits until they have ended; with a time, it goes past those that are left then.
    Await(Option<Duration>),
    /// Does not wait: the caller has watched them.
    Watched(Safe),
}

/// A window that its finder knows to be safe, as long as the sequence is the one it looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Safe {
    /// From the position to where nobody can add events any more, which may be behind it.
    pub window: Window,
    pub sequence_file: Oid,
    /// Whether to go on up to the head, past those who are open; ids above this, passed over before, are looked at again.
    pub passing: Option<i64>,
}

/// What a run can take.
pub struct Next {
    /// One window for each node that events are inserted through, that of this node first.
    pub parts: Vec<NodeWindow>,
    /// On this node, everything up to here is complete.
    pub complete: Bound,
    /// Ids above this that were passed over are looked at again.
    pub again: i64,
    /// Nothing above this is taken.
    pub limit: Bound,
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
        // Writers that draw ids hold the sequence; those that bring their own hold the table or a partition of it.
        let relations = written(rollup);
        let Some(sequence) = rollup.id_sequence else {
            source::clock_zone(rollup)?;
            // A session that prepares its transaction meanwhile is seen by one of the two.
            let head = Bound::Time(time_horizon(rollup)?);
            let writers = locks::writers(&relations).into_iter().filter(|writer| writer.pid == 0).collect();
            let column = rollup.time_column.as_deref().unwrap_or_default();
            trust::check_origin(rollup.source, column, None)?;
            return Ok(Observation { head, writers, sequence_file: Oid::INVALID });
        };
        let sequence_file = trust::sequence_file(sequence);
        let head = source::sequence_head(rollup, sequence)?;
        let column = rollup.id_column.as_deref().unwrap_or_default();
        trust::check_origin(rollup.source, column, Some(sequence))?;
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

/// What a run takes now. Where the caller has watched the writers, the windows of other nodes are left for later if
/// writers are open there.
pub fn next(rollup: &Rollup, writers: Writers) -> Result<Next> {
    if session::has_fixed_snapshot() {
        return Err(Error::new(
            ERRCODE_INVALID_TRANSACTION_STATE,
            format!("rollup \"{}\" cannot run in a transaction above READ COMMITTED", rollup.name),
        )
        .detail("Its snapshot is older than the wait for open writers, so it would miss their rows.")
        .hint("SET TRANSACTION ISOLATION LEVEL READ COMMITTED; or run it in a transaction of its own."));
    }
    let start = rollup.position();
    let (end, complete, again, file, mut elsewhere) = match writers {
        Writers::Await(patience) => loop {
            let seen = observe(rollup)?;
            let elsewhere = nodes::windows_elsewhere(rollup, None)?;
            let all_ended = await_writers(&seen.writers, patience);
            nodes::wait_for_prepared(None)?;
            if still_holds(rollup, &seen) {
                // Our own transaction may yet use ids that it has drawn.
                let is_complete = all_ended && !(writes_itself(rollup) && passing::is_possible(rollup));
                let complete = if is_complete { seen.head } else { rollup.settled() };
                break (seen.head, complete, i64::MIN, seen.sequence_file, elsewhere);
            }
        },
        Writers::Watched(Safe { window, sequence_file, passing }) => {
            let seen = observe(rollup)?;
            let elsewhere = nodes::windows_elsewhere(rollup, Some(PATIENCE))?;
            // Since the caller looked, the rollup may have been reset, and its sequence restarted or moved back.
            let is_stale = window.start != start
                || sequence_file != seen.sequence_file
                || matches!(seen.head, Bound::Id(_)) && seen.head < window.end;
            if is_stale || !nodes::wait_for_prepared(Some(PATIENCE))? {
                let nothing = NodeWindow { group: 0, window: Window { start, end: start } };
                let complete = rollup.settled();
                return Ok(Next { parts: vec![nothing], complete, again: i64::MAX, limit: start });
            }
            let end = if passing.is_some() { seen.head } else { window.end };
            (end, window.end, passing.unwrap_or(i64::MAX), sequence_file, elsewhere)
        }
    };
    if let Some(sequence) = rollup.id_sequence {
        trust::check_restart(rollup, sequence, file)?;
    }
    let limit = share_batch(rollup, &mut elsewhere, end.max(start))?;
    elsewhere.insert(0, NodeWindow { group: 0, window: Window { start, end: limit.max(start) } });
    Ok(Next { parts: elsewhere, complete, again, limit })
}

/// The tables and the sequence that writers of a rollup's events hold. Called under `catalog::internally`.
fn written(rollup: &Rollup) -> Vec<Oid> {
    let mut relations = source::with_partitions(rollup.source);
    relations.extend(rollup.id_sequence);
    relations
}

/// Whether our own transaction is a writer.
fn writes_itself(rollup: &Rollup) -> bool {
    locks::is_writer(&catalog::internally(|| written(rollup)))
}

/// Waits until writers have ended, or for as long as there is patience; whether all have.
fn await_writers(writers: &[Writer], patience: Option<Duration>) -> bool {
    let Some(patience) = patience else {
        locks::wait_for(writers);
        return true;
    };
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    let mut open = locks::still_open(writers);
    while !open.is_empty() && started.elapsed() < patience {
        session::sleep(pause.min(patience));
        pause = (pause * 2).min(Duration::from_millis(50));
        open = locks::still_open(&open);
    }
    open.is_empty()
}

/// Shortens the windows of other nodes, and the one of this node that goes up to `end`, so that a run takes at most
/// `batch_size` events, with room for each of them. Returns where the latter has to end.
fn share_batch(rollup: &Rollup, elsewhere: &mut [NodeWindow], end: Bound) -> Result<Bound> {
    let Some(mut room) = rollup.batch_size else { return Ok(end) };
    let (start, position, head) = match (rollup.settled(), rollup.position(), end) {
        (Bound::Id(start), Bound::Id(position), Bound::Id(head)) => (start, position, head),
        (Bound::Time(start), _, Bound::Time(to)) if start < to => {
            return Ok(Bound::Time(batch::by_time(rollup, start, to, room)?));
        }
        _ => return Ok(end),
    };
    let mut left = elsewhere.iter().filter(|part| !part.window.is_empty()).count() as i64 + 1;
    for NodeWindow { window, .. } in elsewhere.iter_mut().filter(|part| !part.window.is_empty()) {
        let (Bound::Id(start), Bound::Id(end)) = (window.start, window.end) else { continue };
        let (reached, events) = batch::by_id(rollup, start, end, &Ids::default(), (room / left).max(1));
        window.end = Bound::Id(reached);
        room -= events;
        left -= 1;
    }
    // What was passed over comes first.
    let aggregated = Ids::between(start, position).minus(&catalog::passed_over(rollup));
    Ok(Bound::Id(batch::by_id(rollup, start, head, &aggregated, room.max(1)).0))
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
    for node in nodes::ask_to_call("oldest_transaction_start()")? {
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

/// Whose transaction of this database is the oldest that is running: its process, and since when. Called under
/// `catalog::internally`.
pub fn oldest_transaction() -> Option<(i32, i64)> {
    const OLDEST: &str = "
        SELECT a.pid, a.xact_start FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted AND a.datname = current_database()
           AND a.xact_start IS NOT NULL
         ORDER BY a.xact_start LIMIT 1";
    spi::query_one(OLDEST, &[], |row| row.int4(1).zip(row.timestamptz(2))).flatten()
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

/// The moment at which the clock of a zone shows a reading; where it shows it twice, the second one, which is when
/// [`column_time`] gets there.
pub fn moment(reading: i64, clock_zone: &str) -> i64 {
    let reading = spi::datum(pg_sys::TIMESTAMPOID, Some(pg_sys::Datum::from(reading)));
    let args = [reading, spi::text(Some(clock_zone))];
    let moment = || spi::query_one("SELECT timezone($2, $1)", &args, |row| row.timestamptz(1)).flatten();
    catalog::internally(moment).unwrap_or(i64::MAX)
}

/// Up to where a run by hand could aggregate a rollup that follows a time column now, in microseconds since 2000-01-01
/// UTC; `None` when it follows ids.
pub fn time_head(rollup: &Rollup) -> Result<Option<i64>> {
    match rollup.time_column {
        Some(_) => catalog::internally(|| time_horizon(rollup)).map(Some),
        None => Ok(None),
    }
}
