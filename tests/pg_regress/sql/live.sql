-- Live views: the rollup and what it has not aggregated yet, as if it had.
CREATE TABLE events (id bigserial PRIMARY KEY, kind text, v int, at timestamptz DEFAULT now());
CREATE FUNCTION add_events(first int, last int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO events (kind, v, at)
    SELECT nullif('k' || i % 3, 'k2'), nullif(i, 7), '2024-01-01 12:00Z'::timestamptz + i * interval '10 minutes'
    FROM generate_series(first, last) i $$;

SELECT register_rollup('kinds', $$
    SELECT kind, date_bin('1 hour', at, '2000-01-01 00:00+00') AS hour, count(*) AS n, sum(v) AS total, max(v) AS top,
           bool_or(v > 3) AS any3, hll_add_agg(hll_hash_integer(v)) AS sketch, topn_add_agg(v::text) AS list
    FROM events WHERE v IS DISTINCT FROM 1 GROUP BY 1, 2 $$);
SELECT create_live_view('kinds');
SELECT obj_description('kinds_live'::regclass);

-- It is what the query itself returns: before the first run, between two, and when nothing is new.
CREATE VIEW direct AS TABLE kinds_definition;
CREATE FUNCTION differences() RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM (TABLE kinds_live EXCEPT TABLE direct) a
    FULL JOIN (TABLE direct EXCEPT TABLE kinds_live) b ON false $$;
SELECT count(*), differences() FROM kinds_live;
SELECT add_events(1, 10);
SELECT count(*), differences() FROM kinds_live;
SELECT window_end FROM run_rollup('kinds');
SELECT count(*), differences() FROM kinds_live;
SELECT add_events(5, 14);
SELECT count(*), differences() FROM kinds_live;
SELECT kind, hour AT TIME ZONE 'UTC' AS hour, n, total, top, any3, hll_cardinality(sketch) AS distinct_v, list
FROM kinds_live ORDER BY kind, hour;

-- A filter by the key reaches both sides, and the new events are found by their index.
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT n FROM kinds_live WHERE kind = 'k1' AND hour = '2024-01-01 13:00Z';
RESET enable_seqscan;
RESET enable_bitmapscan;

-- Each statement sees its own position, also through one prepared plan and one cached expression.
PREPARE total AS SELECT sum(n) AS n, rollup_position('kinds_definition') FROM kinds_live;
EXECUTE total;
SELECT window_end FROM run_rollup('kinds');
EXECUTE total;
BEGIN;
DO $$
DECLARE positions bigint[];
BEGIN
    FOR i IN 1..3 LOOP
        PERFORM add_events(1, 3);
        positions := positions || rollup_position('kinds_definition');
        PERFORM run_rollup('kinds');
    END LOOP;
    RAISE NOTICE '%', positions;
END $$;
EXECUTE total;
ROLLBACK;
SELECT name, rollup_position(definition) = last_aggregated_id AS same FROM rollups;

-- One row without GROUP BY.
SELECT register_rollup('total', 'SELECT count(*) AS n, max(at) AS latest FROM events');
SELECT create_live_view('total');
SELECT n, latest AT TIME ZONE 'UTC' AS latest FROM total_live;
SELECT window_end FROM run_rollup('total');
SELECT add_events(1, 2);
SELECT n, latest AT TIME ZONE 'UTC' AS latest FROM total_live;

-- Time columns, with and without a zone.
CREATE TABLE visits (site text, at timestamptz DEFAULT now(), local timestamp DEFAULT now());
SELECT register_rollup('by_at', 'SELECT site, count(*) AS n FROM visits GROUP BY site', time_column => 'at');
SELECT register_rollup('by_local', 'SELECT site, count(*) AS n FROM visits GROUP BY site', time_column => 'local');
SELECT create_live_view('by_at'), create_live_view('by_local');
INSERT INTO visits SELECT 'old', now() - interval '1 day', now() - interval '1 day' FROM generate_series(1, 3);
SELECT rows_written FROM run_rollup('by_at') UNION ALL SELECT rows_written FROM run_rollup('by_local');
INSERT INTO visits VALUES ('old'), ('new');
TABLE by_at;
SELECT * FROM by_at_live ORDER BY site;
SELECT * FROM by_local_live ORDER BY site;

-- Whoever may read the view needs nothing else.
CREATE ROLE rollup_test_reader;
GRANT SELECT ON kinds_live TO rollup_test_reader;
SET ROLE rollup_test_reader;
SELECT sum(n) FROM kinds_live;
SELECT sum(n) FROM kinds;
SELECT count(*) FROM rollups;
RESET ROLE;

-- Other names.
SELECT alter_rollup('kinds', new_name => 'sorts');
ALTER TABLE kinds RENAME TO sorts_of_events;
ALTER TABLE events RENAME COLUMN v TO value;
CREATE VIEW kinds_live_user AS SELECT sum(n) AS n FROM kinds_live;
SELECT create_live_view('sorts');
TABLE kinds_live_user;
DROP VIEW kinds_live_user, direct CASCADE;
DROP FUNCTION differences;

-- What it cannot be made of.
SELECT register_rollup('zone', 'SELECT at::date AS day, count(*) FROM events GROUP BY 1');
SELECT create_live_view('zone');
SELECT register_rollup('filtered', $$SELECT kind, count(*) FROM events WHERE at::date > '2020-01-01' GROUP BY 1$$);
SELECT create_live_view('filtered');
SELECT register_rollup('command', source => 'events', command => 'SELECT $1, $2');
SELECT create_live_view('command');
SELECT create_live_view('nobody');
SELECT create_live_view(NULL);
SELECT rollup_position('events');
SELECT rollup_position(NULL);
SELECT register_rollup('taken', 'SELECT kind, count(*) FROM events GROUP BY 1');
CREATE TABLE taken_live ();
SELECT create_live_view('taken');

-- It goes with its rollup, unless it is in use; one that was dropped is no hindrance.
CREATE VIEW used AS TABLE kinds_live;
SELECT drop_rollup('sorts');
DROP VIEW used;
SELECT drop_rollup('sorts', true);
SELECT to_regclass('kinds_live');
DROP VIEW total_live;
SELECT create_live_view('total');
DROP VIEW total_live;
SELECT drop_rollup('total', true);

SELECT drop_rollup(name, definition IS NOT NULL) FROM rollups;
DROP TABLE taken_live, events, visits;
DROP FUNCTION add_events;
DROP ROLE rollup_test_reader;
