//! Writers of all kinds, many at once, that survive the server's crashes, and the oracle for what they wrote.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use postgres::{Client, Config, NoTls};

use crate::random::Random;
use crate::sql::Sql;

/// A partitioned event table and two rollups of it that run each second, with live views.
pub const EVENTS: &str = "
    CREATE TABLE events (id bigserial, part int, kind int, value int, batch bigint) PARTITION BY LIST (part);
    CREATE TABLE events_0 PARTITION OF events FOR VALUES IN (0);
    CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
    CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2);
    SELECT register_rollup('kinds', 'SELECT kind, count(*) AS events, sum(value) AS total, max(id) AS latest
        FROM events GROUP BY kind', schedule => '1 second');
    SELECT register_rollup('everything', 'SELECT count(*) AS events, sum(value) AS total FROM events',
        schedule => '1 second', batch_size => 20000);
    SELECT create_live_view('kinds'), create_live_view('everything')";

/// Makes each run of `kinds` take up to a third of a second longer, so that more happens while it runs.
pub const DAWDLE: &str = "
    CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(random() / 3); RETURN NULL; END $$;
    CREATE TRIGGER dawdle AFTER INSERT OR UPDATE ON kinds FOR EACH STATEMENT EXECUTE FUNCTION dawdle()";

/// One transaction of a random kind, whose rows have this number in the column `batch`; returns its kind and how many
/// rows it committed.
pub type Transaction = fn(&mut Client, &mut Random, u64) -> Result<(&'static str, u64), postgres::Error>;

/// A transaction whose end was acknowledged to its writer: so many rows of this batch are there from then on.
#[derive(Clone, Debug)]
#[allow(dead_code)] // All of it is printed.
pub struct Commit {
    batch: u64,
    rows: u64,
    kind: &'static str,
    /// Which of the servers, in the order in which they were given.
    server: usize,
    at: SystemTime,
}

/// Clients that insert until they are told to stop.
pub struct Ingest {
    stop: Arc<AtomicBool>,
    commits: Arc<Mutex<Vec<Commit>>>,
    writers: Vec<JoinHandle<()>>,
}

impl Ingest {
    /// Starts `writers` clients in `database`; each makes choices of its own from `random`.
    pub fn start(config: &Config, database: &str, writers: usize, random: &mut Random) -> Ingest {
        Ingest::with(transaction, std::slice::from_ref(config), database, writers, random)
    }

    /// Starts `writers` clients that go through these servers in turn, each with one transaction after the other.
    pub fn with(
        transaction: Transaction,
        servers: &[Config],
        database: &str,
        writers: usize,
        random: &mut Random,
    ) -> Ingest {
        let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let writers = (0..writers)
            .map(|i| {
                let server = i % servers.len();
                let mut config = servers[server].clone();
                config.dbname(database).connect_timeout(Duration::from_secs(5));
                let writer = Writer { transaction, config, server, commits: commits.clone() };
                let (stop, random) = (stop.clone(), random.fork());
                std::thread::spawn(move || writer.write(&stop, random, (i as u64) << 32))
            })
            .collect();
        Ingest { stop, commits, writers }
    }

    /// How many rows are known to be committed.
    pub fn rows(&self) -> u64 {
        rows(&self.commits.lock().expect("no writer panics"))
    }

    /// Ends all writers; returns what is known to be committed.
    pub fn stop(self) -> Vec<Commit> {
        self.stop.store(true, Ordering::SeqCst);
        for writer in self.writers {
            writer.join().expect("a writer does not panic");
        }
        std::mem::take(&mut self.commits.lock().expect("no writer panics"))
    }
}

/// How many rows these transactions have committed.
pub fn rows(commits: &[Commit]) -> u64 {
    commits.iter().map(|commit| commit.rows).sum()
}

/// Every row whose commit was acknowledged is in `events`, and none that was rolled back; returns how many events
/// there are.
#[track_caller]
pub fn assert_kept(client: &mut Client, commits: &[Commit]) -> u64 {
    let counts = client
        .query("SELECT COALESCE(batch, -1), count(*) FROM events GROUP BY batch", &[])
        .expect("an answer");
    let found: HashMap<i64, i64> = counts.iter().map(|row| (row.get(0), row.get(1))).collect();
    let count = |batch: u64| found.get(&(batch as i64)).copied().unwrap_or(0) as u64;
    let lost: Vec<_> = commits.iter().filter(|commit| count(commit.batch) != commit.rows).collect();
    assert!(lost.is_empty(), "not what was acknowledged: {lost:#?}");
    found.values().sum::<i64>() as u64
}

/// What one client does.
struct Writer {
    transaction: Transaction,
    config: Config,
    server: usize,
    commits: Arc<Mutex<Vec<Commit>>>,
}

impl Writer {
    /// Inserts until it is told to stop; its batches are counted from `batch`.
    fn write(&self, stop: &AtomicBool, mut random: Random, mut batch: u64) {
        while !stop.load(Ordering::SeqCst) {
            // Down, or coming up: try again.
            let Ok(mut client) = self.config.connect(NoTls) else {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            while !stop.load(Ordering::SeqCst) {
                batch += 1;
                match (self.transaction)(&mut client, &mut random, batch) {
                    Ok((kind, rows)) => {
                        let commit = Commit { batch, rows, kind, server: self.server, at: SystemTime::now() };
                        self.commits.lock().expect("no writer panics").push(commit);
                    }
                    Err(_) if client.is_closed() => break,
                    Err(_) => drop(client.batch_execute("ROLLBACK")),
                }
            }
        }
    }
}

/// COPY into a table, with all these lines in one transaction; returns how many rows it committed. By itself the driver
/// returns from a COPY before its transaction commits, and leaves out whether it did.
pub fn copy(
    client: &mut Client,
    table: &str,
    lines: impl Iterator<Item = String>,
) -> Result<u64, postgres::Error> {
    client.batch_execute("BEGIN")?;
    let mut copy = client.copy_in(&format!("COPY {table} FROM STDIN"))?;
    for line in lines {
        // A failed write shows in finish().
        let _ = writeln!(copy, "{line}");
    }
    let rows = copy.finish()?;
    client.batch_execute("COMMIT")?;
    Ok(rows)
}

/// One transaction of a random kind into [`EVENTS`].
fn transaction(
    client: &mut Client,
    random: &mut Random,
    batch: u64,
) -> Result<(&'static str, u64), postgres::Error> {
    let n = 1 + random.below(20);
    let insert = |table: &str, n: u64| {
        format!(
            "INSERT INTO {table} (part, kind, value, batch) \
             SELECT {}, i % 7, i, {batch} FROM generate_series(1, {n}) i",
            if table == "events" { "i % 3" } else { "1" }
        )
    };
    let (many, leaf) = (insert("events", n), insert("events_1", n));
    Ok(match random.below(10) {
        0..=4 => ("insert", client.execute(&many, &[])?),
        5 => ("insert into a partition", client.execute(&leaf, &[])?),
        6 => {
            client.batch_execute(&format!("BEGIN; {many}; SAVEPOINT s; {leaf}; ROLLBACK TO s; {leaf}"))?;
            std::thread::sleep(Duration::from_millis(random.below(50)));
            client.batch_execute("COMMIT")?;
            ("savepoint", 2 * n)
        }
        7 => {
            client.batch_execute(&format!("BEGIN; {many}"))?;
            std::thread::sleep(Duration::from_millis(random.below(200)));
            client.batch_execute("ROLLBACK")?;
            ("rollback", 0)
        }
        8 => {
            let lines = (0..n).map(|i| format!("{}\t{}\t{i}\t{batch}", i % 3, i % 7));
            ("copy", copy(client, "events (part, kind, value, batch)", lines)?)
        }
        _ => {
            // Many ids drawn long before they are committed.
            client.batch_execute(&format!("BEGIN; {}", insert("events", 50)))?;
            std::thread::sleep(Duration::from_millis(random.below(500)));
            client.batch_execute(&format!("{many}; COMMIT"))?;
            ("long", 50 + n)
        }
    })
}

/// What the rollups of [`EVENTS`] hold that the events up to their positions do not, and their live views that all
/// events do not, and the other way round, in one snapshot; none when all is well. An error when the server goes away meanwhile.
pub fn differences_from_events(client: &mut Client) -> Result<Vec<String>, postgres::Error> {
    let position = |rollup| {
        let value = |column| format!("(SELECT {column} FROM rollups WHERE name = '{rollup}')");
        format!("id <= {} AND NOT id <@ {}", value("last_aggregated_id"), value("passed_over"))
    };
    let kinds = format!(
        "SELECT kind, count(*), sum(value), max(id) FROM events WHERE {} GROUP BY kind",
        position("kinds")
    );
    let everything = format!(
        "SELECT count(*), COALESCE(sum(value), 0) FROM events WHERE {} HAVING count(*) > 0",
        position("everything")
    );
    let statement = format!(
        "SELECT 'kinds, rollup ' || d FROM (SELECT * FROM kinds EXCEPT ALL {kinds}) d
         UNION ALL SELECT 'kinds, events ' || d FROM ({kinds} EXCEPT ALL SELECT * FROM kinds) d
         UNION ALL SELECT 'everything, rollup ' || d FROM (
            SELECT events, COALESCE(total, 0) FROM everything WHERE events > 0 EXCEPT ALL {everything}) d
         UNION ALL SELECT 'everything, events ' || d FROM (
            {everything} EXCEPT ALL SELECT events, COALESCE(total, 0) FROM everything WHERE events > 0) d
         UNION ALL SELECT concat('kinds, live ', l, d) FROM kinds_live l FULL JOIN kinds_definition d USING (kind)
            WHERE l IS DISTINCT FROM d
         UNION ALL SELECT concat('everything, live ', l, d) FROM everything_live l, everything_definition d
            WHERE l IS DISTINCT FROM d"
    );
    Ok(client.query(&statement, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Aggregates what is left, and compares with all events and with `verify_rollup`; returns how many events there are.
#[track_caller]
pub fn assert_all_exact(client: &mut Client) -> i64 {
    for rollup in ["kinds", "everything"] {
        client.run(&format!("CALL catch_up_rollup('{rollup}')"));
    }
    assert_eq!(differences_from_events(client).expect("an answer"), Vec::<String>::new());
    let events: i64 = client.value("SELECT count(*) FROM events");
    for rollup in ["kinds", "everything"] {
        let total: i64 = client.value(&format!("SELECT COALESCE(sum(events), 0)::bigint FROM {rollup}"));
        assert_eq!(total, events, "{rollup}");
        assert_eq!(client.lines(&format!("SELECT * FROM verify_rollup('{rollup}')")), Vec::<String>::new());
    }
    events
}
