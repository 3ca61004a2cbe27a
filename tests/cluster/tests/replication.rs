//! Events that a subscription brings: a subscriber numbers them as they arrive, and counts each of them once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster_tests::random::Random;
use cluster_tests::{Cluster, Sql, Stop, wait_for};
use postgres::Client;

/// A publisher and a subscriber with this configuration, and a session in the database `shop` of each.
fn servers(subscriber: &str) -> (Cluster, Client, Cluster, Client) {
    let (publisher, subscriber) = (Cluster::start("wal_level = logical"), Cluster::start(subscriber));
    let (source, client) = (publisher.database("shop"), subscriber.database("shop"));
    (publisher, source, subscriber, client)
}

fn subscribe(client: &mut Client, publisher: &Cluster, options: &str) {
    client.run(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={} port={} user=postgres dbname=shop' PUBLICATION p {options}",
        publisher.socket_directory().display(),
        publisher.port()
    ));
}

/// Without it the files of the publisher's slot would be waited for.
fn unsubscribe(client: &mut Client) {
    client.run("DROP SUBSCRIPTION s");
}

fn arrive(client: &mut Client, events: i64) {
    wait_for("the events arrive", 90, || {
        (client.value::<i64>("SELECT count(*) FROM events") == events).then_some(())
    });
}

#[track_caller]
fn assert_exact(client: &mut Client, rollup: &str) {
    assert_eq!(client.lines(&format!("SELECT * FROM verify_rollup('{rollup}')")), Vec::<String>::new());
}

#[track_caller]
fn assert_counts(client: &mut Client, rollup: &str, events: i64) {
    client.run(&format!("SELECT run_rollup('{rollup}')"));
    assert_exact(client, rollup);
    assert_eq!(client.value::<i64>(&format!("SELECT sum(count)::bigint FROM {rollup}")), events);
}

#[test]
fn a_subscriber_counts_each_event_once_while_it_is_stopped_and_killed() {
    let mut random = Random::from_environment();
    let (publisher, mut source, subscriber, mut client) = servers("wal_receiver_timeout = 5s");
    source
        .run("CREATE TABLE events (id bigserial PRIMARY KEY, k int); CREATE PUBLICATION p FOR TABLE events");
    source.run("INSERT INTO events (k) SELECT i % 50 FROM generate_series(1, 30000) i");
    client.run(
        "CREATE TABLE events (id bigint PRIMARY KEY, k int);
         SELECT number_replicated_events('events');
         SELECT register_rollup('by_k', 'SELECT k, count(*) FROM events GROUP BY k', schedule => '1 second',
             batch_size => 5000)",
    );
    let stop = AtomicBool::new(false);
    let seeds: Vec<u64> = (0..4).map(|_| random.below(u64::MAX)).collect();
    std::thread::scope(|scope| {
        // Their transactions overlap, so that ids arrive in another order than the publisher drew them.
        for seed in seeds {
            let (publisher, stop) = (&publisher, &stop);
            scope.spawn(move || {
                let (mut random, mut writer) = (Random::new(seed), publisher.connect("shop"));
                while !stop.load(Ordering::Relaxed) {
                    let mut transaction = writer.transaction().expect("a transaction");
                    for _ in 0..1 + random.below(4) {
                        let rows = 1 + random.below(40);
                        let insert =
                            format!("INSERT INTO events (k) SELECT i % 50 FROM generate_series(1, {rows}) i");
                        transaction.batch_execute(&insert).expect("an insert");
                        std::thread::sleep(Duration::from_millis(random.below(8)));
                    }
                    match random.percent(90) {
                        true => transaction.commit().expect("a commit"),
                        false => transaction.rollback().expect("a rollback"),
                    }
                }
            });
        }
        // The first copy runs under ingest too.
        subscribe(&mut client, &publisher, "");
        let (end, mut down) = (Instant::now() + Duration::from_secs(15), 0);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(200 + random.below(1800)));
            match random.below(3) {
                0 => subscriber.kill(),
                1 => subscriber.stop(Stop::Immediate),
                _ => subscriber.stop(Stop::Fast),
            }
            subscriber.resume();
            down += 1;
            client = subscriber.connect("shop");
            assert_exact(&mut client, "by_k");
        }
        stop.store(true, Ordering::Relaxed);
        println!("the subscriber was down {down} times");
    });
    let events: i64 = source.value("SELECT count(*) FROM events");
    arrive(&mut client, events);
    let counted = "SELECT COALESCE(sum(count), 0)::bigint FROM by_k";
    wait_for("the worker catches up", 60, || (client.value::<i64>(counted) == events).then_some(()));
    assert_exact(&mut client, "by_k");
    assert!(client.value::<bool>("SELECT count(*) > 5 FROM rollup_runs WHERE status = 'succeeded'"));
    assert!(client.value::<bool>("SELECT count(DISTINCT event_id) = count(*) FROM events"));
    println!("{events} events, no difference");
    unsubscribe(&mut client);
}

#[test]
fn what_the_publisher_sends_for_the_id_column_does_not_count() {
    let (publisher, mut source, _subscriber, mut client) = servers("");
    // The same table on both sides: the publisher's ids would come in the order of its commits.
    for client in [&mut source, &mut client] {
        client.run("CREATE TABLE events (event_id bigserial, k int, PRIMARY KEY (k))");
    }
    source.run(
        "CREATE PUBLICATION p FOR TABLE events; SELECT setval('events_event_id_seq', 1000000);
         INSERT INTO events (k) SELECT generate_series(1, 10)",
    );
    client.run("SELECT number_replicated_events('events')");
    client.run("SELECT register_rollup('total', 'SELECT k > 0 AS k, count(*) FROM events GROUP BY 1')");
    subscribe(&mut client, &publisher, "");
    arrive(&mut client, 10);
    assert_counts(&mut client, "total", 10);
    source.run("INSERT INTO events (event_id, k) SELECT i, i FROM generate_series(11, 20) i");
    source.run("UPDATE events SET event_id = event_id + 5000000, k = k + 100");
    arrive(&mut client, 20);
    wait_for("the updates arrive", 30, || {
        client.value::<bool>("SELECT min(k) > 100 FROM events").then_some(())
    });
    assert_eq!(client.value::<i64>("SELECT max(event_id) FROM events"), 20);
    assert_counts(&mut client, "total", 20);
    // TRUNCATE of the publisher takes the sequence here along; it is no run that finds nothing.
    source.run("TRUNCATE events RESTART IDENTITY; INSERT INTO events (k) SELECT generate_series(1, 5)");
    arrive(&mut client, 5);
    assert_eq!(client.fails("SELECT run_rollup('total')").code().code(), "55000");
    client.run("SELECT reset_rollup('total')");
    assert_counts(&mut client, "total", 5);
    unsubscribe(&mut client);
}

#[test]
fn partitions_are_numbered_whatever_table_is_replicated_into() {
    let (publisher, mut source, _subscriber, mut client) = servers("");
    for client in [&mut source, &mut client] {
        client.run(
            "CREATE TABLE events (k int) PARTITION BY RANGE (k);
             CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10);
             CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20)",
        );
    }
    client.run("SELECT number_replicated_events('events')");
    client.run("SELECT register_rollup('by_k', 'SELECT k, count(*) FROM events GROUP BY k')");
    let mut events = 0;
    for root in ["false", "true"] {
        source.run(&format!(
            "DROP PUBLICATION IF EXISTS p;
             CREATE PUBLICATION p FOR TABLE events WITH (publish_via_partition_root = {root});
             INSERT INTO events SELECT i % 20 FROM generate_series(1, 100) i"
        ));
        // With the second subscription, everything is copied again.
        client.run("TRUNCATE events; SELECT reset_rollup('by_k')");
        events += 100;
        subscribe(&mut client, &publisher, "");
        arrive(&mut client, events);
        source.run("INSERT INTO events SELECT i % 20 FROM generate_series(1, 100) i");
        events += 100;
        arrive(&mut client, events);
        assert_counts(&mut client, "by_k", events);
        if root == "true" {
            // A partition that comes later is numbered too.
            for client in [&mut source, &mut client] {
                client.run("CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30)");
            }
            source.run("INSERT INTO events SELECT 25 FROM generate_series(1, 10)");
            events += 10;
            arrive(&mut client, events);
            assert_counts(&mut client, "by_k", events);
            // One whose trigger replication does not fire is refused, until it is numbered again.
            client.run("ALTER TABLE events_3 ENABLE TRIGGER rollup_event_id");
            let error = client.fails("SELECT run_rollup('by_k')");
            assert!(error.message().contains("rows of \"public.events_3\" come by logical"), "{error}");
            client.run("SELECT number_replicated_events('events')");
            assert_counts(&mut client, "by_k", events);
        }
        unsubscribe(&mut client);
    }
}

#[test]
fn a_table_that_a_subscription_fills_is_refused_until_it_numbers_its_rows() {
    let (publisher, mut source, subscriber, mut client) = servers("");
    for client in [&mut source, &mut client] {
        client.run("CREATE TABLE events (id bigserial PRIMARY KEY, at timestamptz DEFAULT now(), k int)");
    }
    // Registered before it was subscribed to: the next run is an error, no silent gap.
    client.run("SELECT register_rollup('by_k', 'SELECT k, count(*) FROM events GROUP BY k')");
    client.run(
        "SELECT register_rollup('of_late', 'SELECT k, count(*) FROM events GROUP BY k', time_column => 'at')",
    );
    client.run("INSERT INTO events (k) VALUES (1)");
    client.run("SELECT run_rollup('by_k')");
    client.run("TRUNCATE events");
    source.run("CREATE PUBLICATION p FOR TABLE events");
    source.run("INSERT INTO events (k) SELECT 1 FROM generate_series(1, 10)");
    subscribe(&mut client, &publisher, "");
    arrive(&mut client, 10);
    for rollup in ["by_k", "of_late"] {
        let error = client.fails(&format!("SELECT run_rollup('{rollup}')"));
        assert_eq!(error.code().code(), "55000");
        assert!(error.message().contains("come by logical replication, from subscription \"s\""), "{error}");
    }
    assert_eq!(client.value::<i64>("SELECT last_aggregated_id FROM rollups WHERE name = 'by_k'"), 1);
    // A default of this server is no proof: the publisher may send that column one day.
    client.run("ALTER TABLE events ADD COLUMN arrival_id bigserial");
    let register = "SELECT register_rollup('again', 'SELECT k, count(*) FROM events GROUP BY k',
        id_sequence => 'events_arrival_id_seq')";
    let error = client.fails(register);
    assert!(
        error.hint().is_some_and(|hint| hint.contains("number_replicated_events('public.events')")),
        "{error}"
    );
    // That column, or one of its own, with the events that are there; ids from elsewhere are not taken over.
    let error = client.fails("SELECT number_replicated_events('events', 'id')");
    assert!(error.message().contains("has ids that sequence"), "{error}");
    client.run("SELECT number_replicated_events('events', 'arrival_id')");
    client.run(register);
    assert_counts(&mut client, "again", 10);
    source.run("INSERT INTO events (k) SELECT 2 FROM generate_series(1, 10)");
    arrive(&mut client, 20);
    assert_counts(&mut client, "again", 20);
    // A sequence that is renamed stops the rollup and the replication until both know it by its new name.
    client.run("ALTER SEQUENCE events_arrival_id_seq RENAME TO arrivals");
    assert!(client.fails("SELECT run_rollup('again')").message().contains("come by logical replication"));
    source.run("INSERT INTO events (k) SELECT 3 FROM generate_series(1, 10)");
    wait_for("the subscription says so", 30, || {
        subscriber.log().contains("sequence \"public.events_arrival_id_seq\" does not exist").then_some(())
    });
    client.run("SELECT number_replicated_events('events', 'arrival_id')");
    arrive(&mut client, 30);
    assert_counts(&mut client, "again", 30);
    unsubscribe(&mut client);
    client.run("SELECT run_rollup('by_k')");
}
