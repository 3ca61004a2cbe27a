//! A Citus cluster: a coordinator and two workers on loopback, with the extension in the database `postgres`.

use std::time::Duration;

use postgres::{Client, Config};

use crate::ingest::copy;
use crate::random::Random;
use crate::{Cluster, Sql};

/// The nodes, and what it takes to add more.
pub struct Citus {
    pub coordinator: Cluster,
    pub workers: Vec<Cluster>,
    conf: String,
}

impl Citus {
    /// A coordinator and two workers with the extension, and the distributed table `events`.
    pub fn start() -> Citus {
        let citus = Citus::start_with("");
        citus.client().run(EVENTS);
        citus
    }

    /// The cluster without tables, and further lines of configuration for every node.
    pub fn start_with(conf: &str) -> Citus {
        let conf = format!(
            "shared_preload_libraries = 'citus, rollup_ext'\nwal_level = logical\nmax_prepared_transactions = 50\n\
             citus.shard_count = 8\ncitus.recover_2pc_interval = -1\n{conf}"
        );
        let coordinator = node(&conf);
        let mut client = coordinator.connect("postgres");
        client.run(&format!("SELECT citus_set_coordinator_host('127.0.0.1', {})", coordinator.port()));
        let mut citus = Citus { coordinator, workers: Vec::new(), conf };
        citus.add_worker();
        citus.add_worker();
        client.run("CREATE EXTENSION rollup_ext");
        citus
    }

    /// One more worker, known to the cluster, without shards; returns its place in `workers`.
    pub fn add_worker(&mut self) -> usize {
        let worker = node(&self.conf);
        self.client().run(&format!("SELECT citus_add_node('127.0.0.1', {})", worker.port()));
        self.workers.push(worker);
        self.workers.len() - 1
    }

    /// A server with Citus that belongs to no cluster yet.
    pub fn stranger(&self) -> Cluster {
        node(&self.conf)
    }

    /// Such a server where rollup_ext is not installed.
    pub fn bare_stranger(&self) -> Cluster {
        let conf = format!("{}\nshared_preload_libraries = 'citus'", self.conf);
        started(Cluster::create_without("rollup_ext", &conf))
    }

    pub fn client(&self) -> Client {
        self.coordinator.connect("postgres")
    }

    pub fn worker(&self, i: usize) -> Client {
        self.workers[i].connect("postgres")
    }

    /// How to reach every node, the coordinator first.
    pub fn everywhere(&self) -> Vec<Config> {
        std::iter::once(&self.coordinator).chain(&self.workers).map(Cluster::config).collect()
    }

    /// Name and port of a worker as arguments of Citus's functions.
    pub fn address(&self, i: usize) -> String {
        format!("'127.0.0.1', {}", self.workers[i].port())
    }
}

fn node(conf: &str) -> Cluster {
    started(Cluster::create(conf))
}

fn started(mut node: Cluster) -> Cluster {
    node.listen();
    node.resume();
    node.connect("postgres").run("CREATE EXTENSION citus");
    node
}

/// The distributed table that most tests are about.
pub const EVENTS: &str = "
    CREATE TABLE events (event_id bigserial, event_time timestamptz DEFAULT now(), customer_id bigint, device_id bigint,
        batch bigint);
    SELECT create_distributed_table('events', 'customer_id');";

/// A rollup of `events` with a measure of each kind.
pub const DEVICES: &str = "
    SELECT customer_id, count(*) AS events, hll_add_agg(hll_hash_bigint(device_id)) AS devices,
           topn_add_agg(device_id::text) AS top
      FROM events GROUP BY customer_id";

/// Inserts so many events of 50 customers.
pub fn insert(client: &mut Client, events: usize) {
    client.run(&format!(
        "INSERT INTO events (customer_id, device_id) SELECT i % 50, i % 200 FROM generate_series(1, {events}) i"
    ));
}

/// One transaction of a random kind into [`EVENTS`]: [`crate::ingest::Transaction`].
pub fn transaction(
    client: &mut Client,
    random: &mut Random,
    batch: u64,
) -> Result<(&'static str, u64), postgres::Error> {
    let n = 1 + random.below(20);
    let first = random.below(50);
    let insert = "INSERT INTO events (customer_id, device_id, batch)";
    let many = format!("{insert} SELECT ({first} + i) % 50, i % 200, {batch} FROM generate_series(1, {n}) i");
    let one = format!("{insert} VALUES ({first}, {n}, {batch})");
    Ok(match random.below(8) {
        0..=2 => ("many", client.execute(&many, &[])?),
        3..=4 => ("one", client.execute(&one, &[])?),
        5 => {
            client.batch_execute(&format!("BEGIN; {one}"))?;
            std::thread::sleep(Duration::from_millis(random.below(200)));
            client.batch_execute(&format!("{many}; COMMIT"))?;
            ("one and many", 1 + n)
        }
        6 => {
            client.batch_execute(&format!("BEGIN; {many}"))?;
            std::thread::sleep(Duration::from_millis(random.below(100)));
            client.batch_execute("ROLLBACK")?;
            ("rollback", 0)
        }
        _ => {
            let lines = (0..n).map(|i| format!("{}\t{i}\t{batch}", (first + i) % 50));
            ("copy", copy(client, "events (customer_id, device_id, batch)", lines)?)
        }
    })
}

/// How many events a rollup counts.
pub fn counted(client: &mut Client, rollup: &str) -> i64 {
    client.value(&format!("SELECT COALESCE(sum(events), 0)::bigint FROM {rollup}"))
}

/// A rollup of `events` counts all of them, and is what its query gives.
#[track_caller]
pub fn assert_complete(client: &mut Client, rollup: &str) {
    let events: i64 = client.value("SELECT count(*) FROM events");
    assert_eq!(counted(client, rollup), events, "{rollup}");
    assert_eq!(client.lines(&format!("SELECT * FROM verify_rollup('{rollup}')")), Vec::<String>::new());
}
