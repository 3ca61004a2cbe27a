//! A job: one run of one rollup in a process of its own, so that an error, a cancel or the end of the process ends
//! that run alone.

use pgrx::{pg_guard, pg_sys};

use crate::error::OrRaise;
use crate::pg::background::{self, Kind, Process};
use crate::rollup::run;
use crate::rollup::window::{Bound, Safe, Window, Writers};
use crate::worker::history;

const JOB: Kind = Kind { backend_type: "rollup_ext job", entry: "rollup_ext_job_main" };

/// What a job is told: the row of `rollup_runs` that stands for it, and the window that is safe.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Order {
    run_id: i64,
    safe: Safe,
}

impl Order {
    fn to_bytes(self) -> [u8; 37] {
        let value = |bound| match bound {
            Bound::Id(id) => id,
            Bound::Time(time) => time,
        };
        let (is_time, is_passing) =
            (matches!(self.safe.window.end, Bound::Time(_)), self.safe.passing.is_some());
        let mut bytes = [u8::from(is_time) | u8::from(is_passing) << 1; 37];
        bytes[1..9].copy_from_slice(&self.run_id.to_le_bytes());
        bytes[9..17].copy_from_slice(&value(self.safe.window.start).to_le_bytes());
        bytes[17..25].copy_from_slice(&value(self.safe.window.end).to_le_bytes());
        bytes[25..33].copy_from_slice(&self.safe.passing.unwrap_or(0).to_le_bytes());
        bytes[33..].copy_from_slice(&self.safe.sequence_file.to_u32().to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let number = |from: usize| i64::from_le_bytes(bytes[from..from + 8].try_into().expect("eight bytes"));
        let (is_time, is_passing) = (bytes[0] & 1 != 0, bytes[0] & 2 != 0);
        let bound = |from| if is_time { Bound::Time(number(from)) } else { Bound::Id(number(from)) };
        let file = u32::from_le_bytes(bytes[33..37].try_into().expect("four bytes"));
        let safe = Safe {
            window: Window { start: bound(9), end: bound(17) },
            sequence_file: pg_sys::Oid::from(file),
            passing: is_passing.then(|| number(25)),
        };
        Order { run_id: number(1), safe }
    }
}

/// Starts the process; `None` when `max_worker_processes` is exhausted.
pub fn start(rollup_name: &str, run_id: i64, safe: Safe) -> Option<Process> {
    let name = format!("rollup_ext job for rollup \"{rollup_name}\"");
    Process::start(&JOB, &name, background::database(), &Order { run_id, safe }.to_bytes())
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn rollup_ext_job_main(database: pg_sys::Datum) {
    background::accept_signals();
    background::connect(Some(pg_sys::Oid::from(database.value() as u32)));
    background::set_for_session("application_name", "rollup_ext job");
    let order = Order::from_bytes(&background::extra());

    let result = background::transaction(|| {
        // The row stays locked while the run lasts: that tells a new scheduler that it does.
        let Some(name) = history::adopt(order.run_id) else { return };
        background::show_activity(Some(&activity(&name, order.safe.window.end)));
        let outcome = run::run(&name, Writers::Watched(order.safe)).or_raise();
        history::succeed(order.run_id, &name, &outcome);
    });
    if let Err(failure) = result {
        let recorded = background::transaction(|| history::fail(order.run_id, &failure));
        match recorded {
            Ok(Some(name)) => failure.log(&format!("rollup \"{name}\" failed")),
            Ok(None) => failure.log("a run of a rollup that is gone failed"),
            Err(second) => {
                failure.log("a rollup failed");
                second.log("its failure could not be recorded");
            }
        }
    }
}

fn activity(name: &str, up_to: Bound) -> String {
    match up_to {
        Bound::Id(id) => format!("run of rollup \"{name}\" up to id {id}"),
        Bound::Time(_) => format!("run of rollup \"{name}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_the_journey() {
        let ids = (Bound::Id(-1), Bound::Id(i64::MAX));
        let times = (Bound::Time(i64::MIN), Bound::Time(7));
        for ((start, end), passing) in [(ids, None), (ids, Some(-7)), (times, None)] {
            let safe =
                Safe { window: Window { start, end }, sequence_file: pg_sys::Oid::from(16_384), passing };
            let order = Order { run_id: 4_711, safe };
            let mut bytes = [0; 128];
            bytes[..37].copy_from_slice(&order.to_bytes());
            assert_eq!(Order::from_bytes(&bytes), order);
        }
    }
}
