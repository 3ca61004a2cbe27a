//! Citus: where the rows of a table live, and a target that lives beside its events.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_literal;

use crate::error::{Error, Result};
use crate::pg::{session, spi};
use crate::rollup::catalog::{self, Rollup};
use crate::rollup::definition::Definition;
use crate::rollup::source;
use crate::rollup::window::{Bound, NodeWindow, Window};

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
    /// Group of the node.
    pub group: i32,
    /// Host and port.
    pub node: String,
    /// The value it returned as text; `None` for NULL.
    pub answer: Option<String>,
}

/// Asks every other node of the cluster the same question, a call of a function of this extension; nobody without
/// Citus. An error when one does not answer. Called under `catalog::internally`.
///
/// The node resolves names under its own search_path, so arguments are cast to exactly what is declared.
pub fn ask_other_nodes(call: &str) -> Result<Vec<Answer>> {
    if !is_installed() {
        return Ok(Vec::new());
    }
    let question = catalog::sql(&format!("SELECT @extschema@.{call}"));
    let answers = spi::query(
        "SELECT a.nodename || ':' || a.nodeport, a.success, NULLIF(a.result, ''), n.groupid \
         FROM run_command_on_workers($1) a JOIN pg_dist_node n USING (nodename, nodeport)",
        &[spi::text(Some(&question))],
        |row| {
            let (group, node) = (row.int4(4).unwrap_or(0), row.text(1).unwrap_or_default());
            (row.boolean(2), Answer { group, node, answer: row.text(3) })
        },
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

/// The position before the first id that a node of this group can draw: Citus gives each group a range of its own.
pub fn before_first_id(group: i32) -> i64 {
    i64::from(group) << 48
}

/// Whether events of a rollup can come in through other nodes with ids of theirs.
fn has_writers_elsewhere(rollup: &Rollup) -> bool {
    rollup.id_sequence.is_some()
        && matches!(placement(rollup.source), Placement::Distributed { .. } | Placement::SingleShard)
}

/// The new windows of the other nodes that have inserted events, as far as their writers have ended; the others are
/// left for the next run. Waits for open writers: up to `patience`, without it until they end.
pub fn windows_elsewhere(rollup: &Rollup, patience: Option<Duration>) -> Result<Vec<NodeWindow>> {
    if !has_writers_elsewhere(rollup) {
        return Ok(Vec::new());
    }
    let positions: HashMap<i32, i64> = catalog::node_positions(&rollup.name).into_iter().collect();
    let deadline = Deadline::new(patience);
    let mut heads: HashMap<i32, i64> = HashMap::new();
    loop {
        let turn = patience.unwrap_or(Duration::from_millis(500)).as_millis();
        let mut waiting = Vec::new();
        for Answer { group, node, answer } in
            ask_about_writers(rollup, &format!("wait_for_rollup_writers({turn}::pg_catalog.int8, "))?
        {
            match answer.and_then(|head| head.parse().ok()) {
                Some(head) => drop(heads.entry(group).or_insert(head)),
                None => waiting.push((group, node)),
            }
        }
        waiting.retain(|(group, _)| !heads.contains_key(group));
        if waiting.is_empty()
            || deadline.is_over("writers on other nodes", || waiting.iter().map(|w| w.1.clone()).collect())?
        {
            break;
        }
    }
    let mut windows: Vec<_> = heads
        .into_iter()
        .map(|(group, head)| {
            let start = positions.get(&group).copied().unwrap_or(before_first_id(group));
            let window = Window { start: Bound::Id(start), end: Bound::Id(head.max(start)) };
            NodeWindow { group, window }
        })
        .filter(|part| !part.window.is_empty() || positions.contains_key(&part.group))
        .collect();
    windows.sort_by_key(|part| part.group);
    Ok(windows)
}

/// Whether other nodes have drawn ids that the rollup has not aggregated yet.
pub fn has_news_elsewhere(rollup: &Rollup) -> Result<bool> {
    if !has_writers_elsewhere(rollup) {
        return Ok(false);
    }
    let positions: HashMap<i32, i64> = catalog::node_positions(&rollup.name).into_iter().collect();
    Ok(ask_about_writers(rollup, "rollup_source_head(")?.iter().any(|Answer { group, answer, .. }| {
        let head = answer.as_deref().and_then(|head| head.parse().ok()).unwrap_or(0);
        head > positions.get(group).copied().unwrap_or(before_first_id(*group))
    }))
}

/// Asks about the source of a rollup; the arguments that name it and its sequence come last.
fn ask_about_writers(rollup: &Rollup, call: &str) -> Result<Vec<Answer>> {
    let Some(sequence) = rollup.id_sequence else { return Ok(Vec::new()) };
    catalog::internally(|| {
        let argument = |name: &str| format!("{}::pg_catalog.text", quote_literal(name));
        let (source, sequence) = (argument(&rollup.source_name), argument(&source::relation_name(sequence)));
        ask_other_nodes(&format!("{call}{source}, {sequence})"))
    })
}

/// How long to wait for something that other nodes do.
struct Deadline {
    started: Instant,
    patience: Option<Duration>,
}

impl Deadline {
    fn new(patience: Option<Duration>) -> Self {
        Deadline { started: Instant::now(), patience }
    }

    /// Whether patience is over; without such a limit `lock_timeout` counts, which raises its error.
    fn is_over(&self, awaited: &str, who: impl FnOnce() -> Vec<String>) -> Result<bool> {
        session::check_for_interrupts();
        if let Some(patience) = self.patience {
            return Ok(self.started.elapsed() >= patience);
        }
        let lock_timeout = session::lock_timeout();
        if lock_timeout.is_zero() || self.started.elapsed() < lock_timeout {
            return Ok(false);
        }
        Err(Error::new(
            ERRCODE_LOCK_NOT_AVAILABLE,
            format!("canceling statement due to lock timeout while waiting for {awaited}"),
        )
        .detail(format!("They are: {}.", who().join(", ")))
        .hint("Raise lock_timeout, or end them; Citus recovers prepared transactions of its own by itself."))
    }
}

/// Waits until the distributed transactions that are prepared now have ended on every node: their writers look ended
/// before all nodes have committed, and after a failure they stay until Citus recovers them. Obeys cancel and
/// `lock_timeout`; with `patience`, gives up after it and returns false.
pub fn wait_for_prepared(patience: Option<Duration>) -> Result<bool> {
    if !catalog::internally(is_installed) {
        return Ok(true);
    }
    let deadline = Deadline::new(patience);
    let mut pending = prepared()?;
    let mut pause = Duration::from_millis(1);
    while !pending.is_empty() {
        if deadline.is_over("prepared transactions of the cluster", || pending.iter().cloned().collect())? {
            return Ok(false);
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
    catalog::internally(|| {
        let mut answers: Vec<_> =
            ask_other_nodes("pending_commits()")?.into_iter().map(|node| node.answer).collect();
        answers.push(pending_commits());
        Ok(answers.iter().flatten().flat_map(|gids| gids.split(' ')).map(str::to_owned).collect())
    })
}

/// The prepared transactions of Citus on this node, separated by spaces. Called under `catalog::internally`.
pub fn pending_commits() -> Option<String> {
    const PREPARED: &str = r"
        SELECT string_agg(gid, ' ') FROM pg_prepared_xacts
         WHERE gid LIKE 'citus\_%' AND database = current_database()";
    spi::query_one(PREPARED, &[], |row| row.text(1)).flatten()
}
