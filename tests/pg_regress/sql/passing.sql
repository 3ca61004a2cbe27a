-- Ids that a run passes over, as one session can see it: it draws some, runs a rollup, and uses them later.
CREATE FUNCTION verify(name text) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM verify_rollup(name)';
CREATE TABLE kinds_of_events (kind int PRIMARY KEY, name text);
INSERT INTO kinds_of_events SELECT i, 'kind ' || i FROM generate_series(0, 9) i;
CREATE TABLE events (id serial, kind int, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE events_old PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE events_new PARTITION OF events DEFAULT;
SELECT register_rollup('kinds', 'SELECT name, count(*) AS n FROM events JOIN kinds_of_events k USING (kind) GROUP BY name',
    source => 'events');
INSERT INTO events (kind, at) SELECT i % 3, '2020-06-01' FROM generate_series(1, 10) i;

BEGIN;
SELECT nextval('events_id_seq') AS mine FROM generate_series(1, 2);
SELECT * FROM run_rollup('kinds');
INSERT INTO events VALUES (11, 5, '2020-06-01');
COMMIT;
SELECT last_aggregated_id, passed_over FROM rollups;
SELECT last_aggregated_id, lag_ids, passed_over_ids, state FROM rollup_status;
SELECT * FROM kinds ORDER BY name;
SELECT verify('kinds');
SELECT line FROM explain_rollup('kinds') WITH ORDINALITY AS e (line, n) WHERE n <= 2;

-- The partition holds an event that is not aggregated, so it stays.
SELECT rollups_behind('events_old'), rollups_behind('events_new') IS NULL AS other;
SELECT * FROM drop_rolled_up_partitions('events', '2021-01-01'::timestamptz, detach => true);
ALTER TABLE events DETACH PARTITION events_old;

-- It came after the last run, but nobody took it for an old one: the sequence was altered, not restarted.
ALTER SEQUENCE events_id_seq MAXVALUE 1000000;
SELECT refresh_rollup('kinds'), verify('kinds');
SELECT * FROM run_rollup('kinds');
SELECT last_aggregated_id, passed_over FROM rollups;
SELECT verify('kinds');
SELECT rollups_behind('events_old');
SELECT * FROM drop_rolled_up_partitions('events', '2021-01-01'::timestamptz, detach => true);
ALTER TABLE events ATTACH PARTITION events_old FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');

-- Renamed, and started again: nothing is passed over any more.
BEGIN;
SELECT nextval('events_id_seq') AS mine;
SELECT window_end FROM run_rollup('kinds');
COMMIT;
SELECT alter_rollup('kinds', new_name => 'sorts');
SELECT name, passed_over FROM rollups;
SELECT reset_rollup('sorts');
SELECT last_aggregated_id, passed_over FROM rollups;
SELECT window_start, window_end FROM run_rollup('sorts');
SELECT verify('sorts');

-- No more than ten thousand ranges are passed over; a run goes only as far, and what is left comes later.
BEGIN;
INSERT INTO events SELECT 2 * i, 1, now() FROM generate_series(51, 20000) i;
SELECT setval('events_id_seq', 40000);
SELECT window_start, window_end FROM run_rollup('sorts');
SELECT last_aggregated_id, cardinality(array(SELECT unnest(passed_over))) AS ranges FROM rollups;
SELECT verify('sorts');
SELECT window_end, rows_written FROM run_rollup('sorts');
INSERT INTO events VALUES (103, 2, now());
INSERT INTO events VALUES (39999, 2, now());
COMMIT;
SELECT verify('sorts');
SELECT window_end FROM run_rollup('sorts');
SELECT last_aggregated_id, passed_over, (SELECT sum(n) FROM kinds) - (SELECT count(*) FROM events) AS missing FROM rollups;
SELECT verify('sorts');

-- A batch takes what was passed over first.
BEGIN;
SELECT nextval('events_id_seq') AS mine FROM generate_series(1, 3);
INSERT INTO events (kind, at) SELECT 1, now() FROM generate_series(1, 10);
SELECT window_end FROM run_rollup('sorts');
INSERT INTO events SELECT 40000 + i, 7, now() FROM generate_series(1, 3) i;
COMMIT;
INSERT INTO events (kind, at) SELECT 1, now() FROM generate_series(1, 3);
SELECT alter_rollup('sorts', batch_size => 2);
SELECT window_start, window_end FROM run_rollup('sorts');
SELECT window_start, window_end FROM run_rollup('sorts');
SELECT passed_over, verify('sorts') FROM rollups;
CALL catch_up_rollup('sorts');
SELECT passed_over, verify('sorts'), last_aggregated_id FROM rollups;
SELECT drop_rollup('sorts', true);

-- Where it is not possible.
SELECT register_rollup('command', source => 'events', command => 'SELECT $1, $2');
SELECT run_rollup('command', '1 second');
SELECT drop_rollup('command');
CREATE TABLE visits (id bigint GENERATED ALWAYS AS IDENTITY (INCREMENT 10), at timestamptz DEFAULT now());
SELECT register_rollup('by_time', 'SELECT count(*) FROM visits', time_column => 'at');
SELECT run_rollup('by_time', '0');
SELECT register_rollup('by_tens', 'SELECT count(*) FROM visits');
SELECT run_rollup('by_tens', '0');
SELECT drop_rollup('by_time', true), drop_rollup('by_tens', true);
DROP TABLE visits, events, kinds_of_events;
DROP FUNCTION verify;
