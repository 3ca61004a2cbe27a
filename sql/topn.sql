-- TopN: the most frequent items, approximately, as jsonb lists of counters {"item": count, ...}.
-- Names and form are those of postgresql-topn.

CREATE TYPE topn_record AS (item text, frequency bigint);
COMMENT ON TYPE topn_record IS 'an item and its count, as topn() returns them';

-- Functions of lists. Marked IMMUTABLE although topn.number_of_counters matters once a list is full: Citus
-- takes nothing else in ON CONFLICT DO UPDATE.

CREATE FUNCTION topn(counters jsonb, n integer) RETURNS SETOF topn_record
    AS 'MODULE_PATHNAME', 'rollup_ext_topn'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10;
COMMENT ON FUNCTION topn(jsonb, integer) IS
    'the n most frequent items of a list with their counts, the most frequent first; equal counts by the bytes of the item';

CREATE FUNCTION topn_add(counters jsonb, item text) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'rollup_ext_topn_add'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION topn_add(jsonb, text) IS
    'the list with the item counted once more; a NULL list is empty, a NULL item is not counted';

CREATE FUNCTION topn_union(counters jsonb, other_counters jsonb) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'rollup_ext_topn_union'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION topn_union(jsonb, jsonb) IS
    'both lists merged: counts of the same item add up; keeps as many counters as topn.number_of_counters or the longer list has';

CREATE OPERATOR + (
    LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = topn_union, COMMUTATOR = +
);
COMMENT ON OPERATOR + (jsonb, jsonb) IS 'merge two lists of counters (topn_union)';

CREATE FUNCTION topn_error_bound(counters jsonb, events bigint) RETURNS bigint
    AS 'MODULE_PATHNAME', 'rollup_ext_topn_error_bound'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION topn_error_bound(jsonb, bigint) IS
    'events (how many items were counted) less the sum of the list: no count falls short by more, and no missing item occurred more often';

-- Support functions of the aggregates.

CREATE FUNCTION topn_add_trans(internal, text) RETURNS internal
    AS 'MODULE_PATHNAME', 'rollup_ext_topn_add_trans'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION topn_add_trans(internal, text) IS 'transition function of topn_add_agg(text)';

CREATE FUNCTION topn_add_trans(internal, text, bigint) RETURNS internal
    AS 'MODULE_PATHNAME', 'rollup_ext_topn_add_trans'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION topn_add_trans(internal, text, bigint) IS 'transition function of topn_add_agg(text, bigint)';

CREATE FUNCTION topn_union_trans(internal, jsonb) RETURNS internal
    AS 'MODULE_PATHNAME', 'rollup_ext_topn_union_trans'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION topn_union_trans(internal, jsonb) IS 'transition function of topn_union_agg';

CREATE FUNCTION topn_union_internal(internal, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'rollup_ext_topn_union_internal'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION topn_union_internal(internal, internal) IS 'combine function of the topn aggregates';

CREATE FUNCTION topn_serialize(internal) RETURNS bytea
    AS 'MODULE_PATHNAME', 'rollup_ext_topn_serialize'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION topn_serialize(internal) IS 'serial function of the topn aggregates';

CREATE FUNCTION topn_deserialize(bytea, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'rollup_ext_topn_deserialize'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION topn_deserialize(bytea, internal) IS 'deserial function of the topn aggregates';

CREATE FUNCTION topn_pack(internal) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'rollup_ext_topn_pack'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION topn_pack(internal) IS 'final function of the topn aggregates: the list of counters';

CREATE FUNCTION topn_pack_error(internal) RETURNS bigint
    AS 'MODULE_PATHNAME', 'rollup_ext_topn_pack_error'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION topn_pack_error(internal) IS 'final function of the topn error aggregates: the bound of the list''s error';

-- Aggregates. SSPACE is the state of a small group, so that the planner hashes.

CREATE AGGREGATE topn_add_agg(item text) (
    SFUNC = topn_add_trans, STYPE = internal, SSPACE = 48, FINALFUNC = topn_pack,
    COMBINEFUNC = topn_union_internal, SERIALFUNC = topn_serialize, DESERIALFUNC = topn_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE topn_add_agg(text) IS 'list of the most frequent items; NULL is not counted';

CREATE AGGREGATE topn_add_agg(item text, weight bigint) (
    SFUNC = topn_add_trans, STYPE = internal, SSPACE = 48, FINALFUNC = topn_pack,
    COMBINEFUNC = topn_union_internal, SERIALFUNC = topn_serialize, DESERIALFUNC = topn_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE topn_add_agg(text, bigint) IS
    'list of the heaviest items: each row counts weight times; a NULL or zero weight does not count';

CREATE AGGREGATE topn_union_agg(counters jsonb) (
    SFUNC = topn_union_trans, STYPE = internal, SSPACE = 48, FINALFUNC = topn_pack,
    COMBINEFUNC = topn_union_internal, SERIALFUNC = topn_serialize, DESERIALFUNC = topn_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE topn_union_agg(jsonb) IS 'all lists merged into one; NULL is an empty list';

CREATE AGGREGATE topn_add_error_agg(item text) (
    SFUNC = topn_add_trans, STYPE = internal, SSPACE = 48, FINALFUNC = topn_pack_error,
    COMBINEFUNC = topn_union_internal, SERIALFUNC = topn_serialize, DESERIALFUNC = topn_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE topn_add_error_agg(text) IS
    'error bound of topn_add_agg over the same rows: no count falls short by more, and no missing item occurred more often';

CREATE AGGREGATE topn_add_error_agg(item text, weight bigint) (
    SFUNC = topn_add_trans, STYPE = internal, SSPACE = 48, FINALFUNC = topn_pack_error,
    COMBINEFUNC = topn_union_internal, SERIALFUNC = topn_serialize, DESERIALFUNC = topn_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE topn_add_error_agg(text, bigint) IS
    'error bound of topn_add_agg over the same rows: no weight falls short by more, and no missing item weighs more';

CREATE AGGREGATE topn_union_error_agg(counters jsonb) (
    SFUNC = topn_union_trans, STYPE = internal, SSPACE = 48, FINALFUNC = topn_pack_error,
    COMBINEFUNC = topn_union_internal, SERIALFUNC = topn_serialize, DESERIALFUNC = topn_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE topn_union_error_agg(jsonb) IS
    'what topn_union_agg over the same rows adds to the sum of the error bounds of its input';
