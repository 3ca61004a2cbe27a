//! Comparing a rollup with its events, and recomputing a part of it.

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::{self, Datum};
use pgrx::spi::{quote_identifier, quote_literal};

use crate::error::{Error, Result};
use crate::pg::spi;
use crate::rollup::catalog::{self, Rollup};
use crate::rollup::definition::{Definition, Measure};
use crate::rollup::nodes;
use crate::rollup::retention;
use crate::rollup::run::{self, AsRollup};
use crate::rollup::window::{Bound, Window};

/// A range of bucket times, in microseconds since 2000-01-01 UTC; open where `None`.
#[derive(Clone, Copy)]
pub struct Range {
    pub from: Option<i64>,
    pub to: Option<i64>,
}

impl Range {
    fn is_open(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }
}

/// Finds the groups in which a rollup differs from its events up to its position; `report` gets each with its key, its
/// measures in the rollup and those in the events, as jsonb. Holds off runs of the rollup, not readers and writers of
/// the events.
pub fn verify(name: &str, range: Range, mut report: impl FnMut([Option<Datum>; 3])) -> Result<()> {
    let rollup = catalog::lock_owned(name)?;
    let definition = aggregated(&rollup)?;
    if range.from.is_none() {
        let instead = definition.bucket().map(|_| format!("verify_rollup('{name}', from)"));
        check_all_there(&rollup, "They are missing on one side of the comparison.", instead)?;
    }
    let target = rollup.target_name();
    let _session = AsRollup::new(&rollup);
    let filter = bucket_filter(&definition, &rollup, target, range)?;

    let keys = definition.key_list();
    // Without GROUP BY there is a row even for no events at all; the rollup has it from its first run on.
    let is_before_first = keys.is_empty() && is_at_beginning(&rollup);
    let fresh_filter = if is_before_first { " WHERE false" } else { &filter };
    let key = object(definition.keys.iter().map(|k| (&k.name, quote_identifier(&k.name))));
    let measures = object(definition.measures.iter().map(|m| (&m.name, comparable(m))));
    let floats: Vec<_> = definition.measures.iter().filter(|m| tolerance(m).is_some()).collect();
    let exact: Vec<_> = floats
        .iter()
        .map(|m| format!(" OPERATOR(pg_catalog.-) {}::pg_catalog.text", quote_literal(&m.name)))
        .collect();
    let exact = exact.concat();
    let differ: Vec<_> = floats.iter().map(|m| float_differs(m)).collect();
    // Groups are found as the target's unique index finds them, whatever their keys look like.
    let statement = format!(
        "SELECT key, stored, fresh FROM ( \
            SELECT {key} AS key, \
                   (pg_catalog.array_agg(\"?measures\") FILTER (WHERE \"?stored\"))[1] AS stored, \
                   (pg_catalog.array_agg(\"?measures\") FILTER (WHERE NOT \"?stored\"))[1] AS fresh \
              FROM (SELECT {columns}{measures} AS \"?measures\", true AS \"?stored\" FROM {target}{filter} \
                    UNION ALL \
                    SELECT {columns}{measures}, false FROM ({select}) AS fresh{fresh_filter}) AS both_sides \
             GROUP BY {group} HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0) AS groups \
          WHERE COALESCE(stored{exact} OPERATOR(pg_catalog.<>) (fresh{exact}), true){differ} \
          ORDER BY key",
        columns = if keys.is_empty() { String::new() } else { format!("{keys}, ") },
        group = if keys.is_empty() { "()" } else { &keys },
        differ = differ.concat(),
        select = definition.select_sql()?,
    );
    spi::stream(&statement, |row| report([row.datum(1), row.datum(2), row.datum(3)]));
    Ok(())
}

/// Refuses what needs all events of a rollup when some have left with their partitions; `instead` leaves them out.
pub fn check_all_there(rollup: &Rollup, why: &str, instead: Option<String>) -> Result<()> {
    let Some(partition) = catalog::partition_left(&rollup.name) else { return Ok(()) };
    let instead = instead.map_or(String::new(), |call| {
        format!("SELECT {call}; with the time from which on all events are there, or ")
    });
    retention::refuse(
        Error::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("events of rollup \"{}\" have left with partition \"{partition}\"", rollup.name),
        )
        .detail(why),
        &format!("{instead}SET rollup_ext.guard_partitions = off; to do it nevertheless."),
    )
}

/// Whether no event can have been aggregated yet.
fn is_at_beginning(rollup: &Rollup) -> bool {
    if rollup.start == Some(rollup.position()) {
        return true;
    }
    match rollup.id_sequence {
        Some(sequence) => {
            rollup.last_aggregated_id <= catalog::internally(|| crate::rollup::source::beginning(sequence))
        }
        None => rollup.last_aggregated_time.is_none(),
    }
}

/// SQL for a jsonb object of names and expressions.
fn object<'a>(pairs: impl Iterator<Item = (&'a String, String)>) -> String {
    let pairs: Vec<_> = pairs.map(|(name, sql)| format!("{}, {sql}", quote_literal(name))).collect();
    format!("pg_catalog.jsonb_build_object({})", pairs.join(", "))
}

/// A measure as it can be compared: a list of top items depends on the order of the events once it had to drop some.
fn comparable(measure: &Measure) -> String {
    let name = quote_identifier(&measure.name);
    match measure.type_oid {
        pg_sys::JSONBOID if measure.is_topn => format!(
            "CASE WHEN (SELECT pg_catalog.count(*) FROM pg_catalog.jsonb_object_keys({name})) \
                       OPERATOR(pg_catalog.<) pg_catalog.current_setting('topn.number_of_counters')::pg_catalog.int8 \
             THEN {name} END"
        ),
        _ => name,
    }
}

/// How much of a floating point measure may differ: its last digits depend on the order of the terms.
fn tolerance(measure: &Measure) -> Option<&'static str> {
    match measure.type_oid {
        pg_sys::FLOAT4OID => Some("1e-3"),
        pg_sys::FLOAT8OID => Some("1e-9"),
        _ => None,
    }
}

/// SQL that is true where the two values of a floating point measure differ by more than that.
fn float_differs(measure: &Measure) -> String {
    let value = |side| {
        format!("({side} OPERATOR(pg_catalog.->>) {})::pg_catalog.float8", quote_literal(&measure.name))
    };
    let (stored, fresh) = (value("stored"), value("fresh"));
    format!(
        " OR ({stored} IS NULL) OPERATOR(pg_catalog.<>) ({fresh} IS NULL) \
          OR {stored} OPERATOR(pg_catalog.<>) {fresh} \
             AND pg_catalog.abs({stored} OPERATOR(pg_catalog.-) {fresh}) OPERATOR(pg_catalog.>) \
                 ({} OPERATOR(pg_catalog.*) GREATEST(pg_catalog.abs({stored}), pg_catalog.abs({fresh})))",
        tolerance(measure).unwrap_or_default()
    )
}

/// Recomputes the groups whose bucket lies in a range (all groups, when it is open) from the events up to the
/// position; returns the rows written.
pub fn refresh(name: &str, range: Range) -> Result<i64> {
    let rollup = catalog::lock_owned(name)?;
    let definition = aggregated(&rollup)?;
    if range.from.is_none() {
        let instead = definition.bucket().map(|_| format!("refresh_rollup('{name}', from)"));
        check_all_there(&rollup, "What the rollup holds of them would be lost.", instead)?;
        if range.is_open() {
            catalog::forget_partitions_left(name, None);
        }
    }
    let target = rollup.target_name();
    let _session = AsRollup::new(&rollup);
    let filter = bucket_filter(&definition, &rollup, target, range)?;
    spi::execute(&format!("DELETE FROM {target}{filter}"), &[]);
    Ok(spi::execute(&definition.refill_sql(target, &filter)?, &[]) as i64)
}

/// The definition over all events that the rollup has aggregated.
fn aggregated(rollup: &Rollup) -> Result<Definition> {
    let mut definition = run::load_definition(rollup)?;
    let start = match rollup.position() {
        Bound::Id(_) => Bound::Id(i64::MIN),
        Bound::Time(_) => Bound::Time(i64::MIN),
    };
    let here = Window { start: rollup.start.unwrap_or(start), end: rollup.position() };
    let elsewhere = catalog::node_positions(&rollup.name)
        .into_iter()
        .map(|(group, end)| Window { start: Bound::Id(nodes::before_first_id(group)), end: Bound::Id(end) });
    let windows: Vec<_> = std::iter::once(here).chain(elsewhere).collect();
    run::restrict(&mut definition, rollup, &windows, &catalog::passed_over(rollup))?;
    Ok(definition)
}

/// A WHERE clause for the buckets that may hold events of the range; empty for an open range. A bucket that begins
/// before the range can reach into it, so the last one that the rollup knows at or before its start belongs to it.
fn bucket_filter(definition: &Definition, rollup: &Rollup, target: &str, range: Range) -> Result<String> {
    if range.is_open() {
        return Ok(String::new());
    }
    let Some(bucket) = definition.bucket() else {
        return Err(Error::new(
            ERRCODE_INVALID_PARAMETER_VALUE,
            format!("rollup \"{}\" has no group key of a date or timestamp type", rollup.name),
        )
        .detail("A time range selects groups by such a key.")
        .hint("Leave the range out to take the whole rollup."));
    };
    let name = quote_identifier(&bucket.name);
    let literal = |time: i64| {
        let cast = format!("SELECT $1::pg_catalog.{}::pg_catalog.text", bucket.time_type());
        let text = spi::query_one(&cast, &[spi::timestamptz(Some(time))], |row| row.text(1)).flatten();
        format!("{}::pg_catalog.{}", quote_literal(text.unwrap_or_default()), bucket.time_type())
    };
    let mut conditions = Vec::new();
    if let Some(from) = range.from {
        let start = spi::query_one(
            &format!(
                "SELECT pg_catalog.max({name})::pg_catalog.text FROM {target} \
                 WHERE {name} OPERATOR(pg_catalog.<=) {}",
                literal(from)
            ),
            &[],
            |row| row.text(1),
        )
        .flatten();
        // None known at or before it: an unknown one may reach in from anywhere.
        if let Some(start) = start {
            conditions.push(format!(
                "{name} OPERATOR(pg_catalog.>=) {}::pg_catalog.{}",
                quote_literal(start),
                bucket.time_type()
            ));
        }
    }
    if let Some(to) = range.to {
        // A date compares with the day on which the range ends, which is partly inside.
        let operator = if bucket.type_oid == pg_sys::DATEOID { "<=" } else { "<" };
        conditions.push(format!("{name} OPERATOR(pg_catalog.{operator}) {}", literal(to)));
    }
    Ok(if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) })
}
