//! The clickstream workshop as published, on one node: its tables, its catalog entries, its aggregation functions, its
//! pg_cron lines, its partitions by pg_partman, its dashboard. Then the same in declarative form, row by row.

use std::thread::JoinHandle;
use std::time::Duration;

use cluster_tests::workshop::{self, FIVE_MINUTES, HOUR, WORKSHOP, assert_exact, load};
use cluster_tests::{Cluster, Sql, available, section, wait_for};
use postgres::Client;

const CONF: &str = "shared_preload_libraries = 'rollup_ext,pg_cron'
cron.database_name = 'workshop'
cron.use_background_workers = on
timezone = 'UTC'";

/// Two writers, each some hundred transactions, one after the other.
fn writers(cluster: &Cluster) -> Vec<JoinHandle<()>> {
    (0..2)
        .map(|_| {
            let mut client = cluster.connect("workshop");
            std::thread::spawn(move || {
                for _ in 0..300 {
                    load(&mut client, 20);
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        })
        .collect()
}

#[test]
fn the_workshop_runs_as_published_and_in_declarative_form() {
    if !available("pg_cron") || !available("pg_partman") {
        return;
    }
    let cluster = Cluster::start(CONF);
    let mut client = cluster.database("workshop");
    // The workshop runs on Citus; on one node its calls to distribute a table have nothing to do.
    client.run(
        "CREATE EXTENSION pg_cron;
         CREATE FUNCTION create_distributed_table(regclass, text) RETURNS void LANGUAGE sql AS ''",
    );
    workshop::tables(&mut client);
    workshop::declare(&mut client);

    // Runs between loads and while others write.
    client.run("SELECT setseed(0.5)");
    load(&mut client, 20_000);
    client.run(section(WORKSHOP, "force"));
    let writers = writers(&cluster);
    while writers.iter().any(|writer| !writer.is_finished()) {
        client.run(section(WORKSHOP, "force"));
        client.run("SELECT run_rollup('declarative_5min')");
        client.run("SELECT run_rollup('declarative_1hr')");
    }
    writers.into_iter().for_each(|writer| writer.join().expect("the writer ends well"));
    client.run(section(WORKSHOP, "force"));
    client.run("SELECT run_rollup('declarative_5min')");
    client.run("SELECT run_rollup('declarative_1hr')");

    workshop::assert_all_exact(&mut client);
    workshop::dashboard(&mut client);
    cron(&mut client);
}

/// The workshop's cron lines, made to fire each minute instead of each fifth, and the declarative rollup beside them.
fn cron(client: &mut Client) {
    client.run(section(WORKSHOP, "schedule"));
    assert_eq!(client.lines("SELECT schedule FROM cron.job"), ["*/5 * * * *", "*/5 * * * *"]);
    client.run(
        "SELECT cron.alter_job(jobid, schedule => '* * * * *') FROM cron.job;
         SELECT cron.schedule('* * * * *', $$SELECT run_rollup('declarative_5min')$$);
         SELECT cron.schedule('* * * * *', $$SELECT run_rollup('declarative_1hr')$$)",
    );
    load(client, 1_000);
    wait_for("all four jobs of pg_cron succeed", 150, || {
        let failed =
            client.lines("SELECT command, return_message FROM cron.job_run_details WHERE status = 'failed'");
        assert!(failed.is_empty(), "{failed:?}");
        client
            .value::<bool>(
                "SELECT count(DISTINCT jobid) = 4 FROM cron.job_run_details WHERE status = 'succeeded'",
            )
            .then_some(())
    });
    for (table, bucket) in [
        ("rollup_events_5min", FIVE_MINUTES),
        ("declarative_5min", FIVE_MINUTES),
        ("rollup_events_1hr", HOUR),
        ("declarative_1hr", HOUR),
    ] {
        assert_exact(client, table, bucket);
    }
}
