//! Pausing, altering, dropping and resetting rollups, and looking at what a run would do.

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::{self, Oid};

use crate::error::{Error, Result};
use crate::pg::session::{self, AsRole};
use crate::pg::spi;
use crate::rollup::catalog::{self, Kind, Rollup};
use crate::rollup::citus;
use crate::rollup::ids::Ids;
use crate::rollup::nodes;
use crate::rollup::passing;
use crate::rollup::run::{self, AsRollup};
use crate::rollup::schedule::Schedule;
use crate::rollup::source;
use crate::rollup::verify;
use crate::rollup::window::{self, Bound, Next, NodeWindow, Window};

/// The rollup of this name, locked, for a role that owns it.
fn owned(name: &str) -> Result<Rollup> {
    let rollup = catalog::lock_owned(name)?;
    Ok(rollup)
}

pub fn set_paused(name: &str, paused: bool) -> Result<()> {
    owned(name)?;
    catalog::update(name, "paused", spi::boolean(paused));
    if !paused {
        catalog::accept_sequence(name);
    }
    Ok(())
}

/// The arguments of `alter_rollup`; what is `None` stays.
pub struct Changes {
    pub schedule: Option<String>,
    /// An interval, passed on as it came.
    pub lag: Option<pg_sys::Datum>,
    pub batch_size: Option<i64>,
    pub new_name: Option<String>,
    pub new_owner: Option<Oid>,
}

pub fn alter(name: &str, changes: Changes) -> Result<()> {
    let rollup = owned(name)?;
    if let Some(schedule) = &changes.schedule {
        let schedule = Some(schedule.as_str()).filter(|s| !s.eq_ignore_ascii_case("none"));
        if let Some(schedule) = schedule {
            Schedule::parse(schedule)?;
        }
        catalog::update(name, "schedule", spi::text(schedule));
    }
    if let Some(lag) = changes.lag {
        if rollup.time_column.is_none() {
            return Err(Error::new(
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("rollup \"{name}\" follows ids, which need no lag"),
            )
            .hint("Leave lag out."));
        }
        super::register::check_lag(Some(lag))?;
        catalog::update(name, "lag", spi::datum(pg_sys::INTERVALOID, Some(lag)));
    }
    if let Some(batch_size) = changes.batch_size {
        if batch_size < 0 {
            return Err(Error::new(
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("batch_size must not be negative, but is {batch_size}"),
            )
            .hint("It is the number of events that one run takes at most; 0 for no limit."));
        }
        catalog::update(name, "batch_size", spi::int8(Some(batch_size).filter(|size| *size > 0)));
    }
    if let Some(owner) = changes.new_owner {
        if !session::may_act_as(owner) {
            return Err(Error::new(
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                "must be a member of the new owner's role",
            ));
        }
        if let Kind::Declarative { definition, target, .. } = rollup.kind {
            // The target too, unless it belonged to somebody else before.
            const TARGET: &str = "SELECT oid::regclass::text FROM pg_class WHERE oid = $1 AND relowner = $2";
            let (tables, role) = catalog::internally(|| {
                let role = "SELECT quote_ident(rolname) FROM pg_roles WHERE oid = $1";
                let role = spi::query_one(role, &[spi::oid(Some(owner))], |row| row.text(1)).flatten();
                let live = catalog::live_view(name).and_then(source::existing_name);
                let args = [spi::oid(Some(target)), spi::oid(Some(rollup.owner))];
                let target = spi::query_one(TARGET, &args, |row| row.text(1)).flatten();
                ([Some(source::relation_name(definition)), live, target], role.unwrap_or_default())
            });
            for table in tables.iter().flatten() {
                spi::execute(&format!("ALTER TABLE {table} OWNER TO {role}"), &[]);
            }
        }
        catalog::update(name, "owner", spi::oid(Some(owner)));
    }
    if let Some(new_name) = &changes.new_name {
        rename(&rollup, new_name)?;
    }
    Ok(())
}

fn rename(rollup: &Rollup, new_name: &str) -> Result<()> {
    super::register::check_name(Some(new_name))?;
    if catalog::get(new_name).is_ok() {
        return Err(Error::new(ERRCODE_DUPLICATE_OBJECT, format!("rollup \"{new_name}\" already exists"))
            .hint("Choose another name."));
    }
    if let Kind::Declarative { definition, .. } = &rollup.kind {
        let view = catalog::internally(|| source::existing_name(*definition));
        let _owner = AsRole::owner(rollup.owner);
        if let Some(view) = view {
            let new_view = super::register::definition_name(new_name);
            spi::execute(&format!("ALTER VIEW {view} RENAME TO {new_view}"), &[]);
        }
    }
    await_runs(&rollup.name);
    catalog::update(&rollup.name, "name", spi::text(Some(new_name)));
    Ok(())
}

/// A run that just began finds its rollup locked, and is about to write that down: waits until it has, before the rows
/// of the rollup are locked all together.
fn await_runs(name: &str) {
    let runs = "SELECT FROM @extschema@.rollup_runs WHERE rollup_name = $1 AND status = 'running' FOR UPDATE";
    catalog::internally(|| spi::execute(&catalog::sql(runs), &[spi::text(Some(name))]));
}

pub fn drop(name: &str, drop_target: bool) -> Result<()> {
    let rollup = owned(name)?;
    let live = catalog::live_view(name);
    await_runs(name);
    catalog::internally(|| {
        let delete = "DELETE FROM @extschema@.rollups WHERE name = $1";
        spi::execute(&catalog::sql(delete), &[spi::text(Some(name))])
    });
    if let Kind::Declarative { definition, target, .. } = rollup.kind {
        let (views, table) = catalog::internally(|| {
            // The live view depends on the definition.
            let views = live.into_iter().chain([definition]).filter_map(source::existing_name);
            (views.collect::<Vec<_>>(), source::existing_name(target))
        });
        let _owner = AsRole::owner(rollup.owner);
        for view in views {
            spi::execute(&format!("DROP VIEW {view}"), &[]);
        }
        if let Some(table) = table.filter(|_| drop_target) {
            spi::execute(&format!("DROP TABLE {table}"), &[]);
        }
    } else if drop_target {
        return Err(Error::new(
            ERRCODE_INVALID_PARAMETER_VALUE,
            format!("rollup \"{name}\" has no target of its own"),
        )
        .hint(format!("SELECT drop_rollup('{name}'); and drop the table yourself.")));
    }
    Ok(())
}

pub fn reset(name: &str) -> Result<()> {
    let rollup = owned(name)?;
    rollup.check_target()?;
    verify::check_all_there(&rollup, "What the rollup holds of them would be lost.", None)?;
    citus::commit_everywhere(&rollup);
    catalog::forget_partitions_left(name, None);
    match &rollup.kind {
        Kind::Declarative { target_name, .. } => {
            let _session = AsRollup::new(&rollup);
            spi::execute(&format!("DELETE FROM {target_name}"), &[]);
        }
        _ => Error::new(
            ERRCODE_WARNING,
            format!("rollup \"{name}\" starts from the beginning, but its table was not emptied"),
        )
        .detail("Only the extension's own targets are known to it.")
        .hint("Empty the table yourself before the next run, or its events are counted twice.")
        .report(pgrx::PgLogLevel::WARNING),
    }
    match rollup.id_sequence {
        Some(sequence) => {
            let beginning = catalog::internally(|| source::beginning(sequence));
            catalog::update(name, "last_aggregated_id", spi::int8(Some(beginning)));
            catalog::set_passed_over(name, &Ids::default());
            for (group, _) in catalog::node_positions(name) {
                catalog::set_node_position(name, group, nodes::before_first_id(group));
            }
        }
        None => {
            catalog::update(name, "last_aggregated_time", spi::timestamptz(None));
        }
    }
    catalog::update(name, "start_id", spi::int8(None));
    catalog::update(name, "start_time", spi::timestamptz(None));
    catalog::accept_sequence(name);
    Ok(())
}

/// What the next run would do, in lines: the window as far as it is known without waiting, the SQL, the plan.
pub fn explain(name: &str) -> Result<Vec<String>> {
    let rollup = catalog::get(name)?;
    rollup.check_owner()?;
    let seen = window::observe(&rollup)?;
    let window = Window { start: rollup.position(), end: seen.head.max(rollup.position()) };
    let mut lines = vec![describe(window)];
    if !seen.writers.is_empty() {
        let pids: Vec<_> = seen.writers.iter().map(|w| w.pid.to_string()).collect();
        lines.push(format!("Open writers: {} (a run by hand waits for them)", pids.join(", ")));
    }
    let passed_over = catalog::passed_over(&rollup);
    if let (Some(first), Some(last)) = (passed_over.first(), passed_over.last()) {
        let count = passed_over.count();
        lines.push(format!("Passed over: {count} ids from {first} to {last}; their events are taken too"));
    }
    let _session = AsRollup::new(&rollup);
    let statement = match &rollup.kind {
        Kind::Declarative { target_name, .. } => {
            let mut definition = run::load_definition(&rollup)?;
            let parts = vec![NodeWindow { group: 0, window }];
            let next = Next { parts, complete: seen.head, again: i64::MAX, limit: window.end };
            let share = passing::share(&rollup, &next)?;
            run::restrict(&mut definition, &rollup, &share.stretches, &share.except)?;
            definition.merge_sql(target_name)?
        }
        Kind::Command(command) => {
            lines.push("Command:".into());
            lines.extend(command.trim().lines().map(|line| format!("  {line}")));
            return Ok(lines);
        }
        Kind::WindowOnly => {
            lines.push("The caller of incremental_rollup_window aggregates the window.".into());
            return Ok(lines);
        }
    };
    lines.push("Statement:".into());
    lines.extend(statement.lines().map(|line| format!("  {line}")));
    let plan = spi::query(&format!("EXPLAIN {statement}"), &[], |row| row.text(1).unwrap_or_default());
    lines.extend(describe_distribution(&plan));
    lines.push("Plan:".into());
    lines.extend(plan.iter().map(|line| format!("  {line}")));
    Ok(lines)
}

/// On Citus: whether the statement runs on the nodes that hold the events.
fn describe_distribution(plan: &[String]) -> Option<String> {
    if let Some(method) = plan.iter().find_map(|line| line.trim().strip_prefix("INSERT/SELECT method: ")) {
        return Some(format!("Citus: not pushed down ({method})"));
    }
    if plan.first()?.contains("Custom Scan (Citus") {
        return Some("Citus: pushed down to the shards".into());
    }
    plan.iter()
        .any(|line| line.contains("Custom Scan (Citus"))
        .then(|| "Citus: not pushed down (the result is pulled to the coordinator)".into())
}

fn describe(window: Window) -> String {
    match (window.start, window.end) {
        _ if window.is_empty() => "Window: empty, nothing is new".into(),
        (Bound::Id(start), Bound::Id(end)) => format!("Window: ids {} to {end}", start + 1),
        (Bound::Time(start), Bound::Time(end)) => {
            let text = |time| {
                catalog::internally(|| {
                    spi::query_one("SELECT $1::text", &[spi::timestamptz(Some(time))], |row| row.text(1))
                })
                .flatten()
                .unwrap_or_default()
            };
            format!("Window: from {} to before {}", text(start), text(end))
        }
        _ => unreachable!("both ends of a window are of one kind"),
    }
}
