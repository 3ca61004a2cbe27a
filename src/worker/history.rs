//! What the worker writes down: the runs in `rollup_runs`, the state of each rollup in `rollup_state`.
//!
//! Every function works in the caller's transaction. None waits for a rollup's row, which whoever runs or drops
//! the rollup holds.

use crate::pg::background::Failure;
use crate::pg::spi;
use crate::rollup::catalog::{internally, sql};
use crate::rollup::run::Outcome;

/// How often a failed run is tried again: after 1, 2, 4, ... seconds, at most every five minutes.
const RETRY: &str =
    "clock_timestamp() + interval '1 second' * LEAST(power(2, LEAST(s.consecutive_failures, 20)), 300)";
const NO_RESULT: &str = "the process ended without a result";

/// What a scheduler has to know of a rollup besides its registration.
pub struct State {
    pub name: String,
    /// Start of the last run, if there was one.
    pub last_started_at: Option<i64>,
    pub created_at: i64,
    pub retry_at: Option<i64>,
    /// Whether its last run failed.
    pub failing: bool,
}

/// The state of every scheduled rollup.
pub fn states() -> Vec<State> {
    const STATES: &str = "SELECT r.name, s.last_started_at, r.created_at, s.retry_at, s.consecutive_failures > 0 \
        FROM @extschema@.rollups r LEFT JOIN @extschema@.rollup_state s ON s.rollup_name = r.name \
        WHERE r.schedule IS NOT NULL AND NOT r.paused";
    internally(|| {
        spi::query(&sql(STATES), &[], |row| State {
            name: row.text(1).unwrap_or_default(),
            last_started_at: row.timestamptz(2),
            created_at: row.timestamptz(3).unwrap_or(i64::MIN),
            retry_at: row.timestamptz(4),
            failing: row.boolean(5),
        })
    })
}

/// Writes down that a run begins, and returns its number; `None` while somebody else runs, changes or drops it.
pub fn begin(name: &str) -> Option<i64> {
    const BEGIN: &str = "WITH r AS (SELECT r.name FROM @extschema@.rollups r WHERE r.name = $1 \
            FOR NO KEY UPDATE SKIP LOCKED) \
        INSERT INTO @extschema@.rollup_runs (rollup_name, status) SELECT r.name, 'running' FROM r \
        RETURNING run_id";
    internally(|| spi::query_one(&sql(BEGIN), &[spi::text(Some(name))], |row| row.int8(1)).flatten())
}

/// Forgets a run that did not happen.
pub fn withdraw(run_id: i64) {
    const WITHDRAW: &str = "DELETE FROM @extschema@.rollup_runs WHERE run_id = $1";
    internally(|| spi::execute(&sql(WITHDRAW), &[spi::int8(Some(run_id))]));
}

/// This process takes over a run that was begun for it; returns the rollup's name. `None` when the run is given up.
pub fn adopt(run_id: i64) -> Option<String> {
    const ADOPT: &str = "UPDATE @extschema@.rollup_runs SET pid = pg_backend_pid(), started_at = clock_timestamp() \
        WHERE run_id = $1 AND status = 'running' RETURNING rollup_name";
    internally(|| spi::query_one(&sql(ADOPT), &[spi::int8(Some(run_id))], |row| row.text(1)).flatten())
}

/// Writes down how a run ended well. One that found nothing leaves no trace but the end of an earlier failure.
pub fn succeed(run_id: i64, name: &str, outcome: &Outcome) {
    const RUN: &str = "UPDATE @extschema@.rollup_runs SET status = 'succeeded', window_start = $2, window_end = $3, \
        time_start = $4, time_end = $5, rows_written = $6, finished_at = clock_timestamp() WHERE run_id = $1";
    const STATE: &str = "INSERT INTO @extschema@.rollup_state AS s (rollup_name, last_started_at, last_finished_at) \
        SELECT r.name, (SELECT h.started_at FROM @extschema@.rollup_runs h WHERE h.run_id = $2), clock_timestamp() \
          FROM @extschema@.rollups r WHERE r.name = $1 \
        ON CONFLICT (rollup_name) DO UPDATE SET last_started_at = EXCLUDED.last_started_at, \
            last_finished_at = EXCLUDED.last_finished_at, consecutive_failures = 0, last_sqlstate = NULL, \
            last_error = NULL, retry_at = NULL";
    // A window of time passes even when nothing happens in it.
    let idle =
        outcome.rows_written.is_none() || outcome.rows_written == Some(0) && outcome.time_end.is_some();
    internally(|| {
        spi::execute(&sql(STATE), &[spi::text(Some(name)), spi::int8(Some(run_id))]);
        if idle {
            withdraw(run_id);
            return;
        }
        let args = [
            spi::int8(Some(run_id)),
            spi::int8(outcome.window_start),
            spi::int8(outcome.window_end),
            spi::timestamptz(outcome.time_start),
            spi::timestamptz(outcome.time_end),
            spi::int8(outcome.rows_written),
        ];
        spi::execute(&sql(RUN), &args);
    })
}

/// Writes down how a run failed; returns the rollup's name, `None` when it is gone.
pub fn fail(run_id: i64, failure: &Failure) -> Option<String> {
    end(run_id, true, Some(&failure.sqlstate()), &failure.message)
}

/// A run's process has ended: if it left no result, that is its result. Returns the rollup's name then.
pub fn settle(run_id: i64) -> Option<String> {
    end(run_id, false, None, NO_RESULT)
}

fn end(run_id: i64, was_mine: bool, sqlstate: Option<&str>, message: &str) -> Option<String> {
    const END: &str = "UPDATE @extschema@.rollup_runs SET status = 'failed', sqlstate = $2, error = $3, \
        pid = CASE WHEN $4 THEN pg_backend_pid() ELSE pid END, finished_at = clock_timestamp() \
        WHERE run_id = $1 AND status = 'running' RETURNING rollup_name, started_at";
    internally(|| {
        let args =
            [spi::int8(Some(run_id)), spi::text(sqlstate), spi::text(Some(message)), spi::boolean(was_mine)];
        let (name, started) =
            spi::query_one(&sql(END), &args, |row| (row.text(1).unwrap_or_default(), row.timestamptz(2)))?;
        count_failure(&name, started, sqlstate, message);
        Some(name)
    })
}

/// Writes down that a rollup could not even be looked at.
pub fn fail_early(name: &str, failure: &Failure) {
    const RUN: &str = "INSERT INTO @extschema@.rollup_runs (rollup_name, status, finished_at, pid, sqlstate, error) \
        SELECT r.name, 'failed', clock_timestamp(), pg_backend_pid(), $2, $3 \
          FROM @extschema@.rollups r WHERE r.name = $1 FOR KEY SHARE SKIP LOCKED";
    let sqlstate = failure.sqlstate();
    internally(|| {
        let args = [spi::text(Some(name)), spi::text(Some(&sqlstate)), spi::text(Some(&failure.message))];
        spi::execute(&sql(RUN), &args);
        count_failure(name, None, Some(&sqlstate), &failure.message);
    })
}

fn count_failure(name: &str, started: Option<i64>, sqlstate: Option<&str>, message: &str) {
    const STATE: &str = "INSERT INTO @extschema@.rollup_state AS s (rollup_name, last_started_at, last_finished_at, \
            consecutive_failures, last_sqlstate, last_error, retry_at) \
        SELECT r.name, COALESCE($2, clock_timestamp()), clock_timestamp(), 1, $3, $4, \
               clock_timestamp() + interval '1 second' \
          FROM @extschema@.rollups r WHERE r.name = $1 FOR KEY SHARE SKIP LOCKED \
        ON CONFLICT (rollup_name) DO UPDATE SET last_started_at = EXCLUDED.last_started_at, \
            last_finished_at = EXCLUDED.last_finished_at, \
            consecutive_failures = s.consecutive_failures + 1, last_sqlstate = EXCLUDED.last_sqlstate, \
            last_error = EXCLUDED.last_error, retry_at = ";
    let args =
        [spi::text(Some(name)), spi::timestamptz(started), spi::text(sqlstate), spi::text(Some(message))];
    spi::execute(&sql(&format!("{STATE}{RETRY}")), &args);
}

/// Nothing is left to do for a rollup that failed before: somebody else has done it.
pub fn recover(name: &str) {
    const RECOVER: &str = "UPDATE @extschema@.rollup_state SET consecutive_failures = 0, last_sqlstate = NULL, \
        last_error = NULL, retry_at = NULL WHERE rollup_name = $1";
    internally(|| spi::execute(&sql(RECOVER), &[spi::text(Some(name))]));
}

/// The runs that a scheduler before this one began and whose process is gone; forgets whom it saw in the way.
pub fn orphans() -> Vec<i64> {
    const ORPHANS: &str = "SELECT h.run_id FROM @extschema@.rollup_runs h WHERE h.status = 'running' \
        FOR UPDATE SKIP LOCKED";
    const UNBLOCK: &str = "UPDATE @extschema@.rollup_state SET blocked_by = NULL, blocked_since = NULL \
        WHERE rollup_name IN (SELECT s.rollup_name FROM @extschema@.rollup_state s \
            WHERE s.blocked_since IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED)";
    internally(|| {
        spi::execute(&sql(UNBLOCK), &[]);
        spi::query(&sql(ORPHANS), &[], |row| row.int8(1)).into_iter().flatten().collect()
    })
}

/// Writes down who holds a rollup back and since when; `None`: nobody.
pub fn set_blocked(name: &str, blocked: Option<&(i64, Vec<i32>)>) {
    const BLOCKED: &str = "INSERT INTO @extschema@.rollup_state AS s (rollup_name, blocked_by, blocked_since) \
        SELECT r.name, $2::int[], $3 FROM @extschema@.rollups r WHERE r.name = $1 FOR KEY SHARE SKIP LOCKED \
        ON CONFLICT (rollup_name) DO UPDATE SET blocked_by = EXCLUDED.blocked_by, \
            blocked_since = EXCLUDED.blocked_since";
    let pids = blocked.map(|(_, pids)| {
        let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
        format!("{{{}}}", pids.join(","))
    });
    let since = blocked.map(|(since, _)| *since);
    internally(|| {
        let args = [spi::text(Some(name)), spi::text(pids.as_deref()), spi::timestamptz(since)];
        spi::execute(&sql(BLOCKED), &args)
    });
}

/// Deletes runs that ended more than `seconds` ago, a thousand at a time; returns whether there may be more.
pub fn purge(seconds: i64) -> bool {
    const STEP: u64 = 1000;
    const PURGE: &str = "DELETE FROM @extschema@.rollup_runs WHERE run_id IN (SELECT h.run_id \
        FROM @extschema@.rollup_runs h WHERE h.finished_at < clock_timestamp() - $1 * interval '1 second' \
        ORDER BY h.finished_at LIMIT 1000)";
    internally(|| spi::execute(&sql(PURGE), &[spi::int8(Some(seconds))])) == STEP
}
