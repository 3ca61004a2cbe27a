//! Where targets live, and what is pushed down to the shards.

use cluster_tests::citus::{Citus, DEVICES, assert_complete, counted, insert};
use cluster_tests::{Sql, available, wait_for};

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

/// The example of the README, as it stands but for what the cluster has already.
#[test]
fn the_example_of_the_readme_is_pushed_down() {
    if !available("citus") {
        return;
    }
    let readme = include_str!("../../../../README.md");
    let start = readme.find("``` sql\nCREATE EXTENSION citus;").expect("the example") + "``` sql\n".len();
    let example = &readme[start..start + readme[start..].find("```").expect("its end")];
    let example: Vec<&str> = example.lines().filter(|line| !line.starts_with("CREATE EXTENSION")).collect();
    let citus = Citus::start_with("");
    let mut client = citus.client();
    let lines = client.lines(&example.join("\n"));
    assert!(lines.iter().any(|line| line == "Citus: pushed down to the shards"), "{lines:?}");
}

/// A first run has looked into the target before: that must not tie all shards of a node to one connection.
#[test]
fn the_shards_of_a_node_are_filled_at_the_same_time() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    client.run(
        "CREATE FUNCTION slowly(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN PERFORM pg_sleep(0.05); RETURN $1; END $$;
         SELECT register_rollup('slow', 'SELECT customer_id, sum(slowly(device_id)) AS devices, count(*) AS events
             FROM events GROUP BY 1')",
    );
    insert(&mut client, 400);
    std::thread::scope(|scope| {
        // A session that has a connection to each node: the look into the target takes no time to open more.
        let run = scope.spawn(|| client.run("SELECT run_rollup('slow')"));
        wait_for("all four shards of a node at once", 20, || {
            let at_work = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            (citus.worker(0).value::<i64>(at_work) == 4).then_some(())
        });
        run.join().expect("the run succeeds");
    });
    assert_complete(&mut client, "slow");
}

/// A group key without the distribution column needs a target that is there before, and the groups are pulled to the
/// coordinator; wherever that target is, it gets the same.
#[test]
fn a_target_of_ones_own_takes_the_slower_plan() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start();
    let mut client = citus.client();
    for (name, place) in [
        ("here", ""),
        ("elsewhere", "SELECT create_distributed_table('elsewhere', 'device_id', colocate_with => 'none')"),
        ("everywhere", "SELECT create_reference_table('everywhere')"),
    ] {
        client.run(&format!(
            "CREATE TABLE {name} (device_id bigint, events bigint);
             CREATE UNIQUE INDEX ON {name} (device_id) NULLS NOT DISTINCT;
             {place};
             SELECT register_rollup('{name}', 'SELECT device_id, count(*) AS events FROM events GROUP BY 1')"
        ));
    }
    for round in 0..2 {
        insert(&mut client, 300 + round);
        insert(&mut citus.worker(0), 300);
        for name in ["here", "elsewhere", "everywhere"] {
            let explained = client.lines(&format!("SELECT explain_rollup('{name}')"));
            assert!(explained.iter().any(|line| line.starts_with("Citus: not pushed down")), "{explained:?}");
            client.run(&format!("SELECT run_rollup('{name}')"));
            assert_complete(&mut client, name);
        }
    }
}

/// Runs of a rollup whose events come by other nodes too count as aggregated when partitions are dropped.
#[test]
fn old_partitions_are_dropped_when_every_node_is_aggregated() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start_with("");
    let mut client = citus.client();
    client.run(
        "CREATE TABLE events (event_id bigserial, day date NOT NULL, customer_id bigint, device_id bigint)
             PARTITION BY RANGE (day);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2020-01-02');
         CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2020-01-02') TO ('2020-01-03');
         SELECT create_distributed_table('events', 'customer_id');",
    );
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$)"));
    let fill = "INSERT INTO events (day, customer_id) SELECT date '2020-01-01' + i % 2, i FROM generate_series(1, 100) i";
    client.run(fill);
    citus.worker(0).run(fill);
    let drop = "SELECT drop_rolled_up_partitions('events', '2020-01-02'::timestamptz)";
    assert_eq!(client.lines(drop), Vec::<String>::new());
    client.run("SELECT run_rollup('devices')");
    citus.worker(1).run("INSERT INTO events (day, customer_id) VALUES ('2020-01-01', 1)");
    assert_eq!(client.lines(drop), Vec::<String>::new());
    let error = client.fails("DROP TABLE events_1");
    assert!(error.message().contains("not aggregated"), "{error}");
    client.run("SELECT run_rollup('devices')");
    assert_eq!(client.lines(drop), ["public.events_1"]);
    client.run("DROP TABLE events_2");
    assert_eq!(counted(&mut client, "devices"), 201);
}

/// The index that a run goes by is one that the table can have.
#[test]
fn a_columnar_partition_takes_a_btree_index() {
    if !available("citus") || !available("citus_columnar") {
        return;
    }
    let citus = Citus::start_with("");
    let mut client = citus.client();
    client.run(
        "CREATE EXTENSION IF NOT EXISTS citus_columnar;
         CREATE TABLE mixed (id bigserial, day date NOT NULL, x int) PARTITION BY RANGE (day);
         CREATE TABLE mixed_old PARTITION OF mixed FOR VALUES FROM ('2020-01-01') TO ('2020-01-02') USING columnar;
         SELECT create_distributed_table('mixed', 'x');
         SELECT register_rollup('mixed_rollup', 'SELECT x, count(*) AS events FROM mixed GROUP BY 1');",
    );
    let index: String = client.value("SELECT indexdef FROM pg_indexes WHERE tablename = 'mixed'");
    assert!(index.contains("USING btree (id)"), "{index}");
}
