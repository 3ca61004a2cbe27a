-- A rollup whose events are gone, or were never its own, is compared with those that it holds, and loses nothing.
SET client_min_messages = warning;
CREATE TABLE events (id bigserial, k int, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE events_2020 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE events_2021 PARTITION OF events FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE events_2022 PARTITION OF events FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
INSERT INTO events (k, at) SELECT i % 2, '2020-06-01'::timestamptz + i * interval '1 month' FROM generate_series(1, 16) i;

-- Started later: what came before is no difference, and a refresh does not bring it in.
SELECT register_rollup('later', 'SELECT k, count(*) AS n FROM events GROUP BY k', start_from => 'now');
SELECT register_rollup('from_id', 'SELECT count(*) AS n FROM events', start_from => '15');
SELECT count(*) AS wrong FROM verify_rollup('later');
SELECT count(*) AS wrong FROM verify_rollup('from_id');
INSERT INTO events (k, at) VALUES (1, '2022-02-01');
SELECT name, window_start, window_end, rows_written FROM rollups, run_rollup(name) ORDER BY name;
SELECT refresh_rollup('later'), refresh_rollup('from_id');
TABLE later;
TABLE from_id;
SELECT count(*) AS wrong FROM verify_rollup('later');
SELECT count(*) AS wrong FROM verify_rollup('from_id');
-- Unless it starts over.
SELECT reset_rollup('later');
SELECT window_start, window_end FROM run_rollup('later');
SELECT count(*) AS wrong FROM verify_rollup('later');
TABLE later ORDER BY k;
-- A target that has rows holds what came before.
CREATE TABLE filled AS SELECT k, count(*) AS n FROM events GROUP BY k;
CREATE UNIQUE INDEX ON filled (k) NULLS NOT DISTINCT;
SELECT register_rollup('filled', 'SELECT k, count(*) AS n FROM events GROUP BY k', start_from => 'now');
SELECT count(*) AS wrong FROM verify_rollup('filled');
-- The same by time.
CREATE TABLE visits (k int, at timestamptz DEFAULT now());
INSERT INTO visits VALUES (1, '2020-01-01'), (1, '2021-01-01'), (2, '2021-01-02');
SELECT register_rollup('by_time', 'SELECT k, count(*) AS n FROM visits GROUP BY k', time_column => 'at', start_from => '2021-01-01');
SELECT count(*) AS wrong FROM verify_rollup('by_time');
SELECT rows_written FROM run_rollup('by_time');
SELECT count(*) AS wrong FROM verify_rollup('by_time');
SELECT refresh_rollup('by_time');
TABLE by_time ORDER BY k;
SELECT drop_rollup(name, true) FROM rollups;
DROP TABLE visits;

-- Partitions that leave with events of the rollup.
SELECT register_rollup('years', 'SELECT date_trunc(''year'', at AT TIME ZONE ''America/Los_Angeles'') AS year, count(*) AS n FROM events GROUP BY 1');
SELECT register_rollup('total', 'SELECT count(*) AS n FROM events');
SELECT name, rows_written FROM rollups, run_rollup(name) ORDER BY name;
ALTER TABLE events DETACH PARTITION events_2020;
DROP TABLE events_2022;
TABLE rollup_partitions_left ORDER BY 1, 2;
SELECT * FROM verify_rollup('years');
SELECT refresh_rollup('years', "to" => '2021-01-01');
SELECT refresh_rollup('total');
SELECT reset_rollup('total');
TABLE years ORDER BY year;
SELECT count(*) AS wrong FROM verify_rollup('years', '2021-01-01', '2022-01-01');
UPDATE events SET at = at + interval '1 day' WHERE id = 8;
SELECT refresh_rollup('years', '2021-01-01', '2022-01-01');
-- It comes back.
ALTER TABLE events ATTACH PARTITION events_2020 FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
TABLE rollup_partitions_left ORDER BY 1, 2;
-- Nevertheless.
SET rollup_ext.guard_partitions = off;
SELECT group_key, in_events FROM verify_rollup('years');
SELECT refresh_rollup('years');
SELECT reset_rollup('total');
RESET rollup_ext.guard_partitions;
TABLE years ORDER BY year;
TABLE rollup_partitions_left;
SELECT run_rollup('total');
SELECT name, (SELECT count(*) FROM verify_rollup(name)) AS wrong FROM rollups ORDER BY name;
-- One that it has nothing of leaves no trace.
CREATE TABLE events_2023 PARTITION OF events FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
DROP TABLE events_2023;
TABLE rollup_partitions_left;
SELECT drop_rollup(name, true) FROM rollups;
DROP TABLE events;
