-- Every aggregate in every kind of plan: the same result each time.
CREATE TABLE input AS
SELECT i, i % 61 AS g, h, CASE WHEN i % 17 > 0 THEN repeat(chr(97 + i % 7), i % 30) || i % 450 END AS item,
       nullif(i % 5, 4)::bigint AS w,
       CASE WHEN i % 11 > 0 THEN hll_empty(11 - i % 2) || h || hll_hash_integer(-i) END AS s,
       CASE WHEN i % 13 > 0 THEN jsonb_build_object(i % 300, i, 'all', 1) END AS c
FROM generate_series(1, 12000) i, LATERAL (SELECT CASE WHEN i % 19 > 0 THEN hll_hash_integer(i % 7000) END) h(h);
ANALYZE input;
CREATE TABLE aggregates (name text, args text);
INSERT INTO aggregates VALUES
    ('hll_add_agg', 'h'), ('hll_add_agg', 'h, 10'), ('hll_add_agg', 'h, 8, 6'), ('hll_add_agg', 'h, 12, 5, 64'),
    ('hll_add_agg', 'h, 9, 5, -1, 0'), ('hll_union_agg', 's'),
    ('topn_add_agg', 'item'), ('topn_add_agg', 'item, w'), ('topn_union_agg', 'c'),
    ('topn_add_error_agg', 'item'), ('topn_add_error_agg', 'item, w'), ('topn_union_error_agg', 'c');
-- None is missing; single_value is for groups with one value (see live).
SELECT DISTINCT proname FROM pg_proc JOIN pg_depend ON objid = pg_proc.oid AND refclassid = 'pg_extension'::regclass
WHERE prokind = 'a' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'rollup_ext')
  AND proname NOT IN (SELECT name FROM aggregates) AND proname <> 'single_value';

-- one(query): its only value as text. {agg} stands for name({args}).
CREATE FUNCTION one(query text, name text, args text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    EXECUTE replace(replace(replace(query, '{agg}', name || '({args})'), '{name}', name), '{args}', args) INTO STRICT result;
    RETURN result;
END $$;
-- differences(query, other): for every aggregate, how many rows only one of the two queries returns; how many rows there are.
CREATE FUNCTION differences(query text, other text) RETURNS TABLE (aggregates bigint, rows numeric, wrong numeric) LANGUAGE sql AS $$
SELECT count(*), sum(split_part(r, ' ', 1)::int), sum(split_part(r, ' ', 2)::int) FROM aggregates, LATERAL (SELECT one(
    'WITH a AS MATERIALIZED (' || query || '), b AS MATERIALIZED (' || other || ')
     SELECT (SELECT count(*) FROM a) || '' '' || (SELECT count(*) FROM (TABLE a EXCEPT ALL TABLE b) x)
                                                 + (SELECT count(*) FROM (TABLE b EXCEPT ALL TABLE a) x)', name, args)) x(r) $$;
-- plans(query): for every aggregate, how many have plan nodes that match each pattern.
CREATE FUNCTION plans(query text, VARIADIC patterns text[]) RETURNS TABLE (pattern text, plans bigint) LANGUAGE plpgsql AS $$
DECLARE a aggregates; line text; plan text;
BEGIN
    CREATE TEMP TABLE found (pattern text) ON COMMIT DROP;
    FOR a IN TABLE aggregates LOOP
        plan := '';
        FOR line IN EXECUTE 'EXPLAIN (ANALYZE, TIMING OFF) ' || replace(replace(query, '{agg}', a.name || '({args})'), '{args}', a.args) LOOP
            plan := plan || line || E'\n';
        END LOOP;
        INSERT INTO found SELECT p FROM unnest(patterns) p WHERE plan ~ p;
    END LOOP;
    RETURN QUERY SELECT p, (SELECT count(*) FROM found f WHERE f.pattern = p) FROM unnest(patterns) p;
    DROP TABLE found;
END $$;
-- What a sort and no worker give, to compare with.
CREATE TABLE expected (name text, args text, g int, r text);
SET enable_hashagg = off;
SET max_parallel_workers_per_gather = 0;
DO $$
DECLARE a aggregates;
BEGIN
    FOR a IN TABLE aggregates LOOP
        EXECUTE format('INSERT INTO expected SELECT %L, %L, g, %s(%s)::text FROM input GROUP BY g', a.name, a.args, a.name, a.args);
        EXECUTE format('INSERT INTO expected SELECT %L, %L, NULL, %s(%s)::text FROM input', a.name, a.args, a.name, a.args);
    END LOOP;
END $$;
SELECT * FROM plans('SELECT g, {agg} FROM input GROUP BY g', 'GroupAggregate', 'HashAggregate');
-- Whole tables and lists are right, not only the same.
SELECT name, args, count(*) FILTER (WHERE # r::hll = n) AS exact, count(*) FILTER (WHERE abs((# r::hll) / n - 1) < 0.2) AS near
FROM expected LEFT JOIN (SELECT g, count(DISTINCT h) n FROM input GROUP BY GROUPING SETS ((g), ())) t ON t.g IS NOT DISTINCT FROM expected.g
WHERE name = 'hll_add_agg' GROUP BY 1, 2 ORDER BY 1, 2;
WITH t AS MATERIALIZED (
    SELECT 'item' AS args, g, jsonb_object_agg(item, n) AS counters FROM (SELECT g, item, count(*) n FROM input WHERE item IS NOT NULL GROUP BY 1, 2) x GROUP BY 2
    UNION ALL SELECT 'item, w', g, jsonb_object_agg(item, n) FROM (SELECT g, item, sum(w) n FROM input WHERE item IS NOT NULL AND w > 0 GROUP BY 1, 2) x GROUP BY 2
    UNION ALL SELECT 'c', g, jsonb_object_agg(key, n) FROM (SELECT g, key, sum(value::int) n FROM input, jsonb_each(c) GROUP BY 1, 2) x GROUP BY 2)
SELECT args, count(*) AS groups, count(*) FILTER (WHERE r::jsonb = counters) AS exact
FROM expected JOIN t USING (args, g) WHERE name IN ('topn_add_agg', 'topn_union_agg') GROUP BY 1 ORDER BY 1;

-- Nothing at all, only NULLs, one row, one row that counts among NULLs.
SELECT name, args, left(one('SELECT {agg} FROM input WHERE false', name, args), 20) AS empty,
       (SELECT count(*) FROM input WHERE false GROUP BY g) AS no_groups,
       one('SELECT {agg} FROM (SELECT NULL::hll_hashval h, NULL::text item, NULL::bigint w, NULL::hll s, NULL::jsonb c FROM generate_series(1, 3)) x', name, args) AS nulls,
       one('SELECT {agg} FROM (SELECT * FROM input WHERE i = 7) x', name, args) AS one
FROM aggregates;
SELECT * FROM differences('SELECT {agg}::text FROM input WHERE i = 7',
    'SELECT {agg}::text FROM (SELECT h, item, w, s, c FROM input WHERE i = 7 UNION ALL SELECT NULL, NULL, NULL, NULL, NULL FROM generate_series(1, 9)) x');

-- FILTER, DISTINCT, ORDER BY.
SELECT * FROM differences('SELECT g, ({agg} FILTER (WHERE i % 3 = 0))::text FROM input GROUP BY g',
                          'SELECT g, x.r FROM (SELECT DISTINCT g FROM input) i JOIN (SELECT g, {agg}::text r FROM input WHERE i % 3 = 0 GROUP BY g) x USING (g)');
SELECT * FROM differences('SELECT {agg}::text FROM input WHERE false', 'SELECT ({agg} FILTER (WHERE i < 0))::text FROM input');
SELECT name, args, count(*) AS rows, count(*) FILTER (WHERE a.r IS DISTINCT FROM b.r) AS wrong
FROM aggregates, LATERAL (SELECT split_part(args, ', ', 1) || CASE WHEN args ~ 'w' THEN ', w' ELSE '' END) c(columns),
     LATERAL (SELECT g, one(format('SELECT {name}(DISTINCT {args}) FROM input WHERE g = %s', g), name, args) FROM generate_series(0, 60, 20) g) a(g, r)
     JOIN LATERAL (SELECT g, one(format('SELECT {agg} FROM (SELECT DISTINCT %s FROM input WHERE g = %s) x', columns, g), name, args) FROM generate_series(0, 60, 20) g) b(g, r) USING (g)
GROUP BY 1, 2 ORDER BY 1, 2;
SELECT * FROM differences('SELECT g, {name}({args} ORDER BY i DESC, item)::text FROM input GROUP BY g',
                          'SELECT g, r FROM expected WHERE (name, args) = (''{name}'', ''{args}'') AND g IS NOT NULL');

-- As a window: the whole partition, a growing frame, frames that move, a frame with a hole; with FILTER.
SELECT * FROM differences('SELECT DISTINCT g, ({agg} OVER (PARTITION BY g))::text FROM input',
                          'SELECT g, r FROM expected WHERE (name, args) = (''{name}'', ''{args}'') AND g IS NOT NULL');
SELECT frame, d.* FROM (VALUES
    ('rows', 'ROWS UNBOUNDED PRECEDING', 'o.i <= x.i'),
    ('move', 'ROWS BETWEEN 5 PRECEDING AND 2 FOLLOWING', 'o.n BETWEEN x.n - 5 AND x.n + 2'),
    ('ahead', 'ROWS BETWEEN 3 FOLLOWING AND 6 FOLLOWING', 'o.n BETWEEN x.n + 3 AND x.n + 6'),
    ('range', 'RANGE BETWEEN 260 PRECEDING AND CURRENT ROW', 'o.i BETWEEN x.i - 260 AND x.i'),
    ('hole', 'ROWS BETWEEN 2 PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW', 'o.n >= x.n - 2 AND o.n <> x.n')) f(frame, clause, condition),
    LATERAL differences(
        'WITH x AS (SELECT * FROM input WHERE g IN (0, 30) AND i < 1300)
         SELECT i, ({agg} FILTER (WHERE i % 5 > 0) OVER (PARTITION BY g ORDER BY i ' || clause || '))::text FROM x',
        'WITH x AS (SELECT *, row_number() OVER (PARTITION BY g ORDER BY i) n FROM input WHERE g IN (0, 30) AND i < 1300)
         SELECT i, (SELECT ({agg} FILTER (WHERE i % 5 > 0))::text FROM x o WHERE o.g = x.g AND ' || condition || ') FROM x') d;
RESET enable_hashagg;

-- Hashed; hashed with so little memory that groups go to disk; as grouping sets.
SET enable_sort = off;
SET work_mem = '64MB';
SELECT * FROM plans('SELECT g, {agg} FROM input GROUP BY g', 'HashAggregate', 'Batches: 1 ', 'Disk Usage');
SELECT * FROM differences('SELECT g, {agg}::text FROM input GROUP BY g',
                          'SELECT g, r FROM expected WHERE (name, args) = (''{name}'', ''{args}'') AND g IS NOT NULL');
SELECT * FROM differences('SELECT g, {agg}::text FROM input GROUP BY GROUPING SETS ((g), ())',
                          'SELECT g, r FROM expected WHERE (name, args) = (''{name}'', ''{args}'')');
SET work_mem = '64kB';
SET hash_mem_multiplier = 1;
SELECT * FROM plans('SELECT g, i % 3, {agg} FROM input GROUP BY 1, 2', 'HashAggregate', 'Batches: ([2-9]|[1-9][0-9]+) ', 'Disk Usage');
SELECT * FROM differences('SELECT g, {agg}::text FROM input GROUP BY g',
                          'SELECT g, r FROM expected WHERE (name, args) = (''{name}'', ''{args}'') AND g IS NOT NULL');
RESET work_mem;
RESET hash_mem_multiplier;
RESET enable_sort;

-- Parallel: states travel between processes, whole tables and groups, hashed and sorted.
SET max_parallel_workers_per_gather = 2;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off;
SELECT * FROM plans('SELECT {agg} FROM input', 'Partial Aggregate', 'Finalize Aggregate', 'Workers Launched: [12]');
SELECT * FROM differences('SELECT {agg}::text FROM input', 'SELECT r FROM expected WHERE (name, args) = (''{name}'', ''{args}'') AND g IS NULL');
SELECT * FROM plans('SELECT g, {agg} FROM input GROUP BY g', 'Partial HashAggregate', 'Finalize (Hash|Group)Aggregate', 'Workers Launched: [12]');
SELECT * FROM differences('SELECT g, {agg}::text FROM input GROUP BY g',
                          'SELECT g, r FROM expected WHERE (name, args) = (''{name}'', ''{args}'') AND g IS NOT NULL');
SET enable_hashagg = off;
SELECT * FROM plans('SELECT g, {agg} FROM input GROUP BY g', 'Partial GroupAggregate', 'Finalize GroupAggregate');
SELECT * FROM differences('SELECT g, {agg}::text FROM input GROUP BY g',
                          'SELECT g, r FROM expected WHERE (name, args) = (''{name}'', ''{args}'') AND g IS NOT NULL');
-- Also without rows, and with none that count.
SELECT * FROM differences('SELECT {agg}::text FROM input WHERE i < 0', 'SELECT {agg}::text FROM (SELECT * FROM input LIMIT 0) x');
RESET enable_hashagg;
RESET parallel_leader_participation;
SET max_parallel_workers_per_gather = 0;

-- Partitions aggregated each by itself.
CREATE TABLE parts (LIKE input) PARTITION BY HASH (i);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO parts TABLE input;
SET enable_partitionwise_aggregate = on;
SELECT * FROM plans('SELECT g, {agg} FROM parts GROUP BY g', 'Partial', 'Finalize', 'Append');
SELECT * FROM differences('SELECT g, {agg}::text FROM parts GROUP BY g',
                          'SELECT g, r FROM expected WHERE (name, args) = (''{name}'', ''{args}'') AND g IS NOT NULL');
RESET enable_partitionwise_aggregate;

-- The memory of hashed groups is accounted for: states that grow show, and less work_mem makes for less of it.
CREATE FUNCTION memory(work_mem text, condition text, name text, args text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    PERFORM set_config('work_mem', work_mem, true);
    FOR line IN EXECUTE format('EXPLAIN (ANALYZE, TIMING OFF) SELECT g, n, %s(%s) FROM input, generate_series(1, 10) n WHERE i <= 5000 AND %s GROUP BY 1, 2', name, args, condition) LOOP
        IF line ~ 'Memory Usage' THEN RETURN substring(line FROM 'Memory Usage: ([0-9]+)kB'); END IF;
    END LOOP;
END $$;
SET enable_sort = off;
SET hash_mem_multiplier = 1;
SELECT name, args, many > 1.5 * memory('64MB', 'i < 62', name, args) AS states_show, memory('64kB', 'true', name, args) < 0.7 * many AS less_is_less
FROM aggregates, LATERAL memory('64MB', 'true', name, args) many;
RESET ALL;
DROP TABLE input, aggregates, expected, parts;
DROP FUNCTION one, differences, plans, memory;
