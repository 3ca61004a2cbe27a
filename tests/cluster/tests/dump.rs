//! A dump holds the rollups with their positions and restores into a database where they go on; and the extension goes,
//! comes back and lives in any schema.

use cluster_tests::{Cluster, Sql, wait_for};

/// Every kind of rollup, over tables whose names the dump has to get right, at different positions.
const SHOP: &str = "
    CREATE ROLE keeper;
    CREATE SCHEMA \"Shop\" AUTHORIZATION keeper;
    SET ROLE keeper;
    SET search_path = \"Shop\", public;
    SET TimeZone = 'Asia/Tokyo';
    CREATE TABLE \"Events\" (id bigint GENERATED ALWAYS AS IDENTITY, k int, at timestamptz DEFAULT now()) PARTITION BY RANGE (id);
    CREATE TABLE events_1 PARTITION OF \"Events\" DEFAULT;
    CREATE TABLE pages (k int PRIMARY KEY, lang text);
    CREATE VIEW german AS SELECT k, lang FROM pages WHERE lang = 'de';
    CREATE TABLE log (first bigint, last bigint);
    INSERT INTO pages VALUES (1, 'de'), (2, 'en');
    SELECT register_rollup('by key', 'SELECT k, count(*) AS n, hll_add_agg(hll_hash_bigint(id)) AS ids FROM \"Events\" GROUP BY k',
                           batch_size => 4);
    SELECT register_rollup('by_lang', 'SELECT lang, count(*) AS n FROM \"Events\" JOIN german USING (k) GROUP BY lang');
    SELECT register_rollup('by_day', 'SELECT at::date AS day, count(*) AS n FROM \"Events\" GROUP BY 1', time_column => 'at', lag => '1 hour');
    SELECT register_rollup('command', source => '\"Events\"', command => 'INSERT INTO log VALUES ($1, $2)');
    SELECT register_rollup('paused', 'SELECT count(*) AS n FROM \"Events\"', schedule => '*/5 * * * *');
    SELECT register_rollup('windows', source => '\"Events\"');
    SELECT register_rollup('never', 'SELECT k FROM \"Events\" GROUP BY k');
    SELECT create_live_view('by key');
    SELECT pause_rollup('paused');
    INSERT INTO \"Events\" (k, at) SELECT i % 3, now() - interval '1 day' FROM generate_series(1, 10) i;
    SELECT run_rollup('by key'), run_rollup('by_lang'), run_rollup('by_day'), run_rollup('command'),
           incremental_rollup_window('windows');
    INSERT INTO \"Events\" (k) SELECT i % 3 FROM generate_series(1, 5) i;
    ALTER TABLE \"Events\" RENAME at TO \"inserted At\";
    SELECT run_rollup('by_day');
    RESET ROLE; RESET search_path; RESET TimeZone;
    INSERT INTO rollup_merge_rules VALUES ('Shop', 'my_sum', '$1 + $2');";

const ROLLUPS: &str = "SELECT name, event_table_name, event_id_sequence_name, last_aggregated_id, last_aggregated_time, source,
    id_sequence, id_column, time_column, lag, definition, target, command, schedule, batch_size, paused, owner, search_path,
    time_zone, created_at, pg_get_viewdef(definition), live_view, pg_get_viewdef(live_view) FROM rollups ORDER BY name";

const DIFFERENCES: &str = "SELECT name, d.* FROM rollups, verify_rollup(name) d WHERE target IS NOT NULL";

#[test]
fn a_dump_goes_on_where_it_was() {
    let cluster = Cluster::start("");
    let mut original = cluster.database("original");
    original.run(SHOP);
    let before = original.lines(ROLLUPS);
    assert_eq!(before.len(), 7);

    cluster.connect("postgres").run("CREATE DATABASE copy");
    cluster.psql("copy", &cluster.dump("original")).expect("the dump restores");
    let mut copy = cluster.connect("copy");
    assert_eq!(copy.lines(ROLLUPS), original.lines(ROLLUPS));
    assert_eq!(
        copy.lines("TABLE rollup_merge_rules ORDER BY 1, 2"),
        original.lines("TABLE rollup_merge_rules ORDER BY 1, 2")
    );
    assert_eq!(copy.lines(DIFFERENCES), [""; 0]);
    assert_eq!(copy.value::<i64>("SELECT sum(n)::bigint FROM \"Shop\".\"by key_live\""), 15);

    copy.run("SELECT resume_rollup('paused')");
    let windows = copy.lines(
        "SELECT name, r.window_start, r.window_end, r.rows_written
        FROM rollups, run_rollup(name) r WHERE name NOT IN ('windows', 'by_day') ORDER BY name",
    );
    assert_eq!(
        windows,
        ["by key|5|8|3", "by_lang|11|15|1", "command|11|15|1", "never|1|15|3", "paused|1|15|1"]
    );
    assert_eq!(copy.lines("SELECT * FROM incremental_rollup_window('windows')"), ["11|15"]);
    copy.run("CALL catch_up_rollup('by key')");
    assert_eq!(copy.lines(DIFFERENCES), [""; 0]);
    assert_eq!(copy.value::<i64>("SELECT sum(n)::bigint FROM \"Shop\".\"by key\""), 15);
    assert_eq!(copy.lines("TABLE \"Shop\".log"), ["1|10", "11|15"]);

    // The copy of the copy, and the original was not touched.
    cluster.connect("postgres").run("CREATE DATABASE second");
    cluster.psql("second", &cluster.dump("copy")).expect("the second dump restores");
    assert_eq!(cluster.connect("second").lines(ROLLUPS), copy.lines(ROLLUPS));
    assert_eq!(original.lines(ROLLUPS), before);
}

#[test]
fn what_was_passed_over_comes_after_the_dump() {
    let cluster = Cluster::start("");
    let mut original = cluster.database("original");
    original.run(
        "CREATE TABLE events (id bigserial, k int);
         INSERT INTO events (k) SELECT 1 FROM generate_series(1, 10);
         SELECT register_rollup('r', 'SELECT k, count(*) AS n FROM events GROUP BY k')",
    );
    let mut writer = cluster.connect("original");
    writer.run("BEGIN; INSERT INTO events (k) VALUES (2), (3); SAVEPOINT s; INSERT INTO events (k) VALUES (3); ROLLBACK TO s");
    original.run("INSERT INTO events (k) VALUES (1); SELECT run_rollup('r', '0')");
    writer.run("COMMIT");
    cluster.connect("postgres").run("CREATE DATABASE copy");
    cluster.psql("copy", &cluster.dump("original")).expect("the dump restores");
    for mut client in [cluster.connect("copy"), original] {
        assert_eq!(client.lines("SELECT last_aggregated_id, passed_over FROM rollups"), ["14|{[11,14)}"]);
        assert_eq!(client.lines("TABLE r"), ["1|11"]);
        assert_eq!(client.lines(DIFFERENCES), [""; 0]);
        client.run("SELECT run_rollup('r')");
        assert_eq!(client.lines("SELECT * FROM r ORDER BY k"), ["1|11", "2|1", "3|1"]);
        assert_eq!(client.lines("SELECT last_aggregated_id, passed_over FROM rollups"), ["14|{}"]);
    }
}

#[test]
fn the_extension_goes_and_comes_back() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("shop");
    client.run(
        "CREATE TABLE events (id bigserial, k int); INSERT INTO events (k) VALUES (1), (1);
         SELECT register_rollup('r', 'SELECT k, count(*) AS n FROM events GROUP BY k');
         SELECT run_rollup('r')",
    );
    assert_eq!(client.fails("ALTER EXTENSION rollup_ext SET SCHEMA pg_catalog").code().code(), "0A000");
    assert_eq!(client.fails("DROP TABLE rollups").code().code(), "2BP01");
    client.run("DROP EXTENSION rollup_ext; INSERT INTO events (k) VALUES (2); CREATE EXTENSION rollup_ext");
    // Its tables are gone, the user's are not; what is left over is named.
    assert_eq!(client.value::<i64>("SELECT count(*) FROM rollups"), 0);
    assert_eq!(client.lines("TABLE r"), ["1|2"]);
    let again =
        "SELECT register_rollup('r', 'SELECT k, count(*) AS n FROM events GROUP BY k', start_from => '3')";
    let error = client.fails(again);
    assert_eq!(
        (error.code().code(), error.message()),
        ("42P07", "relation public.r_definition already exists")
    );
    client.run("DROP VIEW r_definition");
    client.run(again);
    client.run("SELECT run_rollup('r')");
    assert_eq!(client.lines(DIFFERENCES), [""; 0]);
    assert_eq!(client.lines("SELECT * FROM r ORDER BY k"), ["1|2", "2|1"]);

    // A type of the extension in a target holds it, as with every extension.
    client.run("SELECT register_rollup('s', 'SELECT k, hll_add_agg(hll_hash_integer(k)) AS h FROM events GROUP BY k')");
    assert_eq!(client.fails("DROP EXTENSION rollup_ext").code().code(), "2BP01");
    client.run("SELECT drop_rollup('s', true); DROP EXTENSION rollup_ext");
}

#[test]
fn owners_come_and_go() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("shop");
    client.run(SHOP);
    client.run(
        "CREATE ROLE heir; GRANT USAGE, CREATE ON SCHEMA \"Shop\" TO heir; REASSIGN OWNED BY keeper TO heir",
    );
    client.run("INSERT INTO \"Shop\".\"Events\" (k) VALUES (1)");
    // The rollup still runs as keeper, who may nothing any more, until it is handed over as well.
    assert_eq!(client.fails("SELECT run_rollup('by_lang')").code().code(), "42501");
    client.run("SELECT alter_rollup(name, new_owner => 'heir') FROM rollups; SELECT run_rollup('by_lang')");
    assert_eq!(client.lines(DIFFERENCES), [""; 0]);
    client.run("DROP OWNED BY keeper; DROP ROLE keeper");
    client
        .run("SELECT run_rollup('by key'); SET search_path = public; ALTER SCHEMA \"Shop\" RENAME TO store");
    assert_eq!(client.lines(DIFFERENCES), [""; 0]);
    client.run("DROP OWNED BY heir CASCADE; SELECT drop_rollup(name) FROM rollups; DROP ROLE heir");
}

#[test]
fn it_lives_in_any_schema() {
    let cluster = Cluster::start("");
    cluster.connect("postgres").run("CREATE DATABASE shop");
    let mut client = cluster.connect("shop");
    client.run(
        "CREATE SCHEMA \"Odd Schema\"; CREATE EXTENSION rollup_ext SCHEMA \"Odd Schema\";
         SET search_path = public;
         CREATE TABLE events (id bigserial, k int);
         CREATE TABLE rollups (mine int); CREATE TABLE rollup_runs (mine int);
         INSERT INTO events (k) VALUES (1), (1), (2);
         SELECT \"Odd Schema\".register_rollup('r', 'SELECT k, count(*) AS n,
             \"Odd Schema\".hll_add_agg(\"Odd Schema\".hll_hash_integer(k)) AS h,
             \"Odd Schema\".topn_add_agg(k::text) AS t FROM events GROUP BY k', schedule => '1 day');
         INSERT INTO \"Odd Schema\".rollups (name, event_table_name) VALUES ('w', 'events');",
    );
    for _ in 0..2 {
        client.run(
            "SELECT \"Odd Schema\".run_rollup('r'); SELECT \"Odd Schema\".incremental_rollup_window('w');
                    INSERT INTO events (k) VALUES (1), (3), (NULL)",
        );
    }
    client.run("CALL \"Odd Schema\".catch_up_rollup('r')");
    assert!(client.lines("SELECT * FROM \"Odd Schema\".verify_rollup('r')").is_empty());
    assert_eq!(
        client.lines("SELECT k, n, \"Odd Schema\".hll_cardinality(h), t FROM r ORDER BY k"),
        ["1|4|1|{\"1\": 4}", "2|1|1|{\"2\": 1}", "3|2|1|{\"3\": 2}", "|2|0|{}"]
    );
    assert_eq!(client.lines("SELECT rollup_name FROM \"Odd Schema\".rollup_status ORDER BY 1"), ["r", "w"]);
    client.run("SELECT \"Odd Schema\".refresh_rollup('r'), \"Odd Schema\".explain_rollup('r'), \"Odd Schema\".reset_rollup('r')");
    cluster.connect("postgres").run("CREATE DATABASE copy");
    cluster.psql("copy", &cluster.dump("shop")).expect("the dump restores");
    cluster.connect("copy").run("SELECT \"Odd Schema\".run_rollup('r')");
    client.run("SELECT \"Odd Schema\".drop_rollup('r', true); SELECT \"Odd Schema\".drop_rollup('w'); DROP EXTENSION rollup_ext");
}

/// The registrations are there before the events, and the worker sees them at once.
#[test]
fn a_restore_may_be_slow() {
    const TOTALS: &str =
        "SELECT ARRAY[(SELECT n FROM by_id), (SELECT n FROM by_time), (SELECT sum(n) FROM by_command)]::text";
    let cluster = Cluster::start("");
    let mut original = cluster.database("original");
    original.run(
        "CREATE TABLE the_events (id bigserial, at timestamptz DEFAULT now());
         CREATE TABLE by_command (n bigint);
         SELECT register_rollup('by_id', 'SELECT count(*) AS n FROM the_events', schedule => '1 second');
         SELECT register_rollup('by_time', 'SELECT count(*) AS n FROM the_events', schedule => '1 second', time_column => 'at');
         SELECT register_rollup('by_command', source => 'the_events', schedule => '1 second', time_column => 'at',
             command => 'INSERT INTO by_command SELECT count(*) FROM the_events WHERE at >= $1 AND at < $2');
         INSERT INTO the_events SELECT FROM generate_series(1, 10)",
    );
    wait_for("all have run", 30, || (original.value::<String>(TOTALS) == "{10,10,10}").then_some(()));
    let mut admin = cluster.connect("postgres");
    admin.run("ALTER SYSTEM SET rollup_ext.max_workers = 0");
    admin.run("SELECT pg_reload_conf(), pg_sleep(1)");
    original.run("INSERT INTO the_events SELECT FROM generate_series(1, 5)");
    let dump = cluster.dump("original");
    drop(original);
    for command in
        ["ALTER SYSTEM RESET rollup_ext.max_workers", "SELECT pg_reload_conf()", "CREATE DATABASE copy"]
    {
        admin.run(command);
    }
    let (before, after) = dump.split_once("COPY public.the_events").expect("the events are in the dump");
    assert!(before.contains("COPY public.rollups"));
    // Each statement is a transaction of its own, and a window of times ends before the one that is open.
    let scheduler = "DO $$ BEGIN
        WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'rollup_ext scheduler' AND datname = 'copy') LOOP
            PERFORM pg_sleep(0.1), pg_stat_clear_snapshot();
        END LOOP; END $$;";
    let slowly =
        format!("{before}{scheduler} SELECT pg_sleep(3); SELECT pg_sleep(2);\nCOPY public.the_events{after}");
    cluster.psql("copy", &slowly).expect("the dump restores");
    let mut copy = cluster.connect("copy");
    // Until then the sequence is at its start, and the unique index that a merge needs is missing.
    let failures =
        "SELECT DISTINCT rollup_name || ' ' || sqlstate FROM rollup_runs WHERE status = 'failed' ORDER BY 1";
    assert_eq!(copy.lines(failures), ["by_id 55000", "by_time 42P10"]);
    assert_eq!(copy.lines("SELECT name FROM rollups WHERE paused"), ["by_command"]);
    copy.run("SELECT resume_rollup('by_command')");
    wait_for("all have caught up", 60, || (copy.value::<String>(TOTALS) == "{15,15,15}").then_some(()));
}
