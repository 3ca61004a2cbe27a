//! Events that come in through every node: positions, open writers, pending commits, clocks.

use cluster_tests::citus::{Citus, DEVICES, assert_complete, counted, insert};
use cluster_tests::{Sql, available, wait_for};
use postgres::Client;

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
    let lags = "SELECT lag_ids FROM rollup_node_heads('devices') ORDER BY group_id";
    assert_eq!(client.lines(lags), ["300", "200"]);
    client.run("SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");
    assert_eq!(client.lines(lags), ["0", "0"]);
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
        (counted(&mut client, "scheduled") == 1000).then_some(())
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

/// A cluster with the distributed table `views`, and the rollup `tenants` that follows its time column.
fn views(options: &str) -> (Citus, Client) {
    let citus = Citus::start();
    let mut client = citus.client();
    client.run(&format!(
        "CREATE TABLE views (tenant_id int, view_time timestamptz DEFAULT now());
         SELECT create_distributed_table('views', 'tenant_id');
         SELECT register_rollup('tenants', 'SELECT tenant_id, count(*) AS events FROM views GROUP BY 1',
             time_column => 'view_time'{options})"
    ));
    (citus, client)
}

#[test]
fn time_windows_end_before_the_oldest_transaction_of_all_nodes() {
    if !available("citus") {
        return;
    }
    let (citus, mut client) = views("");
    client.run("INSERT INTO views (tenant_id) SELECT i % 5 FROM generate_series(1, 100) i");
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

/// Where a batch ends is asked over all shards, whichever node the events came through.
#[test]
fn a_backlog_of_times_is_taken_in_batches_over_all_shards() {
    if !available("citus") {
        return;
    }
    let (citus, client) = views(", batch_size => 100");
    for (node, mut client) in [client, citus.worker(0), citus.worker(1)].into_iter().enumerate() {
        client.run(&format!(
            "INSERT INTO views SELECT i % 20, '2026-01-01'::timestamptz + i * interval '7 seconds' + {node} * interval '1 hour'
               FROM generate_series(1, 500) i"
        ));
    }
    let mut client = citus.client();
    client.run("CALL catch_up_rollup('tenants')");
    assert_eq!(client.value::<i64>("SELECT sum(events)::bigint FROM tenants"), 1500);
    assert_eq!(client.lines("SELECT * FROM verify_rollup('tenants')"), Vec::<String>::new());
    let windows = client.lines("SELECT time_start, time_end FROM rollup_runs ORDER BY run_id");
    let sizes: Vec<i64> = windows
        .iter()
        .map(|window| {
            let (start, end) = window.split_once('|').expect("two times");
            client.value(&format!(
                "SELECT count(*) FROM views WHERE view_time >= '{start}' AND view_time < '{end}'"
            ))
        })
        .collect();
    assert!(sizes.len() >= 15 && sizes.iter().all(|size| *size <= 100), "{sizes:?}");
}

/// Tables that are not distributed can be written on every node too, as soon as every node knows them.
#[test]
fn reference_tables_local_tables_and_schemas_have_writers_on_every_node() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start_with("");
    let mut client = citus.client();
    client.run(
        "CREATE TABLE rates (id bigserial, key int);
         SELECT create_reference_table('rates');
         CREATE TABLE known (id bigserial, key int);
         SELECT citus_add_local_table_to_metadata('known');
         CREATE TABLE alone (id bigserial, key int);
         CREATE SCHEMA tenant;
         SELECT citus_schema_distribute('tenant');
         CREATE TABLE tenant.visits (id bigserial, key int);",
    );
    for table in ["rates", "known", "alone", "tenant.visits"] {
        let name = table.trim_start_matches("tenant.");
        client.run(&format!(
            "SELECT register_rollup('{name}', 'SELECT key, count(*) AS events FROM {table} GROUP BY 1',
                 target => '{table}_rollup')"
        ));
        client.run(&format!("INSERT INTO {table} (key) SELECT i % 7 FROM generate_series(1, 70) i"));
        if table != "alone" {
            for worker in 0..2 {
                citus.worker(worker).run(&format!("INSERT INTO {table} (key) VALUES (1), (2), (3)"));
            }
        }
        client.run(&format!("SELECT run_rollup('{name}')"));
        let (events, counted): (i64, i64) = (
            client.value(&format!("SELECT count(*) FROM {table}")),
            client.value(&format!("SELECT sum(events)::bigint FROM {table}_rollup")),
        );
        assert_eq!(counted, events, "{table}");
        assert!(events == if table == "alone" { 70 } else { 76 });
        let differing = client.lines(&format!("SELECT * FROM verify_rollup('{name}')"));
        assert_eq!(differing, Vec::<String>::new(), "{table}");
    }
    let beside: bool = client.value(
        "SELECT count(DISTINCT colocationid) = 1 AND count(*) = 2 FROM pg_dist_partition
         WHERE logicalrelid IN ('tenant.visits'::regclass, 'tenant.visits_rollup'::regclass)",
    );
    assert!(beside);
}

#[test]
fn a_start_from_now_leaves_out_what_every_node_has_inserted() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    insert(&mut client, 100);
    insert(&mut citus.worker(0), 100);
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$, start_from => 'now')"));
    insert(&mut citus.worker(0), 10);
    insert(&mut citus.worker(1), 10);
    insert(&mut client, 10);
    client.run("SELECT run_rollup('devices')");
    assert_eq!(counted(&mut client, "devices"), 30);
}

#[test]
fn a_batch_is_shared_by_all_nodes() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$, batch_size => 100)"));
    insert(&mut client, 250);
    insert(&mut citus.worker(0), 250);
    insert(&mut citus.worker(1), 30);
    let mut before = 0;
    loop {
        let written: Option<i64> = client.value("SELECT rows_written FROM run_rollup('devices')");
        let counted: i64 = client.value("SELECT COALESCE(sum(events), 0)::bigint FROM devices");
        if written.is_none() {
            break;
        }
        assert!((1..=100).contains(&(counted - before)), "{before} to {counted}");
        before = counted;
    }
    assert_complete(&mut client, "devices");
    insert(&mut citus.worker(0), 250);
    client.run("CALL catch_up_rollup('devices')");
    assert_complete(&mut client, "devices");
}

/// A rollup belongs to a role that is no superuser: what it does on other nodes it does as that role.
#[test]
fn a_role_of_its_own_registers_and_the_worker_runs_it() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    client.run(
        "CREATE ROLE analyst LOGIN; GRANT CREATE ON SCHEMA public TO analyst; GRANT SELECT ON events TO analyst",
    );
    let mut config = citus.coordinator.config();
    let mut analyst =
        config.user("analyst").dbname("postgres").connect(postgres::NoTls).expect("a connection");
    analyst.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$, schedule => '1 second')"));
    insert(&mut citus.worker(0), 100);
    insert(&mut client, 100);
    wait_for("the worker has everything", 60, || (counted(&mut client, "devices") == 200).then_some(()));
    analyst.run("SELECT run_rollup('devices')");
    assert_complete(&mut analyst, "devices");
}
