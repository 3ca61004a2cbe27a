//! What SQL can ask about the worker.

use pgrx::pg_sys::Datum;

use crate::error::OrRaise;
use crate::rollup::schedule::Schedule;
use crate::sql_function;
use crate::worker::registry;

sql_function!(
    /// `wake_rollup_worker()`: a trigger, see [`super::wake`].
    wake_rollup_worker,
    |_call| {
        super::wake();
        // A trigger returns no tuple, but not NULL either.
        Datum::from(0)
    }
);

sql_function!(
    /// `rollup_worker_is_running() -> boolean`: whether this database has a scheduler.
    rollup_worker_is_running,
    |_call| Datum::from(registry::is_serving())
);

sql_function!(
    /// `rollup_next_run(schedule text, after timestamptz) -> timestamptz`: when a schedule is due next; strict.
    rollup_next_run,
    |call| {
        let text = call.bytes(0);
        let schedule = Schedule::parse(&String::from_utf8_lossy(&text)).or_raise();
        schedule.next_after(call.i64(1)).map_or_else(|| call.null(), Datum::from)
    }
);
