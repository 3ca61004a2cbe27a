//! Writers of all kinds, many at once, that survive the server's crashes, and the oracle for what they wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use postgres::{Client, Config, NoTls};

use crate::random::Random;
use crate::sql::Sql;

/// A partitioned event table and two rollups of it that run each second, with live views.
pub const EVENTS: &str = "
    CREATE TABLE events (id bigserial, part int, kind int, value int) PARTITION BY LIST (part);
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

/// One transaction of a random kind; returns how many rows it committed.
pub type Transaction = fn(&mut Client, &mut Random) -> Result<u64, postgres::Error>;

/// Clients that insert until they are told to stop.
pub struct Ingest {
    stop: Arc<AtomicBool>,
    rows: Arc<AtomicU64>,
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
        let (stop, rows) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writers = (0..writers)
            .map(|i| {
                let (stop, rows, random) = (stop.clone(), rows.clone(), random.fork());
                let mut config = servers[i % servers.len()].clone();
                config.dbname(database).connect_timeout(Duration::from_secs(5));
                std::thread::spawn(move || write(transaction, &config, &stop, &rows, random))
            })
            .collect();
        Ingest { stop, rows, writers }
    }

    /// How many rows are known to be committed.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::SeqCst)
    }

    /// Ends all writers; returns how many rows are known to be committed.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        for writer in self.writers {
            writer.join().expect("a writer does not panic");
        }
        self.rows.load(Ordering::SeqCst)
    }
}

fn write(transaction: Transaction, config: &Config, stop: &AtomicBool, rows: &AtomicU64, mut random: Random) {
    while !stop.load(Ordering::SeqCst) {
        // Down, or coming up: try again.
        let Ok(mut client) = config.connect(NoTls) else {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        while !stop.load(Ordering::SeqCst) {
            match transaction(&mut client, &mut random) {
                Ok(committed) => rows.fetch_add(committed, Ordering::SeqCst),
                Err(_) if client.is_closed() => break,
                Err(_) => {
                    let _ = client.batch_execute("ROLLBACK");
                    continue;
                }
            };
        }
    }
}

/// One transaction of a random kind; returns how many rows it committed.
fn transaction(client: &mut Client, random: &mut Random) -> Result<u64, postgres::Error> {
    let n = 1 + random.below(20);
    let insert = |table: &str, n: u64| {
        format!(
            "INSERT INTO {table} (part, kind, value) SELECT {}, i % 7, i FROM generate_series(1, {n}) i",
            if table == "events" { "i % 3" } else { "1" }
        )
    };
    let (many, leaf) = (insert("events", n), insert("events_1", n));
    Ok(match random.below(10) {
        0..=4 => client.execute(&many, &[])?,
        5 => client.execute(&leaf, &[])?,
        6 => {
            client.batch_execute(&format!("BEGIN; {many}; SAVEPOINT s; {leaf}; ROLLBACK TO s; {leaf}"))?;
            std::thread::sleep(Duration::from_millis(random.below(50)));
            client.batch_execute("COMMIT")?;
            2 * n
        }
        7 => {
            client.batch_execute(&format!("BEGIN; {many}"))?;
            std::thread::sleep(Duration::from_millis(random.below(200)));
            client.batch_execute("ROLLBACK")?;
            0
        }
        8 => {
            use std::io::Write;
            let mut copy = client.copy_in("COPY events (part, kind, value) FROM STDIN")?;
            for i in 0..n {
                // A failed write shows in finish().
                let _ = writeln!(copy, "{}\t{}\t{i}", i % 3, i % 7);
            }
            copy.finish()?
        }
        _ => {
            // Many ids drawn long before they are committed.
            client.batch_execute(&format!("BEGIN; {}", insert("events", 50)))?;
            std::thread::sleep(Duration::from_millis(random.below(500)));
            client.batch_execute(&format!("{many}; COMMIT"))?;
            50 + n
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
