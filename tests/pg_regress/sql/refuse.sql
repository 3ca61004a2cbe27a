-- Bad input: an error with its SQLSTATE, mostly a hint, and nothing changed.
SET client_min_messages = warning;
CREATE SCHEMA refuse_test;
SET search_path = refuse_test, public;
\pset format unaligned
\pset tuples_only on

CREATE TABLE events (id bigserial, k int, v numeric, at timestamptz DEFAULT now(), made timestamptz, local timestamp DEFAULT now());
CREATE INDEX ON events (id); CREATE INDEX ON events (at);
CREATE TABLE pages (k int PRIMARY KEY, lang text);
CREATE TABLE other (id bigserial, k int);
CREATE VIEW events_view AS SELECT * FROM events;
CREATE VIEW events_view_view AS SELECT * FROM events_view;
CREATE MATERIALIZED VIEW events_matview AS SELECT * FROM events;
CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE events_foreign (id bigint, k int) SERVER nowhere;
CREATE TEMPORARY TABLE events_temp (id bigserial, k int);
CREATE TABLE parted (id bigserial, k int) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (100);

CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    d text; h text;
BEGIN
    EXECUTE statement;
    RETURN 'ACCEPTED ' || statement;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', E'\n' || statement, format('  %s: %s', SQLSTATE, SQLERRM), '  DETAIL: ' || substring(d FROM '^(?!Failing row).+'),
                     '  HINT: ' || NULLIF(h, ''));
END $$;
CREATE FUNCTION attempt_query(query text, more text DEFAULT '') RETURNS text LANGUAGE sql AS $$
    SELECT attempt(format('SELECT register_rollup(%L, %L%s)', 'r', query, more))
$$;

-- The arguments.
SELECT attempt(format('SELECT register_rollup(%s)', arguments)) FROM unnest(ARRAY[
    'NULL', '''''', '''  ''', '''r''', '''r'', NULL', '''r'', ''''', '''r'', source => NULL',
    '''r'', source => ''nowhere''', '''r'', source => ''events'', target => ''t''',
    '''r'', source => ''events'', schedule => ''1 minute''',
    '''r'', ''SELECT k, count(*) FROM events GROUP BY k'', command => ''SELECT $1, $2''',
    '''r'', source => ''events'', command => ''''',
    '''r'', source => ''events'', command => ''SELEC $1, $2''',
    '''r'', source => ''events'', command => ''SELECT $1, $2, $3''',
    '''r'', source => ''events'', command => ''SELECT nothing FROM events''']) arguments;

-- The query.
SELECT attempt_query(query) FROM unnest(ARRAY[
    ';', 'INSERT INTO events (k) VALUES (1)', 'DELETE FROM events', 'VALUES (1)', 'TABLE events', 'EXPLAIN SELECT 1',
    'SELECT 1; SELECT 2', 'SELECT k, count(*) FROM events GROUP BY k; DROP TABLE events', 'SELECT', 'SELECT FROM events',
    'SELECT k, count(*) INTO made FROM events GROUP BY k', 'SELEC k', 'SELECT k, count(* FROM events', 'SELECT $1',
    'SELECT nothing FROM events', 'SELECT k, count(*) FROM nowhere GROUP BY k', 'SELECT k, count(*) FROM events',
    'SELECT now()', 'SELECT count(*) FROM generate_series(1, 3)', 'SELECT k FROM events', 'SELECT DISTINCT k FROM events']) query;

-- What cannot be merged.
SELECT attempt_query('SELECT k, ' || what || ' AS x FROM events GROUP BY k') FROM unnest(ARRAY[
    'avg(v)', 'count(DISTINCT v)', 'sum(DISTINCT v)', 'sum(v) / count(*)', 'avg(v) + 1', 'round(sum(v))', 'count(*)::int',
    'stddev(v)', 'array_agg(v)', 'string_agg(v::text, '','')', 'jsonb_agg(v)', 'mode() WITHIN GROUP (ORDER BY v)',
    'percentile_cont(0.5) WITHIN GROUP (ORDER BY v)', 'corr(v, v)', 'xmlagg(NULL)', 'rank(1) WITHIN GROUP (ORDER BY v)',
    'sum(sum(v)) OVER ()', '(SELECT count(*) FROM pages)', '1', 'k + 1']) what;
SELECT attempt_query(query) FROM unnest(ARRAY[
    'SELECT k, count(*) FROM events GROUP BY k HAVING count(*) > 1',
    'SELECT k, count(*) FROM events GROUP BY k LIMIT 1',
    'SELECT k, count(*) FROM events GROUP BY k OFFSET 1',
    'SELECT DISTINCT k, count(*) FROM events GROUP BY k',
    'SELECT DISTINCT ON (k) k, count(*) FROM events GROUP BY k',
    'SELECT k, count(*) FROM events GROUP BY ROLLUP (k)',
    'SELECT k, count(*) FROM events GROUP BY GROUPING SETS ((k), ())',
    'WITH e AS (SELECT * FROM events) SELECT k, count(*) FROM e GROUP BY k',
    'SELECT k, count(*) FROM events GROUP BY k UNION ALL SELECT 1, 1',
    'SELECT k FROM events FOR UPDATE',
    'SELECT count(*) FROM events GROUP BY k',
    'SELECT k + 1 AS k, count(*) FROM events GROUP BY events.k, k + 1',
    'SELECT k, k, count(*) FROM events GROUP BY k',
    'SELECT k, count(*), count(v) FROM events GROUP BY k',
    'SELECT k + 1, count(*) FROM events GROUP BY 1',
    'SELECT k, count(*) FROM events WHERE at > now() - interval ''1 day'' GROUP BY k',
    'SELECT k, count(*) FILTER (WHERE at < CURRENT_DATE) FROM events GROUP BY k',
    'SELECT k, count(*) FROM events WHERE at > clock_timestamp() GROUP BY k',
    'SELECT k, count(*) FROM events WHERE random() < 0.1 GROUP BY k',
    'SELECT k, count(*) FROM events TABLESAMPLE SYSTEM (10) GROUP BY k']) query;

-- The tables of the query.
SELECT attempt_query(query) FROM unnest(ARRAY[
    'SELECT k, count(*) FROM pages GROUP BY k',
    'SELECT k, count(*) FROM events_view GROUP BY k',
    'SELECT k, count(*) FROM events_matview GROUP BY k',
    'SELECT k, count(*) FROM events_foreign GROUP BY k',
    'SELECT k, count(*) FROM events_temp GROUP BY k',
    'SELECT relname, count(*) FROM pg_class GROUP BY 1',
    'SELECT k, count(*) FROM (SELECT * FROM events) e GROUP BY k',
    'SELECT e.k, count(*) FROM events e JOIN events f ON f.id < e.id GROUP BY 1',
    'SELECT e.k, count(*) FROM events e JOIN other o ON o.k = e.k GROUP BY 1',
    'SELECT e.k, count(*) FROM events e JOIN events_view v ON v.k = e.k GROUP BY 1',
    'SELECT e.k, count(*) FROM events e JOIN (SELECT k FROM events_view_view) v ON v.k = e.k GROUP BY 1',
    'SELECT k, count(*) FROM events WHERE k IN (SELECT k FROM events) GROUP BY k',
    'SELECT k, count(*) FILTER (WHERE id = (SELECT max(id) FROM events_view)) FROM events GROUP BY k',
    'SELECT p.k, count(*) FROM parted p JOIN parted_1 q ON q.k = p.k GROUP BY 1',
    'SELECT lang, count(*) FROM pages LEFT JOIN events USING (k) GROUP BY lang',
    'SELECT lang, count(*) FROM events RIGHT JOIN pages USING (k) GROUP BY lang',
    'SELECT lang, count(*) FROM events FULL JOIN pages USING (k) GROUP BY lang']) query;
SELECT attempt_query('SELECT k, count(*) FROM events GROUP BY k', more) FROM unnest(ARRAY[
    ', source => ''other''', ', source => ''events_view''', ', id_sequence => ''other_id_seq''', ', id_sequence => ''events''',
    ', id_sequence => ''events_id_seq'', time_column => ''at''']) more;
SELECT attempt_query('SELECT p.k, count(*) FROM parted p JOIN parted_1 q USING (k) GROUP BY 1', format(', source => %L', s))
  FROM unnest('{parted, parted_1}'::text[]) s;

-- The order of the events.
CREATE SEQUENCE s;
CREATE TABLE negated (id bigint DEFAULT -nextval('s'), k int);
CREATE TABLE halved (id bigint DEFAULT nextval('s') / 2, k int);
CREATE TABLE fractions (id numeric DEFAULT nextval('s'), k int);
CREATE TABLE lettered (id text DEFAULT nextval('s'), k int);
CREATE TABLE twice (a bigserial, b bigserial, k int);
CREATE TABLE cached (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 10), k int);
CREATE TABLE cycling (id bigint GENERATED ALWAYS AS IDENTITY (CYCLE), k int);
CREATE TABLE descending (id bigint GENERATED ALWAYS AS IDENTITY (INCREMENT -1), k int);
SELECT attempt_query(format('SELECT k, count(*) FROM %s GROUP BY k', t))
  FROM unnest('{negated, halved, fractions, lettered, twice, cached, cycling, descending}'::text[]) t;
SELECT attempt_query('SELECT k, count(*) FROM events GROUP BY k', ', time_column => ' || more) FROM unnest(ARRAY[
    '''nothing''', '''''', '''k''', '''made''', '''at'', lag => ''-1 second''']) more;

-- The other arguments.
SELECT attempt_query('SELECT k, count(*) FROM events GROUP BY k', more) FROM unnest(ARRAY[
    ', lag => ''1 minute''', ', batch_size => 0', ', batch_size => -1', ', schedule => ''''', ', schedule => ''often''',
    ', schedule => ''0 seconds''', ', schedule => ''-5 minutes''', ', schedule => ''61 * * * *''', ', schedule => ''* * * *''',
    ', start_from => ''''', ', start_from => ''soon''', ', start_from => ''99''',
    ', time_column => ''at'', start_from => ''soon''',
    ', target => ''''', ', target => ''a b''', ', target => ''a.b.c''', ', target => ''nowhere.t''', ', target => ''events''',
    ', target => ''pages''', ', target => ''events_view''', ', target => ''pg_temp.t''', ', target => ''events_temp''']) more;

-- Functions of a rollup that is not there, or is of another kind.
SELECT attempt(format('SELECT %s', call)) FROM unnest(ARRAY[
    'run_rollup(''nobody'')', 'incremental_rollup_window(''nobody'')', 'pause_rollup(''nobody'')', 'resume_rollup(''nobody'')',
    'alter_rollup(''nobody'')', 'drop_rollup(''nobody'')', 'reset_rollup(''nobody'')', 'verify_rollup(''nobody'')',
    'refresh_rollup(''nobody'')', 'explain_rollup(''nobody'')', 'rollup_head(''nobody'')',
    'run_rollup(NULL)', 'incremental_rollup_window(NULL)', 'drop_rollup(NULL)', 'verify_rollup(NULL)', 'run_rollup('''')']) call;
SELECT attempt('CALL catch_up_rollup(''nobody'')');

-- Nothing of all this left a trace.
SELECT count(*) FROM rollups;
SELECT relname FROM pg_class WHERE relnamespace = 'refuse_test'::regnamespace AND relkind IN ('r', 'v') AND relname ~ '^(r|.*definition)$';
SELECT count(*) FROM pg_class WHERE relname LIKE '%brin%' AND relnamespace = 'refuse_test'::regnamespace;

SELECT register_rollup('taken', 'SELECT k, count(*) FROM events GROUP BY k');
SELECT attempt('SELECT register_rollup(''taken'', ''SELECT k, count(*) FROM events GROUP BY k'')');
SELECT attempt('SELECT register_rollup(''again'', ''SELECT k, sum(v) AS count FROM events GROUP BY k'', target => ''taken'')');
SELECT attempt('SELECT incremental_rollup_window(''taken'')');
SELECT register_rollup('windows', source => 'events');
SELECT attempt(format('SELECT %s', call)) FROM unnest(ARRAY[
    'run_rollup(''windows'')', 'verify_rollup(''windows'')', 'refresh_rollup(''windows'')', 'drop_rollup(''windows'', true)',
    'alter_rollup(''windows'', schedule => ''often'')', 'alter_rollup(''windows'', lag => ''1 minute'')',
    'alter_rollup(''windows'', batch_size => -1)', 'alter_rollup(''windows'', new_name => '''')',
    'alter_rollup(''windows'', new_name => ''taken'')', 'alter_rollup(''windows'', new_owner => ''nobody_of_that_name'')']) call;

-- The workshop's INSERT is checked like register_rollup.
SELECT attempt('INSERT INTO rollups (name, event_table_name, event_id_sequence_name) VALUES (' || v || ')') FROM unnest(ARRAY[
    'NULL, ''events'', ''events_id_seq''', ''''', ''events'', ''events_id_seq''', '''taken'', ''events'', ''events_id_seq''',
    '''r'', ''nowhere'', ''events_id_seq''', '''r'', NULL, ''events_id_seq''', '''r'', ''events'', ''nowhere''',
    '''r'', ''events'', ''other_id_seq''', '''r'', ''events_view'', ''events_id_seq''', '''r'', ''cached'', ''cached_id_seq''',
    '''r'', ''pages'', NULL']) v;
SELECT attempt('INSERT INTO rollups (name, event_table_name, ' || v || ')') FROM unnest(ARRAY[
    'schedule) VALUES (''r'', ''events'', ''often''', 'batch_size) VALUES (''r'', ''events'', 0',
    'time_column, lag) VALUES (''r'', ''events'', ''at'', ''-1 hour''', 'time_column) VALUES (''r'', ''events'', ''made''',
    'command, definition, target) VALUES (''r'', ''events'', ''SELECT 1'', ''events'', ''events''',
    'target) VALUES (''r'', ''events'', ''pages''']) v;
SELECT name, last_aggregated_id FROM rollups ORDER BY name;
SELECT drop_rollup(name) FROM rollups;
DROP SERVER nowhere CASCADE; DROP FOREIGN DATA WRAPPER nothing;
DROP SCHEMA refuse_test CASCADE;
