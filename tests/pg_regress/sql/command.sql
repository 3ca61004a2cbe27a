-- Command rollups: any SQL with the bounds of the window as $1 and $2.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE SCHEMA command_test; CREATE SCHEMA command_other;
SET search_path = command_test, public;
CREATE TABLE events (id bigserial, k int, at timestamptz DEFAULT now());
CREATE TABLE copies (id bigint, k int, zone text DEFAULT current_setting('TimeZone'), path text DEFAULT current_setting('search_path'));
SET TimeZone = 'Asia/Tokyo';
SELECT register_rollup('copy', source => 'events', command => 'INSERT INTO copies SELECT id, k FROM events WHERE id BETWEEN $1 AND $2',
                       batch_size => 2);
SELECT register_rollup('times', source => 'events', time_column => 'at',
                       command => 'INSERT INTO copies SELECT -id, k FROM events WHERE at >= $1 AND at < $2');
INSERT INTO events (k, at) SELECT i, now() - interval '1 hour' FROM generate_series(1, 3) i;
-- It runs with the search_path and zone of its registration.
CREATE TABLE command_other.copies (LIKE copies);
CREATE TEMPORARY TABLE copies (LIKE copies);
SET search_path = command_other; SET TimeZone = 'UTC';
SELECT window_start, window_end, time_start, time_end, rows_written FROM public.run_rollup('copy');
SELECT window_start, window_end, rows_written FROM public.run_rollup('copy');
SELECT window_start, window_end, rows_written FROM public.run_rollup('copy');
SELECT window_start, time_start, time_end < now() AS past, rows_written FROM public.run_rollup('times');
SELECT rows_written FROM public.run_rollup('times');
SELECT * FROM command_test.copies ORDER BY abs(id), id;
SELECT current_setting('TimeZone'), current_setting('search_path');
SET search_path = command_test, public;
-- An error of the command is an error of the run; the position stays. A transaction cannot be ended.
SELECT register_rollup('bad', source => 'events', command => 'SELECT 1 / ($1 - $1), $2');
SELECT run_rollup('bad');
SELECT register_rollup('commit', source => 'events', command => 'COMMIT');
SELECT run_rollup('commit');
SELECT register_rollup('two', source => 'events', command => 'INSERT INTO copies VALUES ($1); INSERT INTO copies VALUES ($2)');
SELECT window_start, window_end FROM run_rollup('two');
SELECT name, last_aggregated_id FROM rollups WHERE name IN ('bad', 'commit', 'two') ORDER BY name;
-- Commands that return rows, delete, call functions.
CREATE FUNCTION work(a bigint, b bigint) RETURNS void LANGUAGE sql AS 'INSERT INTO command_test.copies VALUES (a), (b)';
SELECT register_rollup('call', source => 'events', command => 'SELECT work($1, $2)', start_from => 'now');
INSERT INTO events (k) VALUES (9), (9);
SELECT window_start, window_end, rows_written FROM run_rollup('call');
SELECT register_rollup('prune', source => 'events', command => 'DELETE FROM command_test.copies WHERE id NOT BETWEEN $1 AND $2');
SELECT window_start, window_end, rows_written FROM run_rollup('prune');
-- It runs itself: the position has moved already.
SELECT register_rollup('self', source => 'events', command => 'SELECT window_start, window_end, rows_written, $1, $2 FROM run_rollup(''self'')');
SELECT window_start, window_end, rows_written FROM run_rollup('self');
SELECT window_start, window_end, rows_written FROM run_rollup('self');
SELECT verify_rollup('copy');
SELECT * FROM explain_rollup('call');
RESET TimeZone;
SELECT count(drop_rollup(name)) FROM rollups;
DROP SCHEMA command_test, command_other CASCADE;
DROP TABLE pg_temp.copies;
