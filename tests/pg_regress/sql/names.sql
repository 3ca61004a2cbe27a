-- What names mean is settled at registration. Nobody else's search_path, temporary table, operator or setting changes it.
\set VERBOSITY terse
SET client_min_messages = warning;
\pset null -
CREATE SCHEMA names_app; CREATE SCHEMA names_evil;
SET search_path = names_app, public;
SET TimeZone = 'America/New_York';
CREATE TYPE color AS ENUM ('red', 'blue');
CREATE TABLE events (id bigserial PRIMARY KEY, k int, c color, at timestamptz, w varchar(10), tags int[]);
CREATE TABLE dim (c color, w varchar(10), label text);
INSERT INTO dim VALUES ('red', 'x', 'warm');
CREATE FUNCTION helper(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1 * (SELECT count(*)::int FROM dim)';
SELECT register_rollup('r', $$
    SELECT at::date AS day, date_trunc('hour', at) AS hour, helper(k) AS h, label,
           count(*) AS n, count(c) AS nc, max(c) AS c, sum(k) AS total, min(e.w) AS w
      FROM events e LEFT JOIN dim d USING (c)
     WHERE e.w = 'x' AND e.tags = '{1}' AND k + 0 <> 99
     GROUP BY 1, 2, 3, 4 $$, batch_size => 100);
INSERT INTO events (k, c, at, w, tags) VALUES (1, 'red', '2024-03-31 02:30+00', 'x', '{1}'), (2, 'blue', '2024-03-31 05:30+00', 'x', '{1}');
SELECT rows_written FROM run_rollup('r');

-- A schema of the path fills with better matches for every operator and function of the query; another schema, first in
-- the caller's path, with all that the extension might use itself.
CREATE FUNCTION wrong(anyelement, anyelement) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hijacked''; END';
CREATE FUNCTION wrong_state(bigint, color) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hijacked''; END';
CREATE FUNCTION wrong_color(color, color) RETURNS color LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hijacked''; END';
CREATE AGGREGATE names_app.count(color) (SFUNC = wrong_state, STYPE = bigint, INITCOND = '0');
CREATE AGGREGATE names_app.max(color) (SFUNC = wrong_color, STYPE = color);
CREATE FUNCTION names_app.wrong_text(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hijacked''; END';
CREATE OPERATOR names_app.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = wrong_text);
CREATE FUNCTION names_app.wrong_array(int[], int[]) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hijacked''; END';
CREATE OPERATOR names_app.= (LEFTARG = int[], RIGHTARG = int[], FUNCTION = wrong_array);
SET search_path = pg_catalog;
CREATE TABLE names_evil.rollups AS SELECT * FROM names_app.events; CREATE TABLE names_evil.r (); CREATE TABLE names_evil.events ();
CREATE TABLE names_evil.dim (); CREATE TABLE names_evil.pg_class (); CREATE TABLE names_evil.pg_locks ();
DO $$
DECLARE f text; t text;
BEGIN
    FOREACH t IN ARRAY '{bigint, integer, text, oid, name, numeric, boolean, jsonb, timestamptz}'::text[] LOOP
        FOREACH f IN ARRAY '{=, <>, <, <=, >, >=, +, -, *, ||, ~, !~, ->>}'::text[] LOOP
            EXECUTE format('CREATE FUNCTION names_evil.bad_%s(%s, %s) RETURNS pg_catalog.bool LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION ''''hijacked''''; END''',
                           md5(f || t), t, t);
            EXECUTE format('CREATE OPERATOR names_evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = names_evil.bad_%s)', f, t, t, md5(f || t));
        END LOOP;
    END LOOP;
    FOREACH f IN ARRAY ARRAY['now()', 'count()', 'clock_timestamp()', 'format_type(oid, int)', 'quote_ident(text)', 'lower(text)',
        'pg_sequence_last_value(regclass)', 'to_regclass(text)', 'current_setting(text)', 'pg_has_role(name, text)'] LOOP
        EXECUTE format('CREATE FUNCTION names_evil.%s RETURNS bigint LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION ''''hijacked''''; END''', f);
    END LOOP;
END$$;
SET search_path = names_evil, pg_catalog, public;
SELECT 1 + 1, now();
CREATE TEMPORARY TABLE events (LIKE names_app.events); CREATE TEMPORARY TABLE r (LIKE names_app.r);
CREATE TEMPORARY TABLE rollups (name text); CREATE TEMPORARY TABLE dim (label text); CREATE TEMPORARY TABLE pg_class (oid oid);
SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard'; SET transform_null_equals = on;
INSERT INTO names_app.events (k, c, at, w, tags) VALUES (1, 'red', '2024-03-31 02:45+00', 'x', '{1}'), (99, 'red', '2024-03-31 02:45+00', 'x', '{1}');
SELECT rows_written FROM public.run_rollup('r');
SELECT pg_catalog.count(*) FROM public.verify_rollup('r');
SELECT pg_catalog.count(*) FROM public.verify_rollup('r', '2024-03-30', '2024-04-02');
SELECT public.refresh_rollup('r', '2024-03-30', '2024-04-02');
SELECT pg_catalog.count(*) FROM public.explain_rollup('r') AS e;
SELECT public.rollup_head('r');
SELECT public.pause_rollup('r'), public.resume_rollup('r'), public.alter_rollup('r', batch_size => 50, schedule => '1 day', new_name => 'r2');
SELECT public.reset_rollup('r2');
SELECT rows_written FROM public.run_rollup('r2');
CALL public.catch_up_rollup('r2');
SELECT public.register_rollup('evil', 'SELECT k, pg_catalog.sum(id) AS n FROM names_app.events GROUP BY k', target => 'names_app.evil', schedule => '1 hour', start_from => '1');
SELECT rows_written FROM public.run_rollup('evil');
SELECT pg_catalog.count(*) FROM public.verify_rollup('evil');
SELECT public.refresh_rollup('evil');
SELECT rollup_name FROM public.rollup_status ORDER BY 1;
SELECT rollup_name FROM public.rollup_progress ORDER BY 1;
INSERT INTO public.rollups (name, event_table_name) VALUES ('by hand', 'names_app.events');
SELECT window_start, window_end FROM public.incremental_rollup_window('by hand');
SELECT public.register_rollup('times', source => 'names_app.events', command => 'SELECT $1, $2', batch_size => 1);
SELECT rows_written FROM public.run_rollup('times');
SELECT public.drop_rollup('times');
RESET transform_null_equals; RESET IntervalStyle; RESET DateStyle;
DROP TABLE pg_temp.events, pg_temp.r, pg_temp.rollups, pg_temp.dim, pg_temp.pg_class;
SET search_path = names_app, public;
SET TimeZone = 'UTC';
SELECT * FROM r ORDER BY hour;
SELECT search_path, time_zone FROM rollups ORDER BY name;
SELECT count(drop_rollup(name)) FROM rollups;
DROP SCHEMA names_evil CASCADE;
DROP SCHEMA names_app CASCADE;

-- Where SQL cannot name the operator, a better match is not taken either: the run says so.
CREATE SCHEMA names_app; SET search_path = names_app, public;
CREATE TYPE color AS ENUM ('red', 'blue');
CREATE TABLE events (id bigserial PRIMARY KEY, c color, d color);
CREATE TABLE dim (c color, label text); INSERT INTO dim VALUES ('red', 'warm');
SELECT register_rollup('using', 'SELECT label, count(*) AS n FROM events JOIN dim USING (c) GROUP BY label');
SELECT register_rollup('distinct', 'SELECT c IS DISTINCT FROM d AS differ, count(*) AS n FROM events GROUP BY 1');
SELECT register_rollup('nullif', 'SELECT NULLIF(c, d) AS other, count(*) AS n FROM events GROUP BY 1');
SELECT register_rollup('case', 'SELECT CASE c WHEN d THEN 1 END AS same, count(*) AS n FROM events GROUP BY 1');
SELECT register_rollup('in', 'SELECT c IN (SELECT c FROM dim) AS known, count(*) AS n FROM events GROUP BY 1');
SELECT register_rollup('row', 'SELECT (c, d) < (d, c) AS less, c IN (''red'', d) AS listed, count(*) AS n FROM events GROUP BY 1, 2');
INSERT INTO events (c, d) VALUES ('red', 'red'), ('red', NULL), ('blue', 'red');
CREATE FUNCTION wrong_equal(color, color) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hijacked''; END';
CREATE OPERATOR = (LEFTARG = color, RIGHTARG = color, FUNCTION = wrong_equal);
CREATE OPERATOR < (LEFTARG = color, RIGHTARG = color, FUNCTION = wrong_equal);
SELECT run_rollup('using');
SELECT run_rollup('distinct');
SELECT run_rollup('nullif');
SELECT run_rollup('case');
SELECT rows_written FROM run_rollup('in');
SELECT rows_written FROM run_rollup('row');
SELECT verify_rollup('using');
\set VERBOSITY default
SELECT refresh_rollup('using');
\set VERBOSITY terse
SELECT explain_rollup('using');
DROP OPERATOR = (color, color); DROP OPERATOR < (color, color);
SELECT name, (SELECT rows_written FROM run_rollup(name)), (SELECT count(*) FROM verify_rollup(name)) AS wrong FROM rollups ORDER BY name;
SELECT count(drop_rollup(name)) FROM rollups;
DROP SCHEMA names_app CASCADE;

-- No schema in the path, and names that need quotes in every place.
SET search_path = '';
CREATE SCHEMA "Names Test"; CREATE TABLE "Names Test"."E vents" ("I d" bigserial, "K ey" int);
SELECT public.register_rollup('no schema', 'SELECT "K ey", count(*) AS "N" FROM "Names Test"."E vents" GROUP BY 1');
SELECT public.register_rollup('q''"uote', 'SELECT "K ey", count(*) AS "N" FROM "Names Test"."E vents" GROUP BY 1', target => '"Names Test"."Tar""get"');
INSERT INTO "Names Test"."E vents" ("K ey") VALUES (1), (NULL);
SELECT rows_written FROM public.run_rollup('q''"uote');
SELECT count(*) FROM public.verify_rollup('q''"uote');
SELECT window_start, window_end FROM public.run_rollup('q''"uote');
SELECT line FROM public.explain_rollup('q''"uote') line WHERE line ~ 'INSERT|FROM|CONFLICT|SET';
SELECT public.alter_rollup('q''"uote', new_name => repeat('long name', 10));
SELECT definition, target FROM public.rollups;
SELECT public.drop_rollup(name, true) FROM public.rollups;
SELECT public.register_rollup('x_' || repeat('é', 40), 'SELECT "K ey", count(*) AS "N" FROM "Names Test"."E vents" GROUP BY 1', target => '"Names Test".t');
SELECT length(relname), octet_length(relname) FROM pg_class, public.rollups WHERE pg_class.oid = definition;
SELECT public.drop_rollup(name, true) FROM public.rollups;
DROP SCHEMA "Names Test" CASCADE;
