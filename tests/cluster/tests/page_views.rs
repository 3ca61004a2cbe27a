//! The article "Real-time Event Aggregation at Scale Using Postgres with Citus" in declarative form: the full
//! aggregation, the incremental one, the time window with its lag, the join with a dimension.

use cluster_tests::{Cluster, Sql, differences, wait_for};
use postgres::Client;

/// The article's tables, and views over the last days, none of the last minute.
fn article(cluster: &Cluster) -> Client {
    let mut client = cluster.database("article");
    client.run(
        "CREATE TABLE page_views (
             tenant_id int,
             page_id int,
             host_ip inet,
             view_time timestamp default now()
         );
         CREATE INDEX view_tenant_idx ON page_views (tenant_id);
         CREATE INDEX view_time_idx ON page_views USING BRIN (view_time);
         CREATE TABLE daily_page_views (
             tenant_id int,
             day date,
             page_id int,
             view_count bigint,
             primary key (tenant_id, day, page_id)
         );
         CREATE TABLE pages (
             tenant_id int,
             page_id int,
             url text,
             language varchar(2),
             primary key (tenant_id, page_id)
         );
         SELECT setseed(0.5);
         INSERT INTO pages SELECT t, p, '/page/' || p, (ARRAY['en', 'de', 'fr'])[1 + p % 3]
         FROM generate_series(0, 30) t, generate_series(0, 500) p;
         INSERT INTO page_views
         SELECT s % 31, (random() * 500)::int, ('203.0.113.' || (s % 251))::inet,
                now() - interval '2 minutes' - random() * interval '3 days'
         FROM generate_series(1, 50000) s",
    );
    client
}

const DAILY: &str = "SELECT tenant_id, view_time::date AS day, page_id, count(*) AS view_count
                     FROM page_views GROUP BY tenant_id, view_time::date, page_id";
const BY_LANGUAGE: &str = "SELECT tenant_id, view_time::date AS day, language, count(*) AS view_count
                           FROM page_views JOIN pages USING (tenant_id, page_id)
                           GROUP BY tenant_id, view_time::date, language";

#[track_caller]
fn assert_exact(client: &mut Client, rollup: &str, query: &str) {
    assert_eq!(
        differences(client, &format!("SELECT * FROM {rollup}"), query),
        Vec::<String>::new(),
        "{rollup}"
    );
    assert_eq!(client.lines(&format!("SELECT * FROM verify_rollup('{rollup}')")), Vec::<String>::new());
}

fn register(client: &mut Client, name: &str, query: &str, lag: &str) {
    let sql = format!("SELECT register_rollup($1, $2, time_column => 'view_time', lag => '{lag}')");
    client.execute(&sql, &[&name, &query]).unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn daily_page_views_follow_a_minute_behind() {
    let cluster = Cluster::start("timezone = 'UTC'");
    let mut client = article(&cluster);
    register(&mut client, "daily_page_views", DAILY, "1 minute");

    // The full aggregation, and the article's question.
    client.run("SELECT run_rollup('daily_page_views')");
    assert_exact(&mut client, "daily_page_views", DAILY);
    let question =
        "WHERE tenant_id = 5 AND day >= current_date - 7 ORDER BY view_count DESC, page_id LIMIT 3";
    assert_eq!(
        client.lines(&format!("SELECT page_id, view_count FROM daily_page_views {question}")),
        client.lines(&format!("SELECT page_id, view_count FROM ({DAILY}) v {question}")),
    );

    // The incremental one: a new view stays out for the minute of the lag, then adds to what is there.
    client.run("INSERT INTO page_views VALUES (5, 10, '203.0.113.1')");
    let inserted = std::time::Instant::now();
    client.run("SELECT run_rollup('daily_page_views')");
    assert_eq!(client.value::<i64>("SELECT sum(view_count)::bigint FROM daily_page_views"), 50_000);
    wait_for("the new view is in the rollup", 90, || {
        client.run("SELECT run_rollup('daily_page_views')");
        client.value::<bool>("SELECT sum(view_count) = 50001 FROM daily_page_views").then_some(())
    });
    assert!(
        inserted.elapsed().as_secs() >= 58,
        "it came {} s after its insert",
        inserted.elapsed().as_secs()
    );
    assert_exact(&mut client, "daily_page_views", DAILY);
}

#[test]
fn by_language_joins_the_pages_and_waits_for_open_writers() {
    let cluster = Cluster::start("timezone = 'UTC'");
    let mut client = article(&cluster);
    register(&mut client, "views_by_language", BY_LANGUAGE, "0");
    client.run("SELECT run_rollup('views_by_language')");
    assert_exact(&mut client, "views_by_language", BY_LANGUAGE);

    // A bulk load that began before others committed: the published recipe, with its clock, would pass it by.
    let mut loader = cluster.connect("article");
    loader.run("BEGIN; INSERT INTO page_views SELECT 7, s, '203.0.113.7' FROM generate_series(1, 100) s");
    client.run("SELECT pg_sleep(1); INSERT INTO page_views VALUES (8, 8, '203.0.113.8')");
    client.run("SELECT pg_sleep(1); SELECT run_rollup('views_by_language')");
    assert_eq!(client.value::<i64>("SELECT sum(view_count)::bigint FROM views_by_language"), 50_000);
    loader.run("COMMIT");
    wait_for("the load and what came after it are in the rollup", 60, || {
        client.run("SELECT run_rollup('views_by_language')");
        client.value::<bool>("SELECT sum(view_count) = 50101 FROM views_by_language").then_some(())
    });
    assert_exact(&mut client, "views_by_language", BY_LANGUAGE);
}

#[test]
fn by_id_every_commit_is_in_the_next_run() {
    let cluster = Cluster::start("timezone = 'UTC'");
    let mut client = article(&cluster);
    client.run("ALTER TABLE page_views ADD view_id bigserial");
    client.execute("SELECT register_rollup('daily_page_views', $1)", &[&DAILY]).expect("registers");
    client.run("SELECT run_rollup('daily_page_views')");
    assert_exact(&mut client, "daily_page_views", DAILY);
    client.run("INSERT INTO page_views VALUES (5, 10, '203.0.113.1'); SELECT run_rollup('daily_page_views')");
    assert_exact(&mut client, "daily_page_views", DAILY);
    client.run("SELECT run_rollup('daily_page_views')");
    assert_exact(&mut client, "daily_page_views", DAILY);
}
