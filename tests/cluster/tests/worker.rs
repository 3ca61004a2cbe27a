//! The worker: launcher, schedulers and jobs, on servers of their own.

use std::time::{Duration, Instant};

use cluster_tests::{Cluster, Sql, Stop, wait_for};
use postgres::Client;

/// Nothing is found by looking around: what these servers notice, they were told.
const TOLD: &str = "rollup_ext.launcher_naptime = '1d'";

/// An event table and a rollup of it that runs each second.
const EVENTS: &str = "
    CREATE TABLE events (id bigserial PRIMARY KEY, kind int);
    SELECT register_rollup('kinds', 'SELECT kind, count(*) FROM events GROUP BY 1', schedule => '1 second')";

fn insert(client: &mut Client, n: i32) {
    client.run(&format!("INSERT INTO events (kind) SELECT i % 10 FROM generate_series(1, {n}) i"));
}

/// Waits until a rollup has come to this id.
fn reaches(client: &mut Client, rollup: &str, id: i64) {
    let position = format!("SELECT last_aggregated_id FROM rollups WHERE name = '{rollup}'");
    wait_for(&format!("rollup {rollup} comes to {id}"), 20, || {
        (client.value::<i64>(&position) >= id).then_some(())
    });
}

/// Waits until a rollup has come to the last event. A crash leaves a gap of ids behind.
fn catches_up(client: &mut Client, rollup: &str) {
    let last = client.value("SELECT max(id) FROM events");
    reaches(client, rollup, last);
}

/// Every event is in the rollup `kinds` exactly once.
fn assert_exact(client: &mut Client) {
    let difference = "(SELECT kind, count(*) FROM events GROUP BY 1 EXCEPT SELECT * FROM kinds) UNION ALL \
        (SELECT * FROM kinds EXCEPT SELECT kind, count(*) FROM events GROUP BY 1)";
    assert_eq!(client.lines(difference), Vec::<String>::new());
}

fn status(client: &mut Client, rollup: &str, columns: &str) -> String {
    client.lines(&format!("SELECT {columns} FROM rollup_status WHERE rollup_name = '{rollup}'")).remove(0)
}

fn has_status(client: &mut Client, rollup: &str, columns: &str, expected: &str) {
    let mut last = String::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        last = status(client, rollup, columns);
        if last == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{columns} of {rollup}: {last}, not {expected}");
}

fn own_pid(client: &mut Client) -> i32 {
    client.value("SELECT pg_backend_pid()")
}

/// How many events the rollup `kinds` holds.
fn counted(client: &mut Client) -> i64 {
    client.value("SELECT COALESCE(sum(count), 0)::bigint FROM kinds")
}

fn count_processes(client: &mut Client, kind: &str) -> i64 {
    client.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rollup_ext {kind}'"))
}

/// The process of a job that sleeps by now.
fn job(client: &mut Client, rollup: &str) -> i32 {
    wait_for(&format!("a job of {rollup}"), 20, || {
        let pids = client.lines(&format!(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'rollup_ext job' AND query LIKE '%\"{rollup}\"%'
                AND wait_event = 'PgSleep'"
        ));
        pids.first().map(|pid| pid.parse().expect("a process id"))
    })
}

#[test]
fn two_databases_run_on_schedule_without_any_database_setting() {
    let cluster = Cluster::start(TOLD);
    let mut one = cluster.database("one");
    let mut two = cluster.database("two");
    for client in [&mut one, &mut two] {
        client.run(EVENTS);
    }
    for round in 1..=3 {
        for client in [&mut one, &mut two] {
            insert(client, 1000);
            reaches(client, "kinds", 1000 * round);
            assert_exact(client);
        }
    }
    assert_eq!(count_processes(&mut one, "launcher"), 1);
    assert_eq!(count_processes(&mut one, "scheduler"), 2);
    let runs = "SELECT count(*) FILTER (WHERE status = 'succeeded'), count(*), \
        min(window_start), max(window_end), bool_and(pid IS NOT NULL), bool_and(finished_at >= started_at) \
        FROM rollup_runs";
    assert_eq!(one.lines(runs), ["3|3|1|3000|t|t"], "nothing new leaves no row");
    assert_eq!(
        status(
            &mut two,
            "kinds",
            "kind, state, last_aggregated_id, head, lag_ids, last_error, next_run > now()"
        ),
        "declarative|scheduled|3000|3000|0||t"
    );
}

#[test]
fn an_error_in_one_rollup_leaves_the_others_running() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    client.run(
        "CREATE TABLE divisor AS SELECT 0 AS d;
         SELECT register_rollup('broken', source => 'events', schedule => '1 second',
             command => 'SELECT 1 / d, $1, $2 FROM divisor')",
    );
    insert(&mut client, 100);
    has_status(&mut client, "broken", "state, last_sqlstate, last_error", "failing|22012|division by zero");
    insert(&mut client, 100);
    reaches(&mut client, "kinds", 200);
    assert_exact(&mut client);
    wait_for("a third failure", 20, || {
        client.value::<bool>("SELECT count(*) >= 3 FROM rollup_runs WHERE status = 'failed'").then_some(())
    });
    let gaps = "SELECT bool_and(gap >= next.n * interval '1 second') FROM (
        SELECT started_at - lag(finished_at) OVER w AS gap, power(2, row_number() OVER w - 2) AS n
          FROM rollup_runs WHERE rollup_name = 'broken' WINDOW w AS (ORDER BY run_id)) next";
    assert!(client.value::<bool>(gaps), "failed runs are tried again after 1, 2, 4, ... seconds");
    assert_eq!(status(&mut client, "broken", "last_aggregated_id"), "0");
    assert!(cluster.log().contains("rollup \"broken\" failed: division by zero"));
    client.run("UPDATE divisor SET d = 1");
    reaches(&mut client, "broken", 200);
    has_status(&mut client, "broken", "state, last_sqlstate, last_error", "scheduled||");
}

#[test]
fn a_rollup_that_somebody_else_brought_up_to_date_is_not_failing() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(
        "CREATE TABLE events (id bigserial, kind int); CREATE TABLE divisor AS SELECT 0 AS d;
         INSERT INTO events (kind) VALUES (1);
         SELECT register_rollup('broken', source => 'events', schedule => '1 second',
             command => 'SELECT 1 / d, $1, $2 FROM divisor')",
    );
    has_status(&mut client, "broken", "state", "failing");
    client.run("UPDATE divisor SET d = 1; SELECT run_rollup('broken')");
    has_status(&mut client, "broken", "state, last_aggregated_id, last_error", "scheduled|1|");
}

#[test]
fn a_long_writer_holds_back_what_it_may_still_write_and_nothing_else() {
    let cluster = Cluster::start("rollup_ext.blocked_warning = '3s'\nrollup_ext.blocked_patience = 0");
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    insert(&mut client, 100);
    reaches(&mut client, "kinds", 100);
    assert_eq!(status(&mut client, "kinds", "state, blocked_by, blocked_since"), "scheduled||");

    let mut writer = cluster.connect("shop");
    writer.run("BEGIN");
    insert(&mut writer, 1);
    let pid: i32 = writer.value("SELECT pg_backend_pid()");
    insert(&mut client, 100);
    has_status(&mut client, "kinds", "state, blocked_by", &format!("blocked|{{{pid}}}"));
    assert!(
        client.value::<bool>(
            "SELECT blocked_since BETWEEN now() - interval '5 s' AND now() FROM rollup_status"
        )
    );
    assert_eq!(status(&mut client, "kinds", "last_aggregated_id"), "100");
    // Nothing waits meanwhile: no job, and whoever inserts does so at once.
    assert_eq!(count_processes(&mut client, "job"), 0);
    let started = Instant::now();
    insert(&mut client, 1);
    assert!(started.elapsed() < Duration::from_secs(1));
    wait_for("a warning", 10, || cluster.log().contains("rollup \"kinds\" has been held back").then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    writer.run("COMMIT");
    let ended = Instant::now();
    reaches(&mut client, "kinds", 202);
    assert!(ended.elapsed() < Duration::from_secs(4), "it catches up when the writer ends");
    assert_exact(&mut client);
    has_status(&mut client, "kinds", "state, blocked_by, blocked_since", "scheduled||");
    let log = cluster.log();
    assert_eq!(log.matches("has been held back").count(), 1, "one warning");
    assert!(log.contains(&format!("They are those of process {pid}.")));
}

/// What others commit does not wait for a long writer, and its rows come when it commits, also when the server was
/// down meanwhile.
#[test]
fn a_long_writer_is_gone_past() {
    let cluster = Cluster::start("rollup_ext.blocked_patience = '500ms'\nrollup_ext.blocked_warning = '3s'");
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    let [mut long, mut longer] = [cluster.connect("shop"), cluster.connect("shop")];
    for writer in [&mut long, &mut longer] {
        writer.run("BEGIN");
        insert(writer, 10);
    }
    let pid = own_pid(&mut long);
    insert(&mut client, 100);
    reaches(&mut client, "kinds", 120);
    has_status(&mut client, "kinds", "state, passed_over_ids, lag_ids", "passing|20|0");
    assert_eq!(status(&mut client, "kinds", &format!("{pid} = ANY (blocked_by)")), "t");
    assert_eq!(counted(&mut client), 100);
    // New events come in while they are open, theirs among them.
    insert(&mut long, 10);
    insert(&mut client, 100);
    wait_for("the events of others", 5, || (counted(&mut client) == 200).then_some(()));
    assert_eq!(client.lines("SELECT * FROM verify_rollup('kinds')"), Vec::<String>::new());

    let ended = Instant::now();
    long.run("COMMIT");
    wait_for("the events of the long writer", 5, || (counted(&mut client) == 220).then_some(()));
    assert!(ended.elapsed() < Duration::from_secs(3), "they come when it commits");
    assert_eq!(client.lines("SELECT passed_over FROM rollups"), ["{[11,21)}"]);
    wait_for("a warning", 10, || {
        cluster.log().contains("goes past transactions that have been open").then_some(())
    });

    longer.run("PREPARE TRANSACTION 'longer'");
    cluster.kill();
    cluster.resume();
    let mut client = cluster.connect("shop");
    insert(&mut client, 5);
    wait_for("it goes past it again", 20, || (counted(&mut client) == 225).then_some(()));
    assert_eq!(client.lines("SELECT passed_over @> '{[11,21)}' FROM rollups"), ["t"]);
    client.run("COMMIT PREPARED 'longer'");
    wait_for("the events of the longer writer", 5, || (counted(&mut client) == 235).then_some(()));
    has_status(&mut client, "kinds", "state, passed_over_ids, blocked_by", "scheduled|0|");
    assert_exact(&mut client);
}

/// Many writers that overlap, each longer than a tick, while one is open all the time: the rows of each come when it
/// commits, and what is passed over does not grow.
#[test]
fn writers_beside_a_long_one_are_not_late() {
    let cluster = Cluster::start("rollup_ext.blocked_patience = '100ms'");
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    let mut long = cluster.connect("shop");
    long.run("BEGIN");
    insert(&mut long, 1);
    let mut writers = [cluster.connect("shop"), cluster.connect("shop")];
    for round in 0..8 {
        let writer = &mut writers[round % 2];
        // The other one is in the middle of its transaction.
        if round > 1 {
            writer.run("COMMIT");
        }
        writer.run("BEGIN");
        insert(writer, 10);
        writer.run("SAVEPOINT s");
        insert(writer, 10);
        writer.run("ROLLBACK TO s");
        std::thread::sleep(Duration::from_millis(700));
        insert(writer, 10);
    }
    writers.iter_mut().for_each(|writer| writer.run("COMMIT"));
    wait_for("the events of all but one", 4, || (counted(&mut client) == 160).then_some(()));
    assert!(client.value::<bool>("SELECT cardinality(array(SELECT unnest(passed_over))) < 20 FROM rollups"));
    long.run("ROLLBACK");
    has_status(&mut client, "kinds", "passed_over_ids, lag_ids", "0|0");
    assert_exact(&mut client);
}

#[test]
fn overlapping_writers_do_not_stop_a_rollup() {
    let cluster = Cluster::start("rollup_ext.blocked_patience = 0");
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    let mut writers = [cluster.connect("shop"), cluster.connect("shop")];
    // At every moment one of the two is open.
    writers[0].run("BEGIN");
    insert(&mut writers[0], 1);
    for round in 0..16 {
        let [current, next] = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        std::thread::sleep(Duration::from_millis(400));
        writers[next].run("BEGIN");
        insert(&mut writers[next], 1);
        std::thread::sleep(Duration::from_millis(400));
        writers[current].run("COMMIT");
    }
    let position: i64 = client.value("SELECT last_aggregated_id FROM rollups");
    assert!(position >= 12, "at the end of 17 overlapping writers the rollup is at {position}");
    writers[0].run("COMMIT");
    reaches(&mut client, "kinds", 17);
    assert_exact(&mut client);
}

#[test]
fn a_prepared_transaction_holds_back_too() {
    let cluster = Cluster::start("rollup_ext.blocked_patience = 0");
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    client.run("BEGIN; INSERT INTO events (kind) VALUES (1); PREPARE TRANSACTION 'two phases'");
    insert(&mut client, 10);
    has_status(&mut client, "kinds", "state, blocked_by, last_aggregated_id", "blocked|{0}|0");
    cluster.restart();
    let mut client = cluster.connect("shop");
    has_status(&mut client, "kinds", "state, blocked_by, last_aggregated_id", "blocked|{0}|0");
    client.run("COMMIT PREPARED 'two phases'");
    reaches(&mut client, "kinds", 11);
    assert_exact(&mut client);
}

#[test]
fn a_job_can_be_cancelled_and_terminated() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    client.run(
        "CREATE TABLE nap AS SELECT 60 AS seconds;
         SELECT register_rollup('slow', source => 'events', schedule => '1 second',
             command => 'SELECT pg_sleep(seconds), $1, $2 FROM nap')",
    );
    insert(&mut client, 10);
    let pid = job(&mut client, "slow");
    has_status(&mut client, "slow", "state", "running");
    assert!(client.value::<bool>(&format!("SELECT pg_cancel_backend({pid})")));
    has_status(
        &mut client,
        "slow",
        "last_sqlstate, last_error, last_aggregated_id",
        "57014|canceling statement due to user request|0",
    );
    let pid = job(&mut client, "slow");
    client.run("UPDATE nap SET seconds = 0");
    assert!(client.value::<bool>(&format!("SELECT pg_terminate_backend({pid})")));
    reaches(&mut client, "slow", 10);
    has_status(&mut client, "slow", "state, last_error", "scheduled|");
    assert_eq!(
        client.lines("SELECT status, error FROM rollup_runs WHERE rollup_name = 'slow' ORDER BY run_id"),
        [
            "failed|canceling statement due to user request",
            "failed|the process ended without a result",
            "succeeded|"
        ]
    );
    reaches(&mut client, "kinds", 10);
    assert_exact(&mut client);
}

#[test]
fn the_crash_of_a_job_is_counted_and_loses_nothing() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    client.run(
        "CREATE TABLE nap AS SELECT 60 AS seconds;
         SELECT register_rollup('slow', source => 'events', schedule => '1 second',
             command => 'SELECT pg_sleep(seconds), $1, $2 FROM nap')",
    );
    insert(&mut client, 10);
    let pid = job(&mut client, "slow");
    client.run("UPDATE nap SET seconds = 0");
    assert!(cluster.kill_process(pid), "the job is there");
    wait_for("the connection breaks", 20, || client.batch_execute("SELECT 1").err());
    let mut client = wait_for("the server comes back", 20, || cluster.try_connect("shop").ok());
    catches_up(&mut client, "slow");
    insert(&mut client, 10);
    catches_up(&mut client, "kinds");
    assert_exact(&mut client);
    assert_eq!(
        client.lines("SELECT error FROM rollup_runs WHERE status = 'failed' AND rollup_name = 'slow'"),
        ["the process ended without a result"]
    );
    assert_eq!(client.value::<i64>("SELECT count(*) FROM rollup_runs WHERE status = 'running'"), 0);
}

#[test]
fn owners_need_no_login_and_a_dropped_one_stops_only_its_own() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    client.run(
        "CREATE ROLE quiet NOLOGIN; CREATE ROLE leaver NOLOGIN;
         GRANT CREATE ON SCHEMA public TO quiet; GRANT SELECT ON events TO quiet;
         CREATE TABLE who (name text, owner name); GRANT ALL ON who TO quiet;
         SET ROLE quiet;
         SELECT register_rollup('of_quiet', 'SELECT kind, count(*) FROM public.events GROUP BY 1',
             schedule => '1 second');
         RESET ROLE;
         SELECT register_rollup('of_leaver', source => 'events', schedule => '1 second',
             command => 'INSERT INTO who SELECT $1 || '' '' || $2, current_user');
         SELECT alter_rollup('of_leaver', new_owner => 'leaver');
         DROP ROLE leaver",
    );
    insert(&mut client, 10);
    reaches(&mut client, "of_quiet", 10);
    has_status(&mut client, "of_leaver", "state, last_aggregated_id", "failing|0");
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 20);
    reaches(&mut client, "of_quiet", 20);
    assert_eq!(client.value::<i64>("SELECT sum(count)::bigint FROM of_quiet"), 20);
    assert_eq!(client.value::<i64>("SELECT count(*) FROM who"), 0);
    // Each role sees its own.
    client.run("SET ROLE quiet");
    assert_eq!(client.lines("SELECT rollup_name, state FROM rollup_status"), ["of_quiet|scheduled"]);
    assert_eq!(client.lines("SELECT DISTINCT rollup_name FROM rollup_runs"), ["of_quiet"]);
}

#[test]
fn the_extension_comes_and_goes() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 10);
    client.run("BEGIN; DROP EXTENSION rollup_ext CASCADE; ROLLBACK");
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 20);
    client.run("DROP EXTENSION rollup_ext CASCADE");
    wait_for("the scheduler ends", 20, || (count_processes(&mut client, "scheduler") == 0).then_some(()));
    client.run("CREATE SCHEMA odd; DROP TABLE events, kinds CASCADE; CREATE EXTENSION rollup_ext SCHEMA odd");
    client.run("SET search_path = odd, public");
    client.run(EVENTS);
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 10);
}

#[test]
fn a_database_can_be_dropped() {
    let cluster = Cluster::start(TOLD);
    drop(cluster.database("shop"));
    let mut client = cluster.connect("postgres");
    wait_for("a scheduler", 20, || (count_processes(&mut client, "scheduler") == 1).then_some(()));
    client.run("DROP DATABASE shop");
    assert_eq!(count_processes(&mut client, "scheduler"), 0);
    // One of the same name is another one.
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 10);
}

#[test]
fn a_template_has_no_scheduler() {
    let cluster = Cluster::start("rollup_ext.launcher_naptime = '1s'");
    drop(cluster.database("shop"));
    let mut client = cluster.connect("postgres");
    wait_for("a scheduler", 20, || (count_processes(&mut client, "scheduler") == 1).then_some(()));
    client.run("ALTER DATABASE shop IS_TEMPLATE true");
    wait_for("no scheduler", 20, || (count_processes(&mut client, "scheduler") == 0).then_some(()));
    client.run("CREATE DATABASE copy TEMPLATE shop");
    wait_for("that of the copy", 20, || (count_processes(&mut client, "scheduler") == 1).then_some(()));
}

#[test]
fn a_drop_that_fails_brings_the_scheduler_back() {
    let cluster = Cluster::start("rollup_ext.launcher_naptime = '1s'");
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 10);
    // This very connection is in the way.
    assert_eq!(cluster.connect("postgres").fails("DROP DATABASE shop").code().code(), "55006");
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 20);
}

#[test]
fn a_worker_node_of_citus_schedules_nothing() {
    let cluster = Cluster::start("rollup_ext.launcher_naptime = '1s'\nallow_system_table_mods = on");
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 10);
    // As much of Citus as says that this is not the coordinator.
    client.run(
        "CREATE TABLE pg_catalog.pg_dist_local_group AS SELECT 1 AS groupid;
         CREATE TABLE pg_catalog.pg_dist_partition ()",
    );
    std::thread::sleep(Duration::from_secs(2));
    insert(&mut client, 10);
    std::thread::sleep(Duration::from_secs(3));
    let position: i64 = client.value("SELECT last_aggregated_id FROM rollups");
    assert_eq!(position, 10);
    client.run("DROP TABLE pg_catalog.pg_dist_partition");
    reaches(&mut client, "kinds", 20);
}

#[test]
fn windows_of_time_follow_the_clock() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(
        "CREATE TABLE views (at timestamptz NOT NULL DEFAULT now(), page int);
         CREATE INDEX ON views USING brin (at);
         SELECT register_rollup('pages', 'SELECT page, count(*) FROM views GROUP BY 1', time_column => 'at',
             schedule => '1 second')",
    );
    for page in 0..20 {
        client.run(&format!("INSERT INTO views (page) SELECT {page} FROM generate_series(1, 10)"));
        std::thread::sleep(Duration::from_millis(200));
    }
    wait_for("every view is counted", 20, || {
        client.value::<bool>("SELECT coalesce(sum(count), 0) = 200 FROM pages").then_some(())
    });
    assert_eq!(client.value::<i64>("SELECT count(*) FROM pages WHERE count = 10"), 20);
    let runs = "SELECT count(*) FROM rollup_runs WHERE status = 'succeeded'";
    let before: i64 = client.value(runs);
    has_status(&mut client, "pages", "time_lag < interval '4 seconds', head, state", "t||scheduled");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(client.value::<i64>(runs), before, "an empty window of time leaves no row");
    // Any transaction holds it back, for it may insert yet.
    let mut idle = cluster.connect("shop");
    idle.run("BEGIN");
    let pid = own_pid(&mut idle);
    has_status(&mut client, "pages", "state, blocked_by", &format!("blocked|{{{pid}}}"));
    idle.run("COMMIT");
    has_status(&mut client, "pages", "state, blocked_by", "scheduled|");
}

#[test]
fn a_shutdown_does_not_wait_for_a_run() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(
        "CREATE TABLE events (id bigserial, kind int);
         SELECT register_rollup('slow', source => 'events', schedule => '1 second',
             command => 'SELECT pg_sleep(60), $1, $2')",
    );
    insert(&mut client, 10);
    job(&mut client, "slow");
    let started = Instant::now();
    cluster.stop(Stop::Fast);
    assert!(started.elapsed() < Duration::from_secs(10));
    cluster.resume();
    let mut client = cluster.connect("shop");
    wait_for("the run counts as failed", 20, || {
        client.value::<bool>("SELECT count(*) > 0 FROM rollup_runs WHERE status = 'failed'").then_some(())
    });
}

#[test]
fn the_launcher_comes_back_and_brings_new_schedulers() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 10);
    // There is nothing to cancel.
    client.run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'rollup_ext%'");
    for kind in ["scheduler", "launcher"] {
        let pid = format!("SELECT pid FROM pg_stat_activity WHERE backend_type = 'rollup_ext {kind}'");
        let before: i32 = client.value(&pid);
        client.run(&format!("SELECT pg_terminate_backend({before})"));
        wait_for("another process", 20, || {
            let now = client.lines(&pid);
            (now.len() == 1 && now[0] != before.to_string()).then_some(())
        });
        insert(&mut client, 10);
    }
    reaches(&mut client, "kinds", 30);
    wait_for("one scheduler", 20, || (count_processes(&mut client, "scheduler") == 1).then_some(()));
    assert_exact(&mut client);
}

#[test]
fn places_for_runs_are_limited() {
    let cluster = Cluster::start("rollup_ext.max_workers = 2\nmax_worker_processes = 5");
    let mut client = cluster.database("shop");
    client.run("CREATE TABLE events (id bigserial, kind int)");
    for i in 1..=5 {
        client.run(&format!(
            "SELECT register_rollup('nap {i}', source => 'events', schedule => '1 second',
                 command => 'SELECT pg_sleep(1), $1, $2')"
        ));
    }
    insert(&mut client, 1);
    let mut most = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.value::<bool>("SELECT min(last_aggregated_id) = 0 FROM rollups") {
        most = most.max(count_processes(&mut client, "job"));
        assert!(Instant::now() < deadline, "every rollup gets its turn");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(most, 2);

    // More places than processes: the log says so, and what finds no process runs later.
    client.run("ALTER SYSTEM SET rollup_ext.max_workers = 5");
    client.run("SELECT pg_reload_conf()");
    insert(&mut client, 1);
    wait_for("every rollup comes to 2", 30, || {
        client.value::<bool>("SELECT min(last_aggregated_id) = 2 FROM rollups").then_some(())
    });
    assert!(cluster.log().contains("could not start a run of rollup"));
    wait_for("no run is left over", 10, || {
        client.value::<bool>("SELECT count(*) = 0 FROM rollup_runs WHERE status <> 'succeeded'").then_some(())
    });
}

#[test]
fn a_backlog_is_worked_off_without_waiting_for_ticks() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run("CREATE TABLE events (id bigserial PRIMARY KEY, kind int)");
    insert(&mut client, 1000);
    client.run(
        "SELECT register_rollup('kinds', 'SELECT kind, count(*) FROM events GROUP BY 1', schedule => '1 day',
             batch_size => 100)",
    );
    reaches(&mut client, "kinds", 1000);
    assert_exact(&mut client);
    assert!(
        client
            .value::<bool>("SELECT count(*) >= 10 AND max(window_end - window_start) < 100 FROM rollup_runs")
    );
}

#[test]
fn a_backlog_of_times_is_worked_off_in_batches_too() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(
        "CREATE TABLE events (at timestamptz DEFAULT now(), kind int);
         INSERT INTO events SELECT '2026-01-01'::timestamptz + i * interval '1 minute', i % 3 FROM generate_series(1, 1000) i;
         SELECT register_rollup('kinds', 'SELECT kind, count(*) FROM events GROUP BY 1', time_column => 'at',
             schedule => '1 day', batch_size => 100)",
    );
    wait_for("all of it is aggregated", 30, || {
        client.value::<bool>("SELECT COALESCE(sum(count), 0) = 1000 FROM kinds").then_some(())
    });
    assert_exact(&mut client);
    let batches =
        "SELECT (SELECT count(*) FROM events WHERE at >= time_start AND at < time_end) FROM rollup_runs";
    let largest = format!("SELECT count(*) >= 10 AND max(count) <= 100 FROM ({batches}) AS batches");
    assert!(client.value::<bool>(&largest));
}

#[test]
fn a_changed_schedule_is_followed() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(&EVENTS.replace("1 second", "1 week"));
    // On an interval it looks once at the start.
    has_status(&mut client, "kinds", "state", "scheduled");
    std::thread::sleep(Duration::from_secs(1));
    insert(&mut client, 10);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(status(&mut client, "kinds", "lag_ids"), "10");
    client.run("SELECT alter_rollup('kinds', schedule => '1 second')");
    reaches(&mut client, "kinds", 10);
    client.run("SELECT alter_rollup('kinds', schedule => '1 week')");
    insert(&mut client, 10);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(status(&mut client, "kinds", "state, lag_ids"), "scheduled|10");
    client.run("SELECT alter_rollup('kinds', schedule => 'none')");
    assert_eq!(status(&mut client, "kinds", "state, next_run"), "manual|");
}

#[test]
fn cron_lines_run_on_the_minute() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(&EVENTS.replace("1 second", "* * * * *"));
    insert(&mut client, 10);
    has_status(&mut client, "kinds", "date_trunc('minute', next_run) = next_run", "t");
    wait_for("a run on the minute", 65, || {
        client.value::<bool>("SELECT last_aggregated_id = 10 FROM rollups").then_some(())
    });
    assert!(client.value::<bool>("SELECT extract(second FROM max(started_at)) < 5 FROM rollup_runs"));
    assert_eq!(
        client.value::<String>("SELECT rollup_next_run('30 3 * * mon', '2026-03-04 00:00+00')::text"),
        "2026-03-09 03:30:00+00"
    );
    assert_eq!(client.fails("SELECT rollup_next_run('now and then')").code().code(), "22023");
    assert_eq!(client.fails("UPDATE rollups SET schedule = 'now and then'").code().code(), "22023");
}

#[test]
fn defaults_of_the_server_do_not_reach_the_worker() {
    let cluster = Cluster::start(
        "default_transaction_isolation = serializable\ndefault_transaction_read_only = on\nlock_timeout = '1s'",
    );
    let mut client = cluster.connect("postgres");
    client.run("SET default_transaction_read_only = off");
    client.run("CREATE DATABASE shop");
    let mut client = cluster.connect("shop");
    client.run("SET default_transaction_read_only = off");
    client.run("SET default_transaction_isolation = 'read committed'; CREATE EXTENSION rollup_ext");
    client.run(EVENTS);
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 10);
    assert_exact(&mut client);
}

#[test]
fn a_pause_ends_when_it_ends_and_a_drop_is_final() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    client.run("SELECT pause_rollup('kinds')");
    insert(&mut client, 10);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(status(&mut client, "kinds", "state, last_aggregated_id, next_run"), "paused|0|");
    client.run("SELECT resume_rollup('kinds')");
    reaches(&mut client, "kinds", 10);
    // A drop that is not committed holds the row: nobody waits for it.
    let mut other = cluster.connect("shop");
    client.run("SELECT register_rollup('broken', source => 'events', schedule => '1 second', command => 'SELECT 1/0, $1, $2')");
    has_status(&mut client, "broken", "state", "failing");
    other.run("BEGIN; SELECT drop_rollup('kinds'), drop_rollup('broken')");
    client.run("CREATE TABLE more (id bigserial, n int)");
    client.run(
        "SELECT register_rollup('more_n', 'SELECT n, count(*) FROM more GROUP BY 1', schedule => '1 second')",
    );
    client.run("INSERT INTO more (n) VALUES (1)");
    insert(&mut client, 10);
    reaches(&mut client, "more_n", 1);
    other.run("ROLLBACK");
    reaches(&mut client, "kinds", 20);
    client.run("SELECT drop_rollup('kinds'), drop_rollup('broken')");
    assert_eq!(client.lines("SELECT rollup_name FROM rollup_status"), ["more_n"]);
    assert!(!cluster.log().contains("lock timeout"));
}

#[test]
fn a_sequence_that_moved_back_is_an_error_that_shows() {
    let cluster = Cluster::start(TOLD);
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    insert(&mut client, 100);
    reaches(&mut client, "kinds", 100);
    client.run("TRUNCATE events RESTART IDENTITY");
    has_status(&mut client, "kinds", "state, last_sqlstate", "failing|55000");
    client.run("SELECT reset_rollup('kinds')");
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 10);
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 20);
    assert_exact(&mut client);
}

#[test]
fn a_standby_starts_scheduling_when_it_is_promoted() {
    let primary = Cluster::start(TOLD);
    let mut client = primary.database("shop");
    client.run(EVENTS);
    insert(&mut client, 10);
    reaches(&mut client, "kinds", 10);
    let standby = primary.standby();
    let mut client = standby.connect("shop");
    assert_eq!(count_processes(&mut client, "launcher"), 0);
    assert_eq!(status(&mut client, "kinds", "state"), "no worker");
    primary.stop(Stop::Immediate);
    standby.promote();
    insert(&mut client, 10);
    wait_for("the promoted server goes on", 20, || {
        client.value::<bool>("SELECT sum(count) = 20 FROM kinds").then_some(())
    });
    assert_exact(&mut client);
}

#[test]
fn the_history_is_kept_for_as_long_as_the_setting_says() {
    let cluster = Cluster::start("rollup_ext.run_retention = '1h'");
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    client.run(
        "INSERT INTO rollup_runs (rollup_name, status, started_at, finished_at)
         SELECT 'kinds', 'succeeded', now() - i * interval '1 minute', now() - i * interval '1 minute'
           FROM generate_series(0, 5000) i",
    );
    cluster.restart();
    let mut client = cluster.connect("shop");
    wait_for("old runs are gone", 20, || {
        client.value::<bool>("SELECT count(*) = 60 FROM rollup_runs").then_some(())
    });
}

#[test]
fn without_preloading_the_status_says_so() {
    let cluster = Cluster::create("");
    cluster.configure("shared_preload_libraries = ''");
    cluster.resume();
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    assert_eq!(status(&mut client, "kinds", "state, next_run"), "no worker|");
    insert(&mut client, 10);
    client.run("SELECT run_rollup('kinds')");
    assert_exact(&mut client);
}
