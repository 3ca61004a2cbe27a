-- Runs: windows follow one another, NULLs neither repeat a group nor poison a value, positions move with the results.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE SCHEMA run_test;
SET search_path = run_test, public;
\pset null -

CREATE TABLE events (id bigserial PRIMARY KEY, k int, l text, v numeric, b boolean);
SELECT register_rollup('r', 'SELECT k, l, count(*) AS n, sum(v) AS total, min(v) AS lo, max(v) AS hi, bool_and(b) AS a, bool_or(b) AS o
                             FROM events GROUP BY k, l');
-- Nothing there, nothing new.
SELECT * FROM run_rollup('r');
-- NULL keys stay one group; a first batch without values does not decide about the second.
INSERT INTO events (k, l) VALUES (NULL, NULL), (1, NULL), (NULL, 'x'), (1, 'x');
SELECT * FROM run_rollup('r');
INSERT INTO events (k, l, v, b) VALUES (NULL, NULL, 5, true), (1, NULL, -5, false), (NULL, 'x', 'NaN', NULL);
SELECT * FROM run_rollup('r');
INSERT INTO events (k, l) VALUES (NULL, NULL), (1, NULL);
INSERT INTO events (k, l, v, b) VALUES (1, 'x', 'Infinity', true);
SELECT * FROM run_rollup('r');
SELECT * FROM run_rollup('r');
TABLE r ORDER BY k, l;
SELECT * FROM verify_rollup('r');
SELECT (SELECT sum(n) FROM r) = (SELECT count(*) FROM events WHERE id <= last_aggregated_id) FROM rollups;

-- In a transaction that fails, in a savepoint, twice in one statement, with rows of its own transaction.
BEGIN;
INSERT INTO events (k) VALUES (2);
SAVEPOINT s;
SELECT window_start, window_end FROM run_rollup('r');
ROLLBACK TO s;
SELECT window_start, window_end FROM run_rollup('r');
ROLLBACK;
SELECT last_aggregated_id FROM rollups;
BEGIN; INSERT INTO events (k) VALUES (3); SELECT run_rollup('r'), run_rollup('r'); INSERT INTO events (k) VALUES (3); COMMIT;
SELECT run_rollup('r') FROM generate_series(1, 3);
SELECT k, n FROM r WHERE k > 1;
DO $$BEGIN
    INSERT INTO events (k) VALUES (4);
    PERFORM run_rollup('r');
    RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN NULL;
END$$;
SELECT count(*) FROM verify_rollup('r');
SELECT window_start, window_end, rows_written FROM run_rollup('r');

-- An error while aggregating leaves everything as it was, and the next run takes it all.
SELECT register_rollup('s', 'SELECT k, sum(100 / k) AS total FROM events GROUP BY k');
SELECT run_rollup('s');
INSERT INTO events (k) VALUES (0);
SELECT run_rollup('s');
SELECT last_aggregated_id, (SELECT count(*) FROM rollup_runs WHERE rollup_name = 's') AS runs FROM rollups WHERE name = 's';
DELETE FROM events WHERE k = 0;
SELECT rows_written FROM run_rollup('s');
-- What is too large for the index of the target, or for the type of a sum, is an error as well.
SELECT register_rollup('wide', 'SELECT l, sum(k) AS total FROM events GROUP BY l');
SELECT rows_written FROM run_rollup('wide');
INSERT INTO events (l) SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i;
\set VERBOSITY sqlstate
SELECT run_rollup('wide');
\set VERBOSITY terse
SELECT count(*) FROM verify_rollup('wide');
DELETE FROM events WHERE length(l) > 5000;
SELECT rows_written FROM run_rollup('wide');
SELECT register_rollup('large', 'SELECT sum(k) AS total FROM events', start_from => 'now');
INSERT INTO events (k) VALUES (2147483647), (2147483647);
SELECT rows_written FROM run_rollup('large');
TABLE large;

-- A rollup that a trigger of its target, or its own query, runs again does not count twice.
SELECT register_rollup('t', 'SELECT k, count(*) AS n FROM events WHERE k < 4 GROUP BY k');
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
    IF pg_trigger_depth() = 1 THEN PERFORM run_rollup('t'); END IF;
    RETURN NULL;
END$$;
CREATE TRIGGER again AFTER INSERT OR UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION again();
SELECT rows_written FROM run_rollup('t');
SELECT count(*) FROM verify_rollup('t');
-- A trigger of the events keeps a rollup current.
CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM run_rollup('r'); RETURN NULL; END$$;
CREATE TRIGGER follow AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION follow();
INSERT INTO events (k) VALUES (3), (3);
SELECT k, n FROM r WHERE k = 3;
DROP TRIGGER follow ON events;

-- Above READ COMMITTED the snapshot is older than the wait.
\set VERBOSITY default
BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT run_rollup('r'); ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT run_rollup('r'); ROLLBACK;
\set VERBOSITY terse
BEGIN READ ONLY; SELECT run_rollup('r'); ROLLBACK;

-- Batches: each at most so many events, gaps do not matter.
SELECT register_rollup('b', 'SELECT k, count(*) AS n FROM events GROUP BY k', batch_size => 3);
SELECT setval('events_id_seq', 1000000);
INSERT INTO events (k) SELECT i FROM generate_series(1, 7) i;
CREATE TABLE batches AS SELECT 0 AS number, NULL::bigint AS window_start, NULL::bigint AS window_end WHERE false;
DO $$DECLARE w record; BEGIN
    FOR i IN 1..40 LOOP
        SELECT * INTO w FROM run_rollup('b');
        EXIT WHEN w.rows_written IS NULL;
        INSERT INTO batches VALUES (i, w.window_start, w.window_end);
    END LOOP;
END$$;
SELECT max((SELECT count(*) FROM events WHERE id BETWEEN window_start AND window_end)) AS largest,
       sum((SELECT count(*) FROM events WHERE id BETWEEN window_start AND window_end)) = (SELECT count(*) FROM events) AS complete,
       bool_and(window_start = before + 1) AS seamless
  FROM (SELECT *, lag(window_end, 1, 0::bigint) OVER (ORDER BY number) AS before FROM batches) b;
SELECT count(*) FROM verify_rollup('b');
INSERT INTO events (k) SELECT 1 FROM generate_series(1, 10);
SET client_min_messages = notice;
CALL catch_up_rollup('b');
SET client_min_messages = warning;

-- The sequence: checked at each run.
CREATE TABLE seq (id bigint GENERATED BY DEFAULT AS IDENTITY, k int);
SELECT register_rollup('q', 'SELECT k, count(*) AS n FROM seq GROUP BY k');
INSERT INTO seq (k) VALUES (1), (1), (1);
SELECT rows_written FROM run_rollup('q');
\set VERBOSITY default
ALTER TABLE seq ALTER id SET CACHE 5;
SELECT run_rollup('q');
ALTER TABLE seq ALTER id SET CACHE 1;
ALTER TABLE seq ALTER id SET CYCLE;
SELECT run_rollup('q');
ALTER TABLE seq ALTER id SET NO CYCLE;
ALTER TABLE seq ALTER id SET INCREMENT -1;
SELECT run_rollup('q');
ALTER TABLE seq ALTER id SET INCREMENT 1;
SELECT setval('seq_id_seq', 2);
SELECT run_rollup('q');
SELECT setval('seq_id_seq', 3, false);
SELECT run_rollup('q');
ALTER TABLE seq ALTER id RESTART WITH 3;
SELECT run_rollup('q');
TRUNCATE seq RESTART IDENTITY;
SELECT run_rollup('q');
INSERT INTO seq (k) VALUES (2), (2);
SELECT run_rollup('q');
SELECT explain_rollup('q');
SELECT reset_rollup('q');
SELECT rows_written FROM run_rollup('q');
SELECT count(*) FROM verify_rollup('q');
SELECT last_aggregated_id FROM rollups WHERE name = 'q';
-- Rows that brought ids of their own while the sequence was never used.
CREATE TABLE loaded (id bigint GENERATED BY DEFAULT AS IDENTITY, k int);
SELECT register_rollup('l', 'SELECT k, count(*) AS n FROM loaded GROUP BY k');
INSERT INTO loaded VALUES (1, 1), (2, 1);
SELECT run_rollup('l');
SELECT setval('loaded_id_seq', 2);
SELECT rows_written FROM run_rollup('l');
\set VERBOSITY terse

SELECT count(drop_rollup(name)) FROM rollups;
DROP SCHEMA run_test CASCADE;
