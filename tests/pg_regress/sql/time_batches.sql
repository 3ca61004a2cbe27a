-- A backlog of a time column in batches: of events, never of a span, and those of one moment stay together.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
CREATE TABLE visits (at timestamptz DEFAULT now(), k int);
-- Single ones, hours apart; five in one moment; a busy second; a year later a few more.
INSERT INTO visits SELECT '2024-01-01'::timestamptz + i * interval '7 hours', 1 FROM generate_series(0, 9) i;
INSERT INTO visits SELECT '2024-02-01', 2 FROM generate_series(1, 5);
INSERT INTO visits SELECT '2024-02-02'::timestamptz + i * interval '1 millisecond', 3 FROM generate_series(1, 10) i;
INSERT INTO visits SELECT '2025-02-02'::timestamptz + i * interval '1 day', 4 FROM generate_series(1, 2) i;
SELECT register_rollup('by_k', 'SELECT k, count(*) FROM visits GROUP BY k', time_column => 'at', batch_size => 4);
SELECT time_start, time_end, rows_written FROM run_rollup('by_k');
TABLE by_k;
CALL catch_up_rollup('by_k');
SELECT time_start, CASE WHEN time_end < '2026-01-01' THEN time_end END AS time_end,
       (SELECT count(*) FROM visits WHERE at >= time_start AND at < time_end) AS events
FROM rollup_runs WHERE rollup_name = 'by_k' ORDER BY run_id;
SELECT * FROM verify_rollup('by_k');
SELECT count(DISTINCT xmin::text) = count(*) AS each_in_its_own_transaction FROM rollup_runs;
SELECT last_aggregated_time > now() - interval '5 minutes' AS caught_up, rollup_head_time('by_k') - last_aggregated_time < interval '5 minutes' AS at_the_head
FROM rollups;
SELECT rollup_name, remaining_ids, remaining_time < interval '5 minutes' AS little_remains, estimated_time_left < interval '1 day' AS is_estimated
FROM rollup_progress;
-- What was done stays done when a later batch fails.
SELECT reset_rollup('by_k');
ALTER TABLE by_k ADD CHECK (k < 3);
CALL catch_up_rollup('by_k');
SELECT last_aggregated_time FROM rollups;
SELECT * FROM verify_rollup('by_k');
-- Without a limit, all of it.
ALTER TABLE by_k DROP CONSTRAINT by_k_k_check;
SELECT alter_rollup('by_k', batch_size => 0);
SELECT time_end > now() - interval '5 minutes' AS all_of_it FROM run_rollup('by_k');
SELECT * FROM verify_rollup('by_k');

-- With an index of either kind or without one, whatever the size: no batch has more events than that, but for those that
-- are all of one moment, and none is empty.
CREATE FUNCTION batches(size int) RETURNS TABLE (runs int, too_large int, empty int, wrong int) LANGUAGE plpgsql AS $$
DECLARE
    run record;
    last timestamptz := '-infinity';
BEGIN
    PERFORM reset_rollup('by_k'), alter_rollup('by_k', batch_size => size);
    runs := 0; too_large := 0; empty := 0;
    LOOP
        SELECT time_end, count(v.at) AS events, count(DISTINCT v.at) AS moments INTO run
          FROM run_rollup('by_k') r LEFT JOIN visits v ON v.at >= last AND v.at < r.time_end GROUP BY time_end;
        EXIT WHEN run.time_end > now() - interval '5 minutes' OR runs = 1000;
        runs := runs + 1;
        too_large := too_large + (run.events > size AND run.moments > 1)::int;
        empty := empty + (run.events = 0)::int;
        last := run.time_end;
    END LOOP;
    wrong := (SELECT count(*) FROM verify_rollup('by_k'));
    RETURN NEXT;
END $$;
INSERT INTO visits SELECT '2023-01-01'::timestamptz + (random() ^ 8 * 1e9)::int % 30000000 * interval '1 second', 5 FROM generate_series(1, 300);
SELECT i AS brin, runs < 1000 AS ends, too_large, empty, wrong FROM generate_series(1, 400, 57) i, batches(i);
CREATE INDEX ON visits (at);
SELECT i AS btree, too_large, empty, wrong FROM generate_series(1, 400, 133) i, batches(i);
DROP INDEX visits_at_idx, visits_at_idx1;
SELECT i AS nothing, too_large, empty, wrong FROM generate_series(1, 400, 133) i, batches(i);
-- Before all times: with the first of the others, or alone.
INSERT INTO visits VALUES ('-infinity', 6), ('-infinity', 6), (NULL, 6), ('infinity', 6);
SELECT empty, wrong FROM batches(100);
DELETE FROM visits WHERE isfinite(at);
SELECT reset_rollup('by_k'), alter_rollup('by_k', batch_size => 1);
SELECT rows_written FROM run_rollup('by_k');
SELECT * FROM by_k;
SELECT drop_rollup('by_k', true);

-- The clock of a zone, on the night it is set back: the repeated hour is one batch. In spring an hour is missing.
SET TimeZone = 'Europe/Berlin';
CREATE TABLE readings (at timestamp DEFAULT now(), k int);
INSERT INTO readings SELECT '2024-10-26 23:30'::timestamp + i * interval '10 minutes', i % 3 FROM generate_series(0, 40) i;
INSERT INTO readings SELECT '2024-03-31 00:30'::timestamp + i * interval '10 minutes', i % 3 FROM generate_series(0, 40) i;
SELECT register_rollup('by_reading', 'SELECT k, count(*) FROM readings GROUP BY k', time_column => 'at', batch_size => 6);
CALL catch_up_rollup('by_reading');
SELECT time_start AT TIME ZONE 'UTC' AS time_start, CASE WHEN time_end < '2026-01-01' THEN time_end AT TIME ZONE 'UTC' END AS time_end, rows_written
FROM rollup_runs WHERE rollup_name = 'by_reading' ORDER BY run_id;
SELECT * FROM verify_rollup('by_reading');
SELECT sum(count) FROM by_reading;
SELECT drop_rollup('by_reading', true);
-- A command gets the same windows.
CREATE TABLE seen (n bigint);
SELECT register_rollup('commanded', source => 'readings', time_column => 'at', batch_size => 30, command =>
    'INSERT INTO seen SELECT count(*) FROM readings WHERE at >= $1::timestamp AND at < $2::timestamp');
CALL catch_up_rollup('commanded');
TABLE seen;
SELECT drop_rollup('commanded');
DROP FUNCTION batches;
DROP TABLE visits, readings, seen;
