//! Both seed documents on the cluster as written, and in declarative form.

use cluster_tests::citus::Citus;
use cluster_tests::workshop::{self, WORKSHOP};
use cluster_tests::{Cluster, Sql, available, differences, section};
use postgres::Client;

/// The lines of a plan that stand above the tasks, what the coordinator does, and those of the first task.
fn plan(client: &mut Client, query: &str) -> (Vec<String>, Vec<String>) {
    let lines = client.lines(&format!("EXPLAIN (VERBOSE, COSTS OFF) {query}"));
    let task = lines.iter().position(|line| line.contains("->  Task")).unwrap_or_else(|| panic!("{lines:?}"));
    (lines[..task].to_vec(), lines[task..].to_vec())
}

/// The aggregates of a dashboard run on the shards: what comes from them is one row for each group, with the states.
#[track_caller]
fn assert_pushed_down(client: &mut Client, query: &str) {
    let (_, task) = plan(client, query);
    assert!(task.iter().any(|line| line.contains("Aggregate")), "{query}\n{}", task.join("\n"));
    let pulls = task.iter().any(|line| line.contains("Query: SELECT") && !line.contains("_agg("));
    assert!(!pulls, "{query}\n{}", task.join("\n"));
}

/// A query on one customer goes to one shard as it is.
#[track_caller]
fn assert_routed(client: &mut Client, query: &str) {
    let (above, _) = plan(client, query);
    assert!(above.iter().any(|line| line.trim() == "Task Count: 1"), "{query}\n{}", above.join("\n"));
}

#[test]
fn the_workshop_runs_as_published_and_in_declarative_form() {
    if !available("citus") || !available("pg_partman") {
        return;
    }
    let citus = Citus::start_with("timezone = 'UTC'");
    let mut client = citus.client();
    workshop::tables(&mut client);
    workshop::declare(&mut client);
    let together: bool = client.value(
        "SELECT count(DISTINCT colocationid) = 1 AND count(*) = 5 FROM pg_dist_partition
         WHERE logicalrelid IN ('events'::regclass, 'rollup_events_5min'::regclass, 'rollup_events_1hr'::regclass,
                                'declarative_5min'::regclass, 'declarative_1hr'::regclass)",
    );
    assert!(together);
    let explained = client.lines("SELECT explain_rollup('declarative_5min')");
    assert!(explained.iter().any(|line| line == "Citus: pushed down to the shards"), "{explained:?}");

    client.run("SELECT setseed(0.5)");
    workshop::load(&mut client, 20_000);
    run_all(&mut client);
    let writers: Vec<_> = (0..2).map(|_| writer(&citus.coordinator)).collect();
    while writers.iter().any(|writer| !writer.is_finished()) {
        run_all(&mut client);
    }
    writers.into_iter().for_each(|writer| writer.join().expect("the writer ends well"));
    run_all(&mut client);
    workshop::assert_all_exact(&mut client);
    workshop::dashboard(&mut client);

    for name in ["last 15 minutes", "sessions of the week", "trend"] {
        assert_pushed_down(&mut client, section(WORKSHOP, name));
    }
    for name in ["customer, last 15 minutes", "top devices"] {
        assert_routed(&mut client, section(WORKSHOP, name));
    }
    assert_pushed_down(&mut client, "SELECT topn_union_agg(top_devices_1000) FROM rollup_events_5min");
    assert_pushed_down(
        &mut client,
        "SELECT hll_add_agg(hll_hash_bigint(device_id)), topn_add_agg(device_id::text) FROM events",
    );
}

fn run_all(client: &mut Client) {
    client.run(section(WORKSHOP, "force"));
    client.run("SELECT run_rollup('declarative_5min')");
    client.run("SELECT run_rollup('declarative_1hr')");
}

fn writer(coordinator: &Cluster) -> std::thread::JoinHandle<()> {
    let mut client = coordinator.connect("postgres");
    std::thread::spawn(move || (0..100).for_each(|_| workshop::load(&mut client, 20)))
}

const DAILY: &str = "SELECT tenant_id, view_time::date AS day, page_id, count(*) AS view_count
                     FROM page_views GROUP BY tenant_id, view_time::date, page_id";

/// The article with its tables distributed as it says, the join with a distributed and with a reference table.
#[test]
fn the_article_in_declarative_form_with_its_joins() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start_with("timezone = 'UTC'");
    let mut client = citus.client();
    client.run(
        "CREATE TABLE page_views (
             tenant_id int,
             page_id int,
             host_ip inet,
             view_time timestamp default now()
         );
         CREATE INDEX view_tenant_idx ON page_views (tenant_id);
         CREATE INDEX view_time_idx ON page_views USING BRIN (view_time);
         SELECT create_distributed_table('page_views', 'tenant_id');
         CREATE TABLE daily_page_views (
             tenant_id int,
             day date,
             page_id int,
             view_count bigint,
             primary key (tenant_id, day, page_id)
         );
         SELECT create_distributed_table('daily_page_views', 'tenant_id');
         CREATE TABLE pages (
             tenant_id int,
             page_id int,
             url text,
             language varchar(2),
             primary key (tenant_id, page_id)
         );
         SELECT create_distributed_table('pages', 'tenant_id');
         CREATE TABLE languages (language varchar(2) PRIMARY KEY, family text);
         SELECT create_reference_table('languages');
         INSERT INTO languages VALUES ('en', 'germanic'), ('de', 'germanic'), ('fr', 'romance');
         INSERT INTO pages SELECT t, p, '/page/' || p, (ARRAY['en', 'de', 'fr'])[1 + p % 3]
         FROM generate_series(0, 30) t, generate_series(0, 50) p;
         INSERT INTO page_views
         SELECT s % 31, s % 50, ('203.0.113.' || (s % 251))::inet, now() - interval '2 minutes' - s * interval '1 second'
         FROM generate_series(1, 5000) s",
    );
    let by_language = "SELECT tenant_id, view_time::date AS day, language, count(*) AS view_count
                       FROM page_views JOIN pages USING (tenant_id, page_id)
                       GROUP BY tenant_id, view_time::date, language";
    let by_family = "SELECT tenant_id, family, count(*) AS view_count
                     FROM page_views JOIN pages USING (tenant_id, page_id) JOIN languages USING (language)
                     GROUP BY tenant_id, family";
    for (name, query) in [("daily_page_views", DAILY), ("by_language", by_language), ("by_family", by_family)]
    {
        client
            .execute("SELECT register_rollup($1, $2, time_column => 'view_time')", &[&name, &query])
            .unwrap_or_else(|error| panic!("{error:?}"));
        let explained = client.lines(&format!("SELECT explain_rollup('{name}')"));
        assert!(explained.iter().any(|line| line == "Citus: pushed down to the shards"), "{explained:?}");
        client.run(&format!("SELECT run_rollup('{name}')"));
    }
    client.run("INSERT INTO page_views VALUES (5, 10, '203.0.113.1')");
    citus.worker(0).run("INSERT INTO page_views VALUES (6, 10, '203.0.113.1')");
    // The margin of a time window.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    for (name, query) in [("daily_page_views", DAILY), ("by_language", by_language), ("by_family", by_family)]
    {
        client.run(&format!("SELECT run_rollup('{name}')"));
        assert_eq!(
            differences(&mut client, &format!("SELECT * FROM {name}"), query),
            Vec::<String>::new(),
            "{name}"
        );
        assert_eq!(client.lines(&format!("SELECT * FROM verify_rollup('{name}')")), Vec::<String>::new());
    }
    let views: i64 = client.value("SELECT sum(view_count)::bigint FROM daily_page_views");
    assert_eq!(views, 5002);

    let question =
        "WHERE tenant_id = 5 AND day >= current_date - 7 ORDER BY view_count DESC, page_id LIMIT 3";
    let from_rollup = format!("SELECT page_id, view_count FROM daily_page_views {question}");
    assert_routed(&mut client, &from_rollup);
    assert_eq!(
        client.lines(&from_rollup),
        client.lines(&format!("SELECT page_id, view_count FROM ({DAILY}) v {question}")),
    );
    let urls = "SELECT url, view_count FROM daily_page_views JOIN pages USING (tenant_id, page_id)
                WHERE tenant_id = 5 AND day >= current_date - 7 ORDER BY view_count DESC LIMIT 3";
    assert_routed(&mut client, urls);
    assert_eq!(client.lines(urls).len(), 3);
}
