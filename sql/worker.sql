-- The worker: what it is doing and when it will do more.

CREATE FUNCTION rollup_worker_is_running() RETURNS boolean
AS 'MODULE_PATHNAME', 'rollup_ext_rollup_worker_is_running'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION rollup_worker_is_running() IS
'whether the worker follows the schedules of this database: the library is preloaded and the server is no standby';

CREATE FUNCTION rollup_next_run(schedule text, after timestamptz DEFAULT pg_catalog.now()) RETURNS timestamptz
AS 'MODULE_PATHNAME', 'rollup_ext_rollup_next_run'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION rollup_next_run(text, timestamptz) IS
'when a schedule, an interval or a cron line in UTC, is due next after a time';

-- Whoever writes a schedule into the table, it is one.
ALTER TABLE rollups ADD CONSTRAINT rollups_schedule_check
    CHECK (schedule IS NULL OR rollup_next_run(schedule, 'epoch') IS NOT NULL);

CREATE VIEW rollup_status WITH (security_invoker = true) AS
SELECT r.name AS rollup_name,
       CASE WHEN r.definition IS NOT NULL THEN 'declarative'
            WHEN r.command IS NOT NULL THEN 'command'
            ELSE 'window' END AS kind,
       r.source,
       r.target,
       r.schedule,
       CASE WHEN r.paused THEN 'paused'
            WHEN run.run_id IS NOT NULL THEN 'running'
            WHEN r.schedule IS NULL THEN 'manual'
            WHEN NOT @extschema@.rollup_worker_is_running() THEN 'no worker'
            WHEN s.consecutive_failures OPERATOR(pg_catalog.>) 0 THEN 'failing'
            WHEN s.blocked_since IS NOT NULL AND pg_catalog.isempty(r.passed_over) THEN 'blocked'
            WHEN s.blocked_since IS NOT NULL THEN 'passing'
            ELSE 'scheduled' END AS state,
       r.last_aggregated_id,
       head.id AS head,
       head.id OPERATOR(pg_catalog.-) r.last_aggregated_id AS lag_ids,
       (SELECT COALESCE(pg_catalog.sum(pg_catalog.upper(ids) OPERATOR(pg_catalog.-) pg_catalog.lower(ids)), 0)
          FROM pg_catalog.unnest(r.passed_over) AS ids)::bigint AS passed_over_ids,
       r.last_aggregated_time,
       pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) r.last_aggregated_time AS time_lag,
       s.blocked_by,
       s.blocked_since,
       CASE WHEN r.paused OR r.schedule IS NULL OR NOT @extschema@.rollup_worker_is_running() THEN NULL
            WHEN s.retry_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN s.retry_at
            ELSE @extschema@.rollup_next_run(r.schedule, pg_catalog.clock_timestamp()) END AS next_run,
       COALESCE(run.started_at, s.last_started_at) AS last_run,
       s.last_error,
       s.last_sqlstate,
       COALESCE(s.consecutive_failures, 0) AS consecutive_failures,
       r.owner
  FROM @extschema@.rollups r
  LEFT JOIN @extschema@.rollup_state s ON s.rollup_name OPERATOR(pg_catalog.=) r.name
  LEFT JOIN LATERAL (
           SELECT h.run_id, h.started_at
             FROM @extschema@.rollup_runs h
            WHERE h.rollup_name OPERATOR(pg_catalog.=) r.name
              AND h.status OPERATOR(pg_catalog.=) 'running'
            ORDER BY h.run_id DESC
            LIMIT 1) run ON true
  -- A sequence that was dropped must not hide the other rollups.
  LEFT JOIN LATERAL (
           SELECT @extschema@.rollup_head(r.name) AS id
             FROM pg_catalog.pg_class c
            WHERE c.oid OPERATOR(pg_catalog.=) r.id_sequence) head ON true
 ORDER BY r.name;
COMMENT ON VIEW rollup_status IS
'one row for each rollup that the current role may see: how far it is, what it is doing, what stops it and when it runs next';
COMMENT ON COLUMN rollup_status.rollup_name IS 'name of the rollup';
COMMENT ON COLUMN rollup_status.kind IS 'declarative, command or window';
COMMENT ON COLUMN rollup_status.source IS 'event table';
COMMENT ON COLUMN rollup_status.target IS 'table that a declarative rollup keeps up to date';
COMMENT ON COLUMN rollup_status.schedule IS 'how often the worker runs it';
COMMENT ON COLUMN rollup_status.state IS
'paused, running (by the worker), manual (no schedule), no worker (a schedule that nothing follows), failing (see last_error), blocked (by open transactions), passing (by open transactions: their events follow when they commit), or scheduled';
COMMENT ON COLUMN rollup_status.last_aggregated_id IS 'every event up to this id is in the rollup, but for those passed over; none above it';
COMMENT ON COLUMN rollup_status.head IS 'last id that the sequence has given out';
COMMENT ON COLUMN rollup_status.lag_ids IS 'how many ids lie between the two';
COMMENT ON COLUMN rollup_status.passed_over_ids IS
'how many ids up to last_aggregated_id had no event when a run went past open writers: the events that may still come with them are not in the rollup yet';
COMMENT ON COLUMN rollup_status.last_aggregated_time IS 'with time_column: every event before this time is in the rollup';
COMMENT ON COLUMN rollup_status.time_lag IS 'how long ago that is';
COMMENT ON COLUMN rollup_status.blocked_by IS
'processes whose open transactions may still add events to the next window, or with ids that were passed over, with time_column the one whose transaction is the oldest; 0 stands for a prepared transaction';
COMMENT ON COLUMN rollup_status.blocked_since IS 'since when they hold the rollup back';
COMMENT ON COLUMN rollup_status.next_run IS 'when the worker looks for new events next';
COMMENT ON COLUMN rollup_status.last_run IS 'start of the last run by the worker';
COMMENT ON COLUMN rollup_status.last_error IS 'message of the last run, when it failed';
COMMENT ON COLUMN rollup_status.last_sqlstate IS 'SQLSTATE of the last run, when it failed';
COMMENT ON COLUMN rollup_status.consecutive_failures IS 'failed runs since the last success';
COMMENT ON COLUMN rollup_status.owner IS 'role that the rollup runs as';
GRANT SELECT ON rollup_status TO PUBLIC;

-- What the worker has to know makes it look around, as soon as it is committed.
CREATE FUNCTION wake_rollup_worker() RETURNS trigger
AS 'MODULE_PATHNAME', 'rollup_ext_wake_rollup_worker'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION wake_rollup_worker() IS 'trigger: wakes the worker when the transaction commits';
CREATE TRIGGER wake_rollup_worker AFTER INSERT OR DELETE OR UPDATE OF name, schedule, paused ON rollups
    FOR EACH STATEMENT EXECUTE FUNCTION wake_rollup_worker();

-- That this extension exists now is the first thing to know: no row, but the trigger.
DELETE FROM rollups;
