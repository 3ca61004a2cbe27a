-- HLL aggregates in parallel plans and over hashed groups: the same bytes as without.
CREATE TABLE visits AS SELECT i % 40 AS page, i % 40 * i AS visitor FROM generate_series(0, 59999) i;
ANALYZE visits;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
EXPLAIN (COSTS OFF) SELECT hll_add_agg(hll_hash_integer(visitor)) FROM visits;
EXPLAIN (COSTS OFF) SELECT page, hll_add_agg(hll_hash_integer(visitor)) FROM visits GROUP BY page;
CREATE TABLE parallel AS SELECT page, hll_add_agg(hll_hash_integer(visitor)) s, hll_add_agg(hll_hash_integer(visitor), 14) fine FROM visits GROUP BY page;
CREATE TABLE parallel_whole AS SELECT hll_add_agg(hll_hash_integer(visitor)) s FROM visits;
EXPLAIN (COSTS OFF) SELECT hll_union_agg(s) FROM parallel;
CREATE TABLE parallel_union AS SELECT hll_union_agg(s) s, hll_union_agg(s) FILTER (WHERE page < 0) none FROM parallel;
SET max_parallel_workers_per_gather = 0;
EXPLAIN (COSTS OFF) SELECT page, hll_add_agg(hll_hash_integer(visitor)) FROM visits GROUP BY page;
SELECT count(*), count(*) FILTER (WHERE p.s = o.s AND p.fine = o.fine) AS same, min(# o.fine) = min(n) AND max(# o.s) > 1000 AS right_counts
FROM parallel p JOIN (SELECT page, hll_add_agg(hll_hash_integer(visitor)) s, hll_add_agg(hll_hash_integer(visitor), 14) fine, count(DISTINCT visitor) n
                      FROM visits GROUP BY page) o USING (page);
SELECT s = (SELECT hll_add_agg(hll_hash_integer(visitor)) FROM visits) AS same FROM parallel_whole;
SELECT u.s = w.s AS same, none IS NULL AS none FROM parallel_union u, parallel_whole w;
-- Defaults reach the workers.
SET max_parallel_workers_per_gather = 2;
SET rollup_ext.hll_log2m = 9;
SELECT hll_log2m(hll_add_agg(hll_hash_integer(visitor))) FROM visits;
RESET ALL;
DROP TABLE visits, parallel, parallel_whole, parallel_union;
