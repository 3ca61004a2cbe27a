//! Whether the order of a source can still be trusted: who else hands out its ids and times, and what happened to its
//! sequence since the last run.

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::Oid;

use crate::error::{Error, Result};
use crate::pg::spi;
use crate::rollup::catalog::{self, Rollup};
use crate::rollup::citus::{self, Placement};
use crate::rollup::numbering;
use crate::rollup::passing;
use crate::rollup::run::AsRollup;
use crate::rollup::source::{self, FAMILY};

/// Refuses a source whose rows get the values of the ordering `column` elsewhere: from the publisher of a logical
/// replication subscription, whose transactions cannot be waited for, or from a default that a partition has of its
/// own. Called under `catalog::internally`.
pub fn check_origin(source: Oid, column: &str, sequence: Option<Oid>) -> Result<()> {
    numbering::check(source, column, sequence)?;
    const DEFAULT: &str = "(SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum)";
    let defaults = format!(
        "{FAMILY} SELECT p.oid::regclass::text, {DEFAULT}, (SELECT {DEFAULT} FROM pg_attribute a \
                   WHERE a.attrelid = $1 AND a.attname = $2) \
         FROM partitions p JOIN pg_attribute a ON a.attrelid = p.oid AND a.attname = $2 WHERE p.oid <> $1"
    );
    let args = [spi::oid(Some(source)), spi::text(Some(column))];
    let partitions = spi::query(&defaults, &args, |row| (row.text(1), row.text(2), row.text(3)));
    // A partition without a default takes NULL or what the writer brings; it invents nothing.
    let stray = partitions.into_iter().find(|(_, own, parents)| own.is_some() && own != parents);
    let Some((Some(partition), Some(own), parents)) = stray else { return Ok(()) };
    let action = parents.map_or("DROP DEFAULT".to_owned(), |default| format!("SET DEFAULT {default}"));
    Err(Error::new(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("column \"{column}\" of partition \"{partition}\" has a default of its own, {own}"),
    )
    .detail("Rows inserted directly into the partition would not be in the order of the others.")
    .hint(format!("ALTER TABLE {partition} ALTER COLUMN {} {action};", pgrx::spi::quote_identifier(column))))
}

/// The file of a sequence: another one after each TRUNCATE .. RESTART IDENTITY and ALTER SEQUENCE. Called under
/// `catalog::internally`.
pub fn sequence_file(sequence: Oid) -> Oid {
    spi::query_one("SELECT pg_relation_filenode($1)", &[spi::oid(Some(sequence))], |row| row.oid(1))
        .flatten()
        .unwrap_or(Oid::INVALID)
}

/// A sequence that was restarted and has passed the position again looks like one that just went on, but the events
/// with ids up to the position are others now. Called by a run, which holds the rollup's row, once its window is
/// complete; `file` is that of the sequence when the window was looked for.
pub fn check_restart(rollup: &Rollup, sequence: Oid, file: Oid) -> Result<()> {
    if rollup.sequence_file == Some(file) {
        return Ok(());
    }
    // Transaction ids mean nothing on other nodes of Citus.
    let is_local = matches!(citus::placement(rollup.source), Placement::Local);
    if rollup.sequence_file.is_some() && is_local && has_new_rows_behind(rollup) {
        let name = catalog::internally(|| source::relation_name(sequence));
        return Err(Error::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "sequence \"{name}\" was restarted or altered, and rows with ids up to the position {} of rollup \
                 \"{}\" were written since",
                rollup.last_aggregated_id, rollup.name
            ),
        )
        .detail("If they are new events with ids that were given out again, they would never be aggregated.")
        .hint(format!(
            "SELECT reset_rollup('{0}'); to aggregate the table again, or, if the ids are those of old events, \
             SELECT resume_rollup('{0}');",
            rollup.name
        )));
    }
    catalog::update(&rollup.name, "sequence_file", spi::oid(Some(file)));
    Ok(())
}

/// Whether some row with an id up to the position was written by a transaction that the last run did not see.
fn has_new_rows_behind(rollup: &Rollup) -> bool {
    let snapshot = catalog::internally(|| {
        let query = "SELECT position_snapshot::text FROM @extschema@.rollups WHERE name = $1";
        spi::query_one(&catalog::sql(query), &[spi::text(Some(&rollup.name))], |row| row.text(1)).flatten()
    });
    let Some(snapshot) = snapshot else { return false };
    let column = pgrx::spi::quote_identifier(rollup.id_column.as_deref().unwrap_or_default());
    // xmin lacks its epoch; its distance to our own transaction id has it.
    let query = format!(
        "SELECT 1 FROM {source} WHERE {column} OPERATOR(pg_catalog.<=) $1{not_passed_over} \
            AND pg_catalog.age(xmin) OPERATOR(pg_catalog.<) 2000000000 \
            AND NOT pg_catalog.pg_visible_in_snapshot( \
                (pg_catalog.pg_current_xact_id()::pg_catalog.text::pg_catalog.int8 \
                 OPERATOR(pg_catalog.-) pg_catalog.age(xmin))::pg_catalog.text::pg_catalog.xid8, \
                $2::pg_catalog.pg_snapshot) LIMIT 1",
        source = rollup.source_name,
        not_passed_over = passing::and_not_among(&column, &catalog::passed_over(rollup)),
    );
    let args = [spi::int8(Some(rollup.last_aggregated_id)), spi::text(Some(&snapshot))];
    let _session = AsRollup::new(rollup);
    spi::query_one(&query, &args, |_| ()).is_some()
}
