-- Live views: a rollup and the events that it has not aggregated yet, merged.

CREATE FUNCTION create_live_view(rollup_name text) RETURNS text
AS 'MODULE_PATHNAME', 'rollup_ext_create_live_view' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION create_live_view(text) IS
'creates the view <target>_live of a declarative rollup: its target merged with the events that it has not aggregated yet, exact in every snapshot; returns the name of the view';

-- Parallel workers cannot change the role that reads the catalog.
CREATE FUNCTION rollup_position(definition regclass) RETURNS bigint
AS 'MODULE_PATHNAME', 'rollup_ext_rollup_position' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 10;
COMMENT ON FUNCTION rollup_position(regclass) IS
'for live views: the id up to which the rollup defined by a view has aggregated every event, in the snapshot of the statement';

CREATE FUNCTION rollup_aggregated_ids(definition regclass) RETURNS int8multirange
AS 'MODULE_PATHNAME', 'rollup_ext_rollup_aggregated_ids' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 10;
COMMENT ON FUNCTION rollup_aggregated_ids(regclass) IS
'for live views: the ids beyond rollup_position() that the rollup has aggregated as well, because it went past open writers; in the snapshot of the statement';

CREATE FUNCTION rollup_position_time(definition regclass) RETURNS timestamptz
AS 'MODULE_PATHNAME', 'rollup_ext_rollup_position_time' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 10;
COMMENT ON FUNCTION rollup_position_time(regclass) IS
'for live views: the first moment that the rollup defined by a view has not aggregated, in the snapshot of the statement';

CREATE FUNCTION rollup_position_timestamp(definition regclass) RETURNS timestamp
AS 'MODULE_PATHNAME', 'rollup_ext_rollup_position_timestamp' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 10;
COMMENT ON FUNCTION rollup_position_timestamp(regclass) IS
'as rollup_position_time, by the clock of a time column without time zone';

CREATE FUNCTION keep_value(anyelement, anyelement) RETURNS anyelement
AS 'MODULE_PATHNAME', 'rollup_ext_keep_value' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION keep_value(anyelement, anyelement) IS 'the first of two values: the transition and combine function of single_value';

CREATE AGGREGATE single_value(anyelement) (
    SFUNC = keep_value,
    STYPE = anyelement,
    COMBINEFUNC = keep_value,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE single_value(anyelement) IS
'for live views: the value of a group that has at most one, whatever its type; NULLs count as none';
