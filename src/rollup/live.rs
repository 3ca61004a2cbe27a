//! Live views: a rollup merged with the events that it has not aggregated yet, in one snapshot.

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::Oid;

use crate::error::{Error, Result};
use crate::pg::query::{End, Limit};
use crate::pg::spi;
use crate::rollup::catalog::{self, Kind, Rollup};
use crate::rollup::citus;
use crate::rollup::definition::Definition;
use crate::rollup::run::{self, AsRollup};
use crate::rollup::window::column_time;
use crate::rollup::{source, target};

/// Creates the live view of a declarative rollup, or replaces it; returns its name.
pub fn create(name: &str) -> Result<String> {
    let rollup = catalog::lock_owned(name)?;
    let definition = run::load_definition(&rollup)?;
    let Kind::Declarative { definition: view, target, .. } = rollup.kind else {
        unreachable!("load_definition() refuses the other kinds")
    };
    check(&rollup, &definition)?;
    let live = live_name(&rollup, target)?;
    let statement = statement(&rollup, definition, view)?;
    let _session = AsRollup::new(&rollup);
    spi::execute(&format!("CREATE OR REPLACE VIEW {live} AS\n{statement}"), &[]);
    let comment =
        pgrx::spi::quote_literal(format!("rollup \"{name}\" and the events that it has yet to aggregate"));
    spi::execute(&format!("COMMENT ON VIEW {live} IS {comment}"), &[]);
    catalog::update(name, "live_view", spi::oid(target::find(&live)));
    Ok(live)
}

fn check(rollup: &Rollup, definition: &Definition) -> Result<()> {
    if definition.is_mutable {
        return Err(Error::new(
            ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("the query of rollup \"{}\" depends on settings of the session such as TimeZone", rollup.name),
        )
        .detail(format!(
            "The rollup holds what it means in time zone {}; a reader with another one would see other groups.",
            rollup.time_zone
        ))
        .hint(
            "Name the zone in the query: (t AT TIME ZONE 'UTC')::date, or date_bin('1 hour', t, '2000-01-01 00:00+00').",
        ));
    }
    if catalog::internally(|| citus::is_shared(rollup.source))
        || !catalog::node_positions(&rollup.name).is_empty()
    {
        return Err(Error::new(
            ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("the events of rollup \"{}\" are known to other nodes", rollup.name),
        )
        .detail("Citus has no snapshot over all nodes: a reader could see events both in the target and as new ones.")
        .hint("A short schedule keeps the rollup itself close behind: schedule => '1 second'."));
    }
    Ok(())
}

/// `<target>_live`, in the schema of the target; the one that the rollup has, under whatever name it goes by now.
fn live_name(rollup: &Rollup, target: Oid) -> Result<String> {
    const DEFAULT: &str = "
        SELECT quote_ident(n.nspname), c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
    let (present, schema, table) = catalog::internally(|| {
        let present = catalog::live_view(&rollup.name).and_then(source::existing_name);
        let default = spi::query_one(DEFAULT, &[spi::oid(Some(target))], |row| (row.text(1), row.text(2)));
        let (schema, table) = default.unwrap_or_default();
        (present, schema.unwrap_or_default(), table.unwrap_or_default())
    });
    if let Some(present) = present {
        return Ok(present);
    }
    let live = format!("{schema}.{}", super::register::name_with_suffix(&table, "_live"));
    match target::find(&live) {
        None => Ok(live),
        Some(_) => Err(Error::new(ERRCODE_DUPLICATE_TABLE, format!("relation {live} already exists"))
            .detail("It is the name that the live view would have.")
            .hint("Rename or drop it.")),
    }
}

/// The query of the view. The position is asked for by a function, so that the planner knows what it returns, and by
/// the rollup's definition, which keeps its identity through renames and dumps.
fn statement(rollup: &Rollup, mut definition: Definition, view: Oid) -> Result<String> {
    let asked = |function: &str| {
        let signature = catalog::sql(&format!("@extschema@.{function}(regclass)"));
        let find = "SELECT $1::regprocedure::oid";
        let function = spi::query_one(find, &[spi::text(Some(&signature))], |row| row.oid(1)).flatten();
        End::Function { function: function.unwrap_or(Oid::INVALID), relation: view }
    };
    let (function, operator, except) = match &rollup.time_column {
        // Where it went past open writers, it has aggregated some ids but not all after the first that was passed over.
        None => ("rollup_position", ">", Some("rollup_aggregated_ids")),
        Some(_) if source::clock_zone(rollup)?.is_some() => ("rollup_position_timestamp", ">=", None),
        Some(_) => ("rollup_position_time", ">=", None),
    };
    let (end, except, schema) =
        catalog::internally(|| (asked(function), except.map(asked), catalog::sql("@extschema@")));
    let column = rollup.time_column.as_deref().or(rollup.id_column.as_deref()).unwrap_or_default();
    definition.restrict(column, &[vec![Limit { operator, end }]], except.as_ref())?;
    let target = rollup.target_name();
    let _session = AsRollup::new(rollup);
    definition.live_sql(target, &schema)
}

/// The position of the rollup that a view defines, in the snapshot of the calling statement.
fn position<T>(definition: Oid, read: impl FnMut(&spi::Row) -> T) -> Result<T> {
    let found = catalog::internally(|| {
        let query = "SELECT COALESCE(lower(passed_over) - 1, last_aggregated_id), last_aggregated_time, name, \
             CASE WHEN isempty(passed_over) THEN '{}' ELSE \
                  (int8multirange(int8range(lower(passed_over), last_aggregated_id, '[]')) - passed_over)::text END \
             FROM @extschema@.rollups WHERE definition = $1";
        spi::query_one_as_seen(&catalog::sql(query), &[spi::oid(Some(definition))], read)
    });
    found.ok_or_else(|| {
        let view = catalog::internally(|| source::relation_name(definition));
        Error::new(ERRCODE_UNDEFINED_OBJECT, format!("\"{view}\" is not the definition of a rollup"))
            .hint("SELECT name, definition FROM rollups; lists them.")
    })
}

/// The ids that are aggregated after the first one that is not, as an `int8multirange`.
pub fn aggregated_ids(definition: Oid) -> Result<String> {
    position(definition, |row| row.text(4).unwrap_or_default())
}

/// Up to this id all is aggregated.
pub fn position_id(definition: Oid) -> Result<i64> {
    position(definition, |row| row.int8(1).unwrap_or(0))
}

/// The first moment that is not aggregated, in microseconds since 2000-01-01 UTC; -infinity before the first run.
pub fn position_time(definition: Oid) -> Result<i64> {
    position(definition, |row| row.timestamptz(2).unwrap_or(i64::MIN))
}

/// As [`position_time`], as a `timestamp` column of the event table shows it.
pub fn position_timestamp(definition: Oid) -> Result<i64> {
    let (time, name) = position(definition, |row| (row.timestamptz(2).unwrap_or(i64::MIN), row.text(3)))?;
    let rollup = catalog::get(&name.unwrap_or_default())?;
    Ok(column_time(time, source::clock_zone(&rollup)?.as_deref()))
}
