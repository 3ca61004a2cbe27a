//! Full ingest with long writers, cancels and changing partitions: nothing is lost and no process grows.
//! `ROLLUP_EXT_SOAK_SECONDS` makes it longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster_tests::ingest::{DAWDLE, EVENTS, Ingest, rows};
use cluster_tests::random::{Random, setting};
use cluster_tests::{Cluster, Sql};
use postgres::Client;

/// Adds partitions, fills them, and drops them as soon as that is allowed; adds columns. Returns the rows inserted,
/// the partitions dropped and how often dropping was refused.
fn change_partitions(client: &mut Client, stop: &AtomicBool) -> (i64, u32, u32) {
    let (mut rows, mut dropped, mut refused) = (0, 0, 0);
    client.run("SET lock_timeout = '200ms'");
    for number in 3.. {
        let create = format!("CREATE TABLE events_{number} PARTITION OF events FOR VALUES IN ({number})");
        while client.batch_execute(&create).is_err() {}
        let insert = format!(
            "INSERT INTO events (part, kind, value) SELECT {number}, i % 7, i FROM generate_series(1, 500) i"
        );
        while client.batch_execute(&insert).is_err() {}
        rows += 500;
        loop {
            match client.batch_execute(&format!("DROP TABLE events_{number}")) {
                Ok(()) => break,
                Err(error) if error.code().is_some_and(|code| code.code() == "55000") => refused += 1,
                Err(error) => assert_eq!(error.code().map(|code| code.code()), Some("55P03"), "{error}"),
            }
            if stop.load(Ordering::SeqCst) {
                return (rows, dropped, refused);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        dropped += 1;
        if number % 50 == 0 {
            let _ = client.batch_execute(&format!("ALTER TABLE events ADD COLUMN c{number} int"));
        }
    }
    unreachable!("there are always more numbers")
}

/// Kilobytes of memory of its own that the scheduler of a database has.
fn scheduler_memory(client: &mut Client) -> Option<(i32, u64)> {
    let find =
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'rollup_ext scheduler' AND datname = 'shop'";
    let pid: i32 = client.query(find, &[]).ok()?.first()?.get(0);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some((pid, line.trim().trim_end_matches(" kB").parse().ok()?))
}

#[test]
fn a_soak_loses_nothing_and_grows_nothing() {
    let seconds = setting("ROLLUP_EXT_SOAK_SECONDS", || 6);
    let mut random = Random::from_environment();
    let cluster = Cluster::start("max_wal_size = 256MB\nrollup_ext.blocked_patience = '500ms'");
    let mut client = cluster.database("shop");
    client.run(EVENTS);
    client.run(DAWDLE);
    let ingest = Ingest::start(&cluster.config(), "shop", 8, &mut random);
    let stop = Arc::new(AtomicBool::new(false));
    let ddl = {
        let (mut client, stop) = (cluster.connect("shop"), stop.clone());
        std::thread::spawn(move || change_partitions(&mut client, &stop))
    };
    let long_writer = {
        let (mut client, stop, mut random) = (cluster.connect("shop"), stop.clone(), random.fork());
        std::thread::spawn(move || {
            let mut rows = 0;
            while !stop.load(Ordering::SeqCst) {
                client.run("BEGIN; INSERT INTO events_1 (part, kind, value) VALUES (1, 1, 1)");
                std::thread::sleep(Duration::from_millis(random.below(6000)));
                let commits = random.percent(70);
                client.run(if commits { "COMMIT" } else { "ROLLBACK" });
                rows += commits as i64;
                std::thread::sleep(Duration::from_millis(random.below(1000)));
            }
            rows
        })
    };
    let (started, mut cancels) = (Instant::now(), 0);
    let mut memory = Vec::new();
    while started.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(random.below(300)));
        if random.percent(5) {
            cancels += client.value::<i64>(
                "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'rollup_ext job'",
            );
        }
        memory.extend(scheduler_memory(&mut client));
    }
    let inserted = rows(&ingest.stop());
    stop.store(true, Ordering::SeqCst);
    let long_rows = long_writer.join().expect("the long writer does not panic");
    let (ddl_rows, dropped, refused) = ddl.join().expect("the partitions' thread does not panic");
    for rollup in ["kinds", "everything"] {
        client.run(&format!("CALL catch_up_rollup('{rollup}')"));
        let total: i64 = client.value(&format!("SELECT sum(events)::bigint FROM {rollup}"));
        assert_eq!(total, inserted as i64 + long_rows + ddl_rows, "{rollup}");
    }
    let runs: i64 = client.value("SELECT count(*) FROM rollup_runs WHERE status = 'succeeded'");
    let (pid, last) = *memory.last().expect("a scheduler");
    let first = memory.iter().skip(memory.len() / 10).find(|(of, _)| *of == pid).expect("the same process").1;
    println!(
        "{seconds} s: {inserted} + {long_rows} + {ddl_rows} events, {runs} runs, {cancels} cancels, \
         {dropped} partitions dropped, {refused} times refused, nothing lost; the scheduler's memory {first} kB, {last} kB at the end"
    );
    assert!(last < first + 2048, "the scheduler grew from {first} to {last} kB");
}
