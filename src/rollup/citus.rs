//! Citus: where the rows of a table live, and a target that lives beside its events.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_literal;

use crate::error::{Error, Result};
use crate::pg::{session, spi};
use crate::rollup::catalog::{self, Rollup};
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
fn is_installed() -> bool {
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

/// What another node answered.
pub struct Answer {
    /// Host and port.
    pub node: String,
    /// The value it returned as text; `None` for NULL.
    pub answer: Option<String>,
}

/// Asks every other node of the cluster the same question, a SELECT of one value; nobody without Citus. An error
/// when one does not answer. Called under `catalog::internally`.
pub fn ask_other_nodes(question: &str) -> Result<Vec<Answer>> {
    if !is_installed() {
        return Ok(Vec::new());
    }
    let answers = spi::query(
        "SELECT nodename || ':' || nodeport, success, NULLIF(result, '') FROM run_command_on_workers($1)",
        &[spi::text(Some(question))],
        |row| (row.boolean(2), Answer { node: row.text(1).unwrap_or_default(), answer: row.text(3) }),
    );
    answers
        .into_iter()
        .map(|(success, answer)| match success {
            true => Ok(answer),
            false => Err(Error::new(
                ERRCODE_CONNECTION_FAILURE,
                format!("node {} cannot tell about its writers", answer.node),
            )
            .detail(format!("It said: {}.", answer.answer.unwrap_or_default()))
            .hint("The next run asks again.")),
        })
        .collect()
}

/// Refuses to run past events that came in through other nodes: their ids are drawn from another range there, and
/// the coordinator's sequence says nothing about them. Called under `catalog::internally`.
pub fn check_no_other_writers(rollup: &Rollup, sequence: Oid) -> Result<()> {
    if !matches!(placement(rollup.source), Placement::Distributed { .. } | Placement::SingleShard) {
        return Ok(());
    }
    let sequence = source::relation_name(sequence);
    // A node without metadata has no such sequence, and cannot draw from it.
    let last_value = format!("SELECT pg_sequence_last_value(to_regclass({}))", quote_literal(&sequence));
    match ask_other_nodes(&last_value)?.into_iter().find(|node| node.answer.is_some()) {
        None => Ok(()),
        Some(Answer { node, .. }) => Err(Error::new(
            ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("events were inserted into \"{}\" through node {node}", rollup.source_name),
        )
        .detail(format!("Its ids are not drawn from the range of the coordinator's sequence \"{sequence}\"."))
        .hint("Insert the events through the coordinator, or follow a time column instead of ids.")),
    }
}

/// Waits until the distributed transactions that are prepared now have ended on every node: their writers look ended
/// before all nodes have committed, and after a failure they stay until Citus recovers them. Obeys cancel and
/// `lock_timeout`; with `patience`, gives up after it and returns false.
pub fn wait_for_prepared(patience: Option<Duration>) -> Result<bool> {
    if !catalog::internally(is_installed) {
        return Ok(true);
    }
    let started = Instant::now();
    let lock_timeout = Some(session::lock_timeout()).filter(|timeout| !timeout.is_zero());
    let mut pending = prepared()?;
    let mut pause = Duration::from_millis(1);
    while !pending.is_empty() {
        if patience.is_some_and(|patience| started.elapsed() >= patience) {
            return Ok(false);
        }
        if lock_timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
            return Err(Error::new(
                ERRCODE_LOCK_NOT_AVAILABLE,
                "canceling statement due to lock timeout while waiting for prepared transactions of the cluster",
            )
            .detail(format!("They are: {}.", pending.into_iter().collect::<Vec<_>>().join(", ")))
            .hint("Citus recovers them by itself; SELECT recover_prepared_transactions(); does it at once."));
        }
        session::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
        let still = prepared()?;
        pending.retain(|transaction| still.contains(transaction));
    }
    Ok(true)
}

/// The prepared transactions of Citus on all nodes.
fn prepared() -> Result<HashSet<String>> {
    const PREPARED: &str = r"
        SELECT string_agg(gid, ' ') FROM pg_prepared_xacts WHERE gid LIKE 'citus\_%' AND database = current_database()";
    catalog::internally(|| {
        let mut answers: Vec<_> = ask_other_nodes(PREPARED)?.into_iter().map(|node| node.answer).collect();
        answers.push(spi::query_one(PREPARED, &[], |row| row.text(1)).flatten());
        Ok(answers.iter().flatten().flat_map(|gids| gids.split(' ')).map(str::to_owned).collect())
    })
}
