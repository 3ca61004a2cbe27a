-- TopN: the seeds' use of it, and the interface of postgresql-topn.
CREATE TABLE page_hits (page text, weight bigint);
INSERT INTO page_hits
SELECT page, weight
FROM (VALUES ('home', 6), ('cart', 4), ('search', 4), ('about', 2), ('Ünïcode "quoted" \ page', 3), ('', 1)) v(page, weight),
     generate_series(1, weight);
INSERT INTO page_hits VALUES (NULL, 5), (NULL, NULL);

SELECT topn_add_agg(page) FROM page_hits;
SELECT * FROM topn((SELECT topn_add_agg(page) FROM page_hits), 4);
SELECT (topn(topn_add_agg(page), 3)).item FROM page_hits;
SELECT (topn(topn_add_agg(page), 100)).* FROM page_hits;

-- No rows, no items, no lists.
SELECT topn_add_agg(page), topn_union_agg('{}') FROM page_hits WHERE false;
SELECT topn_add_agg(page) FROM page_hits WHERE page IS NULL;
SELECT topn_union_agg(NULL) FROM page_hits;
SELECT topn_add_agg(page) FILTER (WHERE false) FROM page_hits;
SELECT count(*) FROM topn('{}', 5);
SELECT count(*) FROM (SELECT topn('{"a": 1}', 0) UNION ALL SELECT topn('{"a": 1}', -3)) t;
SELECT count(*) FROM topn(NULL, 5);

-- topn_add and topn_union.
SELECT topn_add(NULL, NULL), topn_add(NULL, 'a'), topn_add('{"a": 1}', NULL), topn_add('{"a": 1}', 'a'), topn_add('{"b": 1}', 'a');
SELECT topn_union('{"a": 1, "b": 2}', '{"b": 3, "ccc": 4}'), topn_union('{}', '{}'), topn_union('{"a": 1}', NULL);
SELECT '{"a": 1}'::jsonb + '{"a": 2}'::jsonb AS operator;
SELECT topn_union_agg(counters) FROM (VALUES ('{"a": 1, "b": 2}'::jsonb), (NULL), ('{}'), ('{"b": 5, "a": 1, "c": 0}')) v(counters);

-- Weights: NULL and 0 do not count.
SELECT topn_add_agg(item, weight) FROM (VALUES ('a', 10), ('b', 5), ('a', 7), ('c', 0), ('d', NULL), (NULL, 3)) v(item, weight);
SELECT topn_add_agg('a', -1::bigint);

-- Counts stop at 2^63 - 1.
SELECT topn_add_agg('a', weight) FROM (VALUES (9223372036854775807), (1)) v(weight);
SELECT topn_union('{"a": 9223372036854775807}', '{"a": 1, "b": 9223372036854775806}');
SELECT topn_add('{"a": 9223372036854775807}', 'a');
SELECT topn_union_agg(counters) FROM (VALUES ('{"a": 9223372036854775000}'::jsonb), ('{"a": 1000}')) v(counters);

-- Equal counts rank by the bytes of the item, whatever the order of the input.
SET topn.number_of_counters = 3;
SELECT topn_add_agg(i::text ORDER BY i), topn_add_agg(i::text ORDER BY -i) FROM generate_series(1, 9) i;
SELECT string_agg(item, ',') FROM topn('{"b": 1, "a": 1, "B": 1, "aa": 1, "z": 2}', 9);

-- The setting bounds a list, but nothing is pruned below an input.
SELECT topn_union('{"a": 1, "b": 2, "c": 3}', '{"d": 4, "e": 5}');
SELECT topn_union('{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}', '{"f": 6}');
SELECT topn_union('{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}', '{}');
SELECT topn_add('{"a": 1, "b": 2, "c": 3}', 'd'), topn_add('{"a": 2, "b": 2, "c": 3, "d": 4}', 'e');
SELECT topn_union_agg(counters)
FROM (VALUES ('{"f": 6}'::jsonb), ('{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}'), ('{"g": 7}')) v(counters);
SELECT topn_union_agg(counters) FROM (VALUES ('{"f": 6}'::jsonb), ('{"g": 7, "h": 8}'), ('{"i": 9}')) v(counters);
SELECT count(*) FROM topn('{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}', 10);
\set VERBOSITY sqlstate
SET topn.number_of_counters = 0;
SET topn.number_of_counters = 14913081;
\set VERBOSITY default
RESET topn.number_of_counters;
SHOW topn.number_of_counters;

-- The bytes are those that jsonb_in makes.
CREATE TABLE item_sets AS
SELECT set, CASE set % 6
    WHEN 0 THEN i::text
    WHEN 1 THEN repeat('x', (i * i) % 300)
    WHEN 2 THEN chr(200 + (i * 37) % 20000) || i
    WHEN 3 THEN repeat(chr(34 + i % 90), i % 7)
    WHEN 4 THEN repeat(md5((i % 40)::text), 1 + i % 30)
    ELSE 'https://example.com/' || i % 17 END AS item,
    CASE set % 4 WHEN 0 THEN 1 WHEN 1 THEN 10 ^ (i % 19) WHEN 2 THEN i * 9999 ELSE (9223372036854775807 / (i + 1)) END::bigint AS weight
FROM generate_series(1, 60) set, generate_series(1, set * set / 3) i;
SELECT count(*) AS sets, sum(pairs) AS pairs, count(*) FILTER (WHERE NOT same) AS different
FROM (SELECT record_image_eq(ROW(counters), ROW(counters::text::jsonb)) AS same,
             (SELECT count(*) FROM jsonb_object_keys(counters)) AS pairs
      FROM (SELECT topn_add_agg(item, weight) AS counters FROM item_sets GROUP BY set) s) t;
SELECT count(*) FILTER (WHERE NOT record_image_eq(ROW(merged), ROW(merged::text::jsonb))) AS different_unions
FROM (SELECT topn_union(a.counters, b.counters) AS merged
      FROM (SELECT set, topn_add_agg(item, weight) AS counters FROM item_sets GROUP BY set) a
      JOIN (SELECT set, topn_add_agg(item) AS counters FROM item_sets GROUP BY set) b ON a.set <= b.set + 1) m;

-- The counts are exact as long as nothing is pruned.
SELECT count(*) AS wrong FROM (
    SELECT set, (topn(topn_add_agg(item, weight), 1000)).* FROM item_sets GROUP BY set
    EXCEPT
    SELECT set, item, least(sum(weight), 9223372036854775807) FROM item_sets GROUP BY set, item) w;

-- A union of the parts is the whole.
SET topn.number_of_counters = 100000;
SELECT topn_union_agg(part) = (SELECT topn_add_agg(item, weight) FROM item_sets WHERE set % 4 < 3) AS same
FROM (SELECT topn_add_agg(item, weight) AS part FROM item_sets WHERE set % 4 < 3 GROUP BY set) p;
RESET topn.number_of_counters;

-- Numbers in every form that jsonb takes.
SELECT topn_union('{"a": 1e3, "b": 2.0, "c": 20e-1, "d": 0, "e": -0, "f": 0.000, "g": 1E18}', '{}');
SELECT * FROM topn('{"a": 10000000000000000000000000e-16, "b": 123456789.000000000000000000000000000000000000000000000000000000000000000000000}', 3);

-- What is no list of counters.
SELECT topn('[1, 2]', 1);
SELECT topn('5', 1);
SELECT topn('{"a": "5"}', 1);
SELECT topn_union('{"a": {"b": 1}}', '{}');
SELECT topn_union('{}', '{"a": null}');
SELECT topn_add('{"a": -1}', 'b');
SELECT topn_union_agg('{"a": 1, "bb": 1.5}');
SELECT topn_union_agg('{"a": 9223372036854775808}');
SELECT topn('{"a": 1e400}', 1);
SELECT topn('{"a": 1e-400}', 1);
SELECT topn(('{"' || repeat('long', 100) || '": true}')::jsonb, 1);
\set VERBOSITY sqlstate
SELECT topn_union('null', '{}');
SELECT topn('{"a": 9999999999999999999}', 1);
\set VERBOSITY default

-- Items of any length.
SELECT item = repeat('é', 5000) AS same, frequency
FROM topn((SELECT topn_add_agg(repeat('é', 5000)) FROM generate_series(1, 3)), 1);
SELECT count(*), min(length(item)), max(length(item)), sum(frequency)
FROM topn((SELECT topn_add_agg(repeat('y', i)) FROM generate_series(0, 600) i), 1000);

-- Error bounds.
SELECT topn_error_bound('{"a": 3, "b": 2}', 5), topn_error_bound('{"a": 3, "b": 2}', 12);
SELECT topn_error_bound('{"a": 3, "b": 2}', 4);
SET topn.number_of_counters = 100;
WITH events AS MATERIALIZED (
    SELECT (power(20000, (i * 7919 % 100003) / 100003.0))::int::text AS item FROM generate_series(1, 100000) i
), truth AS (
    SELECT item, count(*) AS occurred FROM events GROUP BY item
), list AS (
    SELECT topn_add_agg(item) AS counters, topn_add_error_agg(item) AS bound FROM events
), counted AS (
    SELECT item, frequency FROM list, topn(counters, 1000)
)
SELECT max(occurred - coalesce(frequency, 0)) <= max(bound) AS within_bound, min(occurred - coalesce(frequency, 0)) >= 0 AS never_over,
       max(bound) BETWEEN 1 AND 1000 AS small_bound, count(frequency) AS counters
FROM truth LEFT JOIN counted USING (item), list;
SELECT topn_add_error_agg(i::text), topn_add_error_agg(i::text, 10::bigint) FROM generate_series(1, 50) i;
SELECT topn_union_error_agg('{"a": 1}'), topn_add_error_agg(NULL);
RESET topn.number_of_counters;

-- Aggregate features.
SELECT topn_add_agg(DISTINCT page), topn_add_agg(page ORDER BY weight DESC) FILTER (WHERE weight = 4) FROM page_hits;
SELECT weight, topn_add_agg(page) OVER (ORDER BY weight ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
FROM (SELECT DISTINCT page, weight FROM page_hits WHERE page <> 'cart') p ORDER BY weight;

-- Parallel plans give the same lists.
CREATE TABLE many_hits AS
SELECT i % 5 AS site, (i % 997 * (i % 3))::text AS item FROM generate_series(1, 60000) i;
ANALYZE many_hits;
SET max_parallel_workers_per_gather = 0;
CREATE TABLE serial_lists AS SELECT site, topn_add_agg(item) AS counters, topn_add_agg(item, 3) AS weighted FROM many_hits GROUP BY site;
SET max_parallel_workers_per_gather = 2;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET enable_sort = off;
EXPLAIN (COSTS OFF) SELECT site, topn_add_agg(item) FROM many_hits GROUP BY site;
SELECT count(*) AS different FROM serial_lists s
JOIN (SELECT site, topn_add_agg(item) AS counters, topn_add_agg(item, 3) AS weighted FROM many_hits GROUP BY site) p USING (site)
WHERE NOT record_image_eq(ROW(s.counters, s.weighted), ROW(p.counters, p.weighted));
SET topn.number_of_counters = 10;
SELECT string_agg(item || ' ' || frequency, ', ') FROM topn((SELECT topn_add_agg(item) FROM many_hits), 1);
SELECT count(*) FROM serial_lists, jsonb_object_keys(topn_union(counters, '{"new": 1}')) GROUP BY site;
DROP TABLE page_hits, item_sets, many_hits, serial_lists;
