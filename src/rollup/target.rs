//! The table that a declarative rollup keeps up to date: made to fit, or checked.

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;
use pgrx::{PgLogLevel, PgSqlErrorCode};

use crate::error::{Error, Result};
use crate::pg::session::WithSettings;
use crate::pg::spi;
use crate::rollup::definition::Definition;
use crate::rollup::source::FAMILY;
use crate::rollup::{catalog, citus};

/// The table of this name, if there is one: its oid.
pub fn find(name: &str) -> Option<Oid> {
    spi::query_one("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", &[spi::text(Some(name))], |row| {
        row.oid(1)
    })
    .flatten()
}

/// Creates the target from the view that defines it, with a unique index over the group key in which NULLs are equal.
/// Rows of a rollup are updated again and again, so the pages keep room for their new versions.
pub fn create(target: &str, view: &str, definition: &Definition, rollup: &str) -> Result<Oid> {
    spi::execute(
        &format!("CREATE TABLE {target} WITH (fillfactor = 80) AS SELECT * FROM {view} WITH NO DATA"),
        &[],
    );
    let nulls = if definition.keys.is_empty() { "" } else { " NULLS NOT DISTINCT" };
    spi::execute(&format!("CREATE UNIQUE INDEX ON {target} ({}){nulls}", key_list(definition)), &[]);
    spi::execute(
        &format!(
            "COMMENT ON TABLE {target} IS {}",
            pgrx::spi::quote_literal(format!("kept up to date by rollup \"{rollup}\""))
        ),
        &[],
    );
    find(target).ok_or_else(|| Error::new(ERRCODE_UNDEFINED_TABLE, format!("table {target} does not exist")))
}

/// What the unique index of a target is over. A rollup without GROUP BY has one row, and ON CONFLICT needs something
/// that is unique about it.
fn key_list(definition: &Definition) -> String {
    if definition.keys.is_empty() { "(true)".into() } else { definition.key_list() }
}

/// Checks a table that was there before: columns, types, and a unique index that finds every group again.
pub fn check(target: Oid, name: &str, definition: &Definition) -> Result<()> {
    let kind = catalog::internally(|| {
        spi::query_one(
            "SELECT relkind::text FROM pg_class WHERE oid = $1",
            &[spi::oid(Some(target))],
            |row| row.text(1),
        )
    });
    if !matches!(kind.flatten().as_deref(), Some("r" | "p")) {
        return Err(Error::new(ERRCODE_WRONG_OBJECT_TYPE, format!("target \"{name}\" is not a table"))
            .hint("Name another one: target => '...'; it is created when it does not exist."));
    }
    check_columns(target, name, definition)?;
    check_unique_key(target, name, definition)
}

fn check_columns(target: Oid, name: &str, definition: &Definition) -> Result<()> {
    const COLUMNS: &str = "
        SELECT a.attname::text, format_type(a.atttypid, NULL), a.atttypid,
               a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
          FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";
    let columns = catalog::internally(|| {
        spi::query(COLUMNS, &[spi::oid(Some(target))], |row| {
            (row.text(1).unwrap_or_default(), row.text(2).unwrap_or_default(), row.oid(3), row.boolean(4))
        })
    });
    let keys = definition.keys.iter().map(|k| (&k.name, &k.type_name, k.type_oid));
    let measures = definition.measures.iter().map(|m| (&m.name, &m.type_name, m.type_oid));
    let wanted: Vec<_> = keys.chain(measures).collect();
    for (column, type_name, type_oid) in &wanted {
        match columns.iter().find(|(found, ..)| found == *column) {
            None => {
                return Err(Error::new(
                    ERRCODE_UNDEFINED_COLUMN,
                    format!("target \"{name}\" has no column \"{column}\""),
                )
                .hint(format!("ALTER TABLE {name} ADD COLUMN {} {type_name};", quote_identifier(column))));
            }
            Some((_, found_type, found_oid, _)) if *found_oid != Some(*type_oid) => {
                return Err(Error::new(
                    ERRCODE_DATATYPE_MISMATCH,
                    format!("column \"{column}\" of target \"{name}\" is of type {found_type}, the query's of {type_name}"),
                )
                .hint(format!("Cast in the query, or ALTER TABLE {name} ALTER COLUMN {} TYPE {type_name};", quote_identifier(column))));
            }
            Some(_) => {}
        }
    }
    let unfilled = columns
        .iter()
        .find(|(found, _, _, required)| *required && !wanted.iter().any(|(column, ..)| *column == found));
    match unfilled {
        None => Ok(()),
        Some((column, ..)) => Err(Error::new(
            ERRCODE_NOT_NULL_VIOLATION,
            format!(
                "column \"{column}\" of target \"{name}\" must not be NULL, but the query does not fill it"
            ),
        )
        .hint("Add it to the query, or give it a default.")),
    }
}

fn check_unique_key(target: Oid, name: &str, definition: &Definition) -> Result<()> {
    // Unique indexes over exactly the key columns; the last column says whether NULLs in the key find their row.
    const INDEXES: &str = "
        SELECT i.indexrelid::regclass::text,
               i.indnullsnotdistinct OR NOT EXISTS (
                   SELECT FROM pg_attribute a
                    WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull)
          FROM pg_index i
         WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
           AND CASE WHEN cardinality($2) = 0 THEN pg_get_expr(i.indexprs, i.indrelid) = 'true'
               ELSE i.indexprs IS NULL AND i.indnkeyatts = cardinality($2) AND $2 = (
                   SELECT array_agg(a.attname::text ORDER BY a.attname::text)
                     FROM pg_attribute a
                    WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])) END";
    let mut key: Vec<String> = definition.keys.iter().map(|key| key.name.clone()).collect();
    key.sort();
    let indexes = catalog::internally(|| {
        spi::query(INDEXES, &[spi::oid(Some(target)), spi::text_array(key)], |row| {
            (row.text(1).unwrap_or_default(), row.boolean(2))
        })
    });
    let nulls = if definition.keys.is_empty() { "" } else { " NULLS NOT DISTINCT" };
    let create = format!("CREATE UNIQUE INDEX ON {name} ({}){nulls};", key_list(definition));
    if indexes.iter().any(|(_, finds_nulls)| *finds_nulls) {
        return Ok(());
    }
    Err(match indexes.first() {
        None => Error::new(
            ERRCODE_INVALID_OBJECT_DEFINITION,
            format!("target \"{name}\" has no unique index over the group key"),
        )
        .detail(format!(
            "The group key is ({}); a run finds the row of each group by it.",
            key_list(definition)
        ))
        .hint(create),
        Some((index, _)) => Error::new(
            ERRCODE_INVALID_OBJECT_DEFINITION,
            format!("unique index \"{index}\" does not find groups whose key holds a NULL"),
        )
        .detail("Such a group would get a further row with every run.")
        .hint(format!("{create} or make the columns of the key NOT NULL.")),
    })
}

/// Whether the table has rows.
pub fn has_rows(name: &str) -> bool {
    // For the rest of the transaction Citus goes to a shard over the connection that has been there. Unless each shard
    // gets one of its own, a quick look into all of them leaves a run one connection for all shards of a node.
    let settings: &[_] = match catalog::internally(citus::is_installed) {
        true => &[("citus.force_max_query_parallelization", "on")],
        false => &[],
    };
    let _session = WithSettings::new(settings);
    spi::query_one(&format!("SELECT 1 FROM {name} LIMIT 1"), &[], |_| ()).is_some()
}

/// Sees to it that a run costs what its window holds: some index leads with the column that orders the events. A BRIN
/// index is small and suits a column that grows with the table, but a columnar partition can have none; a large table
/// is left to its owner, because building an index keeps writers out.
pub fn index_source(source: Oid, source_name: &str, column: &str) {
    const LARGE: i64 = 256 << 20;
    const FACTS: &str = "
        SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                        WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND a.attname = $2),
               pg_has_role($3, c.relowner, 'USAGE'),
               (SELECT sum(pg_relation_size(oid))::bigint FROM partitions),
               EXISTS (SELECT FROM partitions JOIN pg_class p USING (oid) JOIN pg_am m ON m.oid = p.relam
                        WHERE m.amname <> 'heap')
          FROM pg_class c WHERE c.oid = $1";
    let args =
        [spi::oid(Some(source)), spi::text(Some(column)), spi::oid(Some(crate::pg::session::current_user()))];
    let facts = catalog::internally(|| {
        spi::query_one(&format!("{FAMILY}{FACTS}"), &args, |row| {
            (row.boolean(1), row.boolean(2), row.int8(3).unwrap_or(0), row.boolean(4))
        })
    });
    let Some((false, may_create, size, only_btree)) = facts else { return };
    let quoted = quote_identifier(column);
    let (kind, method) = match only_btree {
        true => ("btree", format!("btree ({quoted})")),
        false => ("BRIN", format!("brin ({quoted}) WITH (autosummarize = on)")),
    };
    let ddl = format!("INDEX ON {source_name} USING {method}");
    let notice = |message: String| Error::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message);
    if !may_create {
        notice(format!(
            "no index leads with column \"{column}\" of \"{source_name}\", so every run reads the whole table"
        ))
        .hint(format!("Its owner can run: CREATE {ddl};"))
        .report(PgLogLevel::NOTICE);
    } else if size > LARGE {
        notice(format!(
            "no index leads with column \"{column}\" of \"{source_name}\", so every run reads the whole table"
        ))
        .detail("The table is large, and building an index now would keep its writers waiting.")
        .hint(format!("CREATE INDEX CONCURRENTLY{};", ddl.trim_start_matches("INDEX")))
        .report(PgLogLevel::NOTICE);
    } else {
        spi::execute(&format!("CREATE {ddl}"), &[]);
        notice(format!("created a {kind} index on column \"{column}\" of \"{source_name}\""))
            .detail("With it a run costs what its window holds.")
            .report(PgLogLevel::NOTICE);
    }
}
