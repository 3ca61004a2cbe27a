-- A backlog in batches, each a transaction of its own.
SET client_min_messages = warning;
CREATE TABLE events (id bigserial, at timestamptz DEFAULT now(), k int);
INSERT INTO events (at, k) SELECT '2026-01-01', i % 3 FROM generate_series(1, 1000) i;
-- Gaps are free: batches are of rows.
SELECT setval('events_id_seq', 1000000);
INSERT INTO events (at, k) SELECT '2026-01-01', i % 3 FROM generate_series(1, 1000) i;
SELECT register_rollup('by_k', 'SELECT k, count(*) FROM events GROUP BY k', batch_size => 300);
SELECT register_rollup('recent', 'SELECT k, count(*) FROM events GROUP BY k', time_column => 'at');
CALL catch_up_rollup('by_k');
SELECT window_start, window_end, rows_written, (SELECT count(*) FROM events WHERE id BETWEEN window_start AND window_end) AS events
FROM rollup_runs WHERE rollup_name = 'by_k' ORDER BY run_id;
SELECT count(DISTINCT xmin::text) = count(*) AS each_in_its_own_transaction FROM rollup_runs WHERE rollup_name = 'by_k';
SELECT * FROM verify_rollup('by_k');
-- Nothing is left, and time passes: both calls end.
CALL catch_up_rollup('by_k');
CALL catch_up_rollup('recent');
SELECT * FROM verify_rollup('recent');
-- What was done stays done when a later batch fails.
INSERT INTO events (k) SELECT 1 FROM generate_series(1, 700);
INSERT INTO events (k) VALUES (4);
ALTER TABLE by_k ADD CHECK (k < 4);
CALL catch_up_rollup('by_k');
SELECT last_aggregated_id - 1001000 AS behind_the_first_2000 FROM rollups WHERE name = 'by_k';
SELECT * FROM verify_rollup('by_k');
CALL catch_up_rollup('nobody');
SELECT drop_rollup('by_k', true), drop_rollup('recent', true);
DROP TABLE events;
