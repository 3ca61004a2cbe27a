-- Registering, running and inspecting rollups.

CREATE FUNCTION register_rollup(
    rollup_name text,
    query       text DEFAULT NULL,
    source      regclass DEFAULT NULL,
    target      text DEFAULT NULL,
    id_sequence regclass DEFAULT NULL,
    time_column name DEFAULT NULL,
    lag         interval DEFAULT NULL,
    schedule    text DEFAULT NULL,
    batch_size  bigint DEFAULT NULL,
    start_from  text DEFAULT NULL,
    command     text DEFAULT NULL
) RETURNS text
AS 'MODULE_PATHNAME', 'rollup_ext_register_rollup'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION register_rollup(text, text, regclass, text, regclass, name, interval, text, bigint, text, text) IS
'registers a rollup: from a query (declarative), from a command with $1 and $2 as the bounds of the window, or from a source table alone (window only); returns its name';

CREATE FUNCTION run_rollup(
    rollup_name text,
    patience    interval DEFAULT NULL,
    OUT window_start bigint,
    OUT window_end   bigint,
    OUT time_start   timestamptz,
    OUT time_end     timestamptz,
    OUT rows_written bigint
) AS 'MODULE_PATHNAME', 'rollup_ext_run_rollup'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION run_rollup(text, interval) IS
'takes the next safe window of events, merges it into the target and moves the position, in the caller''s transaction; waits for writers that are still open, with patience only for so long, and goes past those that are left: a later run takes their events';

CREATE FUNCTION incremental_rollup_window(
    rollup_name text,
    OUT window_start bigint,
    OUT window_end   bigint
) AS 'MODULE_PATHNAME', 'rollup_ext_incremental_rollup_window'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION incremental_rollup_window(text) IS
'the next safe window of ids, both ends included, for a caller that aggregates it in a later statement of the same transaction; empty when window_start > window_end; moves the position';

CREATE FUNCTION incremental_rollup_windows(rollup_name text)
RETURNS TABLE (window_start bigint, window_end bigint)
AS 'MODULE_PATHNAME', 'rollup_ext_incremental_rollup_windows'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 2;
COMMENT ON FUNCTION incremental_rollup_windows(text) IS
'as incremental_rollup_window, where several nodes of a Citus cluster insert events: one window of ids for each of them';

CREATE PROCEDURE catch_up_rollup(rollup_name text)
LANGUAGE plpgsql
AS $$
DECLARE
    run record;
    total bigint := 0;
    -- What comes later is for the next call: under constant ingest there would be no end.
    head bigint := @extschema@.rollup_head(rollup_name);
    head_time timestamptz := @extschema@.rollup_head_time(rollup_name);
    nodes integer[];
    heads bigint[];
BEGIN
    SELECT pg_catalog.array_agg(h.group_id), pg_catalog.array_agg(h.last_id) INTO nodes, heads
      FROM @extschema@.rollup_node_heads(rollup_name) h;
    LOOP
        SELECT * INTO run FROM @extschema@.run_rollup(rollup_name);
        EXIT WHEN run.rows_written IS NULL;
        COMMIT;
        total := total OPERATOR(pg_catalog.+) run.rows_written;
        RAISE NOTICE 'rollup "%": aggregated up to %, % rows written', rollup_name,
            COALESCE(run.window_end::pg_catalog.text, run.time_end::pg_catalog.text), total;
        EXIT WHEN run.time_end OPERATOR(pg_catalog.>=) head_time
               OR head IS NULL AND head_time IS NULL
               OR run.window_end OPERATOR(pg_catalog.>=) head AND NOT EXISTS (
            SELECT FROM ROWS FROM (pg_catalog.unnest(nodes), pg_catalog.unnest(heads)) AS h (group_id, last_id)
              LEFT JOIN @extschema@.rollup_node_positions p
                ON p.rollup_name OPERATOR(pg_catalog.=) catch_up_rollup.rollup_name
               AND p.group_id OPERATOR(pg_catalog.=) h.group_id
             WHERE h.last_id OPERATOR(pg_catalog.>) COALESCE(p.last_aggregated_id, 0));
    END LOOP;
END $$;
COMMENT ON PROCEDURE catch_up_rollup(text) IS
'runs a rollup until it has come to where its events were when it was called, each batch a transaction of its own; what is done stays done when it is cancelled';

CREATE FUNCTION rollup_node_heads(
    rollup_name            text,
    OUT group_id           integer,
    OUT last_id            bigint,
    OUT last_aggregated_id bigint,
    OUT lag_ids            bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'rollup_ext_rollup_node_heads' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION rollup_node_heads(text) IS
'on Citus: for each other node the last id that it has drawn for the events of a rollup (0 when none was), the last one aggregated, and how many lie between them; asks every node';

CREATE FUNCTION pause_rollup(rollup_name text) RETURNS void
AS 'MODULE_PATHNAME', 'rollup_ext_pause_rollup' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pause_rollup(text) IS 'suspends the runs of a rollup, scheduled and by hand; its position stays';

CREATE FUNCTION resume_rollup(rollup_name text) RETURNS void
AS 'MODULE_PATHNAME', 'rollup_ext_resume_rollup' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION resume_rollup(text) IS 'ends the pause of a rollup; the next run continues at its position, also when its sequence was altered meanwhile';

CREATE FUNCTION alter_rollup(
    rollup_name text,
    schedule    text DEFAULT NULL,
    lag         interval DEFAULT NULL,
    batch_size  bigint DEFAULT NULL,
    new_name    text DEFAULT NULL,
    new_owner   regrole DEFAULT NULL
) RETURNS void
AS 'MODULE_PATHNAME', 'rollup_ext_alter_rollup' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alter_rollup(text, text, interval, bigint, text, regrole) IS
'changes what is not NULL; schedule => ''none'' takes the schedule away, batch_size => 0 the limit';

CREATE FUNCTION drop_rollup(rollup_name text, drop_target boolean DEFAULT false) RETURNS void
AS 'MODULE_PATHNAME', 'rollup_ext_drop_rollup' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION drop_rollup(text, boolean) IS
'removes a rollup and its definition; the target table stays unless drop_target is true';

CREATE FUNCTION reset_rollup(rollup_name text) RETURNS void
AS 'MODULE_PATHNAME', 'rollup_ext_reset_rollup' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION reset_rollup(text) IS
'empties the target of a declarative rollup and moves the position back to the beginning: the next run aggregates everything again';

CREATE FUNCTION verify_rollup(
    rollup_name text,
    "from"      timestamptz DEFAULT NULL,
    "to"        timestamptz DEFAULT NULL
) RETURNS TABLE (group_key jsonb, in_rollup jsonb, in_events jsonb)
AS 'MODULE_PATHNAME', 'rollup_ext_verify_rollup' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION verify_rollup(text, timestamptz, timestamptz) IS
'compares a declarative rollup with its events up to its position and returns the groups that differ; no row when all is well';

CREATE FUNCTION refresh_rollup(rollup_name text, "from" timestamptz DEFAULT NULL, "to" timestamptz DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'rollup_ext_refresh_rollup' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION refresh_rollup(text, timestamptz, timestamptz) IS
'recomputes the groups of a time range from the events up to the position, after events were updated or deleted; returns the rows written';

CREATE FUNCTION explain_rollup(rollup_name text) RETURNS SETOF text
AS 'MODULE_PATHNAME', 'rollup_ext_explain_rollup' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION explain_rollup(text) IS
'dry run: the next window, the SQL that would run and its plan; nothing is changed';

CREATE FUNCTION rollup_head(rollup_name text) RETURNS bigint
AS 'MODULE_PATHNAME', 'rollup_ext_rollup_head' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION rollup_head(text) IS
'the last id drawn from the sequence of a rollup, committed or not; NULL for one that follows a time column or belongs to another role';

CREATE FUNCTION rollup_head_time(rollup_name text) RETURNS timestamptz
AS 'MODULE_PATHNAME', 'rollup_ext_rollup_head_time' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION rollup_head_time(text) IS
'up to where a rollup that follows a time column could be aggregated now; NULL for one that follows ids or belongs to another role';

CREATE VIEW rollup_progress WITH (security_invoker = true) AS
SELECT r.name AS rollup_name,
       r.last_aggregated_id,
       head.id AS head_id,
       head.id OPERATOR(pg_catalog.-) r.last_aggregated_id AS remaining_ids,
       pg_catalog.round(100.0 OPERATOR(pg_catalog.*) r.last_aggregated_id OPERATOR(pg_catalog./)
                        NULLIF(head.id, 0), 1) AS percent_done,
       pg_catalog.round(recent.ids OPERATOR(pg_catalog./) NULLIF(recent.seconds, 0)) AS ids_per_second,
       r.last_aggregated_time,
       head.at OPERATOR(pg_catalog.-) r.last_aggregated_time AS remaining_time,
       pg_catalog.make_interval(secs => pg_catalog.round(
           CASE WHEN r.time_column IS NULL
                THEN (head.id OPERATOR(pg_catalog.-) r.last_aggregated_id) OPERATOR(pg_catalog.*) recent.seconds
                     OPERATOR(pg_catalog./) NULLIF(recent.ids, 0)
                ELSE EXTRACT(epoch FROM head.at OPERATOR(pg_catalog.-) r.last_aggregated_time) OPERATOR(pg_catalog.*)
                     recent.seconds OPERATOR(pg_catalog./) NULLIF(recent.span, 0) END)::double precision)
           AS estimated_time_left
  FROM @extschema@.rollups r
 CROSS JOIN LATERAL (
       SELECT CASE WHEN r.time_column IS NULL THEN @extschema@.rollup_head(r.name) END,
              CASE WHEN r.time_column IS NOT NULL THEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) r.lag END
       ) AS head (id, at)
 CROSS JOIN LATERAL (
       SELECT pg_catalog.sum(run.window_end OPERATOR(pg_catalog.-) run.window_start OPERATOR(pg_catalog.+) 1),
              pg_catalog.sum(CASE WHEN pg_catalog.isfinite(run.time_start)
                                  THEN EXTRACT(epoch FROM run.time_end OPERATOR(pg_catalog.-) run.time_start) END),
              pg_catalog.sum(EXTRACT(epoch FROM run.finished_at OPERATOR(pg_catalog.-) run.started_at))
         FROM (SELECT * FROM @extschema@.rollup_runs
                WHERE rollup_name OPERATOR(pg_catalog.=) r.name AND status OPERATOR(pg_catalog.=) 'succeeded'
                ORDER BY run_id DESC LIMIT 10) run) AS recent (ids, span, seconds);
COMMENT ON VIEW rollup_progress IS 'how much of a backlog is left, and how long it will take at the pace of the last ten runs';
COMMENT ON COLUMN rollup_progress.rollup_name IS 'name of the rollup';
COMMENT ON COLUMN rollup_progress.last_aggregated_id IS 'position: every event up to this id is in the rollup, but for those passed over';
COMMENT ON COLUMN rollup_progress.head_id IS 'the last id drawn from the sequence';
COMMENT ON COLUMN rollup_progress.remaining_ids IS 'ids between position and head';
COMMENT ON COLUMN rollup_progress.percent_done IS 'position in percent of the head';
COMMENT ON COLUMN rollup_progress.ids_per_second IS 'pace of the last ten runs while they ran';
COMMENT ON COLUMN rollup_progress.last_aggregated_time IS 'with time_column, position: every event before this time is in the rollup';
COMMENT ON COLUMN rollup_progress.remaining_time IS 'with time_column: from there to now, less the lag';
COMMENT ON COLUMN rollup_progress.estimated_time_left IS 'time to aggregate what remains at that pace';
GRANT SELECT ON rollup_progress TO PUBLIC;

-- What the coordinator of a Citus cluster asks the other nodes.

CREATE FUNCTION wait_for_rollup_writers(patience_ms bigint, source text, id_sequence text) RETURNS bigint
AS 'MODULE_PATHNAME', 'rollup_ext_wait_for_rollup_writers' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION wait_for_rollup_writers(bigint, text, text) IS
'for the coordinator: the last id drawn on this node, 0 when none was, once those who may have drawn one up to it have ended; NULL when they have not in time';
REVOKE EXECUTE ON FUNCTION wait_for_rollup_writers(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION rollup_source_head(source text, id_sequence text) RETURNS bigint
AS 'MODULE_PATHNAME', 'rollup_ext_rollup_source_head' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION rollup_source_head(text, text) IS
'for the coordinator: the last id drawn on this node; 0 when none was';
REVOKE EXECUTE ON FUNCTION rollup_source_head(text, text) FROM PUBLIC;

CREATE FUNCTION oldest_transaction_start() RETURNS bigint
AS 'MODULE_PATHNAME', 'rollup_ext_oldest_transaction_start' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION oldest_transaction_start() IS
'for the coordinator: the start of the oldest running transaction of this node, in microseconds since 2000-01-01 UTC; NULL when it is unknown';
REVOKE EXECUTE ON FUNCTION oldest_transaction_start() FROM PUBLIC;

CREATE FUNCTION pending_commits() RETURNS text
AS 'MODULE_PATHNAME', 'rollup_ext_pending_commits' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pending_commits() IS
'for the coordinator: the distributed transactions that are prepared on this node, separated by spaces';
REVOKE EXECUTE ON FUNCTION pending_commits() FROM PUBLIC;

CREATE FUNCTION resolve_rollup_source(
    rollup_name text,
    source      regclass,
    id_sequence regclass,
    time_column name,
    schedule    text,
    add_index   boolean,
    OUT id_sequence_found regclass,
    OUT id_column         name
) AS 'MODULE_PATHNAME', 'rollup_ext_resolve_rollup_source'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION resolve_rollup_source(text, regclass, regclass, name, text, boolean) IS
'checks a registration and finds the sequence and column that order its events; used by the trigger on rollups';

CREATE FUNCTION complete_rollup() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    -- A row that pg_dump restores, or that register_rollup writes, names its source already.
    by_hand boolean := NEW.source IS NULL;
    -- Only a dump holds what is filled in below.
    is_restored boolean := NEW.position_snapshot IS NOT NULL;
    found   record;
BEGIN
    -- The events may be restored later. Until then ids are missing in the sequence, and a target has no unique index to
    -- merge by; a command over times would find nothing and go on.
    IF is_restored AND NEW.time_column IS NOT NULL AND NEW.definition IS NULL AND NOT NEW.paused THEN
        NEW.paused := true;
        RAISE WARNING 'rollup "%" is paused until its events are restored', NEW.name
            USING HINT = pg_catalog.format('SELECT resume_rollup(%L); once all of them are there.', NEW.name);
    END IF;
    NEW.source := COALESCE(NEW.source, NEW.event_table_name::pg_catalog.regclass);
    SELECT * INTO found FROM @extschema@.resolve_rollup_source(
        NEW.name, NEW.source,
        CASE WHEN NEW.time_column IS NULL THEN COALESCE(NEW.id_sequence, NEW.event_id_sequence_name::pg_catalog.regclass) END,
        NEW.time_column, NEW.schedule, by_hand);
    NEW.id_sequence := found.id_sequence_found;
    NEW.id_column := found.id_column;
    NEW.time_column_number := (SELECT a.attnum FROM pg_catalog.pg_attribute a
                                WHERE a.attrelid OPERATOR(pg_catalog.=) NEW.source
                                  AND a.attname OPERATOR(pg_catalog.=) NEW.time_column);
    NEW.sequence_file := pg_catalog.pg_relation_filenode(NEW.id_sequence);
    NEW.position_snapshot := pg_catalog.pg_current_snapshot();
    NEW.event_id_sequence_name := COALESCE(NEW.event_id_sequence_name, found.id_sequence_found::pg_catalog.text);
    NEW.last_aggregated_id := COALESCE(NEW.last_aggregated_id, 0);
    NEW.owner := COALESCE(NEW.owner, pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole);
    NEW.search_path := COALESCE(NEW.search_path, pg_catalog.current_setting('search_path'));
    NEW.time_zone := COALESCE(NEW.time_zone, pg_catalog.current_setting('TimeZone'));
    RETURN NEW;
END $$;
COMMENT ON FUNCTION complete_rollup() IS
'validates a row inserted into rollups as register_rollup would, and fills in what it leaves out';
CREATE TRIGGER complete_rollup BEFORE INSERT ON rollups FOR EACH ROW EXECUTE FUNCTION complete_rollup();
