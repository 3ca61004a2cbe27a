//! What the launcher, the schedulers and all sessions share: one slot for each database that has, or may have, a
//! scheduler.

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init, pg_sys};

use crate::pg::background;
use crate::pg::wake::{Bell, at_commit};

/// How many databases can be woken at once. Beyond them things still work, found by looking around every
/// `rollup_ext.launcher_naptime`.
const SLOTS: usize = 256;

/// How far a database's scheduler is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Somebody asked for one.
    Wanted,
    /// It is starting: whether the extension is there is not known yet.
    Starting,
    /// It found the extension and is at work.
    Serving,
    /// It found no extension and ended.
    Absent,
}

#[derive(Clone, Copy)]
struct Slot {
    database: pg_sys::Oid,
    phase: Phase,
    bell: Bell,
    /// Counts the calls of [`wake`]: one that comes while a scheduler decides to end must not be lost.
    wakes: u32,
    /// Somebody wants its scheduler out of the database.
    dismissed: bool,
    /// Runs that its scheduler has in processes.
    jobs: u32,
}

#[derive(Clone, Copy)]
struct Registry {
    launcher: Bell,
    /// Counts launchers: a new one brings its own schedulers, those of the one before make way.
    term: u32,
    slots: [Option<Slot>; SLOTS],
}

// SAFETY: plain values; a `Bell` is an address that means the same in every process.
unsafe impl PGRXSharedMemory for Registry {}

impl Default for Registry {
    fn default() -> Self {
        Registry { launcher: Bell::default(), term: 0, slots: [None; SLOTS] }
    }
}

impl Registry {
    fn slot(&mut self, database: pg_sys::Oid) -> Option<&mut Slot> {
        self.slots.iter_mut().flatten().find(|slot| slot.database == database)
    }

    fn remove(&mut self, database: pg_sys::Oid) {
        for slot in &mut self.slots {
            if slot.is_some_and(|slot| slot.database == database) {
                *slot = None;
            }
        }
    }

    /// The slot of a database, a new one if need be; `None` when all are taken.
    fn slot_or_new(&mut self, database: pg_sys::Oid) -> Option<&mut Slot> {
        if self.slot(database).is_none() {
            let free = self.slots.iter_mut().find(|slot| slot.is_none())?;
            *free = Some(Slot {
                database,
                phase: Phase::Wanted,
                bell: Bell::default(),
                wakes: 0,
                dismissed: false,
                jobs: 0,
            });
        }
        self.slot(database)
    }
}

// SAFETY: the name carries the extension's.
static REGISTRY: PgLwLock<Registry> = unsafe { PgLwLock::new(c"rollup_ext registry") };
static PRELOADED: AtomicBool = AtomicBool::new(false);

/// Reserves the shared memory; only while the library is preloaded.
#[allow(unexpected_cfgs, reason = "the macro asks about versions of PostgreSQL that are not built for")]
pub fn reserve() {
    pg_shmem_init!(REGISTRY);
    PRELOADED.store(true, Ordering::Relaxed);
}

/// Whether there is a worker at all.
pub fn is_preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// Has this database's scheduler look around when the transaction commits, or the launcher start one.
pub fn wake() {
    if is_preloaded() {
        at_commit(wake_now);
    }
}

fn wake_now() {
    let mut registry = REGISTRY.exclusive();
    let launcher = registry.launcher;
    match registry.slot_or_new(background::database()) {
        Some(slot) => {
            slot.wakes = slot.wakes.wrapping_add(1);
            if slot.phase == Phase::Absent {
                slot.phase = Phase::Wanted;
            }
            slot.bell.ring();
            if slot.phase == Phase::Wanted {
                launcher.ring();
            }
        }
        None => launcher.ring(),
    }
}

/// Whether a scheduler is at work in this database.
pub fn is_serving() -> bool {
    is_preloaded()
        && REGISTRY
            .share()
            .slots
            .iter()
            .flatten()
            .any(|slot| slot.database == background::database() && slot.phase == Phase::Serving)
}

/// The launcher reports for duty. What an earlier one left behind ends itself.
pub fn launcher_starts() {
    let mut registry = REGISTRY.exclusive();
    registry.launcher = Bell::mine();
    registry.term = registry.term.wrapping_add(1);
    for slot in &mut registry.slots {
        if let Some(slot) = slot.take() {
            slot.bell.ring();
        }
    }
}

/// The launcher is about to start a scheduler.
pub fn scheduler_starts(database: pg_sys::Oid) {
    if let Some(slot) = REGISTRY.exclusive().slot_or_new(database) {
        slot.phase = Phase::Starting;
        slot.dismissed = false;
        slot.jobs = 0;
    }
}

/// What is known of a database's scheduler.
pub fn phase(database: pg_sys::Oid) -> Option<Phase> {
    REGISTRY.exclusive().slot(database).map(|slot| slot.phase)
}

/// The launcher saw that a scheduler has ended: how far was it? A database that nobody asked about loses its slot.
pub fn scheduler_ended(database: pg_sys::Oid) -> Option<Phase> {
    let mut registry = REGISTRY.exclusive();
    let slot = registry.slot(database)?;
    let phase = slot.phase;
    if phase == Phase::Wanted {
        slot.bell = Bell::default();
    } else {
        registry.remove(database);
    }
    Some(phase)
}

/// There is no such database.
pub fn forget(database: pg_sys::Oid) {
    REGISTRY.exclusive().remove(database);
}

/// The databases that somebody asked a scheduler for.
pub fn wanted() -> Vec<pg_sys::Oid> {
    let registry = REGISTRY.share();
    registry
        .slots
        .iter()
        .flatten()
        .filter(|slot| slot.phase == Phase::Wanted)
        .map(|slot| slot.database)
        .collect()
}

/// This process is the scheduler of its database, under the launcher of this term.
pub fn enter() -> u32 {
    let mut registry = REGISTRY.exclusive();
    if let Some(slot) = registry.slot_or_new(background::database()) {
        slot.bell = Bell::mine();
    }
    registry.term
}

/// Whether the scheduler goes on: the launcher of that term is still the one, and nobody wants it to leave.
pub fn may_stay(term: u32) -> bool {
    let mut registry = REGISTRY.exclusive();
    if registry.term != term {
        return false;
    }
    match registry.slot(background::database()) {
        Some(slot) if slot.dismissed => {
            slot.phase = Phase::Absent;
            false
        }
        _ => true,
    }
}

/// Has the scheduler of a database leave it, until the launcher looks around again.
pub fn dismiss(database: pg_sys::Oid) {
    if let Some(slot) = REGISTRY.exclusive().slot(database) {
        slot.dismissed = true;
        slot.bell.ring();
    }
}

/// The scheduler found the extension.
pub fn serve() {
    let mut registry = REGISTRY.exclusive();
    let launcher = registry.launcher;
    if let Some(slot) = registry.slot(background::database())
        && slot.phase != Phase::Serving
    {
        slot.phase = Phase::Serving;
        launcher.ring();
    }
}

/// The scheduler found no extension. Whether it may end: nobody woke it since it counted `wakes`.
pub fn leave(wakes: u32) -> bool {
    let mut registry = REGISTRY.exclusive();
    match registry.slot(background::database()) {
        Some(slot) if slot.wakes != wakes => false,
        Some(slot) => {
            slot.phase = Phase::Absent;
            slot.bell = Bell::default();
            true
        }
        None => true,
    }
}

/// How many wakes the scheduler's database has seen.
pub fn wakes() -> u32 {
    REGISTRY.exclusive().slot(background::database()).map_or(0, |slot| slot.wakes)
}

/// Takes one of `limit` places for a run, of all databases together; `false` when all are taken.
pub fn take_place(limit: u32) -> bool {
    let mut registry = REGISTRY.exclusive();
    let taken: u32 = registry.slots.iter().flatten().map(|slot| slot.jobs).sum();
    if taken >= limit {
        return false;
    }
    if let Some(slot) = registry.slot(background::database()) {
        slot.jobs += 1;
    }
    true
}

/// Gives the place back.
pub fn give_place() {
    if let Some(slot) = REGISTRY.exclusive().slot(background::database()) {
        slot.jobs = slot.jobs.saturating_sub(1);
    }
}
