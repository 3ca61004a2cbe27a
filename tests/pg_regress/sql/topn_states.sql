-- TopN: transition states in every kind of plan, and what they leave behind.
CREATE FUNCTION memory_used() RETURNS bigint LANGUAGE sql AS 'SELECT sum(used_bytes)::bigint FROM pg_backend_memory_contexts';
CREATE TABLE visits AS
SELECT i % 500 AS site, i % 11 AS day, CASE WHEN i % 13 > 0 THEN repeat(chr(97 + i % 5), i % 40) || i % 3000 END AS page, i % 4 AS weight
FROM generate_series(1, 30000) i;
ANALYZE visits;
CREATE VIEW lists AS SELECT site, day, topn_add_agg(page) AS counters, count(page) AS events FROM visits GROUP BY site, day;
CREATE VIEW truth AS SELECT site, page AS item, count(*) AS frequency FROM visits WHERE page IS NOT NULL GROUP BY 1, 2;

-- Hashed, sorted, spilled, as grouping sets, as a window: the same lists.
CREATE TABLE expected AS SELECT site, jsonb_object_agg(item, frequency) AS counters FROM truth GROUP BY site;
SET enable_hashagg = off;
SELECT count(*) AS same FROM (SELECT site, topn_add_agg(page) FROM visits GROUP BY site INTERSECT TABLE expected) w;
RESET enable_hashagg;
SET enable_sort = off;
SELECT count(*) AS same FROM (SELECT site, topn_add_agg(page) FROM visits GROUP BY site INTERSECT TABLE expected) w;
SET work_mem = '64kB';
SET hash_mem_multiplier = 1;
SELECT count(*) AS same FROM (SELECT site, topn_add_agg(page) FROM visits GROUP BY site INTERSECT TABLE expected) w;
RESET work_mem;
RESET hash_mem_multiplier;
RESET enable_sort;
SELECT count(*) AS same FROM (SELECT site, topn_union_agg(counters) FROM lists GROUP BY site INTERSECT TABLE expected) w;
SELECT count(*) AS same
FROM (SELECT site, topn_add_agg(page) FROM visits GROUP BY GROUPING SETS ((site), (day)) HAVING site IS NOT NULL INTERSECT TABLE expected) w;
SELECT count(*) AS same
FROM (SELECT DISTINCT site, topn_add_agg(page) OVER (PARTITION BY site) FROM visits INTERSECT TABLE expected) w;
SELECT count(*) AS wrong FROM (
    SELECT site, topn_add_agg(page, weight) FROM visits GROUP BY site
    EXCEPT
    SELECT site, coalesce((SELECT jsonb_object_agg(page, w) FROM (
        SELECT page, sum(weight) AS w FROM visits v WHERE v.site = s.site AND page IS NOT NULL AND weight > 0 GROUP BY page) p), '{}')
    FROM (SELECT DISTINCT site FROM visits) s) w;
SELECT bool_and(topn_error_bound(counters, events) = 0) AS exact FROM lists;

-- Aggregates over the same items share one state.
SELECT count(*) AS wrong
FROM (SELECT site, topn_add_agg(page) AS a, topn_add_agg(page) AS b, topn_add_error_agg(page) AS bound FROM visits GROUP BY site) s
WHERE a <> b OR bound <> 0;

-- Parallel workers hand over small states and large ones, pruned and not.
SET max_parallel_workers_per_gather = 2;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT count(*) AS same FROM (SELECT site, topn_add_agg(page) FROM visits GROUP BY site INTERSECT TABLE expected) w;
SET topn.number_of_counters = 20000;
SELECT topn_add_agg(page) = (SELECT jsonb_object_agg(page, n) FROM (SELECT page, count(*) AS n FROM visits WHERE page IS NOT NULL GROUP BY 1) t) AS same
FROM visits;
SET topn.number_of_counters = 20;
SELECT max(truth.n - coalesce((counters ->> page)::bigint, 0)) <= max(bound) AS within_bound,
       min(truth.n - coalesce((counters ->> page)::bigint, 0)) >= 0 AS never_over
FROM (SELECT topn_add_agg(page) AS counters, topn_add_error_agg(page) AS bound FROM visits) list,
     (SELECT page, count(*) AS n FROM visits WHERE page IS NOT NULL GROUP BY page) truth;
RESET max_parallel_workers_per_gather;

-- A cancelled query, a failed one, and many that end: nothing stays behind.
CREATE PROCEDURE everything(times integer) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. times LOOP
        PERFORM site, topn_add_agg(page), topn_add_agg(page, weight), topn_add_error_agg(page) FROM visits GROUP BY site;
        PERFORM topn_union_agg(counters), topn_union_error_agg(counters) FROM lists;
        PERFORM topn_union(counters, counters), topn_add(counters, 'new'), topn(counters, 3), topn_error_bound(counters, 1000) FROM lists WHERE site < 50;
        PERFORM topn_add_agg(page) OVER (PARTITION BY site ORDER BY day) FROM visits WHERE site < 50;
        BEGIN
            PERFORM topn_union_agg(CASE WHEN site = 499 THEN '{"a": -1}' ELSE counters END) FROM expected;
            RAISE 'should have failed';
        EXCEPTION WHEN invalid_parameter_value THEN NULL;
        END;
    END LOOP;
END $$;
CALL everything(2);
SELECT memory_used() AS before \gset
CALL everything(6);
SELECT memory_used() - :before < 200000 AS nothing_left;
SET statement_timeout = '200ms';
SELECT topn_add_agg(i::text) FROM generate_series(1, 1000000000) i;
SELECT topn_union_agg(jsonb_build_object(i, 1)) FROM generate_series(1, 1000000000) i;
RESET statement_timeout;
SELECT memory_used() - :before < 300000 AS nothing_left;
RESET topn.number_of_counters;

-- A stored list survives a dump: text out and in gives the same bytes.
SELECT bool_and(record_image_eq(ROW(counters), ROW(counters::text::jsonb))) AS same FROM lists;
DROP VIEW lists, truth;
DROP TABLE visits, expected;
DROP FUNCTION memory_used;
DROP PROCEDURE everything;
