//! The clickstream workshop as published, on one node: its tables, its catalog entries, its aggregation functions, its
//! pg_cron lines, its partitions by pg_partman, its dashboard. Then the same in declarative form, row by row.

use std::thread::JoinHandle;
use std::time::Duration;

use cluster_tests::{Cluster, Sql, available, differences, section, wait_for};
use postgres::Client;

const WORKSHOP: &str = include_str!("../seeds/workshop.sql");
const GENERATOR: &str = include_str!("../../../demo/generate_events.sql");
const COLUMNS: &str = "event_time, customer_id, event_type, country, browser, device_id, session_id";
const MEASURES: &str =
    "event_count, device_distinct_count::bytea, session_distinct_count::bytea, top_devices_1000";
const CONF: &str = "shared_preload_libraries = 'rollup_ext,pg_cron'
cron.database_name = 'workshop'
cron.use_background_workers = on
timezone = 'UTC'";

/// The workshop's query, bucket aside.
fn query(bucket: &str, name: &str) -> String {
    format!(
        "SELECT customer_id, event_type, country, browser, {bucket} AS {name},
                count(*) AS event_count,
                hll_add_agg(hll_hash_bigint(device_id)) AS device_distinct_count,
                hll_add_agg(hll_hash_bigint(session_id)) AS session_distinct_count,
                topn_add_agg(device_id::text) AS top_devices_1000
         FROM events GROUP BY customer_id, event_type, country, browser, {name}"
    )
}

const FIVE_MINUTES: (&str, &str) = ("date_bin('5 minutes', event_time, 'epoch')", "minute");
const HOUR: (&str, &str) = ("date_trunc('hour', event_time)", "hour");

/// The workshop up to its positions, in a database `workshop` with pg_cron and pg_partman.
fn workshop(cluster: &Cluster) -> Client {
    let mut client = cluster.database("workshop");
    client.run(
        "CREATE EXTENSION pg_cron; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman;
         -- The workshop runs on Citus; on one node its calls to distribute a table have nothing to do.
         CREATE FUNCTION create_distributed_table(regclass, text) RETURNS void LANGUAGE sql AS ''",
    );
    client.run(GENERATOR);
    for name in ["events", "partitions", "shard", "rollup table 5min", "rollup table 1hr", "positions"] {
        client.run(section(WORKSHOP, name));
    }
    client.run(section(WORKSHOP, "five_minutely_aggregation"));
    client.run(section(WORKSHOP, "hourly_aggregation"));
    client
}

fn load(client: &mut Client, events: u32) {
    client.run(&format!(
        "INSERT INTO events ({COLUMNS}) SELECT * FROM generate_events({events}, now() - interval '25 minutes', now())"
    ));
}

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

/// The rollup table holds exactly what a recomputation from the events gives, sketches byte for byte.
fn assert_exact(client: &mut Client, table: &str, (bucket, name): (&str, &str)) {
    let keys = format!("customer_id, event_type, country, browser, {name}");
    let stored = format!("SELECT {keys}, {MEASURES} FROM {table}");
    let exact = format!("SELECT {keys}, {MEASURES} FROM ({}) e", query(bucket, name));
    assert_eq!(differences(client, &stored, &exact), Vec::<String>::new(), "{table}");
    let (in_rollup, in_events) = (
        client.value::<i64>(&format!("SELECT coalesce(sum(event_count), 0)::bigint FROM {table}")),
        client.value::<i64>("SELECT count(*) FROM events"),
    );
    assert_eq!(in_rollup, in_events, "{table}");
    assert!(in_events > 0);
}

#[test]
fn the_workshop_runs_as_published_and_in_declarative_form() {
    if !available("pg_cron") || !available("pg_partman") {
        return;
    }
    let cluster = Cluster::start(CONF);
    let mut client = workshop(&cluster);
    for (name, (bucket, column)) in [("declarative_5min", FIVE_MINUTES), ("declarative_1hr", HOUR)] {
        client
            .execute("SELECT register_rollup($1, $2)", &[&name, &query(bucket, column)])
            .expect("registers");
    }

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

    assert_exact(&mut client, "rollup_events_5min", FIVE_MINUTES);
    assert_exact(&mut client, "rollup_events_1hr", HOUR);
    for (published, declarative, bucket) in [
        ("rollup_events_5min", "declarative_5min", "minute"),
        ("rollup_events_1hr", "declarative_1hr", "hour"),
    ] {
        let columns = format!("customer_id, event_type, country, browser, {bucket}, {MEASURES}");
        let rows = |table: &str| format!("SELECT {columns} FROM {table}");
        assert_eq!(differences(&mut client, &rows(published), &rows(declarative)), Vec::<String>::new());
    }
    assert_eq!(
        client.lines("SELECT DISTINCT last_aggregated_id = (SELECT max(event_id) FROM events) FROM rollups"),
        ["t"]
    );
    dashboard(&mut client);
    cron(&mut client);
}

/// The five queries, each against the events it stands for, at one and the same now().
fn dashboard(client: &mut Client) {
    let count = |line: &str, column: usize| -> f64 {
        line.split('|').nth(column).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let close = |estimate: f64, exact: f64| (estimate - exact).abs() <= 0.1 * exact;

    client.run("BEGIN");
    for (name, since) in [
        ("last 15 minutes", "date_bin('5 minutes', event_time, 'epoch') >= now() - interval '15 minutes'"),
        (
            "customer, last 15 minutes",
            "date_bin('5 minutes', event_time, 'epoch') >= now() - interval '15 minutes' AND customer_id = 1",
        ),
        ("sessions of the week", "true"),
    ] {
        let shown = client.lines(section(WORKSHOP, name));
        let exact = client.lines(&format!(
            "SELECT count(*), count(DISTINCT device_id) FROM events WHERE {since} AND event_time <= now()"
        ));
        assert_eq!(count(&shown[0], 0), count(&exact[0], 0), "{name}");
        assert!(close(count(&shown[0], 1), count(&exact[0], 1)), "{name}: {shown:?} for {exact:?}");
        assert!(count(&shown[0], 0) > 0.0, "{name}");
    }

    let mut trend = client.lines(section(WORKSHOP, "trend"));
    trend.sort();
    let exact = client.lines(
        "SELECT date_trunc('hour', event_time), count(*), count(DISTINCT device_id), count(DISTINCT session_id)
         FROM events GROUP BY 1 ORDER BY 1",
    );
    assert_eq!(trend.len(), exact.len());
    for (shown, exact) in trend.iter().zip(&exact) {
        assert_eq!(shown.split('|').next(), exact.split('|').next());
        assert_eq!(count(shown, 1), count(exact, 1));
        assert!(
            close(count(shown, 2), count(exact, 2)) && close(count(shown, 3), count(exact, 3)),
            "{shown} {exact}"
        );
    }

    // Ties may fall either way: the counts of the devices shown are the highest there are.
    let shown = client.lines(section(WORKSHOP, "top devices"));
    assert_eq!(shown.len(), 10);
    let all = "SELECT count(*) AS n FROM events WHERE customer_id = 2";
    let of_those_shown = client
        .lines(&format!("{all} AND device_id IN ({}) GROUP BY device_id ORDER BY n DESC", shown.join(", ")));
    assert_eq!(of_those_shown, client.lines(&format!("{all} GROUP BY device_id ORDER BY n DESC LIMIT 10")));
    client.run("COMMIT");
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
