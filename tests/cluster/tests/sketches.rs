//! Sketches and lists of counters leave a server and arrive elsewhere byte for byte; cancelled and repeated aggregates
//! leave nothing behind.

use std::fs;

use cluster_tests::random::Random;
use cluster_tests::{Cluster, Sql, wait_for};
use postgres::Client;
use postgres::types::private::BytesMut;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// Sketches of every kind and lists of every sort.
const SKETCHES: &str = r#"
    CREATE TABLE sketches (id int PRIMARY KEY, plain hll, fine hll(14, 6), coarse hll(9, 4, 64, 0), counters jsonb);
    INSERT INTO sketches
    SELECT n, hll_add_agg(hll_hash_integer(i)), hll_add_agg(hll_hash_integer(i), 14, 6), hll_add_agg(hll_hash_integer(i), 9, 4, 64, 0),
           topn_add_agg(repeat('ü"\', i % 50) || i, (9223372036854775807 >> (i % 63)))
    FROM generate_series(1, 30) n, generate_series(1, (1.5 ^ n)::int) i WHERE n > 1 GROUP BY n;
    -- The largest precision and the smallest, ranks that are stored, empty, undefined, of version 1, converted from it.
    INSERT INTO sketches (id, plain) SELECT 31, hll_add_agg(hll_hash_integer(i), 18) FROM generate_series(1, 90000) i;
    INSERT INTO sketches (id, plain) SELECT 32, hll_add_agg(hll_hash_integer(i), 0) FROM generate_series(1, 10) i;
    INSERT INTO sketches (id, plain) SELECT 33, hll_add_agg(hash) FROM unnest(ARRAY[0, 1, 2, -1, 1::bigint << 62]::hll_hashval[]) hash;
    INSERT INTO sketches (id, plain, counters) VALUES (34, hll_empty(), '{}'), (35, '\x208b7f', NULL), (36, NULL, '{"": 9223372036854775807}'),
        (37, '\x128b7f000000000000000100000000000000ff', '{"a": 10000, "b": 120000000, "c": 1}'), (38, '\x138b7f00217f81', NULL);
    INSERT INTO sketches (id, counters) SELECT 39, topn_union_agg(counters) FROM sketches;
    INSERT INTO sketches (id, plain) SELECT 40, hll_union_agg(plain) FROM sketches WHERE hll_type(plain) > 0;"#;

/// The bytes of every value.
const BYTES: &str = "SELECT id, plain::bytea, fine::bytea, coarse::bytea, counters::text, pg_column_size(counters::text::jsonb)
    FROM sketches ORDER BY id";

/// Rows whose lists are not what PostgreSQL itself makes of their text, or whose sketches are not what their own text gives.
const NOT_CANONICAL: &str = "SELECT id FROM sketches
    WHERE NOT record_image_eq(ROW(counters), ROW(counters::text::jsonb)) OR NOT record_image_eq(ROW(plain), ROW(plain::text::hll))
       OR NOT record_image_eq(ROW(fine), ROW(fine::text::hll)) OR NOT record_image_eq(ROW(coarse), ROW(coarse::text::hll))";

fn original(cluster: &Cluster) -> (Client, Vec<String>) {
    let mut original = cluster.database("original");
    original.run(SKETCHES);
    let bytes = original.lines(BYTES);
    assert_eq!(bytes.len(), 39);
    assert_eq!(original.lines(NOT_CANONICAL), [""; 0]);
    (original, bytes)
}

#[test]
fn dumps_and_copies_are_lossless() {
    let cluster = Cluster::start("");
    let (mut original, bytes) = original(&cluster);

    cluster.connect("postgres").run("CREATE DATABASE restored");
    cluster.psql("restored", &cluster.dump("original")).expect("the dump restores");
    let mut restored = cluster.connect("restored");
    assert_eq!(restored.lines(BYTES), bytes);
    assert_eq!(restored.lines(NOT_CANONICAL), [""; 0]);

    for format in ["text", "csv", "binary"] {
        let file = cluster.socket_directory().join(format).display().to_string();
        original.run(&format!("COPY sketches TO '{file}' WITH (FORMAT {format})"));
        restored.run(&format!("TRUNCATE sketches; COPY sketches FROM '{file}' WITH (FORMAT {format})"));
        assert_eq!(restored.lines(BYTES), bytes, "{format}");
        assert_eq!(restored.lines(NOT_CANONICAL), [""; 0]);
    }
    // From row to row by the wire protocol's binary format, both ways.
    let read = restored
        .prepare("SELECT hll_send(plain), plain::text FROM sketches WHERE plain IS NOT NULL")
        .unwrap();
    for row in restored.query(&read, &[]).unwrap() {
        let (sent, text): (Vec<u8>, String) = (row.get(0), row.get(1));
        assert_eq!(format!("\\x{}", sent.iter().map(|b| format!("{b:02x}")).collect::<String>()), text);
    }
}

#[test]
fn logical_replication_is_lossless() {
    let publisher = Cluster::start("wal_level = logical");
    let subscriber = Cluster::start("wal_level = logical");
    let (mut original, bytes) = original(&publisher);
    original.run("CREATE PUBLICATION sketches FOR TABLE sketches");
    let connection = format!(
        "host={} port={} user=postgres dbname=original",
        publisher.socket_directory().display(),
        original.value::<String>("SELECT current_setting('port')")
    );
    let mut copies = ["text", "binary"].map(|format| {
        let mut copy = subscriber.database(&format!("{format}_copy"));
        copy.run("CREATE TABLE sketches (id int PRIMARY KEY, plain hll, fine hll(14, 6), coarse hll(9, 4, 64, 0), counters jsonb)");
        copy.run(&format!(
            "CREATE SUBSCRIPTION {format}_copy CONNECTION '{connection}' PUBLICATION sketches WITH (binary = {})",
            format == "binary"
        ));
        copy
    });
    for copy in &mut copies {
        wait_for("the first copy", 60, || (copy.lines(BYTES) == bytes).then_some(()));
    }
    // Changes as a rollup makes them, and a row that goes.
    original.run(
        "UPDATE sketches SET plain = plain || hll_hash_text('new'), counters = topn_add(counters, 'new') WHERE id % 2 = 0;
         UPDATE sketches s SET fine = s.fine || o.fine, counters = s.counters + o.counters FROM sketches o WHERE o.id = s.id - 1;
         INSERT INTO sketches SELECT id + 100, plain, fine, coarse, counters FROM sketches;
         DELETE FROM sketches WHERE id % 7 = 0",
    );
    let changed = original.lines(BYTES);
    assert_ne!(changed, bytes);
    for copy in &mut copies {
        wait_for("the changes", 60, || (copy.lines(BYTES) == changed).then_some(()));
        assert_eq!(copy.lines(NOT_CANONICAL), [""; 0]);
    }
}

/// Bytes as a value of whatever type the statement asks for.
#[derive(Debug)]
struct Raw(Vec<u8>);

impl ToSql for Raw {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[test]
fn received_bytes_are_checked() {
    let cluster = Cluster::start("");
    let (mut client, _) = original(&cluster);
    let pid = client.value::<i32>("SELECT pg_backend_pid()");
    let query = "SELECT hll_send(plain) FROM sketches WHERE pg_column_size(plain) < 300
        UNION ALL SELECT hll_send(coarse) FROM sketches WHERE id IN (5, 20)";
    let sketches: Vec<Vec<u8>> = client.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    let receive = client
        .prepare(
            "SELECT hll_cardinality($1::hll), hll_print($1::hll)::text, hll_union($1::hll, $1::hll)::text",
        )
        .unwrap();
    let mut random = Random::from_environment();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..3000 {
        let mut bytes = sketches[random.below(sketches.len() as u64) as usize].clone();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() as u64 + 1) as usize;
            match random.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, random.below(256) as u8),
                _ if at == bytes.len() => {}
                _ => bytes[at] ^= 1 << random.below(8),
            }
        }
        match client.query(&receive, &[&Raw(bytes.clone())]) {
            Ok(_) => taken += 1,
            Err(error) => {
                assert_eq!(error.code().map(|code| code.code()), Some("22P03"), "{bytes:02x?}: {error:?}");
                refused += 1;
            }
        }
    }
    assert!(taken > 500 && refused > 500, "{taken} taken, {refused} refused");
    assert_eq!(client.value::<i32>("SELECT pg_backend_pid()"), pid);
}

/// Every aggregate over groups of all sizes, their states sent between processes where the plan is parallel;
const GROUPS: &str = "SELECT g, hll_add_agg(h), hll_add_agg(h, 9), hll_add_agg(h, 10, 6), hll_add_agg(h, 12, 5, 64),
    hll_add_agg(h, 8, 5, -1, 0), hll_union_agg(s), topn_add_agg(item), topn_add_agg(item, w), topn_union_agg(c),
    topn_add_error_agg(item), topn_add_error_agg(item, w), topn_union_error_agg(c) FROM input GROUP BY g";
/// over some rows, different ones, in an order, over none and only NULLs;
const ROWS: &str = "SELECT g, hll_add_agg(DISTINCT h), hll_add_agg(h, 9 ORDER BY i DESC), hll_add_agg(h, 10, 6) FILTER (WHERE i % 3 = 0),
    hll_add_agg(h, 12, 5, 64) FILTER (WHERE false), hll_add_agg(NULL, 8, 5, -1, 0), hll_union_agg(DISTINCT s),
    topn_add_agg(DISTINCT item), topn_add_agg(item, w ORDER BY w, i), topn_union_agg(c) FILTER (WHERE i % 3 = 0),
    topn_union_agg(c ORDER BY i DESC), topn_add_error_agg(NULL), topn_add_error_agg(DISTINCT item, w),
    topn_union_error_agg(c) FILTER (WHERE false) FROM input WHERE i <= 4000 GROUP BY g";
/// and as windows, whose states end many times and go on, or start anew with each row.
const WINDOWS: &str = "SELECT hll_add_agg(h) OVER w, hll_add_agg(h, 9) OVER w, hll_add_agg(h, 10, 6) OVER w, hll_add_agg(h, 12, 5, 64) OVER w,
    hll_add_agg(h, 8, 5, -1, 0) OVER w, hll_union_agg(s) OVER w, topn_add_agg(item) OVER w, topn_add_agg(item, w) OVER w,
    topn_union_agg(c) OVER w, topn_add_error_agg(item) OVER w, topn_add_error_agg(item, w) OVER w,
    topn_union_error_agg(c) OVER w, hll_union_agg(s) OVER moving, topn_add_agg(item) OVER moving
    FROM input WHERE i <= 1000 WINDOW w AS (PARTITION BY g ORDER BY i), moving AS (PARTITION BY g ORDER BY i ROWS 5 PRECEDING)";
/// What ends in an error in the middle of aggregation.
const FAILING: [&str; 2] = [
    "SELECT g, topn_add_agg(item), hll_add_agg(h), topn_union_agg(CASE WHEN i = 7500 THEN '{\"a\": -1}' ELSE c END) FROM input GROUP BY g",
    "SELECT g, hll_union_agg(s), topn_add_agg(item, CASE WHEN i = 7500 THEN -1 ELSE w END) FROM input GROUP BY g",
];

/// Memory that the backend holds for itself: of PostgreSQL's contexts, and of the process as a whole, in kB.
fn memory(client: &mut Client, pid: i32) -> (i64, i64) {
    let contexts = client.value("SELECT (sum(total_bytes) / 1024)::bigint FROM pg_backend_memory_contexts");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of this machine");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells");
    let process = line.split_whitespace().next().and_then(|kb| kb.parse().ok()).expect("a number");
    (contexts, process)
}

#[test]
fn aggregates_leave_no_memory_behind() {
    let cluster = Cluster::start("jit = off");
    let mut client = cluster.database("sketches");
    client.run(
        "CREATE TABLE input AS
         SELECT i, (i ^ 0.6)::int / 5 AS g, hll_hash_integer(i) AS h, 'item ' || i % 5000 AS item, i % 4::bigint AS w,
                hll_empty() || hll_hash_integer(i) || hll_hash_integer(-i) AS s, jsonb_build_object(i % 5000, i, 'b', 1) AS c
         FROM generate_series(1, 8000) i;
         ANALYZE input;
         SET topn.number_of_counters = 20",
    );
    let pid = client.value::<i32>("SELECT pg_backend_pid()");
    let sorted = "SET enable_hashagg = off; SET max_parallel_workers_per_gather = 0";
    let hashed = "SET enable_hashagg = on; SET work_mem = '1MB'; SET max_parallel_workers_per_gather = 0";
    let parallel =
        "SET enable_hashagg = on; SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0;
        SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0";
    for plan in [sorted, hashed, parallel] {
        client.run(plan);
        let run = |client: &mut Client, times: u32| {
            let mut cancelled = 0;
            for i in 0..times {
                let queries = [GROUPS, ROWS, WINDOWS];
                queries.iter().for_each(|query| client.run(query));
                for failing in FAILING {
                    assert_eq!(client.fails(failing).code().code(), "22023");
                }
                // Cancelled at ever other moments. The limit ends with the transaction: no statement behind it is cancelled.
                let (limit, query) = (1 + i * 7 % 60, queries[i as usize % 3]);
                let limited = format!("BEGIN; SET LOCAL statement_timeout = {limit}; {query}; COMMIT");
                if let Err(error) = client.batch_execute(&limited) {
                    assert_eq!(error.code().map(|code| code.code()), Some("57014"));
                    client.run("ROLLBACK");
                    cancelled += 1;
                }
            }
            cancelled
        };
        run(&mut client, 10);
        let before = memory(&mut client, pid);
        let cancelled = run(&mut client, 50);
        let after = memory(&mut client, pid);
        println!("{before:?} kB; after 300 statements, {cancelled} of them cancelled, {after:?} kB");
        assert!(cancelled > 10, "{cancelled}");
        assert!(after.0 - before.0 < 64 && after.1 - before.1 < 2048, "{before:?} kB, then {after:?} kB");
    }
}
