//! Shards that move and split, tables that are distributed anew, partitions that become columnar: while events come in
//! through every node and the worker rolls them up.

use std::time::Duration;

use cluster_tests::citus::{Citus, DEVICES, assert_complete, insert, transaction};
use cluster_tests::ingest::{Ingest, assert_kept, rows};
use cluster_tests::random::Random;
use cluster_tests::{Sql, available, wait_for};
use postgres::{Client, Config};

/// The cluster under ingest through these nodes, and two rollups: one scheduled, one that the test runs.
fn under_ingest(citus: &Citus, servers: &[Config]) -> Ingest {
    let mut client = citus.client();
    client.run(&format!(
        "SELECT register_rollup('devices', $${DEVICES}$$, schedule => '1 second');
         SELECT register_rollup('by_hand', $${DEVICES}$$)"
    ));
    insert(&mut client, 1000);
    Ingest::with(transaction, servers, "postgres", 3, &mut Random::from_environment())
}

/// Ends the ingest and compares: every row that was committed is counted once.
fn assert_all_counted(citus: &Citus, ingest: Ingest) {
    let commits = ingest.stop();
    let mut client = citus.client();
    for rollup in ["devices", "by_hand"] {
        client.run(&format!("SELECT run_rollup('{rollup}')"));
        assert_complete(&mut client, rollup);
    }
    assert!(assert_kept(&mut client, &commits) >= rows(&commits) + 1000);
    assert!(rows(&commits) > 0);
}

/// Tries again: Citus ends a command that has locked tables in another order than somebody else.
fn persist(client: &mut Client, command: &str) {
    wait_for(command, 60, || match client.batch_execute(command) {
        Ok(()) => Some(()),
        Err(error) => {
            assert!(error.code().is_some_and(|code| code.code() == "40P01"), "{error:?}");
            None
        }
    });
}

/// Lets the ingest and the rollups go on for a moment, and looks whether they hold what they have aggregated.
fn assert_exact_so_far(client: &mut Client) {
    std::thread::sleep(Duration::from_millis(500));
    client.run("SELECT run_rollup('by_hand')");
    for rollup in ["devices", "by_hand"] {
        let differing = client.lines(&format!("SELECT * FROM verify_rollup('{rollup}')"));
        assert_eq!(differing, Vec::<String>::new(), "{rollup}");
    }
}

#[test]
fn shards_move_split_and_are_rebalanced() {
    if !available("citus") {
        return;
    }
    let mut citus = Citus::start();
    let ingest = under_ingest(&citus, &citus.everywhere());
    let mut client = citus.client();
    client.run("SELECT run_rollup('by_hand')");
    // One group of co-located shards goes to the other node and back, with writers blocked and with logical
    // replication; without a primary key the latter is to be asked for.
    for mode in ["block_writes", "force_logical"] {
        let moved = client.lines(
            "SELECT shardid, nodeport FROM citus_shards WHERE table_name = 'events'::regclass ORDER BY 1 LIMIT 1",
        );
        let (shard, from) = moved[0].split_once('|').expect("two columns");
        let to =
            citus.workers.iter().map(|w| w.port().to_string()).find(|port| port != from).expect("another");
        client.run(&format!(
            "SELECT citus_move_shard_placement({shard}, '127.0.0.1', {from}, '127.0.0.1', {to}, '{mode}')"
        ));
        assert_exact_so_far(&mut client);
    }
    let split = client.lines(
        "SELECT s.shardid, (s.shardminvalue::int8 + s.shardmaxvalue::int8) / 2, n.nodeid
           FROM pg_dist_shard s JOIN citus_shards c USING (shardid)
           JOIN pg_dist_node n ON n.nodeport = c.nodeport
          WHERE s.logicalrelid = 'events'::regclass ORDER BY 1 LIMIT 1",
    );
    let parts: Vec<&str> = split[0].split('|').collect();
    let before: i64 =
        client.value("SELECT count(*) FROM citus_shards WHERE table_name = 'devices'::regclass");
    client.run(&format!(
        "SELECT citus_split_shard_by_split_points({}, ARRAY['{}'], ARRAY[{}, {}], 'block_writes')",
        parts[0], parts[1], parts[2], parts[2]
    ));
    let after: i64 = client.value("SELECT count(*) FROM citus_shards WHERE table_name = 'devices'::regclass");
    assert_eq!(after, before + 1);
    assert_exact_so_far(&mut client);

    // A new node gets shards, and gives them back before it leaves.
    let third = citus.add_worker();
    client.run("SELECT rebalance_table_shards(shard_transfer_mode => 'block_writes')");
    let port = citus.workers[third].port();
    let there: i64 = client.value(&format!("SELECT count(*) FROM citus_shards WHERE nodeport = {port}"));
    assert!(there > 0);
    insert(&mut citus.worker(third), 100);
    assert_exact_so_far(&mut client);
    client.run(&format!(
        "SELECT citus_drain_node({}, shard_transfer_mode => 'block_writes')",
        citus.address(third)
    ));
    client.run(&format!("SELECT citus_remove_node({})", citus.address(third)));
    assert_all_counted(&citus, ingest);
}

/// A table that is undistributed or distributed anew is another one under the old name, and so is the definition. Citus
/// keeps writers on the coordinator waiting meanwhile, but not those on other nodes, whose rows it can lose.
#[test]
fn tables_are_undistributed_and_distributed_anew() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let ingest = under_ingest(&citus, &[citus.coordinator.config()]);
    let mut client = citus.client();
    client.run("SELECT run_rollup('by_hand')");
    for change in [
        "SELECT alter_distributed_table('events', shard_count => 4, cascade_to_colocated => true)",
        "SELECT undistribute_table('events')",
        "SELECT create_distributed_table('events', 'customer_id', colocate_with => 'devices')",
        "SELECT undistribute_table('devices')",
    ] {
        persist(&mut client, change);
        assert_exact_so_far(&mut client);
    }
    assert_all_counted(&citus, ingest);
}

/// Old partitions become columnar; the index that the rollup goes by has to be one that columnar tables can have.
#[test]
fn partitions_become_columnar_and_leave() {
    if !available("citus") || !available("citus_columnar") {
        return;
    }
    let citus = Citus::start_with("");
    let mut client = citus.client();
    client.run(
        "CREATE EXTENSION IF NOT EXISTS citus_columnar;
         CREATE TABLE events (event_id bigserial, event_time timestamptz NOT NULL DEFAULT now(), customer_id bigint,
             device_id bigint, batch bigint) PARTITION BY RANGE (event_time);
         CREATE TABLE events_old PARTITION OF events FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');
         CREATE TABLE events_new PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2100-01-01');
         CREATE INDEX ON events (event_id);
         SELECT create_distributed_table('events', 'customer_id');
         INSERT INTO events (event_time, customer_id, device_id)
         SELECT '2019-12-31', i % 50, i FROM generate_series(1, 500) i",
    );
    let ingest = under_ingest(&citus, &citus.everywhere());
    citus.worker(0).run(
        "INSERT INTO events (event_time, customer_id, device_id)
         SELECT '2019-12-31', i % 50, i FROM generate_series(1, 500) i",
    );
    // Not aggregated by now, it may not be replaced either.
    client.run("SELECT run_rollup('by_hand')");
    wait_for("all rollups have the old events", 60, || {
        client.value::<bool>("SELECT NOT EXISTS (SELECT FROM rollups_behind('events_old'))").then_some(())
    });
    persist(&mut client, "SELECT alter_table_set_access_method('events_old', 'columnar')");
    let method: String = client.value(
        "SELECT amname::text FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE c.oid = 'events_old'::regclass",
    );
    assert_eq!(method, "columnar");
    assert_exact_so_far(&mut client);
    client.run(&format!("SELECT register_rollup('later', $${DEVICES}$$); SELECT run_rollup('later')"));
    assert_eq!(client.lines("SELECT * FROM verify_rollup('later')"), Vec::<String>::new());
    assert_all_counted(&citus, ingest);

    client.run("SELECT run_rollup('later')");
    let error = {
        insert(&mut citus.worker(1), 10);
        client.fails("DROP TABLE events_new")
    };
    assert!(error.message().contains("not aggregated"), "{error}");
    // It gives up where somebody, such as a run, holds a partition for more than a moment.
    wait_for("the old partition is dropped", 60, || {
        let dropped = client.lines("SELECT drop_rolled_up_partitions('events', '2021-01-01'::timestamptz)");
        (dropped == ["public.events_old"]).then_some(())
    });
}
