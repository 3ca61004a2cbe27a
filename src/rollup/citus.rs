//! Citus: where the rows of a table live, and a target that lives beside its events.

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_literal;

use crate::error::{Error, Result};
use crate::pg::session::AsRole;
use crate::pg::spi;
use crate::rollup::catalog::{self, Kind, Rollup};
use crate::rollup::definition::Definition;
use crate::rollup::source;

/// How a table is spread over the nodes.
#[derive(Debug)]
pub enum Placement {
    /// On this node alone.
    Local,
    /// A copy on every node.
    Reference,
    /// In shards by the value of a column.
    Distributed { column: String },
    /// In one shard (schema-based sharding).
    SingleShard,
}

/// Whether this database belongs to a Citus cluster. Called under `catalog::internally`.
pub fn is_installed() -> bool {
    spi::query_one("SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL", &[], |row| {
        row.boolean(1)
    })
    .unwrap_or(false)
}

/// Whether rollups run here: everywhere but on a worker node of Citus. Called under `catalog::internally`.
pub fn is_coordinator() -> bool {
    !is_installed()
        || spi::query_one("SELECT groupid = 0 FROM pg_dist_local_group", &[], |row| row.boolean(1))
            .unwrap_or(false)
}

/// Refuses what belongs on the coordinator.
pub fn check_coordinator() -> Result<()> {
    if catalog::internally(is_coordinator) {
        return Ok(());
    }
    Err(Error::new(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "rollups are registered on the coordinator")
        .detail("This node is a worker of a Citus cluster; it holds no positions.")
        .hint("Connect to the coordinator; SELECT * FROM citus_get_active_worker_nodes(); shows the others."))
}

/// How the rows of a table are spread.
pub fn placement(table: Oid) -> Placement {
    const PLACEMENT: &str = "
        SELECT partmethod::text, repmodel::text, colocationid > 0,
               CASE WHEN partkey IS NOT NULL THEN column_to_column_name(logicalrelid, partkey) END
          FROM pg_dist_partition WHERE logicalrelid = $1";
    catalog::internally(|| {
        if !is_installed() {
            return Placement::Local;
        }
        let found = spi::query_one(PLACEMENT, &[spi::oid(Some(table))], |row| {
            (row.text(1).unwrap_or_default(), row.text(2).unwrap_or_default(), row.boolean(3), row.text(4))
        });
        match found {
            None => Placement::Local,
            Some((_, _, _, Some(column))) => Placement::Distributed { column },
            Some((_, replication, _, None)) if replication == "t" => Placement::Reference,
            Some((_, _, true, None)) => Placement::SingleShard,
            Some(_) => Placement::Local,
        }
    })
}

/// The statement that puts a new target where its events are, so that a run never crosses the network; none for a
/// local source.
pub fn distribute_sql(definition: &Definition, target: &str) -> Result<Option<String>> {
    let source = definition.source.oid;
    let source_name = catalog::internally(|| source::relation_name(source));
    let distribute = |column: &str| {
        format!(
            "SELECT pg_catalog.create_distributed_table({}, {column}, colocate_with => {})",
            quote_literal(target),
            quote_literal(&source_name)
        )
    };
    Ok(match placement(source) {
        Placement::Local => None,
        Placement::Reference => {
            Some(format!("SELECT pg_catalog.create_reference_table({})", quote_literal(target)))
        }
        Placement::SingleShard => Some(distribute("NULL")),
        Placement::Distributed { column } => {
            let key =
                definition.keys.iter().find(|key| key.source_column.as_deref() == Some(column.as_str()));
            let Some(key) = key else {
                return Err(Error::new(
                    ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("the group key does not contain \"{column}\", the distribution column of \"{source_name}\""),
                )
                .detail("The events of a group would lie on several nodes and have to be pulled to the coordinator.")
                .hint(format!(
                    "Add {column} to SELECT and GROUP BY, or accept the slower plan: create {target} yourself, with a \
                     unique index over the group key, before registering."
                )));
            };
            Some(distribute(&quote_literal(&key.name)))
        }
    })
}

/// Whether the rows of a table are known to every node, so that all of them can insert. Called under
/// `catalog::internally`.
pub fn is_shared(table: Oid) -> bool {
    const SHARED: &str = "SELECT true FROM pg_dist_partition WHERE logicalrelid = $1";
    is_installed() && spi::query_one(SHARED, &[spi::oid(Some(table))], |_| ()).is_some()
}

/// Makes the current transaction commit on all nodes or on none. By itself Citus commits what goes to one shard before
/// the coordinator does: a crash in between would leave the result there and the position here where it was.
///
/// Writing no row to a shared table by way of the coordinator is what makes Citus choose two-phase commit from SQL. Any
/// such table will do, but not the source of a rollup: its lock would make us a writer there.
pub fn commit_everywhere(rollup: &Rollup) {
    const TABLE: &str = "
        SELECT c.oid::regclass::text, c.relowner,
               string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
               string_agg('NULL::' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
          FROM pg_dist_partition p
          JOIN pg_class c ON c.oid = p.logicalrelid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           AND a.attgenerated = '' AND a.attidentity <> 'a'
         WHERE c.oid = $1 OR $1 IS NULL
         GROUP BY c.oid, c.relowner
         ORDER BY c.oid IN (SELECT r.source::oid FROM @extschema@.rollups r), c.oid LIMIT 1";
    // Where a command or the caller writes to is not known.
    let target = match rollup.kind {
        Kind::Declarative { target, .. } => Some(target),
        _ => None,
    };
    let table = catalog::internally(|| match is_installed() {
        false => None,
        true => spi::query_one(&catalog::sql(TABLE), &[spi::oid(target)], |row| {
            (row.text(1), row.oid(2), row.text(3), row.text(4))
        }),
    });
    let Some((Some(table), Some(owner), Some(columns), Some(nulls))) = table else { return };
    let _owner = AsRole::owner(owner);
    spi::execute(
        &format!("INSERT INTO {table} ({columns}) SELECT {nulls} FROM pg_catalog.generate_series(1, 0)"),
        &[],
    );
}
