-- Queries as users write them: each becomes a rollup that equals its own query over all events.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE SCHEMA register_test;
SET search_path = register_test, public;
\pset format unaligned
\pset tuples_only on

CREATE TYPE kind AS ENUM ('click', 'buy');
CREATE DOMAIN money_amount AS numeric(12, 2) CHECK (VALUE >= 0);
CREATE TABLE "Dimension" (page_id int PRIMARY KEY, "Language" text, category text);
INSERT INTO "Dimension" VALUES (1, 'de', 'news'), (2, 'en', 'sport'), (3, NULL, 'news');
CREATE VIEW german AS SELECT page_id FROM "Dimension" WHERE "Language" = 'de';
CREATE TABLE "Event Table" (
    event_id bigint GENERATED ALWAYS AS IDENTITY,
    page_id int, "Mixed Case" text, kind kind, amount money_amount, tags text[], code varchar(5), flag boolean,
    bits bit(4), "order" int, at timestamptz, local timestamp, f4 real, f8 double precision, span interval,
    cash money, sorted text COLLATE "C"
) PARTITION BY RANGE (event_id);
CREATE TABLE first_leaf PARTITION OF "Event Table" FOR VALUES FROM (MINVALUE) TO (40);
CREATE TABLE second_leaf PARTITION OF "Event Table" FOR VALUES FROM (40) TO (MAXVALUE) PARTITION BY LIST (page_id);
CREATE TABLE second_leaf_default PARTITION OF second_leaf DEFAULT;

CREATE FUNCTION add_events(n int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO "Event Table" (page_id, "Mixed Case", kind, amount, tags, code, flag, bits, "order", at, local, f4, f8,
                               span, cash, sorted)
    SELECT NULLIF(i % 5, 4), CASE i % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'B' END, (ARRAY['click', 'buy'])[1 + i % 2]::kind,
           NULLIF(i % 7, 6), ARRAY['x', 'y' || i % 2], 'c' || i % 3, NULLIF(i % 3, 2)::bool, (i % 16)::bit(4), i % 4,
           '2024-03-30 22:00+00'::timestamptz + i * interval '20 minutes', '2024-03-30'::timestamp + i * interval '1 h',
           i % 6, i % 8, i * interval '1 min', i::money, chr(65 + i % 3)
      FROM generate_series(1, n) i
$$;

CREATE TABLE cases (name text PRIMARY KEY, query text);
INSERT INTO cases VALUES
('no_group', 'SELECT count(*), sum(amount) AS total FROM "Event Table"'),
('key_only', 'SELECT page_id FROM "Event Table" GROUP BY page_id'),
('ordinals', 'SELECT page_id, kind, count(*) AS n FROM "Event Table" GROUP BY 1, 2'),
('aliases', 'SELECT e.page_id AS p, count(*) n FROM register_test."Event Table" AS e GROUP BY p'),
('renamed', 'SELECT p, count(*) AS n FROM "Event Table" AS e (i, p) GROUP BY p'),
('expression', 'SELECT date_trunc(''hour'', local) AS hour, amount > 3 AS big, count(*) FILTER (WHERE flag) AS n, count(*) FROM "Event Table" GROUP BY date_trunc(''hour'', local), amount > 3'),
('bins', 'SELECT date_bin(''5 minutes'', at, ''2000-01-01 00:00+00'') AS bin, count(*) AS n FROM "Event Table" GROUP BY 1'),
('mixed case', 'SELECT "Mixed Case", "order", count("Mixed Case") AS "Total $1 $2", sum("order") AS "a""b" FROM "Event Table" GROUP BY "Mixed Case", "order"'),
('clashes', 'SELECT page_id AS stored, kind AS excluded, count(*) AS fresh, sum(amount) AS key, min(amount) AS measures FROM "Event Table" GROUP BY 1, 2'),
('filtered', 'SELECT page_id, sum(amount) FILTER (WHERE kind = ''buy'') AS bought FROM "Event Table" WHERE code <> ''c1'' AND "order" BETWEEN 1 AND 2 GROUP BY page_id;'),
('commented', '/* before */ SELECT page_id, count(*) FROM "Event Table" GROUP BY page_id -- behind'),
('sums', 'SELECT code, sum(page_id::smallint) AS s2, sum(page_id) AS s4, sum(page_id::bigint) AS s8, sum(amount) AS sn, sum(f4) AS sf4, sum(f8) AS sf8, sum(span) AS si, sum(cash) AS sm FROM "Event Table" GROUP BY code'),
('extremes', 'SELECT page_id, min(at), max(at) AS last, min(sorted) AS lo, max("Mixed Case") AS hi, max(kind) AS k, min(tags) AS t, max(span) AS s, min(code) AS c, max(cash) AS m FROM "Event Table" GROUP BY page_id'),
('logic', 'SELECT kind, bool_and(flag) AS a, every(flag) AS e, bool_or(flag) AS o, bit_and(page_id) AS ba, bit_or(bits) AS bo, bit_xor(page_id) AS bx FROM "Event Table" GROUP BY kind'),
('distinct_ok', 'SELECT kind, min(DISTINCT amount), bool_or(DISTINCT flag) FROM "Event Table" GROUP BY kind'),
('regr', 'SELECT kind, regr_count(f8, f4) AS n FROM "Event Table" GROUP BY kind'),
('ordered', 'SELECT page_id, count(*) AS n FROM "Event Table" GROUP BY page_id ORDER BY max(at) DESC, 2'),
('unnested', 'SELECT unnest(tags) AS tag, count(*) AS n FROM "Event Table" GROUP BY 1'),
('lateral', 'SELECT tag, count(*) AS n FROM "Event Table", LATERAL unnest(tags) AS tag GROUP BY 1'),
('types', 'SELECT kind, amount, tags, code, bits, span, cash, sorted, count(*) FROM "Event Table" GROUP BY 1, 2, 3, 4, 5, 6, 7, 8'),
('constant', 'SELECT ''all'' AS everything, count(*) FROM "Event Table" GROUP BY 1'),
('inner_left', 'SELECT "Language", count(*) FROM "Event Table" e JOIN "Dimension" d ON d.page_id = e.page_id GROUP BY 1'),
('inner_right', 'SELECT d."Language", count(*) FROM "Dimension" d JOIN "Event Table" USING (page_id) GROUP BY 1'),
('left_join', 'SELECT d.category, count(*), count(d.page_id) AS known FROM "Event Table" LEFT JOIN "Dimension" d USING (page_id) GROUP BY 1'),
('right_join', 'SELECT category, count(*) FROM "Dimension" RIGHT JOIN "Event Table" USING (page_id) GROUP BY category'),
('comma_join', 'SELECT category, count(*) FROM "Event Table" e, "Dimension" d WHERE d.page_id = e.page_id GROUP BY category'),
('natural_join', 'SELECT category, count(*) FROM "Event Table" NATURAL JOIN "Dimension" GROUP BY category'),
('subquery', 'SELECT page_id, count(*) FROM "Event Table" WHERE page_id IN (SELECT page_id FROM "Dimension" WHERE category = ''news'') GROUP BY 1'),
('derived', 'SELECT l, count(*) FROM "Event Table" JOIN (SELECT page_id, upper("Language") AS l FROM "Dimension") d USING (page_id) GROUP BY l'),
('through_view', 'SELECT page_id, count(*) FROM "Event Table" JOIN german USING (page_id) GROUP BY page_id');

-- Rows before registration, through the parent and straight into a leaf, and in three runs; no group may differ from
-- the query over all events, whichever way it is recomputed.
SELECT add_events(20);
CREATE FUNCTION differences(rollup text, query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM ((TABLE %1$I EXCEPT ALL (%2$s)) UNION ALL ((%2$s) EXCEPT ALL TABLE %1$I)) d',
                   rollup, regexp_replace(query, '--.*|;', ''))
       INTO n;
    RETURN n + (SELECT count(*) FROM verify_rollup(rollup));
END $$;
SELECT count(register_rollup(name, query)) FROM cases;
SELECT name, run.* FROM cases, run_rollup(name) AS run ORDER BY name;
SELECT add_events(30);
SELECT count(run_rollup(name)) FROM cases;
INSERT INTO second_leaf_default (event_id, page_id, kind, amount, tags) OVERRIDING SYSTEM VALUE
    SELECT nextval('"Event Table_event_id_seq"'), 2, 'buy', 5, '{x}' FROM generate_series(1, 3);
SELECT add_events(4);
SELECT count(run_rollup(name)) FROM cases;
SELECT name, differences(name, query) FROM cases WHERE differences(name, query) <> 0;
SELECT count(*), max(last_aggregated_id) FROM rollups r JOIN cases USING (name);
-- Nothing is new: nothing is written.
SELECT count(*) FROM cases WHERE (run_rollup(name)).rows_written IS NOT NULL;

-- What was created: columns with their types, a unique index in which NULLs are equal, room in the pages.
\pset tuples_only off
\pset format aligned
\d+ types
\d no_group
\d "mixed case"

-- Sources of every kind. A sequence with MINVALUE below zero starts there.
CREATE TABLE s_serial (id serial, k int);
CREATE TABLE s_small (id smallserial PRIMARY KEY, k int);
CREATE SEQUENCE numbers; CREATE TABLE s_default (k int, n bigint NOT NULL DEFAULT nextval('numbers'));
CREATE TABLE s_identity (id int GENERATED BY DEFAULT AS IDENTITY (START -5 MINVALUE -5), k int);
CREATE SEQUENCE owned; CREATE TABLE s_owned (id bigint, k int); ALTER SEQUENCE owned OWNED BY s_owned.id;
CREATE UNLOGGED TABLE s_unlogged (id bigserial, k int);
ALTER SEQUENCE s_unlogged_id_seq SET LOGGED;
CREATE TABLE s_parent (id bigserial, k int);
CREATE TABLE s_child () INHERITS (s_parent);
CREATE TABLE s_two (a bigserial, b bigserial, k int);
SELECT register_rollup('r_' || t, format('SELECT k, count(*) AS n FROM %s GROUP BY k', t))
  FROM unnest('{s_serial, s_small, s_default, s_identity, s_owned, s_unlogged, s_parent}'::text[]) t;
SELECT register_rollup('r_s_two', 'SELECT k, count(*) AS n FROM s_two GROUP BY k', id_sequence => 's_two_b_seq');
INSERT INTO s_serial (k) VALUES (1), (1), (2);
INSERT INTO s_small (k) VALUES (1), (1), (2);
INSERT INTO s_default (k) VALUES (1), (1), (2);
INSERT INTO s_identity (k) VALUES (1), (1), (2);
INSERT INTO s_owned SELECT nextval('owned'), 1 FROM generate_series(1, 3);
INSERT INTO s_unlogged (k) VALUES (1), (1), (2);
INSERT INTO s_child (k) VALUES (1), (1), (2);
INSERT INTO s_two (k) VALUES (1), (1), (2);
SELECT name, id_column, run.*, (SELECT count(*) FROM verify_rollup(name)) AS differ
  FROM rollups, run_rollup(name) AS run WHERE name LIKE 'r\_s%' ORDER BY name;
TABLE r_s_identity ORDER BY k;

-- start_from
SELECT register_rollup('from_now', 'SELECT k, count(*) AS n FROM s_serial GROUP BY k', start_from => 'now');
SELECT register_rollup('from_3', 'SELECT k, count(*) AS n FROM s_serial GROUP BY k', start_from => '3');
SELECT register_rollup('from_beginning', 'SELECT k, count(*) AS n FROM s_serial GROUP BY k', start_from => 'beginning');
INSERT INTO s_serial (k) VALUES (9);
SELECT name, run.* FROM rollups, run_rollup(name) AS run WHERE name LIKE 'from\_%' ORDER BY name;
SELECT 'now' AS start, * FROM from_now UNION ALL SELECT '3', * FROM from_3 UNION ALL SELECT 'beginning', * FROM from_beginning
 ORDER BY 1, 2;

SELECT count(drop_rollup(name, true)) FROM rollups WHERE target IS NOT NULL;
SELECT count(*) FROM rollups;
SELECT relname FROM pg_class WHERE relnamespace = 'register_test'::regnamespace AND relkind = 'v';
DROP SCHEMA register_test CASCADE;
