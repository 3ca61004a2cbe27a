-- Targets: created where none is, checked where one is.
SET client_min_messages = warning;
CREATE SCHEMA target_test; CREATE SCHEMA "Other Schema";
SET search_path = target_test, public;
CREATE TABLE events (id bigserial PRIMARY KEY, k int, l text, v numeric);
INSERT INTO events (k, l, v) VALUES (1, 'x', 1), (1, 'x', 2), (NULL, 'y', 3);
CREATE TEMPORARY TABLE query AS SELECT 'SELECT k, l, count(*) AS n, sum(v) AS total FROM events GROUP BY k, l' AS q;
CREATE FUNCTION attempt(name text, target text, more text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
DECLARE d text; h text;
BEGIN
    EXECUTE format('SELECT register_rollup(%L, %L, target => %L %s)', name, (SELECT q FROM query), target, more);
    RETURN format('%s into %s', name, (SELECT r.target FROM rollups r WHERE r.name = attempt.name));
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, '  DETAIL: ' || NULLIF(d, ''), '  HINT: ' || NULLIF(h, ''));
END $$;
\pset format unaligned
\pset tuples_only on

-- Names.
SELECT attempt('r1', '"Other Schema"."Mixed Case"');
SELECT attempt('r2', 'Folded');
SELECT attempt('r3', '"quo""ted"');
SELECT attempt('r4.dotted', NULL);
SELECT register_rollup('r5.dotted', q) FROM query;
SELECT name, target, definition FROM rollups ORDER BY name;
SELECT obj_description(target), obj_description(definition) FROM rollups WHERE name = 'r1';
SELECT reloptions FROM pg_class WHERE oid = '"Other Schema"."Mixed Case"'::regclass;

-- Tables that were there before and fit.
CREATE TABLE fits (total numeric, extra text DEFAULT 'none', n bigint, l text, k int, at timestamptz DEFAULT now(), gone int);
ALTER TABLE fits DROP COLUMN gone;
CREATE UNIQUE INDEX ON fits (l, k) NULLS NOT DISTINCT;
SELECT attempt('fits', 'fits');
CREATE TABLE primary_key (k int, l text, n bigint, total numeric, PRIMARY KEY (k, l));
SELECT attempt('primary_key', 'primary_key');
CREATE TABLE including (k int, l text, n bigint, total numeric, UNIQUE NULLS NOT DISTINCT (k, l) INCLUDE (n));
SELECT attempt('including', 'including');
CREATE TABLE parted (k int, l text, n bigint, total numeric, UNIQUE NULLS NOT DISTINCT (k, l)) PARTITION BY HASH (k);
CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT attempt('parted', 'parted');
SELECT name, rows_written FROM (VALUES ('fits'), ('including'), ('parted'), ('r1')) t (name), run_rollup(name);
SELECT run_rollup('primary_key');
INSERT INTO events (k, l, v) VALUES (NULL, 'y', 4), (1, 'x', NULL);
SELECT name, rows_written FROM (VALUES ('fits'), ('including'), ('parted'), ('r1')) t (name), run_rollup(name);
SELECT k, l, n, total, extra FROM fits ORDER BY k;
SELECT name, (SELECT count(*) FROM verify_rollup(name)) FROM (VALUES ('fits'), ('including'), ('parted'), ('r1')) t (name);

-- And those that do not.
CREATE TABLE no_column (k int, l text, total numeric, UNIQUE NULLS NOT DISTINCT (k, l));
CREATE TABLE wrong_type (k bigint, l text, n bigint, total numeric, UNIQUE NULLS NOT DISTINCT (k, l));
CREATE TABLE wrong_case (k int, l text, "N" bigint, total numeric, UNIQUE NULLS NOT DISTINCT (k, l));
CREATE TABLE required (k int, l text, n bigint, total numeric, more int NOT NULL, UNIQUE NULLS NOT DISTINCT (k, l));
CREATE TABLE no_key (k int, l text, n bigint, total numeric);
CREATE TABLE part_key (k int UNIQUE NULLS NOT DISTINCT, l text, n bigint, total numeric);
CREATE TABLE wide_key (k int, l text, n bigint, total numeric, UNIQUE NULLS NOT DISTINCT (k, l, n));
CREATE TABLE nulls_differ (k int, l text NOT NULL, n bigint, total numeric, UNIQUE (k, l));
CREATE TABLE partial_key (k int, l text, n bigint, total numeric);
CREATE UNIQUE INDEX ON partial_key (k, l) NULLS NOT DISTINCT WHERE k > 0;
CREATE TABLE expression_key (k int, l text, n bigint, total numeric);
CREATE UNIQUE INDEX ON expression_key (k, lower(l)) NULLS NOT DISTINCT;
CREATE TABLE deferrable_key (k int, l text, n bigint, total numeric, UNIQUE NULLS NOT DISTINCT (k, l) DEFERRABLE);
CREATE TABLE not_unique (k int, l text, n bigint, total numeric); CREATE INDEX ON not_unique (k, l);
CREATE TABLE filled (k int, l text, n bigint, total numeric, UNIQUE NULLS NOT DISTINCT (k, l));
INSERT INTO filled VALUES (1, 'x', 1, 1);
SELECT format(E'%s:\n  %s', t, attempt('bad', t)) FROM unnest('{no_column, wrong_type, wrong_case, required, no_key, part_key, wide_key,
    nulls_differ, partial_key, expression_key, deferrable_key, not_unique, filled, events_id_seq, events_pkey, r2_definition}'::text[]) t;
SELECT attempt('filled', 'filled', ', start_from => ''now''');
-- The view's name is taken.
CREATE TABLE taken_definition ();
SELECT attempt('taken', 'taken_target');
SELECT to_regclass('taken_target');
-- One row, no key: found by a constant.
CREATE TABLE one_row (n bigint);
SELECT register_rollup('one_row', 'SELECT count(*) AS n FROM events', target => 'one_row');
CREATE UNIQUE INDEX ON one_row ((true));
SELECT register_rollup('one_row', 'SELECT count(*) AS n FROM events', target => 'one_row');
SELECT rows_written FROM run_rollup('one_row');
INSERT INTO events (k) VALUES (1);
SELECT rows_written FROM run_rollup('one_row');
TABLE one_row;

-- A target that was dropped, renamed, moved, changed.
ALTER TABLE fits RENAME TO "Renamed Target"; ALTER TABLE "Renamed Target" SET SCHEMA "Other Schema";
ALTER TABLE "Other Schema"."Renamed Target" ADD COLUMN later int;
SELECT rows_written FROM run_rollup('fits');
SELECT count(*) FROM verify_rollup('fits');
\set VERBOSITY default
ALTER TABLE "Other Schema"."Renamed Target" RENAME COLUMN n TO m;
INSERT INTO events (k) VALUES (1);
SELECT run_rollup('fits');
DROP TABLE parted;
SELECT run_rollup('parted');
SELECT verify_rollup('parted');
SELECT refresh_rollup('parted');
SELECT reset_rollup('parted');
SELECT explain_rollup('parted');
SELECT drop_rollup('parted', true);

\set VERBOSITY terse
SELECT count(drop_rollup(name)) FROM rollups;
DROP SCHEMA target_test, "Other Schema" CASCADE;
DROP TABLE query;
