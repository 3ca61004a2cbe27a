//! A simple model against the real thing: random interleavings of writers, runs and everything else that can happen to
//! a rollup, each step checked. `ROLLUP_EXT_SEED` repeats a run, `ROLLUP_EXT_MODEL_STEPS` makes it longer.

use std::collections::BTreeMap;

use cluster_tests::random::{Random, setting};
use cluster_tests::{Cluster, Sql, wait_for};
use postgres::Client;

const SESSIONS: u64 = 5;

const SETUP: &str = "
    CREATE TABLE events (id bigserial, part int, kind int, value int) PARTITION BY LIST (part);
    CREATE TABLE events_0 PARTITION OF events FOR VALUES IN (0);
    CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1) PARTITION BY LIST (kind);
    CREATE TABLE events_1_rest PARTITION OF events_1 DEFAULT;
    CREATE VIEW shown AS SELECT part, kind, value FROM events;
    CREATE TABLE orders (part int, kind int, value int);
    CREATE FUNCTION pass_on() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO events (part, kind, value) VALUES (NEW.part, NEW.kind, NEW.value); RETURN NEW; END $$;
    CREATE TRIGGER pass_on BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION pass_on();
    CREATE RULE also AS ON INSERT TO orders WHERE NEW.value = 7
        DO ALSO INSERT INTO events (part, kind, value) VALUES (NEW.part, NEW.kind, 1000);
    SELECT register_rollup('by_hand', 'SELECT kind, count(*) AS events, sum(value) AS total FROM events GROUP BY kind',
        source => 'events');
    SELECT register_rollup('by_worker', 'SELECT kind, count(*) AS events, sum(value) AS total FROM events GROUP BY kind',
        source => 'events', schedule => '1 second', batch_size => 37);
    -- While vacuum cuts a table short it stands in the way of everybody.
    ALTER TABLE by_hand SET (vacuum_truncate = off)";

/// Count and sum by kind.
type Totals = BTreeMap<i32, (i64, i64)>;

fn add(totals: &mut Totals, rows: &[(i32, i64)]) {
    for (kind, value) in rows {
        let (count, sum) = totals.entry(*kind).or_default();
        *count += 1;
        *sum += value;
    }
}

/// An open or prepared transaction.
#[derive(Clone, Default)]
struct Transaction {
    rows: Vec<(i32, i64)>,
    /// Whether it drew ids, of rows that it may have taken back since.
    drew: bool,
    /// What the rollup holds if it commits, when it ran or reset it.
    rollup: Option<Totals>,
    /// What each savepoint goes back to.
    savepoints: Vec<(usize, Option<Totals>)>,
    /// Whether it locked the rollup's row, and keeps it to its end or to the savepoint before it.
    holds: bool,
}

struct Model {
    clients: Vec<Client>,
    open: Vec<Option<Transaction>>,
    prepared: Vec<(String, Transaction)>,
    committed: Totals,
    rollup: Totals,
    random: Random,
    successes: u32,
    refusals: u32,
    number: u32,
}

impl Model {
    fn commit(&mut self, transaction: Transaction) {
        add(&mut self.committed, &transaction.rows);
        if let Some(rollup) = transaction.rollup {
            self.rollup = rollup;
        }
    }

    /// The transactions of others than session `me`.
    fn others(&self, me: Option<usize>) -> impl Iterator<Item = &Transaction> {
        let open =
            self.open.iter().enumerate().filter(move |(i, _)| Some(*i) != me).filter_map(|(_, t)| t.as_ref());
        open.chain(self.prepared.iter().map(|(_, transaction)| transaction))
    }

    /// Inserts rows in one of many ways.
    fn insert(&mut self, me: usize) {
        let n = 1 + self.random.below(5) as i64;
        let kind = self.random.below(4) as i32;
        let part = self.random.below(2);
        let mut rows: Vec<(i32, i64)> = (1..=n).map(|i| (kind, i)).collect();
        let select = format!("SELECT {part}, {kind}, i FROM generate_series(1, {n}) i");
        let way = self.random.below(7);
        let statement = match way {
            0 => format!("INSERT INTO shown (part, kind, value) {select}"),
            1 => format!(
                "INSERT INTO events_1_rest (part, kind, value) SELECT 1, {kind}, i FROM generate_series(1, {n}) i"
            ),
            2 => format!("INSERT INTO orders {select}"),
            3 => {
                // The rule adds another row.
                rows = vec![(kind, 7), (kind, 1000)];
                format!("INSERT INTO orders VALUES ({part}, {kind}, 7)")
            }
            4 => format!(
                "WITH moved AS (INSERT INTO events (part, kind, value) {select} RETURNING 1) SELECT count(*) FROM moved"
            ),
            5 => format!(
                "DO $$ BEGIN INSERT INTO events (part, kind, value) {select}; \
                 BEGIN INSERT INTO events (part, kind, value) {select}; RAISE EXCEPTION 'no'; \
                 EXCEPTION WHEN OTHERS THEN NULL; END; END $$"
            ),
            _ => format!("INSERT INTO events (part, kind, value) {select}"),
        };
        self.clients[me].run(&statement);
        match &mut self.open[me] {
            Some(transaction) => {
                transaction.rows.extend(&rows);
                transaction.drew = true;
            }
            None => add(&mut self.committed, &rows),
        }
    }

    /// Runs the rollup, or does something else that locks it; says what the model expects and checks it.
    fn run(&mut self, me: usize, what: u64) {
        let statement = match what {
            0 => "SELECT reset_rollup('by_hand')",
            1 => "SELECT refresh_rollup('by_hand')",
            2 => "SELECT pause_rollup('by_hand'); SELECT resume_rollup('by_hand')",
            3 => "SELECT run_rollup('by_hand', '0')",
            _ => "SELECT run_rollup('by_hand')",
        };
        let is_held = self.others(Some(me)).any(|other| other.holds);
        let expects_error = is_held || what > 3 && self.others(Some(me)).any(|other| other.drew);
        let in_transaction = self.open[me].is_some();
        if in_transaction {
            self.clients[me].run("SAVEPOINT attempt");
        }
        let result = self.clients[me].batch_execute(statement);
        let code =
            result.as_ref().err().and_then(|error| error.as_db_error()).map(|error| error.code().code());
        let expected = expects_error.then_some("55P03");
        assert_eq!(code, expected, "{statement}: {result:?}");
        if expects_error {
            self.refusals += 1;
            if in_transaction {
                self.clients[me].run("ROLLBACK TO attempt");
            }
            return;
        }
        self.successes += 1;
        let own = self.open[me].as_ref().map(|t| t.rows.clone()).unwrap_or_default();
        let after = match what {
            0 => Some(Totals::new()),
            1 | 2 => None,
            _ => {
                let mut all = self.committed.clone();
                add(&mut all, &own);
                Some(all)
            }
        };
        match &mut self.open[me] {
            Some(transaction) => {
                transaction.holds = true;
                if after.is_some() {
                    transaction.rollup = after;
                }
            }
            None => self.rollup = after.unwrap_or_else(|| self.rollup.clone()),
        }
    }

    fn step(&mut self) {
        let me = self.random.below(SESSIONS) as usize;
        let choice = self.random.below(100);
        let is_open = self.open[me].is_some();
        match choice {
            0..=29 => self.insert(me),
            30..=41 if !is_open => {
                self.clients[me].run("BEGIN");
                self.open[me] = Some(Transaction::default());
            }
            30..=39 => {
                self.clients[me].run("COMMIT");
                let transaction = self.open[me].take().expect("it is open");
                self.commit(transaction);
            }
            40..=44 if is_open => {
                self.clients[me].run("ROLLBACK");
                self.open[me] = None;
            }
            45..=49 => {
                if let Some(transaction) = &mut self.open[me] {
                    self.clients[me].run(&format!("SAVEPOINT s{}", transaction.savepoints.len()));
                    transaction.savepoints.push((transaction.rows.len(), transaction.rollup.clone()));
                }
            }
            50..=54 => {
                if let Some(transaction) = &mut self.open[me]
                    // A row lock goes with its savepoint, but whether others may have it then is not modelled.
                    && !transaction.holds
                    && let Some((rows, rollup)) = transaction.savepoints.pop()
                {
                    self.clients[me].run(&format!("ROLLBACK TO s{}", transaction.savepoints.len()));
                    transaction.rows.truncate(rows);
                    transaction.rollup = rollup;
                }
            }
            55..=58 if is_open && self.prepared.len() < 3 => {
                self.number += 1;
                let name = format!("p{}", self.number);
                self.clients[me].run(&format!("PREPARE TRANSACTION '{name}'"));
                let transaction = self.open[me].take().expect("it is open");
                self.prepared.push((name, transaction));
            }
            59..=66 if !is_open && !self.prepared.is_empty() => {
                let chosen = self.random.below(self.prepared.len() as u64) as usize;
                let (name, transaction) = self.prepared.swap_remove(chosen);
                if self.random.percent(70) {
                    self.clients[me].run(&format!("COMMIT PREPARED '{name}'"));
                    self.commit(transaction);
                } else {
                    self.clients[me].run(&format!("ROLLBACK PREPARED '{name}'"));
                }
            }
            67..=69 => self.run(me, 0),
            70..=71 => self.run(me, 1),
            72 => self.run(me, 2),
            73..=79 => self.run(me, 3),
            80..=90 => self.run(me, 4),
            91 => {
                // Where writers are open it times out, and that is all.
                self.number += 1;
                let n = self.number;
                let ddl = match self.random.below(3) {
                    0 => format!("ALTER TABLE events ADD COLUMN c{n} int DEFAULT {n}"),
                    1 => format!("CREATE TABLE new_{n} PARTITION OF events FOR VALUES IN ({})", n + 10),
                    _ => "ANALYZE events".to_owned(),
                };
                if !is_open {
                    let _ = self.clients[me].batch_execute(&ddl);
                }
            }
            92..=96 => self.check(),
            // Everybody ends, so that runs succeed now and then.
            97..=99 => self.end_all(),
            _ => {}
        }
    }

    fn end_all(&mut self) {
        for me in 0..self.clients.len() {
            if let Some(transaction) = self.open[me].take() {
                self.clients[me].run("COMMIT");
                self.commit(transaction);
            }
        }
        for (name, transaction) in std::mem::take(&mut self.prepared) {
            self.clients[0].run(&format!("COMMIT PREPARED '{name}'"));
            self.commit(transaction);
        }
    }

    /// What the database holds is what the model holds.
    fn check(&mut self) {
        let client = self.clients.last_mut().expect("the observer");
        let lines = |totals: &Totals| -> Vec<String> {
            totals.iter().map(|(kind, (count, sum))| format!("{kind}|{count}|{sum}")).collect()
        };
        let events =
            client.lines("SELECT kind, count(*), sum(value) FROM events GROUP BY kind ORDER BY kind");
        assert_eq!(events, lines(&self.committed), "the events");
        let rollup = client.lines("SELECT kind, events, total FROM by_hand ORDER BY kind");
        assert_eq!(rollup, lines(&self.rollup), "the rollup that is run by hand");
        let worker = "(SELECT kind, events, total FROM by_worker) e";
        let fresh = "(SELECT kind, count(*), sum(value) FROM events, rollups r \
                WHERE r.name = 'by_worker' AND id <= last_aggregated_id AND NOT id <@ passed_over GROUP BY kind) f";
        let difference = client.lines(&format!(
            "(SELECT * FROM {worker} EXCEPT ALL SELECT * FROM {fresh})
             UNION ALL (SELECT * FROM {fresh} EXCEPT ALL SELECT * FROM {worker})"
        ));
        assert_eq!(difference, Vec::<String>::new(), "the rollup of the worker");
    }
}

#[test]
fn random_interleavings_agree_with_a_simple_model() {
    let steps = setting("ROLLUP_EXT_MODEL_STEPS", || 2500);
    let random = Random::from_environment();
    let cluster = Cluster::start(
        "autovacuum_naptime = 1s\ndeadlock_timeout = 10ms\nlog_lock_waits = on\nrollup_ext.blocked_patience = 1",
    );
    cluster.database("shop").run(SETUP);
    // One more than the sessions: the observer.
    let clients: Vec<Client> = (0..=SESSIONS)
        .map(|_| {
            let mut client = cluster.connect("shop");
            client.run("SET lock_timeout = '20ms'; SET client_min_messages = error");
            client
        })
        .collect();
    let mut model = Model {
        open: clients.iter().map(|_| None).collect(),
        clients,
        prepared: Vec::new(),
        committed: Totals::new(),
        rollup: Totals::new(),
        random,
        successes: 0,
        refusals: 0,
        number: 0,
    };
    for step in 1..=steps {
        model.step();
        if step % 500 == 0 {
            model.check();
        }
    }
    model.end_all();
    model.run(0, 4);
    model.check();
    assert_eq!(model.rollup, model.committed);
    let client = model.clients.last_mut().expect("the observer");
    let last: i64 = client.value("SELECT max(id) FROM events");
    wait_for("the worker has aggregated everything", 30, || {
        let done = "SELECT last_aggregated_id FROM rollups WHERE name = 'by_worker'";
        (client.value::<i64>(done) >= last).then_some(())
    });
    model.check();
    for rollup in ["by_hand", "by_worker"] {
        let differing = format!("SELECT * FROM verify_rollup('{rollup}')");
        assert_eq!(model.clients[0].lines(&differing), Vec::<String>::new());
    }
    let events: i64 = model.committed.values().map(|(count, _)| count).sum();
    println!(
        "{steps} steps, {events} events, {} operations on the rollup, {} refused",
        model.successes, model.refusals
    );
}
