//! A Citus cluster: a coordinator and two workers on loopback. Skipped where Citus is not installed.

use cluster_tests::{Cluster, Sql, Stop, available, wait_for};
use postgres::Client;

struct Citus {
    coordinator: Cluster,
    workers: [Cluster; 2],
}

impl Citus {
    fn start() -> Citus {
        let node = || {
            let mut node = Cluster::create(
                "shared_preload_libraries = 'citus, rollup_ext'\nwal_level = logical\nmax_prepared_transactions = 50\n\
                 citus.shard_count = 8\ncitus.recover_2pc_interval = -1",
            );
            let port = node.listen();
            node.resume();
            node.connect("postgres").run("CREATE EXTENSION citus");
            (node, port)
        };
        let (coordinator, port) = node();
        let (first, first_port) = node();
        let (second, second_port) = node();
        let mut client = coordinator.connect("postgres");
        client.run(&format!(
            "SELECT citus_set_coordinator_host('127.0.0.1', {port});
             SELECT citus_add_node('127.0.0.1', {first_port});
             SELECT citus_add_node('127.0.0.1', {second_port});"
        ));
        client.run(
            "CREATE EXTENSION rollup_ext;
             CREATE TABLE events (event_id bigserial, event_time timestamptz DEFAULT now(), customer_id bigint,
                 device_id bigint);
             SELECT create_distributed_table('events', 'customer_id');",
        );
        Citus { coordinator, workers: [first, second] }
    }

    fn client(&self) -> Client {
        self.coordinator.connect("postgres")
    }

    fn worker(&self, i: usize) -> Client {
        self.workers[i].connect("postgres")
    }
}

const DEVICES: &str =
    "SELECT customer_id, count(*) AS events, hll_add_agg(hll_hash_bigint(device_id)) AS devices,
                              topn_add_agg(device_id::text) AS top
                       FROM events GROUP BY customer_id";

fn insert(client: &mut Client, events: usize) {
    client.run(&format!(
        "INSERT INTO events (customer_id, device_id) SELECT i % 50, i % 200 FROM generate_series(1, {events}) i"
    ));
}

#[track_caller]
fn assert_complete(client: &mut Client, rollup: &str) {
    let events: i64 = client.value("SELECT count(*) FROM events");
    let counted: i64 = client.value(&format!("SELECT sum(events)::bigint FROM {rollup}"));
    assert_eq!(counted, events);
    assert_eq!(client.lines(&format!("SELECT * FROM verify_rollup('{rollup}')")), Vec::<String>::new());
}

#[test]
fn targets_live_beside_their_events() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    insert(&mut client, 1000);
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$)"));
    let together: bool = client.value(
        "SELECT count(DISTINCT colocationid) = 1 AND count(*) = 2 FROM pg_dist_partition
         WHERE logicalrelid IN ('events'::regclass, 'devices'::regclass)",
    );
    assert!(together);
    let explained = client.lines("SELECT explain_rollup('devices')");
    assert!(explained.iter().any(|line| line == "Citus: pushed down to the shards"), "{explained:?}");
    client.run("SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");

    // The aggregates of a dashboard run on the shards, and their states come together on the coordinator.
    for query in ["hll_cardinality(hll_union_agg(devices))", "topn_union_agg(top)"] {
        let plan = client.lines(&format!("EXPLAIN SELECT {query} FROM devices"));
        let task = plan.iter().position(|line| line.contains("->  Task")).expect("tasks");
        assert!(plan[task..].iter().any(|line| line.contains("Aggregate")), "{plan:?}");
    }
    let devices: f64 = client.value("SELECT hll_cardinality(hll_union_agg(devices)) FROM devices");
    assert_eq!(devices, 200.0);

    let error =
        client.fails("SELECT register_rollup('all', 'SELECT device_id, count(*) FROM events GROUP BY 1')");
    assert_eq!(error.code().code(), "0A000");
    assert!(error.hint().expect("a hint").contains("Add customer_id"), "{error}");

    client.run(
        "CREATE TABLE rates (rate_id bigserial, currency text);
         SELECT create_reference_table('rates');
         SELECT register_rollup('per_currency', 'SELECT currency, count(*) FROM rates GROUP BY 1');
         INSERT INTO rates (currency) VALUES ('EUR'), ('EUR'), ('USD');
         SELECT run_rollup('per_currency');
         CREATE TABLE here (id bigserial, x int);
         SELECT register_rollup('per_x', 'SELECT x, count(*) FROM here GROUP BY 1');
         INSERT INTO here (x) VALUES (1);
         SELECT run_rollup('per_x');",
    );
    let replication: String = client
        .value("SELECT repmodel::text FROM pg_dist_partition WHERE logicalrelid = 'per_currency'::regclass");
    assert_eq!(replication, "t");
    let local: bool = client
        .value("SELECT NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = 'per_x'::regclass)");
    assert!(local);
}

#[test]
fn events_come_in_through_every_node() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    client.run(&format!(
        "SELECT register_rollup('devices', $${DEVICES}$$);
         SELECT register_rollup('scheduled', $${DEVICES}$$, schedule => '1 second');
         INSERT INTO rollups (name, event_table_name) VALUES ('windows', 'events');"
    ));
    insert(&mut client, 500);
    client.run("SELECT incremental_rollup_window('windows')");
    insert(&mut citus.worker(0), 300);
    insert(&mut citus.worker(1), 200);
    client.run("SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");
    let nodes: i64 = client.value("SELECT count(*) FROM rollup_node_positions WHERE rollup_name = 'devices'");
    assert_eq!(nodes, 2);

    let error = client.fails("SELECT incremental_rollup_window('windows')");
    assert!(error.hint().expect("a hint").contains("incremental_rollup_windows"), "{error}");
    let ids: i64 = client.value(
        "SELECT sum(window_end - window_start + 1)::bigint FROM incremental_rollup_windows('windows')
         WHERE window_start <= window_end",
    );
    assert_eq!(ids, 500);

    // The worker on the coordinator notices them by itself.
    wait_for("the scheduled rollup has everything", 30, || {
        let counted: i64 = client.value("SELECT COALESCE(sum(events), 0)::bigint FROM scheduled");
        (counted == 1000).then_some(())
    });
    client.run("SELECT reset_rollup('devices'); SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");
}

#[test]
fn a_run_waits_for_the_writers_of_every_node_and_nobody_for_it() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$)"));
    let mut slow = citus.worker(0);
    let mut open = slow.transaction().expect("a transaction");
    open.execute("INSERT INTO events (customer_id, device_id) VALUES (1, 1)", &[]).expect("an insert");
    let mut other = citus.worker(0);
    insert(&mut other, 10);
    client.run("SET lock_timeout = '500ms'");
    let error = client.fails("SELECT run_rollup('devices')");
    assert_eq!(error.code().code(), "55P03", "{error}");
    insert(&mut other, 10);
    open.commit().expect("a commit");
    client.run("RESET lock_timeout; SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");
}

#[test]
fn a_pending_two_phase_commit_counts_as_a_writer() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$)"));
    insert(&mut client, 100);
    citus.worker(1).run("BEGIN; CREATE TABLE half_done (i int); PREPARE TRANSACTION 'citus_0_4711_1_1'");
    client.run("SET lock_timeout = '300ms'");
    let error = client.fails("SELECT run_rollup('devices')");
    assert_eq!(error.code().code(), "55P03", "{error}");
    let position: i64 = client.value("SELECT last_aggregated_id FROM rollups WHERE name = 'devices'");
    assert_eq!(position, 0);
    citus.worker(1).run("COMMIT PREPARED 'citus_0_4711_1_1'");
    client.run("SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");
}

#[test]
fn a_node_that_is_down_delays_and_loses_nothing() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$, schedule => '1 second')"));
    insert(&mut client, 100);
    citus.workers[0].stop(Stop::Immediate);
    let error = wait_for("the run fails", 30, || {
        let error: Option<String> = client.value("SELECT max(last_error) FROM rollup_status");
        error
    });
    assert!(error.contains("node") || error.contains("connection"), "{error}");
    citus.workers[0].resume();
    // Connections of before may be broken once more.
    wait_for("it catches up", 60, || {
        let mut fresh = citus.client();
        let counted: i64 = fresh.value("SELECT COALESCE(sum(events), 0)::bigint FROM devices");
        (counted == 100).then_some(())
    });
    assert_complete(&mut citus.client(), "devices");
}

#[test]
fn time_windows_end_before_the_oldest_transaction_of_all_nodes() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    client.run(
        "CREATE TABLE views (tenant_id int, view_time timestamptz DEFAULT now());
         SELECT create_distributed_table('views', 'tenant_id');
         SELECT register_rollup('tenants', 'SELECT tenant_id, count(*) AS events FROM views GROUP BY 1',
             time_column => 'view_time');
         INSERT INTO views (tenant_id) SELECT i % 5 FROM generate_series(1, 100) i;",
    );
    let mut slow = citus.worker(0);
    let mut open = slow.transaction().expect("a transaction");
    open.execute("INSERT INTO views (tenant_id) VALUES (1)", &[]).expect("an insert");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    client.run("SELECT run_rollup('tenants')");
    let early: bool = client.value("SELECT last_aggregated_time < now() - interval '3 seconds' FROM rollups");
    assert!(early);
    open.commit().expect("a commit");
    wait_for("the late row is counted", 30, || {
        client.run("SELECT run_rollup('tenants')");
        let counted: i64 = client.value("SELECT COALESCE(sum(events), 0)::bigint FROM tenants");
        (counted == 101).then_some(())
    });
}

#[test]
fn workers_of_the_cluster_do_not_schedule() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let error = citus.worker(0).fails("SELECT register_rollup('x', 'SELECT count(*) FROM events')");
    assert_eq!(error.code().code(), "55000", "{error}");
    assert!(error.hint().expect("a hint").contains("coordinator"), "{error}");
}
