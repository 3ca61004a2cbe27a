//! The harness itself: servers start, crash, come back, follow one another.

use cluster_tests::ingest::copy;
use cluster_tests::{Cluster, Sql, Stop, wait_for};

#[test]
fn committed_rows_survive_a_crash() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect("postgres");
    client.run("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i");
    cluster.kill();
    cluster.resume();
    assert_eq!(cluster.connect("postgres").value::<i64>("SELECT count(*) FROM t"), 1000);
    cluster.stop(Stop::Immediate);
    cluster.resume();
    cluster.restart();
    assert_eq!(cluster.psql("postgres", "SELECT count(*) FROM t").as_deref(), Ok("1000"));
    assert!(cluster.psql("postgres", "SELECT 1/0").unwrap_err().contains("division by zero"));
}

#[test]
fn a_standby_follows_and_takes_over() {
    let primary = Cluster::start("");
    let standby = primary.standby();
    primary.connect("postgres").run("CREATE TABLE t AS SELECT 1 AS i");
    let mut client = standby.connect("postgres");
    wait_for("the standby has the table", 30, || {
        client.value::<bool>("SELECT to_regclass('t') IS NOT NULL").then_some(())
    });
    primary.stop(Stop::Immediate);
    standby.promote();
    client.run("INSERT INTO t VALUES (2)");
    assert_eq!(client.value::<i64>("SELECT count(*) FROM t"), 2);
}

/// What fails at the end of its transaction is not taken for committed.
#[test]
fn a_copy_that_does_not_commit_is_an_error() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect("postgres");
    client.run("CREATE TABLE t (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    assert_eq!(copy(&mut client, "t", ["1", "2"].into_iter().map(str::to_owned)).expect("a copy"), 2);
    let error = copy(&mut client, "t", ["3", "3"].into_iter().map(str::to_owned)).expect_err("no commit");
    assert_eq!(error.code().expect("an answer").code(), "23505", "{error}");
    assert_eq!(client.value::<i64>("SELECT count(*) FROM t"), 2);
}

#[test]
fn the_extension_creates_and_drops() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("rollups");
    client.run("DROP EXTENSION rollup_ext; CREATE SCHEMA \"Odd Schema\"");
    client.run("CREATE EXTENSION rollup_ext SCHEMA \"Odd Schema\"");
    assert_eq!(client.fails("CREATE EXTENSION rollup_ext").code().code(), "42710");
}
