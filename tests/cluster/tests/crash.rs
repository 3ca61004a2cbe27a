//! Crashes under full ingest: after each recovery the rollups hold the events up to their positions exactly once.

use std::time::{Duration, Instant};

use cluster_tests::ingest::{EVENTS, Ingest, assert_all_exact, assert_kept, differences_from_events};
use cluster_tests::random::{Random, setting};
use cluster_tests::{Cluster, Sql, Stop, wait_for};

/// Eight writers and two rollups; `ROLLUP_EXT_CRASH_ROUNDS` crashes of random kinds at random moments.
#[test]
fn crashes_at_random_moments_lose_and_double_nothing() {
    let rounds = setting("ROLLUP_EXT_CRASH_ROUNDS", || 5);
    let mut random = Random::from_environment();
    let cluster = Cluster::start(
        "checkpoint_timeout = 30s\nmax_wal_size = 64MB\nrollup_ext.blocked_patience = '100ms'",
    );
    cluster.database("shop").run(EVENTS);
    let ingest = Ingest::start(&cluster.config(), "shop", 8, &mut random);
    let mut faults = [0; 4];
    let mut runs = 0i64;
    for round in 1..=rounds {
        std::thread::sleep(Duration::from_millis(300 + random.below(2200)));
        let fault = random.below(4) as usize;
        faults[fault] += 1;
        match fault {
            // The whole server: its processes notice and die.
            0 => {
                cluster.kill();
                cluster.resume();
            }
            1 => {
                cluster.stop(Stop::Immediate);
                cluster.resume();
            }
            // One process of it, in the middle of whatever it does: all others are killed and started again.
            victim => {
                let kind = if victim == 2 {
                    "backend_type LIKE 'rollup_ext job' OR backend_type LIKE 'rollup_ext scheduler'"
                } else {
                    "state = 'active' AND query ~ '^(INSERT|COPY|COMMIT)'"
                };
                let find = format!(
                    "SELECT pid::text FROM pg_stat_activity WHERE ({kind}) AND pid <> pg_backend_pid() \
                     ORDER BY backend_type = 'rollup_ext job' DESC LIMIT 1"
                );
                wait_for("a process to kill", 20, || {
                    let mut client = cluster.try_connect("shop").ok()?;
                    let pid: String = client.query(&find, &[]).ok()?.first()?.get(0);
                    // It may have ended by itself since.
                    cluster.kill_process(pid.parse().expect("a process id")).then_some(())
                });
            }
        }
        // The crash that the kill of one process brings may come after it.
        let (mut client, found) = wait_for("the server is back", 60, || {
            let mut client = cluster.try_connect("shop").ok()?;
            let found = differences_from_events(&mut client).ok()?;
            Some((client, found))
        });
        assert_eq!(found, Vec::<String>::new(), "round {round}, fault {fault}");
        if let Ok(row) = client.query_one("SELECT count(*) FROM rollup_runs WHERE status = 'succeeded'", &[])
        {
            runs = row.get(0);
        }
        if round % 20 == 0 {
            println!("round {round}: {} rows, {runs} runs", ingest.rows());
        }
    }
    let commits = ingest.stop();
    let mut client = cluster.connect("shop");
    let events = assert_all_exact(&mut client);
    assert_kept(&mut client, &commits);
    println!(
        "{rounds} rounds: {} kills of the server, {} immediate shutdowns, {} kills of a worker, {} of a writer; \
         {events} events, {runs} runs, no difference",
        faults[0], faults[1], faults[2], faults[3]
    );
    // Nothing of the crashed runs is left over, and the worker goes on.
    client.run("INSERT INTO events (part, kind, value) VALUES (1, 1, 1)");
    let last: i64 = client.value("SELECT max(id) FROM events");
    wait_for("the worker goes on", 30, || {
        client
            .value::<bool>(&format!("SELECT bool_and(last_aggregated_id >= {last}) FROM rollups"))
            .then_some(())
    });
    wait_for("no run is left over", 30, || {
        client.value::<bool>("SELECT count(*) = 0 FROM rollup_runs WHERE status = 'running'").then_some(())
    });
}

/// The primary dies under ingest; the standby that takes over has the rollups of exactly the events that it has.
#[test]
fn a_promoted_standby_goes_on_where_the_primary_died() {
    let mut random = Random::from_environment();
    let primary = Cluster::start("");
    primary.database("shop").run(EVENTS);
    let standby = primary.standby();
    let ingest = Ingest::start(&primary.config(), "shop", 4, &mut random);
    let mut client = primary.connect("shop");
    wait_for("some runs", 30, || {
        client.value::<bool>("SELECT count(*) >= 4 FROM rollup_runs WHERE status = 'succeeded'").then_some(())
    });
    // A transaction that was prepared on the primary and ends on the standby.
    client.run(
        "BEGIN; INSERT INTO events (part, kind, value) SELECT 1, 3, 1 FROM generate_series(1, 100);
         PREPARE TRANSACTION 'late'",
    );
    let lsn: String = client.value("SELECT pg_current_wal_insert_lsn()::text");
    let mut reader = standby.connect("shop");
    assert_eq!(
        differences_from_events(&mut reader).expect("an answer"),
        Vec::<String>::new(),
        "on the standby"
    );
    wait_for("the standby has it", 30, || {
        reader.value::<bool>(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'")).then_some(())
    });
    primary.kill();
    ingest.stop();
    standby.promote();
    let mut client = standby.connect("shop");
    assert_eq!(
        differences_from_events(&mut client).expect("an answer"),
        Vec::<String>::new(),
        "after the promotion"
    );
    let ingest = Ingest::start(&standby.config(), "shop", 4, &mut random);
    std::thread::sleep(Duration::from_secs(2));
    // Prepared before anybody drew these ids here: it holds back what came after it.
    let head: i64 = client.value("SELECT pg_sequence_last_value('events_id_seq')");
    assert!(client.value::<bool>(&format!("SELECT bool_and(last_aggregated_id < {head}) FROM rollups")));
    client.run("COMMIT PREPARED 'late'");
    let ended = Instant::now();
    wait_for("the worker catches up", 30, || {
        client
            .value::<bool>(&format!("SELECT bool_and(last_aggregated_id >= {head}) FROM rollups"))
            .then_some(())
    });
    assert!(ended.elapsed() < Duration::from_secs(20));
    ingest.stop();
    assert!(assert_all_exact(&mut client) > 0);
}
