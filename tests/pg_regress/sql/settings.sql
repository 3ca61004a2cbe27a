-- What the SQL of a rollup sets ends with its run: the caller's session stays as it was.
CREATE TABLE settings_events (id bigserial, x int);
INSERT INTO settings_events (x) VALUES (1);
SET search_path = public;
SELECT register_rollup('settings_rollup', source => 'settings_events', command => $$
    WITH bounds AS (SELECT $1, $2)
    SELECT set_config('search_path', 'elsewhere', false), set_config('statement_timeout', '1h', false),
           set_config('rollup_ext_test.left_behind', 'yes', false)
    FROM bounds $$);
SELECT rows_written FROM run_rollup('settings_rollup');
SHOW search_path;
SHOW statement_timeout;
SELECT COALESCE(current_setting('rollup_ext_test.left_behind', true), '') AS left_behind;
SELECT drop_rollup('settings_rollup');
DROP TABLE settings_events;
