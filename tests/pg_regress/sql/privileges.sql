-- Who may do what, and as whom the SQL of a rollup runs.
\set VERBOSITY terse
SET client_min_messages = warning;
\pset format unaligned
\pset tuples_only on
CREATE ROLE rollup_test_owner; CREATE ROLE rollup_test_other; CREATE ROLE rollup_test_boss;
GRANT rollup_test_owner TO rollup_test_boss;
CREATE SCHEMA privileges_test;
GRANT USAGE, CREATE ON SCHEMA privileges_test TO rollup_test_owner, rollup_test_other;
GRANT USAGE ON SCHEMA privileges_test TO rollup_test_boss;
SET search_path = privileges_test, public;

CREATE TABLE events (id bigserial, k int, secret int);
CREATE TABLE hidden (id bigserial, k int);
INSERT INTO events (k) VALUES (1), (1), (2);
GRANT SELECT ON events TO rollup_test_owner;

-- SELECT on the events is all that registering takes, and it takes that.
SET ROLE rollup_test_owner;
SELECT register_rollup('mine', 'SELECT k, count(*) AS n FROM events GROUP BY k');
SELECT run.* FROM run_rollup('mine') AS run;
SELECT register_rollup('theirs', 'SELECT k, count(*) AS n FROM hidden GROUP BY k');
SELECT register_rollup('theirs', source => 'hidden');
INSERT INTO rollups (name, event_table_name, event_id_sequence_name) VALUES ('theirs', 'hidden', 'hidden_id_seq');
SET ROLE rollup_test_other;
SELECT register_rollup('other', source => 'events');
RESET ROLE;
GRANT SELECT (id, k) ON events TO rollup_test_other;
SET ROLE rollup_test_other;
SELECT register_rollup('columns', 'SELECT k, count(*) AS n FROM events GROUP BY k', batch_size => 2);
SELECT run.* FROM run_rollup('columns') AS run;

-- Everyone sees and touches their own.
SELECT name FROM rollups;
SELECT run_rollup('mine');
SELECT incremental_rollup_window('mine');
SELECT pause_rollup('mine');
SELECT resume_rollup('mine');
SELECT alter_rollup('mine', schedule => '1 minute');
SELECT drop_rollup('mine');
SELECT reset_rollup('mine');
SELECT verify_rollup('mine');
SELECT refresh_rollup('mine');
SELECT explain_rollup('mine');
SELECT rollup_head('mine');
INSERT INTO rollups (name, event_table_name, owner) VALUES ('forged', 'events', 'rollup_test_owner');
UPDATE rollups SET last_aggregated_id = 0;
DELETE FROM rollups;
INSERT INTO rollup_runs (rollup_name, status) VALUES ('columns', 'failed');
UPDATE rollup_merge_rules SET merge = '$2';
SELECT alter_rollup('columns', new_owner => 'rollup_test_owner');
SELECT alter_rollup('columns', batch_size => 0);
SELECT run.* FROM run_rollup('columns') AS run;
SELECT name, window_start, window_end, rows_written FROM rollup_runs r JOIN rollups ON name = rollup_name ORDER BY run_id;
SET ROLE rollup_test_boss;
SELECT name FROM rollups;
SELECT run.* FROM run_rollup('mine') AS run;

-- The owner's functions run as the owner, whoever calls.
SET ROLE rollup_test_owner;
CREATE TABLE log (what text, as_role text DEFAULT current_user, session text DEFAULT session_user);
CREATE FUNCTION spy(what text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RAISE WARNING '% as %', what, current_user;
    RETURN true;
END $$;
CREATE TABLE own (id bigserial PRIMARY KEY, k int);
ALTER TABLE own ENABLE ROW LEVEL SECURITY; ALTER TABLE own FORCE ROW LEVEL SECURITY;
CREATE POLICY spying ON own USING (spy('policy of the events'));
GRANT SELECT ON own TO rollup_test_boss;
SELECT register_rollup('spying', 'SELECT k, count(*) FILTER (WHERE spy(''query'')) AS n FROM own GROUP BY k', batch_size => 10);
INSERT INTO own (k) VALUES (1);
SET ROLE rollup_test_boss;
SELECT run.* FROM run_rollup('spying') AS run;
SELECT verify_rollup('spying');
SELECT count(*) FROM explain_rollup('spying');
SELECT refresh_rollup('spying');
RESET ROLE;
SELECT verify_rollup('spying');

-- Nothing of the owner's can outlast the run or leave its role: not by a command, nor by triggers of the target.
SET ROLE rollup_test_owner;
CREATE FUNCTION become() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET ROLE postgres; END';
CREATE FUNCTION leave() RETURNS void LANGUAGE plpgsql AS 'BEGIN RESET SESSION AUTHORIZATION; END';
CREATE FUNCTION plant() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMPORARY TABLE planted (); END';
CREATE FUNCTION hold() RETURNS void LANGUAGE plpgsql AS $$BEGIN
    EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT spy(''held cursor'')'; END$$;
SELECT register_rollup('c_' || f, source => 'own', command => format('SELECT %s(), $1, $2', f))
  FROM unnest('{become, leave, plant, hold}'::text[]) f;
SELECT register_rollup('c_role', source => 'own', command => 'SELECT set_config(''role'', ''postgres'', false), $1, $2');
SELECT register_rollup('deferred', 'SELECT k, count(*) AS n FROM own GROUP BY k');
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM spy('deferred trigger'); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit();
RESET ROLE;
SELECT run_rollup('c_become');
SELECT run_rollup('c_leave');
SELECT run_rollup('c_plant');
SELECT run_rollup('c_hold');
SELECT run_rollup('c_role');
SELECT run_rollup('deferred');
SELECT current_user = session_user;
-- For themselves they may.
SET ROLE rollup_test_owner;
SELECT run.* FROM run_rollup('deferred') AS run;
RESET ROLE;

-- An event table that became a view is not read, least of all with the rights of whoever looks.
SET ROLE rollup_test_owner;
CREATE TABLE turned (id bigserial, k int);
SELECT register_rollup('turned_rollup', 'SELECT k, count(*) AS n FROM turned GROUP BY k');
DROP INDEX turned_id_idx;
ALTER TABLE turned ALTER id DROP DEFAULT, ALTER id DROP NOT NULL;
RESET ROLE;
VACUUM turned;
SET ROLE rollup_test_owner;
DO $$BEGIN
    CREATE RULE "_RETURN" AS ON SELECT TO turned DO INSTEAD SELECT 1::bigint AS id, spy('view in place of the table')::int AS k;
EXCEPTION WHEN OTHERS THEN -- from PostgreSQL 16 on a table stays a table
    ALTER SEQUENCE turned_id_seq OWNED BY NONE;
    DROP TABLE turned CASCADE;
    CREATE VIEW turned AS SELECT 1::bigint AS id, spy('view in place of the table')::int AS k;
END$$;
\set VERBOSITY sqlstate
SELECT run_rollup('turned_rollup');
SELECT explain_rollup('turned_rollup');
\set VERBOSITY terse

-- A row of rollups written by hand can name any relation as definition and target.
CREATE TABLE plain (k int, n bigint);
INSERT INTO rollups (name, event_table_name, definition, target) VALUES ('odd', 'own', 'plain', 'plain');
SELECT run_rollup('odd');
SELECT verify_rollup('odd');
SELECT explain_rollup('odd');
RESET ROLE;
UPDATE rollups SET definition = 'own_id_seq' WHERE name = 'odd';
SELECT run_rollup('odd');
UPDATE rollups SET definition = 'own_pkey' WHERE name = 'odd';
SELECT run_rollup('odd');
UPDATE rollups SET definition = 1 WHERE name = 'odd';
SELECT run_rollup('odd');
SELECT drop_rollup('odd');

-- Owners can change, if the one who changes it may act for both.
GRANT rollup_test_owner TO rollup_test_other;
SET ROLE rollup_test_other;
SELECT alter_rollup('columns', new_owner => 'rollup_test_owner');
RESET ROLE;
SELECT name, owner, relname, pg_get_userbyid(relowner) FROM rollups JOIN pg_class c ON c.oid IN (definition, target)
WHERE name = 'columns' ORDER BY relname;
SELECT rows_written >= 0 AS runs FROM run_rollup('columns');
REVOKE SELECT ON events FROM rollup_test_owner;
INSERT INTO events (k) VALUES (7);
SELECT run_rollup('mine');
SELECT last_aggregated_id FROM rollups WHERE name = 'mine';

-- A role can go before its rollup; a superuser tidies up.
CREATE ROLE rollup_test_brief;
GRANT SELECT ON hidden TO rollup_test_brief; GRANT USAGE ON SCHEMA privileges_test TO rollup_test_brief;
SET ROLE rollup_test_brief;
SELECT register_rollup('orphan', source => 'hidden', command => 'SELECT spy(''orphan''), count(*) FROM privileges_test.hidden WHERE id BETWEEN $1 AND $2');
RESET ROLE;
DROP OWNED BY rollup_test_brief;
DROP ROLE rollup_test_brief;
INSERT INTO hidden (k) VALUES (1);
SELECT run_rollup('orphan');
SELECT last_aggregated_id FROM rollups WHERE name = 'orphan';
SELECT drop_rollup('orphan');

SELECT count(drop_rollup(name)) FROM rollups;
DROP SCHEMA privileges_test CASCADE;
DROP ROLE rollup_test_owner; DROP ROLE rollup_test_other; DROP ROLE rollup_test_boss;
