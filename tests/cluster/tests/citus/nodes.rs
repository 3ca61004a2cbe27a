//! Nodes that come, go and stand still, and which of them schedules.

use cluster_tests::citus::{Citus, DEVICES, assert_complete, counted, insert};
use cluster_tests::{Cluster, Sql, Stop, available, extension_file, wait_for};

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
fn workers_of_the_cluster_do_not_schedule() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let error = citus.worker(0).fails("SELECT register_rollup('x', 'SELECT count(*) FROM events')");
    assert_eq!(error.code().code(), "55000", "{error}");
    assert!(error.hint().expect("a hint").contains("coordinator"), "{error}");
}

/// A node that joins is found without registration, and what it has inserted stays to be aggregated when it leaves,
/// also by a transaction that it had open then.
#[test]
fn what_a_removed_node_has_inserted_is_not_lost() {
    if !available("citus") {
        return;
    }
    let mut citus = Citus::start();
    let mut client = citus.client();
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$)"));
    insert(&mut client, 10);
    let third = citus.add_worker();
    insert(&mut citus.worker(third), 100);
    client.run("SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");

    let mut slow = citus.worker(third);
    let mut open = slow.transaction().expect("a transaction");
    open.execute("INSERT INTO events (customer_id, device_id) VALUES (1, 1)", &[]).expect("an insert");
    insert(&mut citus.worker(third), 50);
    client.run(&format!("SELECT citus_remove_node({})", citus.address(third)));
    client.run("SET lock_timeout = '500ms'");
    let error = client.fails("SELECT run_rollup('devices')");
    assert_eq!(error.code().code(), "55P03", "{error}");
    open.commit().expect("a commit");
    client.run("RESET lock_timeout; SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");
    assert_eq!(counted(&mut client, "devices"), 161);

    // One that came and went between two runs.
    let fourth = citus.add_worker();
    insert(&mut citus.worker(fourth), 20);
    client.run(&format!("SELECT citus_remove_node({})", citus.address(fourth)));
    client.run("SELECT alter_rollup('devices', schedule => '1 second')");
    wait_for("the scheduler finds them", 30, || (counted(&mut client, "devices") == 181).then_some(()));
    assert_complete(&mut client, "devices");
}

/// Whoever is connected to a disabled node can still insert through it.
#[test]
fn a_disabled_node_counts_while_it_lives_and_is_given_up_when_it_does_not() {
    if !available("citus") {
        return;
    }
    let mut citus = Citus::start();
    let third = citus.add_worker();
    let mut client = citus.client();
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$)"));
    let address = citus.address(third);
    client.run(&format!("SELECT citus_disable_node({address}, synchronous => true)"));
    let mut slow = citus.worker(third);
    let mut open = slow.transaction().expect("a transaction");
    open.execute("INSERT INTO events (customer_id, device_id) VALUES (1, 1)", &[]).expect("an insert");
    insert(&mut citus.worker(third), 50);
    client.run("SET lock_timeout = '500ms'");
    let error = client.fails("SELECT run_rollup('devices')");
    assert_eq!(error.code().code(), "55P03", "{error}");
    open.commit().expect("a commit");
    client.run("RESET lock_timeout; SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");

    insert(&mut citus.worker(third), 50);
    citus.workers[third].stop(Stop::Immediate);
    client.run("SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");
    citus.workers[third].resume();
    // Without the broken connections of before.
    let mut client = citus.client();
    client.run(&format!("SELECT citus_activate_node({address})"));
    insert(&mut citus.worker(third), 50);
    client.run("SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");
    assert_eq!(counted(&mut client, "devices"), 151);
}

#[test]
fn a_coordinator_that_holds_shards_rolls_them_up() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start_with("");
    let mut client = citus.client();
    let port = citus.coordinator.port();
    client.run(&format!("SELECT citus_set_node_property('127.0.0.1', {port}, 'shouldhaveshards', true)"));
    client.run(
        "CREATE TABLE events (event_id bigserial, customer_id bigint, device_id bigint);
         SELECT create_distributed_table('events', 'customer_id');",
    );
    let here: i64 = client.value(&format!("SELECT count(*) FROM citus_shards WHERE nodeport = {port}"));
    assert!(here > 0);
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$, schedule => '1 second')"));
    for mut node in [citus.client(), citus.worker(0), citus.worker(1)] {
        insert(&mut node, 100);
    }
    wait_for("the worker has everything", 60, || (counted(&mut client, "devices") == 300).then_some(()));
    assert_complete(&mut client, "devices");
}

/// Kills a node once its standby has all of it, and makes the standby a node that the others can reach.
fn take_over(node: &Cluster, standby: &mut Cluster) {
    let lsn: String = node.connect("postgres").value("SELECT pg_current_wal_insert_lsn()::text");
    let mut reader = standby.connect("postgres");
    wait_for("the standby has it", 30, || {
        reader.value::<bool>(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'")).then_some(())
    });
    node.kill();
    standby.stop(Stop::Fast);
    standby.listen();
    standby.resume();
    standby.promote();
}

/// The standby of the coordinator takes over: it schedules, and goes on where the old one was.
#[test]
fn a_promoted_standby_of_the_coordinator_goes_on() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$, schedule => '1 second')"));
    insert(&mut client, 100);
    insert(&mut citus.worker(0), 100);
    wait_for("some runs", 30, || (counted(&mut client, "devices") == 200).then_some(()));
    let mut standby = citus.coordinator.standby();
    insert(&mut client, 50);
    take_over(&citus.coordinator, &mut standby);
    let mut client = standby.connect("postgres");
    client.run(&format!("SELECT citus_set_coordinator_host('127.0.0.1', {})", standby.port()));
    client.run("SELECT recover_prepared_transactions()");
    insert(&mut client, 50);
    insert(&mut citus.worker(1), 50);
    wait_for("the new coordinator has everything", 60, || {
        (counted(&mut client, "devices") == 350).then_some(())
    });
    assert_complete(&mut client, "devices");
}

/// The standby of a worker takes over its place, with its shards, its sequence and what it had prepared.
#[test]
fn a_promoted_standby_of_a_worker_goes_on() {
    if !available("citus") {
        return;
    }
    let mut citus = Citus::start();
    let mut client = citus.client();
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$)"));
    insert(&mut client, 100);
    insert(&mut citus.worker(0), 100);
    client.run("SELECT run_rollup('devices')");
    let node: i32 = client
        .value(&format!("SELECT nodeid FROM pg_dist_node WHERE nodeport = {}", citus.workers[0].port()));
    let mut standby = citus.workers[0].standby();
    let mut old = citus.worker(0);
    insert(&mut old, 50);
    old.run("BEGIN");
    insert(&mut old, 20);
    take_over(&citus.workers[0], &mut standby);
    // Without the broken connections of before.
    let mut client = citus.client();
    client.run(&format!("SELECT citus_update_node({node}, '127.0.0.1', {})", standby.port()));
    client.run("SELECT recover_prepared_transactions()");
    citus.workers[0] = standby;
    insert(&mut citus.worker(0), 30);
    insert(&mut client, 10);
    client.run("SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");
    // What the old one had not committed went with it.
    assert_eq!(counted(&mut client, "devices"), 290);
    let groups: i64 = client.value(
        "SELECT count(*) FROM rollup_node_positions WHERE last_aggregated_id > group_id::bigint << 48",
    );
    assert_eq!(groups, 1);
}

/// A node is its own coordinator until it joins a cluster; what it had scheduled does not run as a worker.
#[test]
fn a_node_that_joins_stops_scheduling() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let stranger = citus.stranger();
    let mut there = stranger.connect("postgres");
    there.run(
        "CREATE EXTENSION rollup_ext;
         CREATE TABLE own (id bigserial, x int);
         SELECT register_rollup('own_rollup', 'SELECT x, count(*) AS events FROM own GROUP BY 1',
             schedule => '1 second');
         INSERT INTO own (x) VALUES (1);",
    );
    wait_for("it schedules alone", 30, || (counted(&mut there, "own_rollup") == 1).then_some(()));
    citus.client().run(&format!("SELECT citus_add_node('127.0.0.1', {})", stranger.port()));
    there.run("INSERT INTO own (x) VALUES (1)");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(counted(&mut there, "own_rollup"), 1);
    let error = there.fails("SELECT run_rollup('nobody')");
    assert!(error.hint().expect("a hint").contains("coordinator"), "{error}");
}

/// The extension comes to every node by itself; one that cannot have it says so, and joins once it can.
#[test]
fn a_node_without_the_library_is_told_apart() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let bare = citus.bare_stranger();
    let mut client = citus.client();
    let add = format!("SELECT citus_add_node('127.0.0.1', {})", bare.port());
    // Citus passes on what the node said as a warning before its error.
    client.fails(&add);
    let told = || citus.coordinator.log().matches("extension \"rollup_ext\" is not available").count();
    assert_eq!(told(), 1);
    client.run("DROP EXTENSION rollup_ext");
    client.run(&add);
    client.fails("CREATE EXTENSION rollup_ext");
    assert_eq!(told(), 2);
    client
        .run(&format!("SELECT citus_remove_node('127.0.0.1', {}); CREATE EXTENSION rollup_ext", bare.port()));
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$)"));
    insert(&mut citus.worker(0), 100);
    client.run("SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");
}

/// A script that is there while the test runs.
struct Script(std::path::PathBuf);

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn an_update_of_the_extension_reaches_every_node() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$)"));
    insert(&mut citus.worker(0), 100);
    client.run("SELECT run_rollup('devices')");
    let version: String = client.value("SELECT extversion FROM pg_extension WHERE extname = 'rollup_ext'");
    let script = Script(extension_file(&format!("rollup_ext--{version}--{version}.tested.sql")));
    std::fs::write(&script.0, "CREATE FUNCTION added() RETURNS int LANGUAGE sql AS 'SELECT 1';")
        .expect("writable");
    client.run(&format!("ALTER EXTENSION rollup_ext UPDATE TO '{version}.tested'"));
    for mut node in [citus.client(), citus.worker(0), citus.worker(1)] {
        let now: String = node.value("SELECT extversion FROM pg_extension WHERE extname = 'rollup_ext'");
        assert_eq!(now, format!("{version}.tested"));
        assert_eq!(node.value::<i32>("SELECT added()"), 1);
    }
    insert(&mut citus.worker(0), 100);
    client.run("SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");
}
