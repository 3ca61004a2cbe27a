//! Rollups: what they are, what is new for them, and bringing them up to date.

use std::time::Duration;

use pgrx::PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED;
use pgrx::pg_sys::{self, Datum};

use crate::error::{Error, OrRaise, Result};
use crate::pg::call::Call;
use crate::pg::rows::Rows;
use crate::pg::varlena::{int8multirange, name, varlena};
use crate::sql_function;

pub mod batch;
pub mod catalog;
pub mod citus;
pub mod definition;
pub mod ids;
pub mod live;
pub mod manage;
pub mod nodes;
pub mod numbering;
pub mod passing;
pub mod register;
pub mod replaced;
pub mod retention;
pub mod run;
pub mod schedule;
pub mod source;
pub mod target;
pub mod trust;
pub mod verify;
pub mod window;

/// The first argument of nearly every function here.
fn rollup_name(call: Call) -> Result<String> {
    call.text(0).ok_or_else(|| {
        Error::new(ERRCODE_NULL_VALUE_NOT_ALLOWED, "the name of the rollup must not be NULL")
            .hint("SELECT rollup_name FROM rollup_status; lists the rollups.")
    })
}

fn void() -> Datum {
    Datum::from(0)
}

sql_function!(register_rollup, |call| {
    let request = register::Request {
        name: call.text(0),
        query: call.text(1),
        source: call.oid(2),
        target: call.text(3),
        id_sequence: call.oid(4),
        time_column: call.name(5),
        lag: call.optional(6),
        schedule: call.text(7),
        batch_size: call.optional(8).map(|_| call.i64(8)),
        start_from: call.text(9),
        command: call.text(10),
    };
    varlena(register::register(request).or_raise().as_bytes())
});

sql_function!(resolve_rollup_source, |call| {
    let resolve = || {
        let source = call.oid(1).ok_or_else(|| {
            Error::new(ERRCODE_NULL_VALUE_NOT_ALLOWED, "event_table_name must not be NULL")
                .hint("Name the table that the events are inserted into.")
        })?;
        let (time_column, schedule) = (call.name(3), call.text(4));
        register::resolve(
            &call.text(0).unwrap_or_default(),
            source,
            call.oid(2),
            time_column.as_deref(),
            schedule.as_deref(),
        )
    };
    let resolved = resolve().or_raise();
    if call.bool(5) {
        let table = catalog::internally(|| source::relation_name(resolved.source));
        if let Some(column) = resolved.id_column.clone().or(call.name(3)) {
            target::index_source(resolved.source, &table, &column);
        }
    }
    let id_column = resolved.id_column.as_deref().map(name);
    call.row(&[resolved.id_sequence.map(Datum::from), id_column])
});

sql_function!(run_rollup, |call| {
    let outcome = rollup_name(call).and_then(|name| run::by_hand(&name, call.optional(1))).or_raise();
    call.row(&[
        outcome.window_start.map(Datum::from),
        outcome.window_end.map(Datum::from),
        outcome.time_start.map(Datum::from),
        outcome.time_end.map(Datum::from),
        outcome.rows_written.map(Datum::from),
    ])
});

sql_function!(incremental_rollup_window, |call| {
    let (start, end) = rollup_name(call).and_then(|name| run::take_window(&name)).or_raise();
    call.row(&[Some(Datum::from(start)), Some(Datum::from(end))])
});

sql_function!(incremental_rollup_windows, |call| {
    let windows = rollup_name(call).and_then(|name| run::take_windows(&name)).or_raise();
    let mut rows = Rows::of(call);
    for (start, end) in windows {
        // SAFETY: two columns of bigint, as declared.
        unsafe { rows.put([Some(Datum::from(start)), Some(Datum::from(end))]) };
    }
    call.null()
});

sql_function!(rollup_node_heads, |call| {
    let heads = || {
        let rollup = catalog::get(&rollup_name(call)?)?;
        rollup.check_owner()?;
        nodes::heads(&rollup)
    };
    let heads = heads().or_raise();
    let mut rows = Rows::of(call);
    for head in heads {
        let ids = [head.id, head.position, head.lag()].map(|id| Some(Datum::from(id)));
        // SAFETY: an integer and three bigints, as declared.
        unsafe { rows.put([Some(Datum::from(head.group)), ids[0], ids[1], ids[2]]) };
    }
    call.null()
});

// What the coordinator of a Citus cluster asks the other nodes. A node without metadata has no such sequence, and
// cannot draw from it.

/// The relations in two arguments, by name.
fn source_and_sequence(call: Call, first: usize) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    let find = |i: usize| target::find(&call.text(i).unwrap_or_default());
    catalog::internally(|| Some((find(first)?, find(first + 1)?)))
}

sql_function!(wait_for_rollup_writers, |call| {
    let patience = Duration::from_millis(call.i64(0).max(0) as u64);
    let head = source_and_sequence(call, 1).map_or(Ok(Some(0)), |(source, sequence)| {
        catalog::internally(|| source::complete_head(source, sequence, patience))
    });
    head.or_raise().map_or_else(|| call.null(), Datum::from)
});

sql_function!(rollup_source_head, |call| {
    let head = source_and_sequence(call, 0)
        .and_then(|(_, sequence)| catalog::internally(|| source::last_value(sequence)));
    Datum::from(head.unwrap_or(0))
});

sql_function!(oldest_transaction_start, |call| {
    catalog::internally(window::oldest_start).map_or_else(|| call.null(), Datum::from)
});

sql_function!(pending_commits, |call| {
    let pending = catalog::internally(nodes::pending_commits);
    pending.map_or_else(|| call.null(), |pending| varlena(pending.as_bytes()))
});

sql_function!(pause_rollup, |call| {
    rollup_name(call).and_then(|name| manage::set_paused(&name, true)).or_raise();
    void()
});

sql_function!(resume_rollup, |call| {
    rollup_name(call).and_then(|name| manage::set_paused(&name, false)).or_raise();
    void()
});

sql_function!(alter_rollup, |call| {
    let changes = manage::Changes {
        schedule: call.text(1),
        lag: call.optional(2),
        batch_size: call.optional(3).map(|_| call.i64(3)),
        new_name: call.text(4),
        new_owner: call.oid(5),
    };
    rollup_name(call).and_then(|name| manage::alter(&name, changes)).or_raise();
    void()
});

sql_function!(drop_rollup, |call| {
    let drop_target = !call.is_null(1) && call.bool(1);
    rollup_name(call).and_then(|name| manage::drop(&name, drop_target)).or_raise();
    void()
});

sql_function!(reset_rollup, |call| {
    rollup_name(call).and_then(|name| manage::reset(&name)).or_raise();
    void()
});

/// The time range in arguments 1 and 2.
fn range(call: Call) -> verify::Range {
    let time = |i: usize| call.optional(i).map(|_| call.i64(i));
    verify::Range { from: time(1), to: time(2) }
}

sql_function!(verify_rollup, |call| {
    let mut rows = Rows::of(call);
    // SAFETY: three columns of jsonb, as declared.
    let report = |difference| unsafe { rows.put(difference) };
    rollup_name(call).and_then(|name| verify::verify(&name, range(call), report)).or_raise();
    call.null()
});

sql_function!(refresh_rollup, |call| {
    Datum::from(rollup_name(call).and_then(|name| verify::refresh(&name, range(call))).or_raise())
});

sql_function!(create_live_view, |call| {
    let live = rollup_name(call).and_then(|name| live::create(&name)).or_raise();
    varlena(live.as_bytes())
});

/// The definition of a rollup in argument 0.
fn definition_argument(call: Call) -> pg_sys::Oid {
    call.oid(0).unwrap_or(pg_sys::Oid::INVALID)
}

sql_function!(rollup_position, |call| {
    Datum::from(call.once_per_snapshot(|| live::position_id(definition_argument(call)).or_raise()))
});

sql_function!(rollup_position_time, |call| {
    Datum::from(call.once_per_snapshot(|| live::position_time(definition_argument(call)).or_raise()))
});

sql_function!(rollup_position_timestamp, |call| {
    Datum::from(call.once_per_snapshot(|| live::position_timestamp(definition_argument(call)).or_raise()))
});

sql_function!(rollup_aggregated_ids, |call| {
    let ask = || {
        let ids = live::aggregated_ids(definition_argument(call)).or_raise();
        // SAFETY: the answer is kept there for as long as it is returned.
        unsafe { call.expression_context().switch_to(|_| int8multirange(&ids)) }.value() as i64
    };
    Datum::from(call.once_per_snapshot(ask))
});

// Strict, so that the first value is the state and stays it.
sql_function!(keep_value, |call| call.datum(0));

sql_function!(explain_rollup, |call| {
    let lines = rollup_name(call).and_then(|name| manage::explain(&name)).or_raise();
    let mut rows = Rows::of_values(call);
    // SAFETY: one column of text, as declared.
    lines.iter().for_each(|line| unsafe { rows.put([Some(varlena(line.as_bytes()))]) });
    call.null()
});

sql_function!(rollup_head, |call| {
    let rollup = rollup_name(call).and_then(|name| catalog::get(&name)).or_raise();
    // A role may see the rollups of another in rollup_status without acting for it.
    let sequence = rollup.check_owner().ok().and(rollup.id_sequence);
    let head = sequence.and_then(|s| catalog::internally(|| source::last_value(s)));
    head.map_or_else(|| call.null(), Datum::from)
});

sql_function!(rollup_head_time, |call| {
    let rollup = rollup_name(call).and_then(|name| catalog::get(&name)).or_raise();
    let is_own = rollup.check_owner().is_ok();
    let head = if is_own { window::time_head(&rollup).or_raise() } else { None };
    head.map_or_else(|| call.null(), Datum::from)
});
