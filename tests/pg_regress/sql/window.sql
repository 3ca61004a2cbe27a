-- Window-only rollups: the caller aggregates, as in the published recipe.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE SCHEMA window_test;
SET search_path = window_test, public;
CREATE TABLE events (event_id bigserial, k int) PARTITION BY RANGE (event_id);
CREATE TABLE events_1 PARTITION OF events DEFAULT;
CREATE TABLE counts (k int PRIMARY KEY, n bigint);
INSERT INTO rollups (name, event_table_name, event_id_sequence_name) VALUES ('counts', 'events', 'events_event_id_seq');
SELECT name, event_table_name, event_id_sequence_name, last_aggregated_id, source, id_sequence, id_column, owner = CURRENT_USER::regrole AS mine,
       search_path, definition, target, command FROM rollups;
CREATE FUNCTION do_aggregation(OUT start_id bigint, OUT end_id bigint) LANGUAGE plpgsql AS $$
BEGIN
    SELECT window_start, window_end INTO start_id, end_id FROM incremental_rollup_window('counts');
    IF start_id > end_id THEN RETURN; END IF;
    INSERT INTO counts SELECT k, count(*) FROM events WHERE event_id BETWEEN start_id AND end_id GROUP BY k
    ON CONFLICT (k) DO UPDATE SET n = counts.n + EXCLUDED.n;
END $$;
SELECT * FROM do_aggregation();
INSERT INTO events (k) VALUES (1), (1), (2);
SELECT * FROM do_aggregation();
SELECT * FROM do_aggregation();
INSERT INTO events_1 (k) VALUES (2);
BEGIN; SELECT * FROM do_aggregation(); ROLLBACK;
SELECT * FROM do_aggregation();
TABLE counts ORDER BY k;
SELECT last_aggregated_id FROM rollups;
-- Registered by the function, from the middle, in batches.
SELECT register_rollup('batches', source => 'events', start_from => '3', batch_size => 1);
SELECT * FROM incremental_rollup_window('batches');
SELECT * FROM incremental_rollup_window('batches');
SELECT * FROM incremental_rollup_window('batches');
BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM incremental_rollup_window('batches'); ROLLBACK;
SELECT pause_rollup('batches');
SELECT * FROM incremental_rollup_window('batches');
SELECT resume_rollup('batches');
SELECT * FROM incremental_rollup_window('batches');
-- Names of any schema, quoted or not; the position of a rollup that existed before can come along.
CREATE TABLE "Odd Events" ("Event Id" bigserial, k int);
INSERT INTO rollups (name, event_table_name, event_id_sequence_name, last_aggregated_id)
VALUES ('odd', 'window_test."Odd Events"', '"Odd Events_Event Id_seq"', 1);
INSERT INTO "Odd Events" (k) VALUES (1), (2);
SELECT * FROM incremental_rollup_window('odd');
-- Without a sequence name the table's own is found.
INSERT INTO rollups (name, event_table_name) VALUES ('found', 'events');
SELECT event_id_sequence_name, id_column FROM rollups WHERE name = 'found';
SELECT count(drop_rollup(name)) FROM rollups;
DROP SCHEMA window_test CASCADE;
