-- Old partitions go only when every rollup has aggregated every row of them.
SET TimeZone = 'UTC';
SET client_min_messages = warning;

CREATE TABLE views (id bigserial, at timestamptz DEFAULT now(), page int) PARTITION BY RANGE (at);
CREATE TABLE views_1 PARTITION OF views FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE views_2 PARTITION OF views FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY LIST (page);
CREATE TABLE views_2_odd PARTITION OF views_2 FOR VALUES IN (1, 3);
CREATE TABLE views_2_rest PARTITION OF views_2 DEFAULT;
CREATE TABLE views_3 PARTITION OF views FOR VALUES FROM ('2026-03-01') TO (MAXVALUE);
CREATE TABLE views_old PARTITION OF views DEFAULT;
SELECT p, rollup_partition_end(p) FROM unnest('{views_1, views_2, views_3, views_old, views, views_2_odd}'::regclass[]) p;

SELECT * FROM drop_rolled_up_partitions('views', interval '1 day');
SELECT register_rollup('page_views', 'SELECT page, count(*) FROM views GROUP BY page', source => 'views', id_sequence => 'views_id_seq');
SELECT register_rollup('total_views', 'SELECT count(*) FROM views', id_sequence => 'views_id_seq');
INSERT INTO views (at, page) SELECT '2026-01-15', i FROM generate_series(1, 3) i;
INSERT INTO views (at, page) SELECT '2026-02-15', i FROM generate_series(1, 3) i;

RESET client_min_messages;
SELECT * FROM rollups_behind('views_1');
SELECT * FROM drop_rolled_up_partitions('views', '2026-03-01'::timestamptz);
SELECT window_end FROM run_rollup('page_views');
SELECT * FROM rollups_behind('views_1');
-- By hand it is refused, whichever way.
DROP TABLE views_1;
DROP TABLE IF EXISTS nothing_there, views_2;
ALTER TABLE views DETACH PARTITION views_2;
ALTER TABLE views_2 DETACH PARTITION views_2_odd;
TABLE total_views;
SELECT window_end FROM run_rollup('total_views');
-- Newer events than both positions keep their partition alone.
INSERT INTO views (at, page) VALUES ('2026-02-16', 2);
SELECT * FROM drop_rolled_up_partitions('views', '2026-01-31'::timestamptz);
SELECT * FROM drop_rolled_up_partitions('views', '2026-03-01'::timestamptz);
SHOW lock_timeout;
SELECT window_end FROM run_rollup('page_views');
SELECT window_end FROM run_rollup('total_views');
SELECT * FROM drop_rolled_up_partitions('views', '2026-03-01'::timestamptz, detach => true);
SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'views'::regclass ORDER BY 1;

-- Attached again, its events are taken for aggregated, and are.
ALTER TABLE views ATTACH PARTITION views_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
SET rollup_ext.guard_partitions = off;
SELECT count(*) FROM verify_rollup('page_views');
INSERT INTO views (at, page) VALUES ('2026-02-17', 2);
ALTER TABLE views DETACH PARTITION views_2;
RESET rollup_ext.guard_partitions;

-- What is no partition, or no partition by time.
SELECT * FROM drop_rolled_up_partitions('views_3', interval '1 day');
SELECT * FROM drop_rolled_up_partitions('views', NULL::interval);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM drop_rolled_up_partitions('views', interval '1 day');
ROLLBACK;
SELECT drop_rollup('page_views', true), drop_rollup('total_views', true);
DROP TABLE views, views_2;
CREATE TABLE listed (id bigserial, k int) PARTITION BY LIST (k);
CREATE TABLE listed_1 PARTITION OF listed FOR VALUES IN (1);
SELECT register_rollup('listed_total', 'SELECT count(*) FROM listed', id_sequence => 'listed_id_seq');
SELECT * FROM drop_rolled_up_partitions('listed', interval '1 day');

-- Others cannot ask what a table holds.
CREATE ROLE retention_reader;
SET ROLE retention_reader;
SELECT * FROM rollups_behind('listed_1');
RESET ROLE;
DROP ROLE retention_reader;
SELECT drop_rollup('listed_total', true);
DROP TABLE listed;

-- Time windows: the bound of the window is the measure.
CREATE TABLE visits (at timestamp DEFAULT now(), site int) PARTITION BY RANGE (at);
CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
INSERT INTO visits (at, site) VALUES ('2026-01-31 23:59:59', 1);
SELECT register_rollup('visit_count', 'SELECT count(*) FROM visits', time_column => 'at', start_from => '2026-01-31 23:00:00');
SELECT * FROM rollups_behind('visits_1');
UPDATE rollups SET last_aggregated_time = '2026-01-31 23:59:59' WHERE name = 'visit_count';
SELECT * FROM rollups_behind('visits_1');
UPDATE rollups SET last_aggregated_time = '2026-02-01' WHERE name = 'visit_count';
SELECT * FROM drop_rolled_up_partitions('visits', '2026-02-01'::timestamptz);
SELECT drop_rollup('visit_count', true);
DROP TABLE visits;

-- Changing events.
CREATE TABLE orders (id bigserial, shop int) PARTITION BY LIST (shop);
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES IN (1);
SELECT guard_rollup_source('orders');
INSERT INTO orders (shop) VALUES (1), (1);
UPDATE orders SET shop = 1 WHERE id = 1;
DELETE FROM orders_1 WHERE id = 1;
SELECT guard_rollup_source('orders', 'refuse');
UPDATE orders SET shop = 1;
TRUNCATE orders_1;
SELECT guard_rollup_source('orders', 'off');
TRUNCATE orders;
SELECT guard_rollup_source('orders', 'pray');
DROP TABLE orders;
