-- Windows of time: they end a second and the lag before the oldest open transaction began, and never move back.
\set VERBOSITY terse
CREATE SCHEMA time_window_test;
SET search_path = time_window_test, public;
SET TimeZone = 'Europe/Berlin';
\pset null -
CREATE TABLE views (at timestamptz DEFAULT now(), k int);
CREATE INDEX ON views (at);
CREATE TABLE local_views (at timestamp DEFAULT now(), k int);
CREATE INDEX ON local_views (at);
CREATE TABLE utc_views (at timestamp DEFAULT (now() AT TIME ZONE 'UTC'), k int);
CREATE INDEX ON utc_views (at);
-- A key that depends on the zone is announced, one that does not is not.
SELECT register_rollup('by_day', 'SELECT at::date AS day, count(*) AS n FROM views GROUP BY 1', time_column => 'at', lag => '1 minute');
SELECT register_rollup('by_hour', 'SELECT date_trunc(''hour'', at) AS hour, count(*) AS n FROM views GROUP BY 1', time_column => 'at');
SELECT register_rollup('by_bin', 'SELECT date_bin(''6 hours'', at, ''2000-01-01 00:00+00'') AS bin, count(*) AS n FROM views GROUP BY 1', time_column => 'at');
SELECT register_rollup('by_utc', 'SELECT (at AT TIME ZONE ''UTC'')::date AS day, count(*) AS n FROM views GROUP BY 1', time_column => 'at');
SELECT register_rollup('local', 'SELECT at::date AS day, count(*) AS n FROM local_views GROUP BY 1', time_column => 'at');
SELECT register_rollup('utc', 'SELECT at::date AS day, count(*) AS n FROM utc_views GROUP BY 1', time_column => 'at');
-- Rows from before the first run, across the change of the clocks; one of a few seconds ago falls behind the lag of one.
INSERT INTO views SELECT '2024-03-30 20:30+00'::timestamptz + i * interval '1 hour', i FROM generate_series(0, 9) i;
INSERT INTO views VALUES (now() - interval '10 seconds', 0), ('-infinity', 0), ('infinity', 0), (NULL, 0);
INSERT INTO local_views SELECT '2024-10-27 00:30'::timestamp + i * interval '30 minutes', i FROM generate_series(0, 9) i;
INSERT INTO utc_views SELECT '2024-10-27 00:30'::timestamp + i * interval '30 minutes', i FROM generate_series(0, 9) i;
-- Where the session is does not matter.
SET TimeZone = 'Asia/Tokyo';
SELECT name, time_start, time_end < now() AS past, rows_written FROM rollups, run_rollup(name) ORDER BY name;
SELECT * FROM by_day WHERE day < '2024-12-31' ORDER BY day;
SELECT hour AT TIME ZONE 'UTC' AS hour, n FROM by_hour WHERE hour < '2024-03-31 00:00+00' ORDER BY hour;
SELECT bin AT TIME ZONE 'UTC' AS bin, n FROM by_bin WHERE bin < '2024-12-31' ORDER BY bin;
SELECT sum(n) FROM by_day;
SELECT sum(n) FROM by_hour;
SELECT name, (SELECT count(*) FROM verify_rollup(name)) AS wrong FROM rollups ORDER BY name;
SELECT name, now() - last_aggregated_time BETWEEN interval '0' AND interval '5 minutes' AS recent FROM rollups ORDER BY name;
-- The position stays where it is when the lag grows, and moves on from there.
CREATE TABLE before AS SELECT name, last_aggregated_time FROM rollups;
SELECT alter_rollup('by_hour', lag => '1 day');
SELECT rows_written FROM run_rollup('by_hour');
SELECT r.last_aggregated_time = b.last_aggregated_time AS same FROM rollups r JOIN before b USING (name) WHERE name = 'by_hour';
SELECT alter_rollup('by_hour', lag => '-1 second');
SELECT alter_rollup('by_hour', lag => '0');
SELECT window_start, window_end, time_start = (SELECT last_aggregated_time FROM before b WHERE b.name = 'by_hour') AS seamless FROM run_rollup('by_hour');
-- In one transaction everything since its start is still to come.
BEGIN;
INSERT INTO views (k) VALUES (1);
SELECT pg_sleep(1.1);
SELECT time_end < now() AS past FROM run_rollup('by_bin');
COMMIT;
-- Ids are not for it, nor it for ids.
SELECT incremental_rollup_window('by_day');
SELECT register_rollup('windows', source => 'views', time_column => 'at');
SELECT incremental_rollup_window('windows');
SELECT rollup_head('by_day');
SELECT last_aggregated_id FROM rollups WHERE name = 'by_day';
-- From a time, from now.
SELECT register_rollup('from_time', 'SELECT k, count(*) AS n FROM views GROUP BY k', time_column => 'at', start_from => '2024-03-31 05:30+00');
SELECT register_rollup('from_now', 'SELECT k, count(*) AS n FROM views GROUP BY k', time_column => 'at', start_from => 'now');
SELECT rows_written FROM run_rollup('from_time');
SELECT * FROM from_time WHERE k > 1 ORDER BY k;
SELECT rows_written FROM run_rollup('from_now');
SELECT reset_rollup('from_time');
SELECT last_aggregated_time FROM rollups WHERE name = 'from_time';
SELECT rows_written FROM run_rollup('from_time');
-- What a default has to look like; asked at each run.
SET client_min_messages = warning;
CREATE FUNCTION follows(default_expression text, type text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE name text := md5(default_expression || type);
BEGIN
    EXECUTE format('CREATE TABLE %I (at %s DEFAULT %s)', 't_' || name, type, default_expression);
    PERFORM register_rollup(name, source => ('t_' || name)::regclass, time_column => 'at', command => 'SELECT $1, $2');
    PERFORM run_rollup(name);
    PERFORM drop_rollup(name);
    RETURN 'yes';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;
SELECT type, expression, follows(expression, type) FROM unnest('{timestamptz, timestamp}'::text[]) type, unnest(ARRAY[
    'now()', 'CURRENT_TIMESTAMP', 'CURRENT_TIMESTAMP(3)', 'LOCALTIMESTAMP', 'transaction_timestamp()', 'statement_timestamp()',
    'clock_timestamp()', '(now() AT TIME ZONE ''UTC'')', 'timezone(''Asia/Tokyo'', now())', 'now()::timestamp', 'now()::timestamptz(0)',
    'now() - interval ''1 day''', 'now() + interval ''1 day''', '''now''', 'date_trunc(''day'', now())', 'CURRENT_DATE', 'NULL',
    '''2024-01-01''', 'GREATEST(now(), ''2024-01-01'')', 'now()::date']) WITH ORDINALITY e (expression, o) ORDER BY type DESC, o;
\set VERBOSITY default
ALTER TABLE views ALTER at DROP DEFAULT;
SELECT run_rollup('by_day');
ALTER TABLE views ALTER at SET DEFAULT now();
-- A renamed column is followed, whatever takes its name; one that is dropped and comes back is another.
INSERT INTO views (k) VALUES (50);
ALTER TABLE views RENAME at TO moment;
ALTER TABLE views ADD at timestamptz DEFAULT now();
SELECT last_aggregated_time AS position FROM rollups WHERE name = 'by_day' \gset
SELECT rows_written FROM run_rollup('by_day');
SELECT time_column, last_aggregated_time > :'position' AS moved FROM rollups WHERE name = 'by_day';
SELECT count(*) FROM verify_rollup('by_day');
ALTER TABLE views DROP moment CASCADE;
ALTER TABLE views ADD moment timestamptz DEFAULT now();
SELECT run_rollup('from_time');
SELECT count(drop_rollup(name)) FROM rollups;
DROP SCHEMA time_window_test CASCADE;
