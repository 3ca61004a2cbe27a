//! The settings of the worker, `rollup_ext.*`, and their getters.

use std::time::Duration;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static LAUNCHER_NAPTIME: GucSetting<i32> = GucSetting::<i32>::new(60);
static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(4);
static BLOCKED_WARNING: GucSetting<i32> = GucSetting::<i32>::new(60);
static BLOCKED_PATIENCE: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static RUN_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(3 * 86_400);

/// Defines them; called once from `_PG_init`.
pub fn define() {
    GucRegistry::define_int_guc(
        c"rollup_ext.launcher_naptime",
        c"Longest time after which the worker looks for new databases, extensions and rollups on its own.",
        c"Those that are created in the usual way are noticed when they are committed.",
        &LAUNCHER_NAPTIME,
        1,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"rollup_ext.max_workers",
        c"How many scheduled runs may be in progress at once, in all databases together.",
        c"Each takes one of max_worker_processes while it lasts. 0 starts none.",
        &MAX_WORKERS,
        0,
        1024,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rollup_ext.blocked_warning",
        c"After this time the worker warns in the server log that open transactions hold a rollup back.",
        c"0 turns the warning off; rollup_status shows it in any case.",
        &BLOCKED_WARNING,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"rollup_ext.blocked_patience",
        c"After this time the worker goes past open transactions that hold a rollup back.",
        c"It then aggregates what others have committed, and the rows of these when they commit. 0 for never.",
        &BLOCKED_PATIENCE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"rollup_ext.run_retention",
        c"How long rollup_runs keeps a run after its end.",
        c"",
        &RUN_RETENTION,
        1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
}

fn seconds(setting: &GucSetting<i32>) -> Duration {
    Duration::from_secs(setting.get() as u64)
}

/// The longest time between two looks of the launcher, and of an idle scheduler.
pub fn launcher_naptime() -> Duration {
    seconds(&LAUNCHER_NAPTIME)
}

/// How many runs of the worker may be in progress at once.
pub fn max_workers() -> u32 {
    MAX_WORKERS.get() as u32
}

/// How long a rollup may be held back before the log says so; zero for never.
pub fn blocked_warning() -> Duration {
    seconds(&BLOCKED_WARNING)
}

/// How long a rollup may be held back before runs go past those who do; zero for never.
pub fn blocked_patience() -> Duration {
    Duration::from_millis(BLOCKED_PATIENCE.get() as u64)
}

/// How long the history of runs is kept.
pub fn run_retention() -> Duration {
    seconds(&RUN_RETENTION)
}
