//! Everything that can stop a run: each leaves position and rollup as they were, and nothing is lost afterwards.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use cluster_tests::ingest::{DAWDLE, EVENTS, Ingest, assert_all_exact, assert_kept, differences_from_events};
use cluster_tests::random::Random;
use cluster_tests::{Cluster, Sql, available, server_command, wait_for};
use postgres::Client;

fn position(client: &mut Client, rollup: &str) -> i64 {
    client.value(&format!("SELECT last_aggregated_id FROM rollups WHERE name = '{rollup}'"))
}

#[track_caller]
fn assert_exact(client: &mut Client, rollup: &str) {
    assert_eq!(client.lines(&format!("SELECT * FROM verify_rollup('{rollup}')")), Vec::<String>::new());
}

/// Waits until the last run of a rollup failed with this SQLSTATE.
fn fails_with(client: &mut Client, rollup: &str, code: &str) {
    let last =
        format!("SELECT COALESCE(last_sqlstate, '') FROM rollup_status WHERE rollup_name = '{rollup}'");
    wait_for(&format!("{rollup} fails with {code}"), 60, || {
        (client.value::<String>(&last) == code).then_some(())
    });
}

fn catches_up(client: &mut Client, rollup: &str) {
    let last: i64 = client.value("SELECT max(id) FROM events");
    wait_for(&format!("{rollup} catches up"), 60, || (position(client, rollup) >= last).then_some(()));
}

/// A file system in memory, of this many megabytes, that belongs to the server; gone when it drops.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<SmallDisk> {
        let dir = std::env::temp_dir().join(format!("disk.{}", std::process::id()));
        std::fs::create_dir(&dir).ok()?;
        let owner = Command::new("id").args(["-u", "postgres"]).output().ok()?;
        let owner = String::from_utf8(owner.stdout).ok()?;
        let options = format!("size={megabytes}m,mode=700,uid={}", owner.trim());
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&dir).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(dir));
        }
        let _ = std::fs::remove_dir(&dir);
        None
    }

    fn grow(&self, megabytes: u32) {
        let options = format!("remount,size={megabytes}m");
        let output = Command::new("mount").args(["-o", &options]).arg(&self.0).output().expect("mount runs");
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_disk_stops_a_rollup_until_there_is_room() {
    let Some(disk) = SmallDisk::mount(8) else {
        println!("skipped a_full_disk_stops_a_rollup_until_there_is_room: a tmpfs cannot be mounted here");
        return;
    };
    let cluster = Cluster::start("");
    let mut client = cluster.database("shop");
    client.run(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.0.display()));
    client.run(
        "CREATE TABLE events (id bigserial, note text);
         SELECT register_rollup('total', 'SELECT count(*) FROM events', schedule => '1 second');
         SET default_tablespace = small;
         SELECT register_rollup('notes', 'SELECT note, count(*) FROM events GROUP BY note', schedule => '1 second');
         RESET default_tablespace;
         INSERT INTO events (note) SELECT repeat(md5(i::text), 3) FROM generate_series(1, 1000) i",
    );
    catches_up(&mut client, "notes");
    client
        .run("INSERT INTO events (note) SELECT repeat(md5(i::text), 3) FROM generate_series(500, 100000) i");
    fails_with(&mut client, "notes", "53100");
    // The worker may have seen the insert begin, and taken what little it had drawn by then.
    let reached = position(&mut client, "notes");
    assert!((1000..90_000).contains(&reached), "{reached}");
    assert_exact(&mut client, "notes");
    // It stops nobody else: neither the other rollup nor the writers.
    client.run("INSERT INTO events (note) VALUES ('late')");
    catches_up(&mut client, "total");
    disk.grow(200);
    catches_up(&mut client, "notes");
    assert_exact(&mut client, "notes");
    assert_exact(&mut client, "total");
}

#[test]
fn an_aggregate_that_runs_out_of_memory_is_an_error_of_its_run() {
    let cluster = Cluster::start("maintenance_work_mem = 2GB");
    let mut client = cluster.database("shop");
    client.run(
        "CREATE TABLE events (id bigserial, note text, times int DEFAULT 1);
         SELECT register_rollup('notes', 'SELECT repeat(note, 10) AS note, count(*) FROM events GROUP BY 1');
         INSERT INTO events (note) SELECT md5((i % 200000)::text) FROM generate_series(1, 210000) i",
    );
    let pid: i32 = client.value("SELECT pg_backend_pid()");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("its size");
    let kilobytes: u64 = size.trim().trim_end_matches(" kB").parse().expect("a number");
    let limit = |limit: &str| {
        let output =
            server_command("prlimit").args([&format!("--pid={pid}"), limit]).output().expect("prlimit runs");
        assert!(output.status.success(), "{output:?}");
    };
    limit(&format!("--as={}:unlimited", (kilobytes + 48 * 1024) * 1024));
    let error = client.fails("SELECT run_rollup('notes')");
    assert_eq!((error.code().code(), error.message()), ("53200", "out of memory"));
    assert_eq!(client.value::<i64>("SELECT count(*) FROM notes"), 0);
    assert_eq!(position(&mut client, "notes"), 0);
    limit("--as=unlimited:unlimited");
    client.run("SELECT run_rollup('notes')");
    assert_eq!(position(&mut client, "notes"), 210_000);
    assert_exact(&mut client, "notes");
}

#[test]
fn one_event_that_cannot_be_aggregated_holds_back_its_rollup_alone() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("shop");
    client.run(
        "CREATE TABLE events (id bigserial, note text, times int DEFAULT 1);
         SELECT register_rollup('total', 'SELECT count(*) FROM events', schedule => '1 second');
         SELECT register_rollup('notes', 'SELECT repeat(note, times) AS note, count(*) FROM events GROUP BY 1',
             schedule => '1 second');
         INSERT INTO events (note) VALUES ('a'), ('b')",
    );
    catches_up(&mut client, "notes");
    // A group key of more than a gigabyte. It comes first: the worker may see the insert when it has drawn one id.
    client.run("INSERT INTO events (note, times) VALUES ('abc', 1 << 29), ('a', 1), ('b', 1)");
    fails_with(&mut client, "notes", "54000");
    assert_eq!(position(&mut client, "notes"), 2);
    assert_eq!(client.lines("SELECT * FROM notes ORDER BY 1"), ["a|1", "b|1"]);
    catches_up(&mut client, "total");
    client.run("UPDATE events SET times = 2 WHERE times > 1");
    catches_up(&mut client, "notes");
    assert_exact(&mut client, "notes");
    assert_exact(&mut client, "total");
}

#[test]
fn a_timeout_or_cancel_keeps_what_earlier_batches_did() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("shop");
    client.run(
        "CREATE TABLE events (id bigserial, k int);
         INSERT INTO events (k) SELECT i % 100 FROM generate_series(1, 300000) i;
         SELECT register_rollup('all_at_once', 'SELECT k, count(*) FROM events GROUP BY k');
         SELECT register_rollup('in_batches', 'SELECT k, count(*) FROM events GROUP BY k', batch_size => 2000)",
    );
    client.run("SET statement_timeout = '20ms'");
    assert_eq!(client.fails("SELECT run_rollup('all_at_once')").code().code(), "57014");
    client.run("RESET statement_timeout");
    assert_eq!(position(&mut client, "all_at_once"), 0);
    assert_eq!(client.value::<i64>("SELECT count(*) FROM all_at_once"), 0);

    let mut caller = cluster.connect("shop");
    let cancel = caller.cancel_token();
    let call = std::thread::spawn(move || caller.batch_execute("CALL catch_up_rollup('in_batches')"));
    wait_for("some batches", 30, || (position(&mut client, "in_batches") >= 10_000).then_some(()));
    cancel.cancel_query(postgres::NoTls).expect("the cancel is sent");
    let error = call.join().expect("the caller does not panic").expect_err("it was canceled");
    assert_eq!(error.code().map(|code| code.code()), Some("57014"));
    let reached = position(&mut client, "in_batches");
    assert!((10_000..300_000).contains(&reached) && reached % 2000 == 0, "{reached}");
    assert_exact(&mut client, "in_batches");
    for rollup in ["all_at_once", "in_batches"] {
        client.run(&format!("CALL catch_up_rollup('{rollup}')"));
        assert_eq!(position(&mut client, rollup), 300_000);
        assert_exact(&mut client, rollup);
    }
}

#[test]
fn cancels_and_terminations_at_random_lose_and_double_nothing() {
    let mut random = Random::from_environment();
    let cluster = Cluster::start("");
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    client.run(DAWDLE);
    let ingest = Ingest::start(&cluster.config(), "shop", 8, &mut random);
    let end = Instant::now() + Duration::from_secs(8);
    let mut hits = 0;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(random.below(120)));
        let function = if random.percent(50) { "pg_cancel_backend" } else { "pg_terminate_backend" };
        let whom = match random.below(4) {
            0 | 1 => "backend_type = 'rollup_ext job'",
            2 => "backend_type = 'rollup_ext scheduler'",
            _ => "backend_type = 'client backend' AND state = 'active'",
        };
        hits += client.value::<i64>(&format!(
            "SELECT count({function}(pid)) FROM (SELECT pid FROM pg_stat_activity \
             WHERE {whom} AND datname = 'shop' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) p"
        ));
        assert_eq!(differences_from_events(&mut client).expect("an answer"), Vec::<String>::new());
    }
    assert_eq!(differences_from_events(&mut client).expect("an answer"), Vec::<String>::new());
    let commits = ingest.stop();
    let events = assert_all_exact(&mut client);
    assert_kept(&mut client, &commits);
    println!("{hits} processes hit, {events} events, no difference");
    // The worker is back, whatever hit it.
    client.run("INSERT INTO events (part, kind, value) VALUES (1, 1, 1)");
    catches_up(&mut client, "kinds");
}

#[test]
fn the_retention_of_pg_partman_waits_for_the_rollup() {
    if !available("pg_partman") {
        return;
    }
    let cluster = Cluster::start("");
    let mut client = cluster.database("shop");
    client.run(
        "CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman;
         CREATE TABLE events (id bigserial, at timestamptz NOT NULL DEFAULT now(), k int) PARTITION BY RANGE (at);
         SELECT partman.create_parent('public.events', 'at', 'native', 'daily',
             p_start_partition => (now() - interval '5 days')::text);
         UPDATE partman.part_config SET retention = '2 days', retention_keep_table = false;
         SELECT register_rollup('by_k', 'SELECT k, count(*) FROM events GROUP BY k');
         INSERT INTO events (at, k) SELECT now() - interval '4 days', i % 3 FROM generate_series(1, 100) i",
    );
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
    let before: i64 = client.value(partitions);
    let error = client.fails("SELECT partman.run_maintenance('public.events')");
    assert!(error.message().contains("has events that are not aggregated yet"), "{error}");
    assert_eq!(client.value::<i64>(partitions), before);
    client.run("SELECT run_rollup('by_k')");
    client.run("SELECT partman.run_maintenance('public.events')");
    assert!(client.value::<i64>(partitions) < before);
    assert_eq!(client.value::<i64>("SELECT count(*) FROM events"), 0);
    assert_eq!(client.value::<i64>("SELECT sum(count)::bigint FROM by_k"), 100);
}
