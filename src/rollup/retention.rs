//! Partitions that leave or join an event table: what rollups have not aggregated must not get lost.

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::{self, Oid};
use pgrx::spi::quote_identifier;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PgLogLevel};

use crate::error::{Error, OrRaise, Result};
use crate::pg::call::Call;
use crate::pg::ddl::{self, Change, Departure};
use crate::pg::locks::{self, Hold};
use crate::pg::rows::Rows;
use crate::pg::session::{self, AsRole};
use crate::pg::spi;
use crate::pg::varlena::varlena;
use crate::rollup::catalog::{self, Kind, Rollup};
use crate::rollup::nodes;
use crate::rollup::passing;
use crate::rollup::source::{self, FAMILY};
use crate::rollup::window::{self, Bound};
use crate::sql_function;

static GUARD_PARTITIONS: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Defines the setting; called once from `_PG_init`.
pub fn define() {
    GucRegistry::define_bool_guc(
        c"rollup_ext.guard_partitions",
        c"Refuses to drop or detach a partition whose events a rollup has not aggregated yet.",
        c"When off, there is a warning instead.",
        &GUARD_PARTITIONS,
        GucContext::Userset,
        GucFlags::default(),
    );
}

sql_function!(rollups_behind, |call| {
    let partition = call.oid(0).unwrap_or(Oid::INVALID);
    let names = owned_by_caller(partition).and_then(|()| behind(partition)).or_raise();
    let mut rows = Rows::of_values(call);
    // SAFETY: one column of text, as declared.
    names.iter().for_each(|name| unsafe { rows.put([Some(varlena(name.as_bytes()))]) });
    call.null()
});

sql_function!(guard_partitions, |call| {
    guard(call).or_raise();
    call.null()
});

/// What rows a table has is its owner's to know.
fn owned_by_caller(table: Oid) -> Result<()> {
    match owner(table) {
        Some((owner, _)) if session::may_act_as(owner) => Ok(()),
        found => {
            let name = found.map_or_else(|| table.to_u32().to_string(), |(_, name)| name);
            Err(Error::new(ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table \"{name}\""))
                .hint("Ask as the owner of the event table."))
        }
    }
}

/// Owner and name of a relation.
fn owner(table: Oid) -> Option<(Oid, String)> {
    let query = "SELECT relowner, oid::regclass::text FROM pg_class WHERE oid = $1";
    catalog::internally(|| {
        spi::query_one(query, &[spi::oid(Some(table))], |row| {
            (row.oid(1).unwrap_or(Oid::INVALID), row.text(2).unwrap_or_default())
        })
    })
}

/// The rollups over a table or one of its parents.
fn rollups_over(table: Oid) -> Result<Vec<Rollup>> {
    let names = format!(
        "{FAMILY} SELECT r.name FROM @extschema@.rollups r \
         WHERE r.source::oid IN (SELECT oid FROM parents) ORDER BY 1"
    );
    let args = [spi::oid(Some(table))];
    let names = catalog::internally(|| spi::query(&catalog::sql(&names), &args, |row| row.text(1)));
    names.into_iter().flatten().map(|name| catalog::get(&name)).collect()
}

/// The names of the rollups that have not aggregated every row of a table, as far as rows are committed.
fn behind(table: Oid) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for rollup in rollups_over(table)? {
        if has_rows(&rollup, table, Side::New)? {
            names.push(rollup.name);
        }
    }
    Ok(names)
}

/// Rows behind the position of a rollup are old, the others new.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Old,
    New,
}

/// Whether a table has rows on one side of the position of a rollup. Rows whose id or time is NULL are on neither.
fn has_rows(rollup: &Rollup, table: Oid, side: Side) -> Result<bool> {
    let Some((owner, name)) = owner(table) else { return Ok(false) };
    let column = |column: &Option<String>| quote_identifier(column.as_deref().unwrap_or_default());
    let (condition, position) = match rollup.position() {
        Bound::Id(id) => (aggregated_ids(rollup, &column(&rollup.id_column)), spi::int8(Some(id))),
        Bound::Time(time) => {
            let zone = source::clock_zone(rollup)?;
            let type_oid = if zone.is_some() { pg_sys::TIMESTAMPOID } else { pg_sys::TIMESTAMPTZOID };
            let time = pg_sys::Datum::from(window::column_time(time, zone.as_deref()));
            let condition = format!("{} OPERATOR(pg_catalog.<) $1", column(&rollup.time_column));
            (condition, spi::datum(type_oid, Some(time)))
        }
    };
    let not = if side == Side::New { "NOT" } else { "" };
    let query = format!("SELECT 1 FROM {name} WHERE {not} ({condition}) LIMIT 1");
    let _owner = AsRole::owner(owner);
    Ok(spi::query_one_of_now(&query, &[position], |_| ()).is_some())
}

/// SQL that is true for the ids that are aggregated: up to $1, and up to a position of its own for each other node.
fn aggregated_ids(rollup: &Rollup, column: &str) -> String {
    let passed_over = passing::and_not_among(column, &catalog::passed_over(rollup));
    let mut condition = format!("{column} OPERATOR(pg_catalog.<=) $1{passed_over}");
    for (group, last) in catalog::node_positions(&rollup.name) {
        let first = nodes::before_first_id(group) + 1;
        condition.push_str(&format!(
            " OR {column} OPERATOR(pg_catalog.>=) {first} AND {column} OPERATOR(pg_catalog.<=) {last}"
        ));
    }
    condition
}

/// Looks at a command that is about to run.
fn guard(call: Call) -> Result<()> {
    let changes = ddl::changes(call);
    for change in &changes {
        match *change {
            // Reading may take long: without a lock at first, so that what is locked later is read in a moment.
            Change::Leaves { partition, .. } => check_aggregated(partition)?,
            Change::Joins { partition, parent } => joins(partition, parent)?,
        }
    }
    let mut leaving = departures(changes);
    if GUARD_PARTITIONS.get() && leaving.iter().any(|&(partition, _)| is_watched(partition)) {
        // Whoever writes may commit rows until the command has its locks: it gets them now, and the names may mean
        // something else once it has.
        loop {
            leaving.iter().for_each(|&(partition, how)| lock(partition, how));
            let now = departures(ddl::changes(call));
            if now == leaving {
                break;
            }
            leaving = now;
        }
        leaving.iter().try_for_each(|&(partition, _)| check_aggregated(partition))?;
    }
    leaving.iter().try_for_each(|&(partition, _)| note_departure(partition))
}

/// What leaves, and how.
fn departures(changes: Vec<Change>) -> Vec<(Oid, Departure)> {
    let leaves = |change| match change {
        Change::Leaves { partition, how } => Some((partition, how)),
        Change::Joins { .. } => None,
    };
    changes.into_iter().filter_map(leaves).collect()
}

fn is_partition(table: Oid) -> bool {
    let query = "SELECT true FROM pg_inherits WHERE inhrelid = $1 LIMIT 1";
    catalog::internally(|| spi::query_one(query, &[spi::oid(Some(table))], |_| ())).is_some()
}

/// Whether a rollup loses events when this table leaves.
fn is_watched(table: Oid) -> bool {
    is_partition(table) && rollups_over(table).is_ok_and(|rollups| !rollups.is_empty())
}

/// Takes the locks that a command is about to take, in its order, if the caller may have them: parent, default
/// partition, partition. What is written to directly below a partition is locked too.
fn lock(partition: Oid, how: Departure) {
    let owns = |table| owner(table).is_some_and(|(owner, _)| session::may_act_as(owner));
    let (may_lock, parent, mode) = match how {
        // It lets writers go on, so that nothing can be said about them.
        Departure::Detached { concurrently: true, .. } => return,
        Departure::Detached { parent, .. } => (owns(parent), Some(parent), Hold::Unwritten),
        Departure::Dropped => (may_drop(partition), parent_of_partition(partition), Hold::Alone),
        Departure::Disowned => (owns(partition), None, Hold::Unwritten),
    };
    if !may_lock {
        return;
    }
    if let Some(parent) = parent {
        locks::hold(parent, Hold::Alone);
        if matches!(how, Departure::Detached { .. }) {
            default_partition(parent).into_iter().for_each(|default| locks::hold(default, Hold::Alone));
        }
    }
    locks::hold(partition, Hold::Alone);
    for below in catalog::internally(|| source::with_partitions(partition)) {
        if below != partition {
            locks::hold(below, mode);
        }
    }
}

fn parent_of_partition(table: Oid) -> Option<Oid> {
    const PARENT: &str = "SELECT i.inhparent FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhrelid = $1 AND c.relispartition";
    catalog::internally(|| spi::query_one(PARENT, &[spi::oid(Some(table))], |row| row.oid(1))).flatten()
}

fn default_partition(parent: Oid) -> Option<Oid> {
    const DEFAULT: &str =
        "SELECT partdefid FROM pg_partitioned_table WHERE partrelid = $1 AND partdefid <> 0";
    catalog::internally(|| spi::query_one(DEFAULT, &[spi::oid(Some(parent))], |row| row.oid(1))).flatten()
}

/// A table is dropped by its owner or that of its schema.
fn may_drop(table: Oid) -> bool {
    const OWNERS: &str = "SELECT c.relowner, n.nspowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
    let owners = catalog::internally(|| {
        spi::query_one(OWNERS, &[spi::oid(Some(table))], |row| [row.oid(1), row.oid(2)])
    });
    owners.into_iter().flatten().flatten().any(session::may_act_as)
}

/// Refuses that a partition leaves while a rollup is behind with its rows.
fn check_aggregated(partition: Oid) -> Result<()> {
    let names = if is_partition(partition) { behind(partition)? } else { Vec::new() };
    let Some(first) = names.first() else { return Ok(()) };
    let (_, partition) = owner(partition).unwrap_or_default();
    let what = format!("partition \"{partition}\" has events that are not aggregated yet");
    let error = Error::new(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, what)
        .detail(format!("Behind: {}.", names.join(", ")));
    let cure = format!(
        "SELECT run_rollup('{first}'); first, or SET rollup_ext.guard_partitions = off; to lose them."
    );
    refuse(error, &cure)
}

/// Remembers which rollups hold events of a partition that leaves.
fn note_departure(partition: Oid) -> Result<()> {
    if !is_partition(partition) {
        return Ok(());
    }
    let (_, name) = owner(partition).unwrap_or_default();
    for rollup in rollups_over(partition)? {
        if matches!(rollup.kind, Kind::Declarative { .. }) && has_rows(&rollup, partition, Side::Old)? {
            catalog::add_partition_left(&rollup.name, &name);
        }
    }
    Ok(())
}

/// Refuses something that loses events; a warning when the setting says so.
pub fn refuse(error: Error, cure: &str) -> Result<()> {
    if GUARD_PARTITIONS.get() {
        return Err(error.hint(cure));
    }
    error.warn();
    Ok(())
}

fn joins(partition: Oid, parent: Oid) -> Result<()> {
    for rollup in rollups_over(parent)? {
        let column = rollup.id_column.as_ref().or(rollup.time_column.as_ref());
        let known = "SELECT true FROM pg_attribute WHERE attrelid = $1 AND attname = $2 AND NOT attisdropped";
        let args = [spi::oid(Some(partition)), spi::text(column.map(String::as_str))];
        let known = catalog::internally(|| spi::query_one(known, &args, |_| ())).is_some();
        // Without the column it cannot be attached anyway.
        if known && has_rows(&rollup, partition, Side::Old)? {
            let (_, partition) = owner(partition).unwrap_or_default();
            catalog::forget_partitions_left(&rollup.name, Some(&partition));
            Error::new(
                ERRCODE_WARNING,
                format!(
                    "partition \"{partition}\" has events that rollup \"{}\" takes for aggregated",
                    rollup.name
                ),
            )
            .detail("They are not beyond its position. If they were never in the event table, they are not counted.")
            .hint(format!(
                "SELECT * FROM verify_rollup('{0}', from, to); of their time range tells, \
                 SELECT refresh_rollup('{0}', from, to); counts them.",
                rollup.name
            ))
            .report(PgLogLevel::WARNING);
        }
    }
    Ok(())
}
