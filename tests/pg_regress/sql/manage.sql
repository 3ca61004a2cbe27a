-- Pausing, altering, renaming, resetting, dropping; and what happens to a rollup when others alter, rename or drop
-- what it stands on.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE SCHEMA manage_test; CREATE SCHEMA manage_other;
SET search_path = manage_test, public;
CREATE TABLE events (id bigserial, k int, l text, v numeric, at timestamptz DEFAULT now());
CREATE TABLE dimension (k int PRIMARY KEY, lang text);
INSERT INTO dimension VALUES (1, 'de');
CREATE FUNCTION label(k int) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'k' || k$$;
SELECT register_rollup('r', 'SELECT label(e.k) AS name, d.lang, l, count(*) AS n, sum(v) AS v
    FROM events e LEFT JOIN dimension d ON d.k = e.k WHERE l IS DISTINCT FROM ''no'' GROUP BY 1, 2, 3');
INSERT INTO events (k, l, v) VALUES (1, 'x', 1), (2, 'no', 1), (NULL, NULL, 1);
SELECT rows_written FROM run_rollup('r');

SELECT pause_rollup('r'), pause_rollup('r');
SELECT run_rollup('r');
SELECT paused FROM rollups;
SELECT resume_rollup('r'), resume_rollup('r');
SELECT alter_rollup('r', schedule => '30 seconds', batch_size => 5);
SELECT schedule, batch_size FROM rollups;
SELECT alter_rollup('r');
SELECT alter_rollup('r', schedule => 'None', batch_size => 0);
SELECT schedule, batch_size, paused FROM rollups;
SELECT alter_rollup('r', new_name => 'renamed "rollup"');
SELECT run_rollup('r');
SELECT name, target, definition FROM rollups;
SELECT rollup_name FROM rollup_runs;
SELECT alter_rollup('renamed "rollup"', new_name => 'r', schedule => '* * * * *');
SELECT name, schedule, target, definition FROM rollups;
SELECT alter_rollup('r', new_name => 'other', schedule => 'never');
SELECT name, schedule FROM rollups;
SELECT alter_rollup('r', schedule => 'none');

-- Renames and moves of everything the query names are followed; the definition is the view's.
ALTER TABLE events RENAME TO "Events 2"; ALTER TABLE "Events 2" SET SCHEMA manage_other;
ALTER TABLE manage_other."Events 2" RENAME COLUMN k TO "K"; ALTER TABLE manage_other."Events 2" RENAME COLUMN id TO "Id";
ALTER SEQUENCE manage_other.events_id_seq RENAME TO numbers;
ALTER TABLE dimension RENAME TO dim; ALTER TABLE dim RENAME COLUMN lang TO language;
ALTER FUNCTION label SET SCHEMA manage_other;
ALTER SCHEMA manage_other RENAME TO manage_third;
INSERT INTO manage_third."Events 2" ("K", l, v) VALUES (1, 'x', 2), (1, 'no', 2);
SELECT window_start, window_end, rows_written FROM run_rollup('r');
SELECT * FROM r ORDER BY name;
SELECT count(*) FROM verify_rollup('r');
SELECT line FROM explain_rollup('r') line WHERE line ~ 'FROM|JOIN|WHERE|Window|CONFLICT';

-- Columns that the query uses keep their types; others may change, may even go.
\set VERBOSITY default
ALTER TABLE manage_third."Events 2" ALTER COLUMN l TYPE varchar;
ALTER TABLE manage_third."Events 2" DROP COLUMN v;
\set VERBOSITY terse
ALTER TABLE manage_third."Events 2" DROP COLUMN at;
ALTER TABLE manage_third."Events 2" ADD COLUMN more int DEFAULT 7;
ALTER TABLE manage_third."Events 2" ALTER COLUMN "Id" TYPE int;
INSERT INTO manage_third."Events 2" ("K", l, v) VALUES (1, 'x', 3);
SELECT rows_written FROM run_rollup('r');
SELECT n, v FROM r WHERE name = 'k1';
\set VERBOSITY default
ALTER TABLE manage_third."Events 2" ALTER COLUMN "Id" TYPE numeric;
INSERT INTO manage_third."Events 2" ("K", l, v) VALUES (1, 'x', 3);
SELECT run_rollup('r');
ALTER TABLE manage_third."Events 2" ALTER COLUMN "Id" TYPE bigint;
ALTER TABLE manage_third."Events 2" ALTER COLUMN "Id" DROP DEFAULT;
SELECT rows_written FROM run_rollup('r');
-- An id column that is filled by a sequence it does not own.
CREATE SEQUENCE shared; CREATE TABLE unowned (n bigint DEFAULT nextval('shared'), k int);
SELECT register_rollup('u', 'SELECT k, count(*) AS n FROM unowned GROUP BY k');
ALTER TABLE unowned RENAME COLUMN n TO number;
INSERT INTO unowned (k) VALUES (1);
SELECT rows_written FROM run_rollup('u');
ALTER TABLE unowned ALTER COLUMN number DROP DEFAULT;
SELECT run_rollup('u');

-- What is dropped under a rollup: only with CASCADE, and then it says so and can be dropped itself.
DROP TABLE manage_third."Events 2";
DROP FUNCTION manage_third.label(int);
DROP TABLE manage_third."Events 2" CASCADE;
SELECT run_rollup('r');
SELECT verify_rollup('r');
SELECT explain_rollup('r');
SELECT alter_rollup('r', new_name => 'r2');
SELECT drop_rollup('r2', drop_target => true);
SELECT to_regclass('r');
DROP TABLE unowned CASCADE; DROP SEQUENCE shared;
SELECT run_rollup('u');
SELECT drop_rollup('u');
SELECT count(*) FROM u;
CREATE TABLE events (id bigserial, k int);
SELECT register_rollup('w', source => 'events');
DROP TABLE events;
SELECT incremental_rollup_window('w');
SELECT drop_rollup('w');

-- reset_rollup aggregates everything again; drop_rollup keeps the target unless told otherwise.
CREATE TABLE events (id bigserial, k int);
INSERT INTO events (k) VALUES (1), (1);
SELECT register_rollup('a', 'SELECT k, count(*) AS n FROM events GROUP BY k', start_from => 'now');
SELECT register_rollup('b', source => 'events', command => 'SELECT $1, $2');
INSERT INTO events (k) VALUES (1);
SELECT rows_written FROM run_rollup('a');
TABLE a;
SELECT reset_rollup('a');
SELECT count(*) FROM a;
SELECT window_start, window_end, rows_written FROM run_rollup('a');
TABLE a;
SELECT run_rollup('b');
SELECT reset_rollup('b');
SELECT run_rollup('b');
SELECT drop_rollup('a'), drop_rollup('b');
TABLE a;
SELECT to_regclass('a_definition');
SELECT register_rollup('a', 'SELECT k, count(*) AS n FROM events GROUP BY k', start_from => 'now');
SELECT register_rollup('view_on_a', 'SELECT k, count(*) AS n FROM events GROUP BY k');
CREATE VIEW depends AS SELECT * FROM a_definition;
SELECT drop_rollup('a');
SELECT name FROM rollups WHERE name = 'a';
DROP VIEW depends;
SELECT drop_rollup('a', true), drop_rollup('view_on_a', true);
SELECT count(*) FROM rollup_runs;
DROP SCHEMA manage_test, manage_third CASCADE;
