//! The launcher: one process that starts a scheduler for each database that has the extension.
//!
//! It has no database of its own and cannot look into the others, so a scheduler looks for itself and ends at once
//! where there is no extension.

use std::time::{Duration, Instant};

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_guard, pg_sys};

use crate::error::Error;
use crate::pg::background::{self, Kind, Process};
use crate::worker::registry::{self, Phase};
use crate::worker::{scheduler, settings};

const LAUNCHER: Kind = Kind { backend_type: "rollup_ext launcher", entry: "rollup_ext_launcher_main" };
const RESTART_SECONDS: i32 = 5;
/// When to list the databases again after that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// A scheduler that starts for longer does not hold up those of other databases.
const HELD_UP: Duration = Duration::from_secs(5);
/// A scheduler that lived this long did not fail at its start.
const SETTLED: Duration = Duration::from_secs(60);

/// One database, as the launcher knows it.
struct Watched {
    database: pg_sys::Oid,
    name: String,
    scheduler: Option<Process>,
    started: Instant,
    /// When to start a scheduler, if there is none.
    start_at: Instant,
    failures: u32,
}

pub fn register() {
    background::register(&LAUNCHER, RESTART_SECONDS);
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn rollup_ext_launcher_main(_arg: pg_sys::Datum) {
    background::accept_signals();
    background::connect(None);
    registry::launcher_starts();
    let mut databases: Vec<Watched> = Vec::new();
    let mut list_at = Instant::now();
    loop {
        reap(&mut databases);
        let wanted = registry::wanted();
        let now = Instant::now();
        let mut listed = true;
        if now >= list_at || !wanted.is_empty() {
            match background::transaction(background::databases) {
                Ok(list) => update(&mut databases, list, &wanted),
                Err(failure) => {
                    failure.log("rollup_ext cannot list the databases");
                    listed = false;
                }
            }
            list_at = now + if listed { settings::launcher_naptime() } else { AFTER_FAILURE };
        }
        start_next(&mut databases);

        if listed && has_news(&databases) {
            continue;
        }
        let starting = is_starting(&databases);
        let next = databases
            .iter()
            // While one starts, the others wait for it, and it rings.
            .filter(|watched| watched.scheduler.is_none() && !starting)
            .map(|watched| watched.start_at)
            .fold(list_at, Instant::min);
        background::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Notices schedulers that have ended, and decides when to try again.
fn reap(databases: &mut [Watched]) {
    for watched in databases {
        if !watched.scheduler.as_ref().is_some_and(Process::has_ended) {
            continue;
        }
        watched.scheduler = None;
        let now = Instant::now();
        match registry::scheduler_ended(watched.database) {
            Some(Phase::Wanted) => watched.start_at = now,
            Some(Phase::Absent) | None => {
                watched.failures = 0;
                watched.start_at = now + settings::launcher_naptime();
            }
            Some(Phase::Serving | Phase::Starting) => {
                if watched.started.elapsed() > SETTLED {
                    watched.failures = 0;
                }
                let pause = Duration::from_secs(1 << watched.failures.min(16));
                watched.failures += 1;
                watched.start_at = now + pause.min(settings::launcher_naptime());
            }
        }
    }
}

/// Takes in which databases there are, and which of them somebody asked for.
fn update(databases: &mut Vec<Watched>, list: Vec<(pg_sys::Oid, String)>, wanted: &[pg_sys::Oid]) {
    let now = Instant::now();
    let is_listed = |w: &Watched| list.iter().any(|(database, _)| *database == w.database);
    databases.retain(|watched| watched.scheduler.is_some() || is_listed(watched));
    // One that became a template, say: copying it needs it without sessions.
    databases.iter().filter(|w| !is_listed(w)).for_each(|w| registry::dismiss(w.database));
    for (database, name) in list {
        match databases.iter_mut().find(|watched| watched.database == database) {
            Some(watched) => watched.name = name,
            None => databases.push(Watched {
                database,
                name,
                scheduler: None,
                started: now,
                start_at: now,
                failures: 0,
            }),
        }
    }
    for wanted in wanted {
        match databases.iter_mut().find(|watched| watched.database == *wanted) {
            Some(watched) => watched.start_at = now,
            None => registry::forget(*wanted),
        }
    }
}

/// Whether something came up since update() and reap().
fn has_news(databases: &[Watched]) -> bool {
    databases.iter().any(|watched| watched.scheduler.as_ref().is_some_and(Process::has_ended))
        || registry::wanted().iter().any(|wanted| {
            databases
                .iter()
                .find(|watched| watched.database == *wanted)
                .is_none_or(|watched| watched.scheduler.is_none() && watched.start_at > Instant::now())
        })
}

/// Whether a scheduler is on its way, and not held up: connecting waits while somebody alters the database.
fn is_starting(databases: &[Watched]) -> bool {
    databases.iter().any(|w| {
        w.scheduler.is_some()
            && w.started.elapsed() < HELD_UP
            && registry::phase(w.database) == Some(Phase::Starting)
    })
}

/// Starts the scheduler that is due longest. One at a time: looking into a hundred databases without the extension
/// takes one process, not a hundred.
fn start_next(databases: &mut [Watched]) {
    if is_starting(databases) {
        return;
    }
    let now = Instant::now();
    let due = databases.iter_mut().filter(|w| w.scheduler.is_none() && w.start_at <= now);
    let Some(watched) = due.min_by_key(|watched| watched.start_at) else { return };
    let name = format!("rollup_ext scheduler for database \"{}\"", watched.name);
    registry::scheduler_starts(watched.database);
    watched.started = now;
    watched.scheduler = Process::start(&scheduler::SCHEDULER, &name, watched.database, &[]);
    if watched.scheduler.is_none() {
        registry::scheduler_ended(watched.database);
        watched.start_at = now + settings::launcher_naptime();
        no_process(&format!("could not start a rollup scheduler for database \"{}\"", watched.name));
    }
}

/// Tells that `max_worker_processes` is exhausted.
pub fn no_process(message: &str) {
    Error::new(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, message)
        .detail("No background worker slot is free.")
        .hint("Raise max_worker_processes and restart the server.")
        .report(PgLogLevel::LOG)
}
