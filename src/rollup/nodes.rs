//! The other nodes of a Citus cluster: which ids their writers have drawn, and when those writers have ended.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use pgrx::PgSqlErrorCode::*;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::error::{Error, Result};
use crate::pg::{session, spi};
use crate::rollup::catalog::{self, Rollup};
use crate::rollup::run::AsRollup;
use crate::rollup::window::{Bound, NodeWindow, Window};
use crate::rollup::{citus, source};

/// What another node answered.
pub struct Answer {
    /// Group of the node.
    group: i32,
    /// Number of the node in `pg_dist_node`.
    id: i32,
    /// Host and port.
    node: String,
    /// The value it returned as text; `None` for NULL.
    pub answer: Option<String>,
}

/// Asks every other node of the cluster the same question, a query of one value; nobody without Citus. A node that is
/// disabled is asked too, because whoever is connected to it can still insert, but may be down: it is left out then. An
/// error when one of the others does not answer. Called under `catalog::internally`.
fn ask(question: &str) -> Result<Vec<Answer>> {
    const ASK: &str = "
        WITH nodes AS (SELECT * FROM pg_dist_node WHERE groupid <> 0 AND noderole = 'primary')
        SELECT n.groupid, n.nodeid, n.nodename || ':' || n.nodeport, a.success, NULLIF(a.result, ''), n.isactive
          FROM (SELECT COALESCE(array_agg(nodename), '{}') AS names, COALESCE(array_agg(nodeport), '{}') AS ports,
                       COALESCE(array_agg($1), '{}') AS questions FROM nodes) q,
               LATERAL master_run_on_worker(q.names, q.ports, q.questions, true) a
          JOIN nodes n ON n.nodename = a.node_name AND n.nodeport = a.node_port";
    if !citus::is_installed() {
        return Ok(Vec::new());
    }
    let answers = spi::query(ASK, &[spi::text(Some(question))], |row| {
        let (group, id) = (row.int4(1).unwrap_or(0), row.int4(2).unwrap_or(0));
        let answer = Answer { group, id, node: row.text(3).unwrap_or_default(), answer: row.text(5) };
        (row.boolean(4), row.boolean(6), answer)
    });
    answers
        .into_iter()
        .filter(|(success, is_active, _)| *success || *is_active)
        .map(|(success, _, answer)| match success {
            true => Ok(answer),
            false => Err(Error::new(
                ERRCODE_CONNECTION_FAILURE,
                format!("node {} cannot tell about its writers", answer.node),
            )
            .detail(format!("It said: {}.", answer.answer.unwrap_or_default()))
            .hint("The next run asks again; citus_disable_node() or citus_remove_node() gives a node up.")),
        })
        .collect()
}

/// Asks for a call of a function of this extension. The node resolves names under its own search_path, so arguments
/// are cast to exactly what is declared.
pub fn ask_to_call(call: &str) -> Result<Vec<Answer>> {
    ask(&catalog::sql(&format!("SELECT @extschema@.{call}")))
}

/// Asks about the source of a rollup; the arguments that name it and its sequence come last.
fn ask_about_writers(rollup: &Rollup, call: &str) -> Result<Vec<Answer>> {
    let Some(sequence) = rollup.id_sequence else { return Ok(Vec::new()) };
    catalog::internally(|| {
        let argument = |name: &str| format!("{}::pg_catalog.text", quote_literal(name));
        let (source, sequence) = (argument(&rollup.source_name), argument(&source::relation_name(sequence)));
        ask_to_call(&format!("{call}{source}, {sequence})"))
    })
}

/// The position before the first id that a node of this group can draw: Citus gives each group a range of its own.
pub fn before_first_id(group: i32) -> i64 {
    i64::from(group) << 48
}

/// Where a rollup has come to with the events of other nodes, and where it starts with those of a new one.
struct Positions(HashMap<i32, i64>);

impl Positions {
    fn of(rollup: &Rollup) -> Positions {
        Positions(catalog::node_positions(&rollup.name).into_iter().collect())
    }

    fn of_group(&self, group: i32) -> i64 {
        self.0.get(&group).copied().unwrap_or(before_first_id(group))
    }

    fn window(&self, group: i32, head: i64) -> NodeWindow {
        let start = self.of_group(group);
        NodeWindow { group, window: Window { start: Bound::Id(start), end: Bound::Id(head.max(start)) } }
    }
}

/// The new windows of the other nodes that have inserted events, as far as their writers have ended; the others are
/// left for the next run. Waits for open writers: up to `patience`, without it until they end.
pub fn windows_elsewhere(rollup: &Rollup, patience: Option<Duration>) -> Result<Vec<NodeWindow>> {
    let positions = Positions::of(rollup);
    let deadline = Deadline::new(patience);
    let mut heads: HashMap<i32, i64> = HashMap::new();
    let mut present: HashMap<i32, i32> = HashMap::new();
    let is_shared = rollup.id_sequence.is_some() && catalog::internally(|| citus::is_shared(rollup.source));
    let mut is_waiting = is_shared;
    while is_waiting {
        let turn = patience.unwrap_or(Duration::from_millis(500)).as_millis();
        let mut open = Vec::new();
        for Answer { group, id, node, answer } in
            ask_about_writers(rollup, &format!("wait_for_rollup_writers({turn}::pg_catalog.int8, "))?
        {
            present.insert(group, id);
            match answer.and_then(|head| head.parse().ok()) {
                Some(head) => drop(heads.entry(group).or_insert(head)),
                None => open.push((group, node)),
            }
        }
        open.retain(|(group, _)| !heads.contains_key(group));
        is_waiting = !open.is_empty()
            && !deadline
                .is_over("writers on other nodes", || open.into_iter().map(|(_, node)| node).collect())?;
    }
    let left_behind = left_behind(rollup, &positions, is_shared, &present.keys().copied().collect())?;
    if !left_behind.is_empty() && wait_for_strangers(present.values().copied().collect(), &deadline)? {
        heads.extend(left_behind);
    }
    let mut windows: Vec<_> = heads
        .into_iter()
        .map(|(group, head)| positions.window(group, head))
        .filter(|part| !part.window.is_empty() || positions.0.contains_key(&part.group))
        .collect();
    windows.sort_by_key(|part| part.group);
    Ok(windows)
}

/// Whether other nodes have drawn ids that the rollup has not aggregated yet.
pub fn has_news_elsewhere(rollup: &Rollup) -> Result<bool> {
    Ok(heads(rollup)?.iter().any(|head| head.lag() > 0))
}

/// How far another node has come, and the rollup with what it has inserted.
pub struct Head {
    pub group: i32,
    /// The last id that it has drawn; 0 for none.
    pub id: i64,
    pub position: i64,
}

impl Head {
    /// How many ids lie between the two.
    pub fn lag(&self) -> i64 {
        (self.id - self.position).max(0)
    }
}

/// Where the groups of the other nodes are, whoever may still be writing.
pub fn heads(rollup: &Rollup) -> Result<Vec<Head>> {
    let positions = Positions::of(rollup);
    let is_shared = rollup.id_sequence.is_some() && catalog::internally(|| citus::is_shared(rollup.source));
    let answers = if is_shared { ask_about_writers(rollup, "rollup_source_head(")? } else { Vec::new() };
    let head = |answer: Answer| (answer.group, answer.answer.and_then(|head| head.parse().ok()).unwrap_or(0));
    let mut heads: Vec<_> = answers.into_iter().map(head).collect();
    let present = heads.iter().map(|(group, _)| *group).collect();
    heads.extend(left_behind(rollup, &positions, is_shared, &present)?);
    Ok(heads.into_iter().map(|(group, id)| Head { group, id, position: positions.of_group(group) }).collect())
}

/// The groups of nodes that are no more, or are down and disabled, and the last of their events that the rollup has
/// not aggregated: nobody can be asked for a sequence, so the events themselves tell.
fn left_behind(
    rollup: &Rollup,
    positions: &Positions,
    is_shared: bool,
    present: &HashSet<i32>,
) -> Result<Vec<(i32, i64)>> {
    if rollup.id_sequence.is_none() {
        return Ok(Vec::new());
    }
    let mut groups: BTreeSet<i32> = positions.0.keys().copied().collect();
    if is_shared {
        groups.extend(catalog::internally(groups_ever));
    }
    groups.retain(|group| !present.contains(group));
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let column = quote_identifier(rollup.id_column.as_deref().unwrap_or_default());
    let ranges: Vec<_> = groups
        .iter()
        .map(|group| {
            format!(
                "{column} OPERATOR(pg_catalog.>) {} AND {column} OPERATOR(pg_catalog.<=) {}",
                positions.of_group(*group),
                before_first_id(group + 1)
            )
        })
        .collect();
    let query = format!(
        "SELECT (last OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog.>>) 48, last FROM ( \
            SELECT pg_catalog.max({column})::pg_catalog.int8 AS last FROM {} WHERE {} \
             GROUP BY ({column}::pg_catalog.int8 OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog.>>) 48) AS groups",
        rollup.source_name,
        ranges.join(" OR ")
    );
    let _session = AsRollup::new(rollup);
    Ok(spi::query(&query, &[], |row| (row.int8(1).unwrap_or(0) as i32, row.int8(2).unwrap_or(0))))
}

/// Writes down a position for every node there ever was, as far as there is none: once the source is no longer known
/// to all nodes, their events are looked for by it.
pub fn keep_positions(name: &str) {
    let known: HashSet<i32> = catalog::node_positions(name).into_iter().map(|(group, _)| group).collect();
    for group in groups_ever().filter(|group| !known.contains(group)) {
        catalog::set_node_position(name, group, before_first_id(group));
    }
}

/// Takes what other nodes have inserted so far for aggregated, as `start_from => 'now'` says.
pub fn start_now(rollup: &Rollup) -> Result<()> {
    for Head { group, id, .. } in heads(rollup)? {
        catalog::set_node_position(&rollup.name, group, id.max(before_first_id(group)));
    }
    Ok(())
}

/// The groups that Citus has ever given to other nodes. Called under `catalog::internally`.
fn groups_ever() -> impl Iterator<Item = i32> {
    let last = match citus::is_installed() {
        false => None,
        true => spi::query_one("SELECT last_value FROM pg_dist_groupid_seq WHERE is_called", &[], |row| {
            row.int8(1)
        }),
    };
    1..=last.flatten().unwrap_or(0) as i32
}

/// Waits until the transactions have ended that are open now and were begun by none of these nodes, nor by this one:
/// their node is gone, what it sent before may still be committed. Returns false when patience is over.
fn wait_for_strangers(mut known: HashSet<i32>, deadline: &Deadline) -> Result<bool> {
    // A global process id holds the node's number in its upper digits.
    const OPEN: &str = "SELECT string_agg(global_pid::text || '/' || transaction_number, ' ') \
                          FROM pg_catalog.get_all_active_transactions() WHERE transaction_number <> 0";
    let open = || -> Result<HashSet<String>> {
        let mut answers: Vec<_> =
            catalog::internally(|| ask(OPEN))?.into_iter().map(|node| node.answer).collect();
        answers.push(catalog::internally(|| spi::query_one(OPEN, &[], |row| row.text(1))).flatten());
        Ok(answers.iter().flatten().flat_map(|open| open.split(' ')).map(str::to_owned).collect())
    };
    const OWN: &str = "SELECT nodeid FROM pg_dist_node WHERE groupid = 0";
    known.extend(catalog::internally(|| spi::query(OWN, &[], |row| row.int4(1).unwrap_or(0))));
    let is_known = |transaction: &String| {
        let pid: i64 = transaction.split('/').next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
        known.contains(&((pid / 10_000_000_000) as i32))
    };
    let mut strangers = open()?;
    strangers.retain(|transaction| !is_known(transaction));
    deadline.wait_until_gone(strangers, "transactions of nodes that are gone", open)
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
        .hint(
            "Raise lock_timeout, or end them; Citus recovers prepared transactions of nodes that it has by itself.",
        ))
    }

    /// Waits until none of `pending` is in what `look` finds; false when patience is over.
    fn wait_until_gone(
        &self,
        mut pending: HashSet<String>,
        awaited: &str,
        look: impl Fn() -> Result<HashSet<String>>,
    ) -> Result<bool> {
        let mut pause = Duration::from_millis(1);
        while !pending.is_empty() {
            if self.is_over(awaited, || pending.iter().cloned().collect())? {
                return Ok(false);
            }
            session::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
            let still = look()?;
            pending.retain(|transaction| still.contains(transaction));
        }
        Ok(true)
    }
}

/// Waits until the distributed transactions that are prepared now have ended on every node: their writers look ended
/// before all nodes have committed, and after a failure they stay until Citus recovers them. Obeys cancel and
/// `lock_timeout`; with `patience`, gives up after it and returns false.
pub fn wait_for_prepared(patience: Option<Duration>) -> Result<bool> {
    if !catalog::internally(citus::is_installed) {
        return Ok(true);
    }
    let deadline = Deadline::new(patience);
    deadline.wait_until_gone(prepared()?, "prepared transactions of the cluster", prepared)
}

/// The prepared transactions of Citus on all nodes.
fn prepared() -> Result<HashSet<String>> {
    catalog::internally(|| {
        let mut answers: Vec<_> =
            ask_to_call("pending_commits()")?.into_iter().map(|node| node.answer).collect();
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
