-- The catalog: what is registered, how measures merge, what has run.

CREATE TABLE rollups (
    name                   text PRIMARY KEY,
    event_table_name       text NOT NULL,
    event_id_sequence_name text,
    last_aggregated_id     bigint DEFAULT 0,
    last_aggregated_time   timestamptz,
    passed_over            int8multirange NOT NULL DEFAULT '{}',
    start_id               bigint,
    start_time             timestamptz,
    source                 regclass NOT NULL,
    id_sequence            regclass,
    id_column              name,
    time_column            name,
    lag                    interval NOT NULL DEFAULT interval '0' CHECK (lag >= interval '0'),
    definition             regclass,
    target                 regclass,
    live_view              regclass,
    command                text,
    schedule               text,
    batch_size             bigint CHECK (batch_size > 0),
    paused                 boolean NOT NULL DEFAULT false,
    owner                  regrole NOT NULL,
    search_path            text NOT NULL,
    time_zone              text NOT NULL,
    time_column_number     smallint,
    sequence_file          oid,
    position_snapshot      pg_snapshot,
    created_at             timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CHECK (name <> ''),
    CHECK ((id_sequence IS NULL) <> (time_column IS NULL)),
    CHECK (definition IS NULL OR command IS NULL),
    CHECK ((definition IS NULL) = (target IS NULL))
);

COMMENT ON TABLE rollups IS 'the registered rollups and how far each has come';
COMMENT ON COLUMN rollups.name IS 'name of the rollup';
COMMENT ON COLUMN rollups.event_table_name IS 'event table, as it was written at registration';
COMMENT ON COLUMN rollups.event_id_sequence_name IS 'sequence that numbers the events, as it was written at registration';
COMMENT ON COLUMN rollups.last_aggregated_id IS 'every event up to this id is in the rollup, but for those of ids in passed_over; none above it';
COMMENT ON COLUMN rollups.last_aggregated_time IS 'with time_column: every event before this time is in the rollup, none from it on';
COMMENT ON COLUMN rollups.passed_over IS 'ids up to the position that had no event when a run went past open writers: rolled back, or not committed yet; their events are not in the rollup, and a later run takes them';
COMMENT ON COLUMN rollups.start_id IS 'where start_from began with an empty target: events up to this id are not in the rollup; NULL when all are';
COMMENT ON COLUMN rollups.start_time IS 'the same with time_column: events before this time are not in the rollup';
COMMENT ON COLUMN rollups.source IS 'event table';
COMMENT ON COLUMN rollups.id_sequence IS 'sequence that numbers the events';
COMMENT ON COLUMN rollups.id_column IS 'column of the event table that the sequence fills';
COMMENT ON COLUMN rollups.time_column IS 'column of the event table, filled with now() by its default, that the rollup follows instead of ids';
COMMENT ON COLUMN rollups.time_column_number IS 'number of the time column in the event table, which renaming does not change';
COMMENT ON COLUMN rollups.lag IS 'how far behind the safe horizon a time window ends';
COMMENT ON COLUMN rollups.definition IS 'view that holds the query of a declarative rollup';
COMMENT ON COLUMN rollups.target IS 'table that a declarative rollup keeps up to date';
COMMENT ON COLUMN rollups.live_view IS 'view of the target merged with the events that are not aggregated yet';
COMMENT ON COLUMN rollups.command IS 'SQL of a command rollup, with the bounds of the window as $1 and $2';
COMMENT ON COLUMN rollups.schedule IS 'how often the worker runs it: an interval or a cron line in UTC; NULL for never';
COMMENT ON COLUMN rollups.batch_size IS 'how many events one run takes at most; NULL for all';
COMMENT ON COLUMN rollups.paused IS 'whether runs are suspended';
COMMENT ON COLUMN rollups.owner IS 'role that the rollup runs as';
COMMENT ON COLUMN rollups.search_path IS 'search_path that the rollup runs with';
COMMENT ON COLUMN rollups.time_zone IS 'time zone that the rollup runs with';
COMMENT ON COLUMN rollups.sequence_file IS 'file of the sequence at the last run: another one tells that the sequence was restarted or altered';
COMMENT ON COLUMN rollups.position_snapshot IS 'snapshot in which the position was moved: it saw every event up to there, but for those passed over';
COMMENT ON COLUMN rollups.created_at IS 'when it was registered';

CREATE TABLE rollup_node_positions (
    rollup_name        text REFERENCES rollups ON DELETE CASCADE ON UPDATE CASCADE,
    group_id           integer,
    last_aggregated_id bigint NOT NULL,
    PRIMARY KEY (rollup_name, group_id)
);

COMMENT ON TABLE rollup_node_positions IS 'on Citus: how far each rollup has come with the events inserted through other nodes than the coordinator';
COMMENT ON COLUMN rollup_node_positions.rollup_name IS 'name of the rollup';
COMMENT ON COLUMN rollup_node_positions.group_id IS 'group of the node, as in pg_dist_node';
COMMENT ON COLUMN rollup_node_positions.last_aggregated_id IS 'every event of that node up to this id is in the rollup, none above it';

CREATE TABLE rollup_partitions_left (
    rollup_name text REFERENCES rollups ON DELETE CASCADE ON UPDATE CASCADE,
    partition   text,
    PRIMARY KEY (rollup_name, partition)
);

COMMENT ON TABLE rollup_partitions_left IS 'partitions that were dropped or detached with events that a rollup holds: it cannot be compared with all of its events any more';
COMMENT ON COLUMN rollup_partitions_left.rollup_name IS 'name of the rollup';
COMMENT ON COLUMN rollup_partitions_left.partition IS 'name of the partition, as it was then';

CREATE TABLE rollup_merge_rules (
    aggregate_schema name NOT NULL,
    aggregate_name   name NOT NULL,
    merge            text NOT NULL,
    ignores_duplicates boolean NOT NULL DEFAULT false,
    PRIMARY KEY (aggregate_schema, aggregate_name)
);

COMMENT ON TABLE rollup_merge_rules IS 'how the stored value of an aggregate ($1) and that of new events ($2) become one; add rows for aggregates of your own';
COMMENT ON COLUMN rollup_merge_rules.aggregate_schema IS 'schema of the aggregate';
COMMENT ON COLUMN rollup_merge_rules.aggregate_name IS 'name of the aggregate, for all its argument types';
COMMENT ON COLUMN rollup_merge_rules.merge IS 'SQL expression over $1, the stored value, and $2, the new one, with qualified names';
COMMENT ON COLUMN rollup_merge_rules.ignores_duplicates IS 'whether DISTINCT makes no difference to the aggregate';

INSERT INTO rollup_merge_rules VALUES
    ('pg_catalog', 'count', '$1 OPERATOR(pg_catalog.+) $2', false),
    ('pg_catalog', 'regr_count', '$1 OPERATOR(pg_catalog.+) $2', false),
    ('pg_catalog', 'sum', '$1 OPERATOR(pg_catalog.+) $2', false),
    ('pg_catalog', 'min', 'LEAST($1, $2)', true),
    ('pg_catalog', 'max', 'GREATEST($1, $2)', true),
    ('pg_catalog', 'bool_and', '$1 AND $2', true),
    ('pg_catalog', 'every', '$1 AND $2', true),
    ('pg_catalog', 'bool_or', '$1 OR $2', true),
    ('pg_catalog', 'bit_and', '$1 OPERATOR(pg_catalog.&) $2', true),
    ('pg_catalog', 'bit_or', '$1 OPERATOR(pg_catalog.|) $2', true),
    ('pg_catalog', 'bit_xor', '$1 OPERATOR(pg_catalog.#) $2', false);

-- The placeholder stands for the name as SQL, quoted where it has to be; the column holds it as it is.
INSERT INTO rollup_merge_rules
SELECT n.nspname, r.* FROM pg_catalog.pg_namespace n, (VALUES
    ('hll_add_agg', '@extschema@.hll_union($1, $2)', true),
    ('hll_union_agg', '@extschema@.hll_union($1, $2)', true),
    ('topn_add_agg', '@extschema@.topn_union($1, $2)', false),
    ('topn_union_agg', '@extschema@.topn_union($1, $2)', false)) r
WHERE n.oid = '@extschema@'::pg_catalog.regnamespace;

CREATE TABLE rollup_state (
    rollup_name          text PRIMARY KEY REFERENCES rollups ON DELETE CASCADE ON UPDATE CASCADE,
    last_started_at      timestamptz,
    last_finished_at     timestamptz,
    consecutive_failures integer NOT NULL DEFAULT 0,
    last_sqlstate        text,
    last_error           text,
    retry_at             timestamptz,
    blocked_by           integer[],
    blocked_since        timestamptz
) WITH (fillfactor = 50);

COMMENT ON TABLE rollup_state IS 'what the worker knows of each rollup; read it through rollup_status';
COMMENT ON COLUMN rollup_state.rollup_name IS 'name of the rollup';
COMMENT ON COLUMN rollup_state.last_started_at IS 'start of the last run by the worker';
COMMENT ON COLUMN rollup_state.last_finished_at IS 'end of the last run by the worker';
COMMENT ON COLUMN rollup_state.consecutive_failures IS 'failed runs since the last success';
COMMENT ON COLUMN rollup_state.last_sqlstate IS 'SQLSTATE of the last error; NULL after a success';
COMMENT ON COLUMN rollup_state.last_error IS 'message of the last error; NULL after a success';
COMMENT ON COLUMN rollup_state.retry_at IS 'not before this time after an error';
COMMENT ON COLUMN rollup_state.blocked_by IS 'process ids of the writers that hold the window back; 0 stands for a prepared transaction';
COMMENT ON COLUMN rollup_state.blocked_since IS 'since when they do';

CREATE TABLE rollup_runs (
    run_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rollup_name  text NOT NULL REFERENCES rollups ON DELETE CASCADE ON UPDATE CASCADE,
    status       text NOT NULL CHECK (status IN ('running', 'succeeded', 'failed')),
    window_start bigint,
    window_end   bigint,
    time_start   timestamptz,
    time_end     timestamptz,
    rows_written bigint,
    started_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at  timestamptz,
    pid          integer,
    sqlstate     text,
    error        text
);
CREATE INDEX rollup_runs_rollup_name_idx ON rollup_runs (rollup_name, run_id);
CREATE INDEX rollup_runs_finished_at_idx ON rollup_runs (finished_at);

COMMENT ON TABLE rollup_runs IS 'the history of runs, kept for rollup_ext.run_retention; runs that found nothing to do leave no row';
COMMENT ON COLUMN rollup_runs.run_id IS 'number of the run';
COMMENT ON COLUMN rollup_runs.rollup_name IS 'name of the rollup';
COMMENT ON COLUMN rollup_runs.status IS 'running, succeeded or failed';
COMMENT ON COLUMN rollup_runs.window_start IS 'first id of the window';
COMMENT ON COLUMN rollup_runs.window_end IS 'last id of the window';
COMMENT ON COLUMN rollup_runs.time_start IS 'start of a time window, inclusive; NULL for the beginning';
COMMENT ON COLUMN rollup_runs.time_end IS 'end of a time window, exclusive';
COMMENT ON COLUMN rollup_runs.rows_written IS 'rows of the target inserted or updated';
COMMENT ON COLUMN rollup_runs.started_at IS 'when it started';
COMMENT ON COLUMN rollup_runs.finished_at IS 'when it ended';
COMMENT ON COLUMN rollup_runs.pid IS 'process that ran it';
COMMENT ON COLUMN rollup_runs.sqlstate IS 'SQLSTATE of the error';
COMMENT ON COLUMN rollup_runs.error IS 'message of the error';

-- Everyone may register; everyone sees and changes what is theirs.
GRANT SELECT ON rollup_merge_rules TO PUBLIC;
GRANT SELECT, INSERT ON rollups TO PUBLIC;
GRANT SELECT ON rollup_node_positions, rollup_partitions_left, rollup_state, rollup_runs TO PUBLIC;
ALTER TABLE rollups ENABLE ROW LEVEL SECURITY;
ALTER TABLE rollup_node_positions ENABLE ROW LEVEL SECURITY;
ALTER TABLE rollup_partitions_left ENABLE ROW LEVEL SECURITY;
ALTER TABLE rollup_state ENABLE ROW LEVEL SECURITY;
ALTER TABLE rollup_runs ENABLE ROW LEVEL SECURITY;
CREATE POLICY owner_sees ON rollups FOR SELECT USING (pg_catalog.pg_has_role(owner, 'MEMBER'));
CREATE POLICY owner_inserts ON rollups FOR INSERT WITH CHECK (pg_catalog.pg_get_userbyid(owner) = CURRENT_USER);
CREATE POLICY owner_sees ON rollup_node_positions FOR SELECT
    USING (rollup_name IN (SELECT r.name FROM @extschema@.rollups r));
CREATE POLICY owner_sees ON rollup_partitions_left FOR SELECT
    USING (rollup_name IN (SELECT r.name FROM @extschema@.rollups r));
CREATE POLICY owner_sees ON rollup_state FOR SELECT
    USING (rollup_name IN (SELECT r.name FROM @extschema@.rollups r));
CREATE POLICY owner_sees ON rollup_runs FOR SELECT
    USING (rollup_name IN (SELECT r.name FROM @extschema@.rollups r));

-- pg_dump keeps the registrations and positions with the data; only rules that users added are theirs.
SELECT pg_catalog.pg_extension_config_dump('rollups', '');
SELECT pg_catalog.pg_extension_config_dump('rollup_node_positions', '');
SELECT pg_catalog.pg_extension_config_dump('rollup_partitions_left', '');
SELECT pg_catalog.pg_extension_config_dump('rollup_merge_rules',
    $$WHERE aggregate_schema <> 'pg_catalog' AND aggregate_name !~ '^(hll|topn)_(add|union)_agg$'$$);
