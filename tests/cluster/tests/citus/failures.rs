//! Nodes that fail at every step of a run: what comes out after recovery is exact.

use std::time::Duration;

use cluster_tests::citus::{Citus, DEVICES, EVENTS, assert_complete, insert, transaction};
use cluster_tests::ingest::{Ingest, assert_kept};
use cluster_tests::random::{Random, setting};
use cluster_tests::{Sql, Stop, available, wait_for};
use postgres::{Client, NoTls};

/// Runs a statement in a session of its own that somebody may end; the thread tells how it went.
fn beside(citus: &Citus, statements: &[&str]) -> std::thread::JoinHandle<Result<(), postgres::Error>> {
    let config = citus.coordinator.config();
    let statements: Vec<String> = statements.iter().map(|s| s.to_string()).collect();
    std::thread::spawn(move || {
        let mut client = config.clone().dbname("postgres").connect(NoTls)?;
        statements.iter().try_for_each(|statement| client.batch_execute(statement))
    })
}

fn prepared(client: &mut Client) -> i64 {
    client.value("SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE 'citus\\_%'")
}

fn assert_recovered(citus: &Citus) {
    let mut client = citus.client();
    client.run("SELECT recover_prepared_transactions()");
    client.run("SELECT run_rollup('devices')");
    assert_complete(&mut client, "devices");
}

/// Between PREPARE TRANSACTION and COMMIT PREPARED: the coordinator's own commit waits for a standby that never comes,
/// so that the workers have prepared, the commit is on disk, and nothing follows.
#[test]
fn between_prepare_and_commit_prepared() {
    if !available("citus") {
        return;
    }
    for victim in ["coordinator", "worker", "both"] {
        let citus = Citus::start();
        let mut client = citus.client();
        client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$)"));
        insert(&mut client, 1000);
        citus.coordinator.configure("synchronous_standby_names = 'nobody'\nsynchronous_commit = local");
        client.run("SELECT pg_reload_conf()");
        wait_for("the new configuration", 10, || {
            let mut fresh = citus.client();
            fresh.value::<bool>("SELECT current_setting('synchronous_commit') = 'local'").then_some(())
        });
        let run = beside(&citus, &["SET synchronous_commit = on", "SELECT run_rollup('devices')"]);
        for worker in 0..2 {
            wait_for("both workers have prepared", 30, || {
                (prepared(&mut citus.worker(worker)) > 0).then_some(())
            });
        }
        let waiting = wait_for("the commit waits", 30, || {
            client.value::<Option<i32>>("SELECT min(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        });
        if victim != "coordinator" {
            // With all its processes: what the coordinator sends next meets nobody.
            citus.workers[0].stop(Stop::Immediate);
        }
        if victim != "worker" {
            // The process itself first: once its postmaster is gone, it would go on to COMMIT PREPARED.
            citus.coordinator.kill_process(waiting);
            citus.coordinator.kill();
        } else {
            // The wait ends, and COMMIT PREPARED meets a node that is down.
            citus.coordinator.configure("synchronous_standby_names = ''");
            client.run("SELECT pg_reload_conf()");
        }
        let _ = run.join().expect("the run's thread does not panic");
        citus.coordinator.configure("synchronous_standby_names = ''");
        if victim != "worker" {
            citus.coordinator.resume();
        }
        if victim != "coordinator" {
            citus.workers[0].resume();
        }
        // What is still prepared holds the next run back until Citus has recovered it.
        let mut client = citus.client();
        let pending: i64 = (0..2).map(|worker| prepared(&mut citus.worker(worker))).sum();
        assert!(pending > 0, "{victim}");
        client.run("SET lock_timeout = '500ms'");
        let error = client.fails("SELECT run_rollup('devices')");
        assert_eq!(error.code().code(), "55P03", "{error}");
        assert_recovered(&citus);
    }
}

/// Everything of a run that goes to other nodes goes to one shard: Citus by itself would commit there first. The
/// coordinator dies while that shard is committing.
#[test]
fn a_run_of_one_shard_commits_everywhere_or_nowhere() {
    if !available("citus") {
        return;
    }
    let citus = Citus::start_with("citus.shard_count = 1");
    let mut client = citus.client();
    client.run(EVENTS);
    client.run(&format!("SELECT register_rollup('devices', $${DEVICES}$$)"));
    insert(&mut client, 1000);
    let place =
        client.lines("SELECT shard_name, nodeport FROM citus_shards WHERE table_name = 'devices'::regclass");
    let (shard, port) = place[0].split_once('|').expect("two columns");
    let worker =
        citus.workers.iter().position(|w| w.port().to_string() == port).expect("the node of the shard");
    // The commit of the shard takes its time.
    citus.worker(worker).run(&format!(
        "SET citus.enable_ddl_propagation = off; SET citus.enable_manual_changes_to_shards = on;
         CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(4); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON {shard} DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW WHEN (NEW.customer_id = 7) EXECUTE FUNCTION slowly()"
    ));
    let run = beside(&citus, &["SELECT run_rollup('devices')"]);
    wait_for("the shard is committing", 30, || {
        citus
            .worker(worker)
            .value::<bool>("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')")
            .then_some(())
    });
    citus.coordinator.kill();
    let _ = run.join().expect("the run's thread does not panic");
    citus.coordinator.resume();
    wait_for("the shard has ended", 30, || {
        citus
            .worker(worker)
            .value::<bool>("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')")
            .then_some(())
    });
    citus.worker(worker).run(&format!(
        "SET citus.enable_ddl_propagation = off; SET citus.enable_manual_changes_to_shards = on;
         DROP TRIGGER slowly ON {shard}"
    ));
    assert_recovered(&citus);
}

/// `ROLLUP_EXT_CRASH_ROUNDS` crashes of a random node at a random moment, under ingest through every node.
#[test]
fn nodes_that_die_at_random_moments_lose_and_double_nothing() {
    if !available("citus") {
        return;
    }
    let rounds = setting("ROLLUP_EXT_CRASH_ROUNDS", || 5);
    let mut random = Random::from_environment();
    let citus = Citus::start_with("citus.recover_2pc_interval = 1s");
    let mut client = citus.client();
    client.run(EVENTS);
    client.run(&format!(
        "SELECT register_rollup('devices', $${DEVICES}$$, schedule => '1 second');
         SELECT register_rollup('by_hand', $${DEVICES}$$)"
    ));
    let ingest = Ingest::with(transaction, &citus.everywhere(), "postgres", 4, &mut random);
    let mut kills = [0; 3];
    for round in 1..=rounds {
        let run = beside(&citus, &["SET lock_timeout = '2s'", "SELECT run_rollup('by_hand')"]);
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        let victim = random.below(3) as usize;
        kills[victim] += 1;
        let node = if victim == 0 { &citus.coordinator } else { &citus.workers[victim - 1] };
        if random.percent(50) {
            node.kill();
        } else {
            node.stop(Stop::Immediate);
        }
        std::thread::sleep(Duration::from_millis(random.below(500)));
        node.resume();
        let _ = run.join().expect("the run's thread does not panic");
        // What is below the positions is exact once Citus has ended what it had begun.
        wait_for("the cluster answers again", 60, || {
            let mut client = citus.coordinator.try_connect("postgres").ok()?;
            client.batch_execute("SELECT recover_prepared_transactions()").ok()?;
            let found = client.query(
                "SELECT v::text FROM verify_rollup('devices') v UNION ALL SELECT v::text FROM verify_rollup('by_hand') v",
                &[],
            );
            let found: Vec<String> = found.ok()?.iter().map(|row| row.get(0)).collect();
            assert_eq!(found, Vec::<String>::new(), "round {round}, node {victim}");
            Some(())
        });
    }
    let commits = ingest.stop();
    let mut client = citus.client();
    wait_for("Citus has recovered what was prepared", 60, || {
        (0..2).all(|worker| prepared(&mut citus.worker(worker)) == 0).then_some(())
    });
    for rollup in ["devices", "by_hand"] {
        wait_for("a run", 60, || client.batch_execute(&format!("SELECT run_rollup('{rollup}')")).ok());
        assert_complete(&mut client, rollup);
    }
    let events = assert_kept(&mut client, &commits);
    println!("{rounds} rounds, {kills:?} kills of coordinator and workers; {events} events, no difference");
}
