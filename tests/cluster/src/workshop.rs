//! The clickstream workshop: its tables and functions as published, its query in declarative form, and what its dashboard
//! has to show.

use postgres::Client;

use crate::{Sql, differences, section};

/// The SQL of the workshop, in sections.
pub const WORKSHOP: &str = include_str!("../seeds/workshop.sql");
const GENERATOR: &str = include_str!("../../../demo/generate_events.sql");
const COLUMNS: &str = "event_time, customer_id, event_type, country, browser, device_id, session_id";
const MEASURES: &str =
    "event_count, device_distinct_count::bytea, session_distinct_count::bytea, top_devices_1000";

/// The workshop's query, bucket aside.
pub fn query(bucket: &str, name: &str) -> String {
    format!(
        "SELECT customer_id, event_type, country, browser, {bucket} AS {name},
                count(*) AS event_count,
                hll_add_agg(hll_hash_bigint(device_id)) AS device_distinct_count,
                hll_add_agg(hll_hash_bigint(session_id)) AS session_distinct_count,
                topn_add_agg(device_id::text) AS top_devices_1000
         FROM events GROUP BY customer_id, event_type, country, browser, {name}"
    )
}

/// Bucket and its name.
pub const FIVE_MINUTES: (&str, &str) = ("date_bin('5 minutes', event_time, 'epoch')", "minute");
/// Bucket and its name.
pub const HOUR: (&str, &str) = ("date_trunc('hour', event_time)", "hour");

/// The workshop up to its positions, in a database that has the extension.
pub fn tables(client: &mut Client) {
    client.run("CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman");
    client.run(GENERATOR);
    for name in ["events", "partitions", "shard", "rollup table 5min", "rollup table 1hr", "positions"] {
        client.run(section(WORKSHOP, name));
    }
    client.run(section(WORKSHOP, "five_minutely_aggregation"));
    client.run(section(WORKSHOP, "hourly_aggregation"));
}

/// Registers both rollups in declarative form, as `declarative_5min` and `declarative_1hr`.
pub fn declare(client: &mut Client) {
    for (name, (bucket, column)) in [("declarative_5min", FIVE_MINUTES), ("declarative_1hr", HOUR)] {
        client
            .execute("SELECT register_rollup($1, $2)", &[&name, &query(bucket, column)])
            .unwrap_or_else(|error| panic!("{error:?}"));
    }
}

/// Both tables of the workshop and both declarative ones hold what the events give, and the same.
#[track_caller]
pub fn assert_all_exact(client: &mut Client) {
    assert_exact(client, "rollup_events_5min", FIVE_MINUTES);
    assert_exact(client, "rollup_events_1hr", HOUR);
    for (published, declarative, bucket) in [
        ("rollup_events_5min", "declarative_5min", "minute"),
        ("rollup_events_1hr", "declarative_1hr", "hour"),
    ] {
        let columns = format!("customer_id, event_type, country, browser, {bucket}, {MEASURES}");
        let rows = |table: &str| format!("SELECT {columns} FROM {table}");
        assert_eq!(differences(client, &rows(published), &rows(declarative)), Vec::<String>::new());
    }
    assert_eq!(
        client.lines("SELECT DISTINCT last_aggregated_id = (SELECT max(event_id) FROM events) FROM rollups"),
        ["t"]
    );
}

/// Inserts so many events of the last 25 minutes.
pub fn load(client: &mut Client, events: u32) {
    client.run(&format!(
        "INSERT INTO events ({COLUMNS}) SELECT * FROM generate_events({events}, now() - interval '25 minutes', now())"
    ));
}

/// The rollup table holds exactly what a recomputation from the events gives, sketches byte for byte.
#[track_caller]
pub fn assert_exact(client: &mut Client, table: &str, (bucket, name): (&str, &str)) {
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

/// The five queries, each against the events it stands for, at one and the same now().
pub fn dashboard(client: &mut Client) {
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
