//! The scheduler: one process for each database that has the extension. It holds nothing between ticks, does
//! everything in short transactions of their own, and leaves the work to jobs.

use std::time::Duration;

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_guard, pg_sys};

use crate::error::{Error, OrRaise};
use crate::pg::background::{self, Failure, Kind, Process};
use crate::pg::locks;
use crate::rollup::catalog::{self, Rollup};
use crate::rollup::passing;
use crate::rollup::schedule::Schedule;
use crate::rollup::window::{self, Bound, Safe, Window};
use crate::rollup::{citus, nodes};
use crate::worker::history::{self, State};
use crate::worker::pending::Pending;
use crate::worker::{EXTENSION, job, launcher, registry, settings};

pub const SCHEDULER: Kind = Kind { backend_type: "rollup_ext scheduler", entry: "rollup_ext_scheduler_main" };

const MILLISECOND: i64 = 1_000;
const SECOND: i64 = 1_000_000;
/// An open writer is looked at again after this time, then after twice that, and so on ...
const FIRST_RECHECK: i64 = 2 * MILLISECOND;
/// ... up to this. A rollup held back for that long counts as blocked.
const LAST_RECHECK: i64 = SECOND;
/// When no place was free for a run, and nobody may tell when one is.
const NO_PLACE: i64 = 250 * MILLISECOND;
const PURGE_EVERY: i64 = 60 * SECOND;
/// The longest pause after a tick that failed.
const LONGEST_PAUSE: i64 = 60 * SECOND;

/// A rollup that is looked after.
struct Tracked {
    rollup: Rollup,
    /// When it is due next.
    tick_at: i64,
    /// Not to be tried before, after an error.
    retry_at: i64,
    pending: Pending,
    /// With a time column: whose transaction is the oldest, and since when.
    oldest: Option<(i64, Vec<i32>)>,
    /// It was held back for so long that runs go past those who do.
    passing: bool,
    /// Other nodes of the cluster have inserted events.
    news_elsewhere: bool,
    recheck_at: i64,
    recheck_after: i64,
    /// Since when a safe window waits for a place.
    ready_since: Option<i64>,
    /// The last run moved nothing: not again before the next tick.
    held: bool,
    failing: bool,
    /// Who holds it back and since when, as written down.
    blocked: Option<(i64, Vec<i32>)>,
    warned: bool,
}

/// How far a rollup has come: its position, and which ids up to there are still passed over.
type Progress = (Bound, Option<(i64, i64)>);

/// A run in a process.
struct Running {
    process: Process,
    run_id: i64,
    rollup_name: String,
    /// The progress it started at.
    from: Progress,
}

#[derive(Default)]
struct Scheduler {
    rollups: Vec<Tracked>,
    running: Vec<Running>,
    /// Runs whose process is gone.
    ended: Vec<Running>,
    /// Numbers of runs to be written down as failed if they left no result.
    unsettled: Vec<i64>,
    /// Whether what an earlier scheduler left behind was found.
    is_set_up: bool,
    /// How many calls of [`crate::worker::wake`] were heard.
    wakes: u32,
    refresh_at: i64,
    purge_at: i64,
    last_now: i64,
    failures: u32,
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn rollup_ext_scheduler_main(database: pg_sys::Datum) {
    background::accept_signals();
    background::connect(Some(pg_sys::Oid::from(database.value() as u32)));
    background::set_for_session("application_name", "rollup_ext scheduler");
    // A lock that somebody holds for long is an error of this tick, not a wait.
    background::set_for_session("lock_timeout", "200ms");
    let term = registry::enter();
    let mut scheduler = Scheduler::default();
    while registry::may_stay(term) {
        let wake_at = scheduler.tick();
        if !scheduler.has_news() {
            let pause = wake_at.saturating_sub(background::now()).max(0);
            background::sleep(Duration::from_micros(pause as u64));
        }
    }
}

impl Scheduler {
    /// Whether something came up that a tick has to look at.
    fn has_news(&self) -> bool {
        self.failures == 0
            && (registry::wakes() != self.wakes || self.running.iter().any(|run| run.process.has_ended()))
    }

    /// Does what is due; returns when the next thing is.
    fn tick(&mut self) -> i64 {
        let now = background::now();
        if now < self.last_now {
            // The clock was set back: what was due later may be due earlier.
            self.refresh_at = now;
            self.rollups.iter_mut().for_each(|tracked| tracked.tick_at = now);
        }
        self.last_now = now;
        let any_ended = self.reap();
        let any_due = self.rollups.iter().any(|tracked| tracked.due_at() <= now);
        let wakes = registry::wakes();
        let woken = wakes != self.wakes && self.failures == 0;
        if woken || any_ended || any_due || now >= self.refresh_at {
            self.wakes = wakes;
            self.settle();
            self.refresh(now);
        }
        if self.failures > 0 || !self.is_set_up {
            return self.refresh_at;
        }
        for tracked in &mut self.rollups {
            tracked.attend(now);
        }
        let places_at = self.start_runs(now);
        self.purge(now);
        let next = self.rollups.iter().map(Tracked::wake_at).min().unwrap_or(i64::MAX);
        next.min(places_at).min(self.refresh_at).min(self.purge_at)
    }

    /// Notices runs whose process has ended.
    fn reap(&mut self) -> bool {
        let ended: Vec<Running> = self.running.extract_if(.., |run| run.process.has_ended()).collect();
        for run in &ended {
            registry::give_place();
            self.unsettled.push(run.run_id);
        }
        self.ended.extend(ended);
        !self.ended.is_empty()
    }

    /// Writes down which runs left no result. One whose row somebody else holds is tried again at the next refresh.
    fn settle(&mut self) {
        self.unsettled.retain(|run_id| match background::transaction(|| history::settle(*run_id)) {
            Ok(_) => false,
            Err(failure) => {
                failure.log("a run without a result could not be written down");
                true
            }
        });
    }

    /// Reads the catalog again. Ends the process where the extension is gone.
    fn refresh(&mut self, now: i64) {
        match background::transaction(|| self.read()) {
            Ok(Some((rollups, states, orphans))) => {
                registry::serve();
                self.is_set_up = true;
                self.failures = 0;
                self.refresh_at = now + settings::launcher_naptime().as_micros() as i64;
                self.update(rollups, states, now);
                if !orphans.is_empty() {
                    self.unsettled.extend(orphans);
                    self.settle();
                    self.refresh_at = now;
                }
            }
            Ok(None) if registry::leave(self.wakes) => background::exit(),
            // Somebody created it just now.
            Ok(None) => self.refresh_at = now,
            Err(failure) => {
                failure.log("the rollup scheduler could not read its catalog");
                self.refresh_at = now + (SECOND << self.failures.min(6)).min(LONGEST_PAUSE);
                self.failures += 1;
            }
        }
    }

    /// What there is to look after, and what was left behind; `None` where the extension is not installed.
    fn read(&self) -> Option<(Vec<Rollup>, Vec<State>, Vec<i64>)> {
        if !background::has_extension(EXTENSION) {
            return None;
        }
        let orphans = if self.is_set_up { Vec::new() } else { history::orphans() };
        if !catalog::internally(citus::is_coordinator) {
            return Some((Vec::new(), Vec::new(), orphans));
        }
        Some((catalog::scheduled().or_raise(), history::states(), orphans))
    }

    /// Takes in what the catalog says now.
    fn update(&mut self, rollups: Vec<Rollup>, states: Vec<State>, now: i64) {
        let mut before = std::mem::take(&mut self.rollups);
        for rollup in rollups {
            let Some(state) = states.iter().find(|state| state.name == rollup.name) else { continue };
            let known = before.iter().position(|tracked| tracked.rollup.name == rollup.name);
            let mut tracked = match known.map(|i| before.swap_remove(i)) {
                Some(tracked) => tracked.updated(rollup, now),
                None => Tracked::new(rollup, state, now),
            };
            tracked.failing = state.failing;
            tracked.set_retry(state.retry_at, now);
            self.rollups.push(tracked);
        }
        for tracked in before {
            tracked.forget();
        }
        for run in self.ended.drain(..) {
            if let Some(tracked) = self.rollups.iter_mut().find(|t| t.rollup.name == run.rollup_name) {
                tracked.held = tracked.progress() == run.from;
                if tracked.failing {
                    tracked.pending.look_at_all_again();
                }
            }
        }
    }

    /// Starts a run for each rollup that has a safe window, those that wait longest first, as far as there are
    /// places; returns when to try again for want of one.
    fn start_runs(&mut self, now: i64) -> i64 {
        let places = settings::max_workers();
        if places == 0 {
            return i64::MAX;
        }
        let running = &self.running;
        let mut ready: Vec<_> = self
            .rollups
            .iter_mut()
            .filter(|t| !running.iter().any(|run| run.rollup_name == t.rollup.name))
            .filter_map(|tracked| tracked.ready(now).map(|safe| (tracked, safe)))
            .collect();
        ready.sort_by_key(|(tracked, _)| tracked.ready_since);
        for (tracked, safe) in ready {
            if !registry::take_place(places) {
                return now + NO_PLACE;
            }
            match tracked.start(safe) {
                Some(run) => self.running.push(run),
                None => registry::give_place(),
            }
        }
        i64::MAX
    }

    fn purge(&mut self, now: i64) {
        if now < self.purge_at {
            return;
        }
        let retention = settings::run_retention().as_secs() as i64;
        self.purge_at = match background::transaction(|| history::purge(retention)) {
            Ok(true) => now + SECOND,
            Ok(false) => now + PURGE_EVERY,
            Err(failure) => {
                failure.log("the rollup scheduler could not purge rollup_runs");
                now + PURGE_EVERY
            }
        };
    }
}

impl Tracked {
    /// A rollup seen for the first time: due when its schedule says so after its last run, so that ticks missed
    /// while the server was down are made up by one. One on an interval that never ran is due at once.
    fn new(rollup: Rollup, state: &State, now: i64) -> Self {
        let schedule = rollup.schedule.as_deref().map(Schedule::parse);
        let tick_at = match (schedule, state.last_started_at) {
            (Some(Ok(Schedule::Interval(_))), None) => now,
            (Some(Ok(schedule)), last) => {
                schedule.next_after(last.unwrap_or(state.created_at)).unwrap_or(now)
            }
            // attend() says what is wrong with it.
            _ => now,
        };
        Tracked {
            rollup,
            tick_at,
            retry_at: i64::MIN,
            pending: Pending::default(),
            oldest: None,
            passing: false,
            news_elsewhere: false,
            recheck_at: i64::MAX,
            recheck_after: FIRST_RECHECK,
            ready_since: None,
            held: false,
            failing: false,
            blocked: None,
            warned: false,
        }
    }

    fn progress(&self) -> Progress {
        (self.rollup.position(), self.rollup.passed_over)
    }

    fn updated(mut self, rollup: Rollup, now: i64) -> Self {
        if self.rollup.schedule != rollup.schedule {
            let schedule = rollup.schedule.as_deref().map(Schedule::parse);
            // attend() says what is wrong with one that does not parse.
            self.tick_at = schedule.and_then(|s| s.ok()?.next_after(now)).unwrap_or(now);
        }
        self.rollup = rollup;
        self
    }

    /// After an error the rollup is due again at `retry_at`, whatever its schedule says; at once when somebody took
    /// that time away.
    fn set_retry(&mut self, retry_at: Option<i64>, now: i64) {
        match retry_at {
            Some(at) if at != self.retry_at => {
                self.retry_at = at;
                self.tick_at = at;
            }
            None if self.retry_at > now => {
                self.retry_at = i64::MIN;
                self.tick_at = now;
            }
            _ => {}
        }
    }

    fn due_at(&self) -> i64 {
        self.tick_at.max(self.retry_at)
    }

    /// When something is to be done for it next, apart from starting its run.
    fn wake_at(&self) -> i64 {
        let recheck_at = if self.pending.is_waiting() { self.recheck_at } else { i64::MAX };
        self.due_at().min(recheck_at.max(self.retry_at))
    }

    /// Looks at its head when it is due, and again at the writers that were in the way.
    fn attend(&mut self, now: i64) {
        if now < self.retry_at {
            return;
        }
        let due = now >= self.tick_at;
        let recheck = self.pending.is_waiting() && now >= self.recheck_at;
        if !due && !recheck {
            return;
        }
        let result = background::transaction(|| {
            if due {
                let schedule =
                    Schedule::parse(self.rollup.schedule.as_deref().unwrap_or_default()).or_raise();
                let seen = window::observe(&self.rollup).or_raise();
                self.tick_at = schedule.next_after(now).unwrap_or(i64::MAX);
                self.held = false;
                self.recheck_after = FIRST_RECHECK;
                self.oldest = match self.rollup.time_column {
                    Some(_) => catalog::internally(window::oldest_transaction),
                    None => None,
                }
                .map(|(pid, since)| (since, vec![pid]));
                self.news_elsewhere = nodes::has_news_elsewhere(&self.rollup).or_raise();
                self.pending.add(seen, self.rollup.settled(), now);
            }
            self.pending.settle(locks::still_open);
            self.passing = self.is_out_of_patience(now) && passing::is_possible(&self.rollup);
            let done = self.pending.safe().is_none_or(|safe| safe <= self.rollup.settled());
            if self.failing && done && !self.pending.is_waiting() {
                history::recover(&self.rollup.name);
                self.failing = false;
            }
        });
        if let Err(failure) = result {
            self.fail(&failure, now);
            return;
        }
        self.recheck_at = now + self.recheck_after;
        self.recheck_after = (self.recheck_after * 2).min(LAST_RECHECK);
        self.note_blocked(now);
    }

    /// Whether somebody holds it back for longer than the worker is to be held back.
    fn is_out_of_patience(&self, now: i64) -> bool {
        let patience = settings::blocked_patience();
        !patience.is_zero()
            && self.pending.oldest().is_some_and(|(since, _)| now - since >= patience.as_micros() as i64)
    }

    fn fail(&mut self, failure: &Failure, now: i64) {
        failure.log(&format!("rollup \"{}\" failed", self.rollup.name));
        self.pending = Pending::default();
        let recorded = background::transaction(|| history::fail_early(&self.rollup.name, failure));
        // The next refresh brings the time to retry; this holds if the failure could not be written down.
        self.tick_at = now + SECOND;
        self.retry_at = self.tick_at;
        if let Err(failure) = recorded {
            failure.log("its failure could not be recorded");
        }
    }

    /// Shows who holds it back, when that changes, and warns once when it lasts.
    fn note_blocked(&mut self, now: i64) {
        let holding = self.pending.oldest().or_else(|| self.oldest.clone());
        let blocked = holding.filter(|(since, _)| now - since >= LAST_RECHECK);
        if blocked != self.blocked {
            let name = &self.rollup.name;
            match background::transaction(|| history::set_blocked(name, blocked.as_ref())) {
                Ok(()) => self.blocked = blocked,
                Err(failure) => failure.log("the state of a rollup could not be written down"),
            }
        }
        let Some((since, pids)) = &self.blocked else {
            self.warned = false;
            return;
        };
        let warn_after = settings::blocked_warning();
        if !self.warned && !warn_after.is_zero() && now - since >= warn_after.as_micros() as i64 {
            self.warned = true;
            warn_blocked(&self.rollup.name, (now - since) / SECOND, pids, self.passing);
        }
    }

    /// What a run may take now, if there is anything.
    fn ready(&mut self, now: i64) -> Option<Safe> {
        let (position, passed_over) = self.progress();
        let settled = self.rollup.settled();
        let safe = self.pending.safe().filter(|safe| *safe > settled);
        let again = self.pending.again().filter(|again| passed_over.is_some_and(|(_, last)| last > *again));
        let passing = self.passing && (self.pending.head() > Some(position) || again.is_some());
        // An empty window here still takes what other nodes have.
        let has_news = safe.is_some() || passing || self.news_elsewhere;
        if !has_news || self.held || now < self.retry_at {
            self.ready_since = None;
            return None;
        }
        self.ready_since.get_or_insert(now);
        Some(Safe {
            window: Window { start: position, end: safe.unwrap_or(settled) },
            sequence_file: self.pending.sequence_file(),
            passing: passing.then(|| again.unwrap_or(i64::MAX)),
        })
    }

    /// Starts a run. What stands in its way is tried again at the next tick.
    fn start(&mut self, safe: Safe) -> Option<Running> {
        let name = &self.rollup.name;
        self.held = true;
        let run_id = match background::transaction(|| history::begin(name)) {
            Ok(run_id) => run_id?,
            Err(failure) => {
                failure.log(&format!("a run of rollup \"{name}\" could not begin"));
                return None;
            }
        };
        let Some(process) = job::start(name, run_id, safe) else {
            launcher::no_process(&format!("could not start a run of rollup \"{name}\""));
            if let Err(failure) = background::transaction(|| history::withdraw(run_id)) {
                failure.log("a run that did not happen could not be deleted from rollup_runs");
            }
            return None;
        };
        self.held = false;
        self.news_elsewhere = false;
        self.ready_since = None;
        let running = Running { process, run_id, rollup_name: name.clone(), from: self.progress() };
        if safe.passing.is_some() {
            self.pending.looked_again();
        }
        Some(running)
    }

    /// It is gone, paused or without a schedule: nobody holds it back any more.
    fn forget(self) {
        if self.blocked.is_some()
            && let Err(failure) = background::transaction(|| history::set_blocked(&self.rollup.name, None))
        {
            failure.log("the state of a rollup could not be written down");
        }
    }
}

fn warn_blocked(name: &str, seconds: i64, pids: &[i32], passing: bool) {
    let prepared = pids.first() == Some(&0);
    let pids: Vec<String> = pids.iter().filter(|pid| **pid != 0).map(i32::to_string).collect();
    let (what, end) = match passing {
        false => (
            format!(
                "rollup \"{name}\" has been held back for {seconds} s by transactions that are still open"
            ),
            "the rollup catches up when they end.",
        ),
        true => (
            format!("rollup \"{name}\" goes past transactions that have been open for {seconds} s"),
            "the rollup takes their events when they commit.",
        ),
    };
    let error = Error::new(PgSqlErrorCode::ERRCODE_WARNING, what);
    let error = match (pids.is_empty(), prepared) {
        (false, false) => error.detail(format!("They are those of process {}.", pids.join(", "))),
        (false, true) => {
            error.detail(format!("They are those of process {} and a prepared transaction.", pids.join(", ")))
        }
        _ => error.detail("It is a prepared transaction."),
    };
    error
        .hint(format!("Look them up in pg_stat_activity and pg_prepared_xacts; {end}"))
        .report(PgLogLevel::WARNING)
}
