-- HyperLogLog++: type, functions, aggregates. Names and hash values are those of postgresql-hll.

-- ------------------------------------------------------------------ the type hll

CREATE TYPE hll;

CREATE FUNCTION hll_in(cstring, oid, integer)
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll_in' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_in(cstring, oid, integer) IS 'input: the text form of bytea, in this storage version or that of postgresql-hll';

CREATE FUNCTION hll_out(hll)
RETURNS cstring
AS 'MODULE_PATHNAME', 'rollup_ext_hll_out' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_out(hll) IS 'output: the text form of bytea, in the storage version that hll_set_output_version() chose';

CREATE FUNCTION hll_recv(internal, oid, integer)
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll_recv' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_recv(internal, oid, integer) IS 'binary input, in this storage version or that of postgresql-hll';

CREATE FUNCTION hll_send(hll)
RETURNS bytea
AS 'MODULE_PATHNAME', 'rollup_ext_hll_send' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_send(hll) IS 'binary output, in the storage version that hll_set_output_version() chose';

CREATE FUNCTION hll_typmod_in(cstring[])
RETURNS integer
AS 'MODULE_PATHNAME', 'rollup_ext_hll_typmod_in' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_typmod_in(cstring[]) IS 'modifiers of a column: hll(log2m [, regwidth [, expthresh [, sparseon]]])';

CREATE FUNCTION hll_typmod_out(integer)
RETURNS cstring
AS 'MODULE_PATHNAME', 'rollup_ext_hll_typmod_out' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_typmod_out(integer) IS 'modifiers of a column as text';

CREATE TYPE hll (
    INPUT = hll_in,
    OUTPUT = hll_out,
    RECEIVE = hll_recv,
    SEND = hll_send,
    TYPMOD_IN = hll_typmod_in,
    TYPMOD_OUT = hll_typmod_out,
    INTERNALLENGTH = variable,
    STORAGE = external
);
COMMENT ON TYPE hll IS 'HyperLogLog++ sketch: counts distinct values, exactly while they are few';

CREATE FUNCTION hll(hll, integer, boolean)
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll(hll, integer, boolean) IS 'takes a sketch to the parameters of a column: to fewer registers, never to more';

CREATE FUNCTION hll_from_bytea(bytea)
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll_from_bytea' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_from_bytea(bytea) IS 'a sketch from bytes, in this storage version or that of postgresql-hll';

CREATE FUNCTION hll_to_bytea(hll)
RETURNS bytea
AS 'MODULE_PATHNAME', 'rollup_ext_hll_send' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_to_bytea(hll) IS 'the bytes of a sketch, in the storage version that hll_set_output_version() chose';

CREATE CAST (hll AS hll) WITH FUNCTION hll(hll, integer, boolean) AS IMPLICIT;
CREATE CAST (bytea AS hll) WITH FUNCTION hll_from_bytea(bytea);
CREATE CAST (hll AS bytea) WITH FUNCTION hll_to_bytea(hll);

-- ------------------------------------------------------------------ the type hll_hashval

CREATE TYPE hll_hashval;

CREATE FUNCTION hll_hashval_in(cstring, oid, integer)
RETURNS hll_hashval
AS 'int8in' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_in(cstring, oid, integer) IS 'input of a hash value: a bigint';

CREATE FUNCTION hll_hashval_out(hll_hashval)
RETURNS cstring
AS 'int8out' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_out(hll_hashval) IS 'output of a hash value: a bigint';

CREATE FUNCTION hll_hashval_recv(internal)
RETURNS hll_hashval
AS 'int8recv' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_recv(internal) IS 'binary input of a hash value';

CREATE FUNCTION hll_hashval_send(hll_hashval)
RETURNS bytea
AS 'int8send' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_send(hll_hashval) IS 'binary output of a hash value';

CREATE TYPE hll_hashval (
    INPUT = hll_hashval_in,
    OUTPUT = hll_hashval_out,
    RECEIVE = hll_hashval_recv,
    SEND = hll_hashval_send,
    INTERNALLENGTH = 8,
    PASSEDBYVALUE,
    ALIGNMENT = double
);
COMMENT ON TYPE hll_hashval IS '64-bit hash of a value, made by the functions hll_hash_*';

CREATE FUNCTION hll_hashval(bigint)
RETURNS hll_hashval
AS 'int8up' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval(bigint) IS 'a number taken as a hash value: only for numbers that are hashes already';

CREATE FUNCTION hll_hashval_int4(integer)
RETURNS hll_hashval
AS 'int48' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_int4(integer) IS 'a number taken as a hash value, with its sign extended';

CREATE CAST (bigint AS hll_hashval) WITHOUT FUNCTION;
CREATE CAST (integer AS hll_hashval) WITH FUNCTION hll_hashval_int4(integer);

CREATE FUNCTION hll_hashval_eq(hll_hashval, hll_hashval)
RETURNS boolean
AS 'int8eq' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_eq(hll_hashval, hll_hashval) IS 'whether two hash values are equal';

CREATE FUNCTION hll_hashval_ne(hll_hashval, hll_hashval)
RETURNS boolean
AS 'int8ne' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_ne(hll_hashval, hll_hashval) IS 'whether two hash values are different';

CREATE FUNCTION hll_hashval_lt(hll_hashval, hll_hashval)
RETURNS boolean
AS 'int8lt' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_lt(hll_hashval, hll_hashval) IS 'whether two hash values are less';

CREATE FUNCTION hll_hashval_le(hll_hashval, hll_hashval)
RETURNS boolean
AS 'int8le' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_le(hll_hashval, hll_hashval) IS 'whether two hash values are less or equal';

CREATE FUNCTION hll_hashval_gt(hll_hashval, hll_hashval)
RETURNS boolean
AS 'int8gt' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_gt(hll_hashval, hll_hashval) IS 'whether two hash values are greater';

CREATE FUNCTION hll_hashval_ge(hll_hashval, hll_hashval)
RETURNS boolean
AS 'int8ge' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_ge(hll_hashval, hll_hashval) IS 'whether two hash values are greater or equal';

CREATE FUNCTION hll_hashval_cmp(hll_hashval, hll_hashval)
RETURNS integer
AS 'btint8cmp' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_cmp(hll_hashval, hll_hashval) IS 'order of two hash values, for DISTINCT, GROUP BY and indexes';

CREATE FUNCTION hll_hashval_hash(hll_hashval)
RETURNS integer
AS 'hashint8' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_hash(hll_hashval) IS 'hash of two hash values, for DISTINCT and GROUP BY';

CREATE FUNCTION hll_hashval_hash_extended(hll_hashval, bigint)
RETURNS bigint
AS 'hashint8extended' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hashval_hash_extended(hll_hashval, bigint) IS '64-bit hash of two hash values';

CREATE OPERATOR = (
    LEFTARG = hll_hashval, RIGHTARG = hll_hashval, FUNCTION = hll_hashval_eq,
    COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES
);
CREATE OPERATOR <> (
    LEFTARG = hll_hashval, RIGHTARG = hll_hashval, FUNCTION = hll_hashval_ne,
    COMMUTATOR = <>, NEGATOR = =, RESTRICT = neqsel, JOIN = neqjoinsel
);
CREATE OPERATOR < (
    LEFTARG = hll_hashval, RIGHTARG = hll_hashval, FUNCTION = hll_hashval_lt,
    COMMUTATOR = >, NEGATOR = >=, RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
CREATE OPERATOR <= (
    LEFTARG = hll_hashval, RIGHTARG = hll_hashval, FUNCTION = hll_hashval_le,
    COMMUTATOR = >=, NEGATOR = >, RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
CREATE OPERATOR > (
    LEFTARG = hll_hashval, RIGHTARG = hll_hashval, FUNCTION = hll_hashval_gt,
    COMMUTATOR = <, NEGATOR = <=, RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);
CREATE OPERATOR >= (
    LEFTARG = hll_hashval, RIGHTARG = hll_hashval, FUNCTION = hll_hashval_ge,
    COMMUTATOR = <=, NEGATOR = <, RESTRICT = scalargesel, JOIN = scalargejoinsel
);
COMMENT ON OPERATOR = (hll_hashval, hll_hashval) IS 'the same hash';
COMMENT ON OPERATOR <> (hll_hashval, hll_hashval) IS 'another hash';
COMMENT ON OPERATOR < (hll_hashval, hll_hashval) IS 'order of hashes';
COMMENT ON OPERATOR <= (hll_hashval, hll_hashval) IS 'order of hashes';
COMMENT ON OPERATOR > (hll_hashval, hll_hashval) IS 'order of hashes';
COMMENT ON OPERATOR >= (hll_hashval, hll_hashval) IS 'order of hashes';

CREATE OPERATOR CLASS hll_hashval_ops DEFAULT FOR TYPE hll_hashval USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 hll_hashval_cmp(hll_hashval, hll_hashval);
CREATE OPERATOR CLASS hll_hashval_ops DEFAULT FOR TYPE hll_hashval USING hash AS
    OPERATOR 1 =,
    FUNCTION 1 hll_hashval_hash(hll_hashval), FUNCTION 2 hll_hashval_hash_extended(hll_hashval, bigint);

-- ------------------------------------------------------------------ hashing

CREATE FUNCTION hll_hash_boolean(boolean, integer DEFAULT 0)
RETURNS hll_hashval
AS 'MODULE_PATHNAME', 'rollup_ext_hll_hash_boolean' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hash_boolean(boolean, integer) IS 'MurmurHash3 of a boolean value; the second argument is the seed';

CREATE FUNCTION hll_hash_smallint(smallint, integer DEFAULT 0)
RETURNS hll_hashval
AS 'MODULE_PATHNAME', 'rollup_ext_hll_hash_smallint' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hash_smallint(smallint, integer) IS 'MurmurHash3 of a smallint value; the second argument is the seed';

CREATE FUNCTION hll_hash_integer(integer, integer DEFAULT 0)
RETURNS hll_hashval
AS 'MODULE_PATHNAME', 'rollup_ext_hll_hash_integer' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hash_integer(integer, integer) IS 'MurmurHash3 of an integer value; the second argument is the seed';

CREATE FUNCTION hll_hash_bigint(bigint, integer DEFAULT 0)
RETURNS hll_hashval
AS 'MODULE_PATHNAME', 'rollup_ext_hll_hash_bigint' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hash_bigint(bigint, integer) IS 'MurmurHash3 of a bigint value; the second argument is the seed';

CREATE FUNCTION hll_hash_bytea(bytea, integer DEFAULT 0)
RETURNS hll_hashval
AS 'MODULE_PATHNAME', 'rollup_ext_hll_hash_varlena' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hash_bytea(bytea, integer) IS 'MurmurHash3 of a bytea value; the second argument is the seed';

CREATE FUNCTION hll_hash_text(text, integer DEFAULT 0)
RETURNS hll_hashval
AS 'MODULE_PATHNAME', 'rollup_ext_hll_hash_varlena' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hash_text(text, integer) IS 'MurmurHash3 of a text value; the second argument is the seed';

CREATE FUNCTION hll_hash_any(anyelement, integer DEFAULT 0)
RETURNS hll_hashval
AS 'MODULE_PATHNAME', 'rollup_ext_hll_hash_any' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hash_any(anyelement, integer) IS 'MurmurHash3 of a value of any type, by the function for its type; the second argument is the seed';

-- ------------------------------------------------------------------ sketches

CREATE FUNCTION hll_empty()
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll_empty' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_empty() IS 'an empty sketch; arguments: log2m, regwidth, expthresh, sparseon';

CREATE FUNCTION hll_empty(integer)
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll_empty' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_empty(integer) IS 'an empty sketch; arguments: log2m, regwidth, expthresh, sparseon';

CREATE FUNCTION hll_empty(integer, integer)
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll_empty' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_empty(integer, integer) IS 'an empty sketch; arguments: log2m, regwidth, expthresh, sparseon';

CREATE FUNCTION hll_empty(integer, integer, bigint)
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll_empty' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_empty(integer, integer, bigint) IS 'an empty sketch; arguments: log2m, regwidth, expthresh, sparseon';

CREATE FUNCTION hll_empty(integer, integer, bigint, integer)
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll_empty' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_empty(integer, integer, bigint, integer) IS 'an empty sketch; arguments: log2m, regwidth, expthresh, sparseon';

CREATE FUNCTION hll_add(hll, hll_hashval)
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll_add' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_add(hll, hll_hashval) IS 'adds a hash to a sketch';

CREATE FUNCTION hll_add_rev(hll_hashval, hll)
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll_add_rev' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_add_rev(hll_hashval, hll) IS 'adds a hash to a sketch';

CREATE FUNCTION hll_union(hll, hll)
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll_union' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_union(hll, hll) IS 'union of two sketches; different parameters meet at the smaller ones';

CREATE FUNCTION hll_cardinality(hll)
RETURNS double precision
AS 'MODULE_PATHNAME', 'rollup_ext_hll_cardinality' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_cardinality(hll) IS 'number of distinct values in a sketch, as a whole number';

CREATE FUNCTION hll_error(hll)
RETURNS double precision
AS 'MODULE_PATHNAME', 'rollup_ext_hll_error' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_error(hll) IS 'relative standard error of the count: 0 while it is exact, then 1.04 / sqrt(2^log2m)';

CREATE FUNCTION hll_print(hll)
RETURNS cstring
AS 'MODULE_PATHNAME', 'rollup_ext_hll_print' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_print(hll) IS 'what a sketch holds, in words';

CREATE FUNCTION hll_eq(hll, hll)
RETURNS boolean
AS 'byteaeq' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_eq(hll, hll) IS 'whether two sketches, by their bytes, are equal';

CREATE FUNCTION hll_ne(hll, hll)
RETURNS boolean
AS 'byteane' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_ne(hll, hll) IS 'whether two sketches, by their bytes, are different';

CREATE FUNCTION hll_lt(hll, hll)
RETURNS boolean
AS 'bytealt' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_lt(hll, hll) IS 'whether two sketches, by their bytes, are less';

CREATE FUNCTION hll_le(hll, hll)
RETURNS boolean
AS 'byteale' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_le(hll, hll) IS 'whether two sketches, by their bytes, are less or equal';

CREATE FUNCTION hll_gt(hll, hll)
RETURNS boolean
AS 'byteagt' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_gt(hll, hll) IS 'whether two sketches, by their bytes, are greater';

CREATE FUNCTION hll_ge(hll, hll)
RETURNS boolean
AS 'byteage' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_ge(hll, hll) IS 'whether two sketches, by their bytes, are greater or equal';

CREATE FUNCTION hll_cmp(hll, hll)
RETURNS integer
AS 'byteacmp' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_cmp(hll, hll) IS 'order of two sketches, by their bytes,, for DISTINCT, GROUP BY and indexes';

CREATE FUNCTION hll_hash(hll)
RETURNS integer
AS 'hashvarlena' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hash(hll) IS 'hash of two sketches, by their bytes,, for DISTINCT and GROUP BY';

CREATE FUNCTION hll_hash_extended(hll, bigint)
RETURNS bigint
AS 'hashvarlenaextended' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_hash_extended(hll, bigint) IS '64-bit hash of two sketches, by their bytes,';

CREATE OPERATOR = (
    LEFTARG = hll, RIGHTARG = hll, FUNCTION = hll_eq,
    COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES
);
CREATE OPERATOR <> (
    LEFTARG = hll, RIGHTARG = hll, FUNCTION = hll_ne,
    COMMUTATOR = <>, NEGATOR = =, RESTRICT = neqsel, JOIN = neqjoinsel
);
CREATE OPERATOR < (
    LEFTARG = hll, RIGHTARG = hll, FUNCTION = hll_lt,
    COMMUTATOR = >, NEGATOR = >=, RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
CREATE OPERATOR <= (
    LEFTARG = hll, RIGHTARG = hll, FUNCTION = hll_le,
    COMMUTATOR = >=, NEGATOR = >, RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
CREATE OPERATOR > (
    LEFTARG = hll, RIGHTARG = hll, FUNCTION = hll_gt,
    COMMUTATOR = <, NEGATOR = <=, RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);
CREATE OPERATOR >= (
    LEFTARG = hll, RIGHTARG = hll, FUNCTION = hll_ge,
    COMMUTATOR = <=, NEGATOR = <, RESTRICT = scalargesel, JOIN = scalargejoinsel
);
COMMENT ON OPERATOR = (hll, hll) IS 'the same sketch';
COMMENT ON OPERATOR <> (hll, hll) IS 'another sketch';
COMMENT ON OPERATOR < (hll, hll) IS 'order of the stored bytes, for sorting only';
COMMENT ON OPERATOR <= (hll, hll) IS 'order of the stored bytes, for sorting only';
COMMENT ON OPERATOR > (hll, hll) IS 'order of the stored bytes, for sorting only';
COMMENT ON OPERATOR >= (hll, hll) IS 'order of the stored bytes, for sorting only';

CREATE OPERATOR CLASS hll_ops DEFAULT FOR TYPE hll USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 hll_cmp(hll, hll);
CREATE OPERATOR CLASS hll_ops DEFAULT FOR TYPE hll USING hash AS
    OPERATOR 1 =,
    FUNCTION 1 hll_hash(hll), FUNCTION 2 hll_hash_extended(hll, bigint);

CREATE OPERATOR || (LEFTARG = hll, RIGHTARG = hll, FUNCTION = hll_union, COMMUTATOR = ||);
CREATE OPERATOR || (LEFTARG = hll, RIGHTARG = hll_hashval, FUNCTION = hll_add);
CREATE OPERATOR || (LEFTARG = hll_hashval, RIGHTARG = hll, FUNCTION = hll_add_rev);
CREATE OPERATOR # (RIGHTARG = hll, FUNCTION = hll_cardinality);
COMMENT ON OPERATOR || (hll, hll) IS 'union of two sketches';
COMMENT ON OPERATOR || (hll, hll_hashval) IS 'adds a hash to a sketch';
COMMENT ON OPERATOR || (hll_hashval, hll) IS 'adds a hash to a sketch';
COMMENT ON OPERATOR # (NONE, hll) IS 'number of distinct values in a sketch';

-- ------------------------------------------------------------------ what a sketch says about itself

CREATE FUNCTION hll_schema_version(hll)
RETURNS integer
AS 'MODULE_PATHNAME', 'rollup_ext_hll_schema_version' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_schema_version(hll) IS 'storage version of a sketch as it is kept: 2; that of postgresql-hll is 1';

CREATE FUNCTION hll_type(hll)
RETURNS integer
AS 'MODULE_PATHNAME', 'rollup_ext_hll_type' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_type(hll) IS 'kind of a sketch: 0 undefined, 1 empty, 3 sparse (exact), 4 full';

CREATE FUNCTION hll_log2m(hll)
RETURNS integer
AS 'MODULE_PATHNAME', 'rollup_ext_hll_log2m' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_log2m(hll) IS 'base-2 logarithm of the number of registers';

CREATE FUNCTION hll_regwidth(hll)
RETURNS integer
AS 'MODULE_PATHNAME', 'rollup_ext_hll_regwidth' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_regwidth(hll) IS 'bits of a register in storage version 1';

CREATE FUNCTION hll_expthresh(hll, OUT specified bigint, OUT effective bigint)
AS 'MODULE_PATHNAME', 'rollup_ext_hll_expthresh' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_expthresh(hll) IS 'explicit threshold: what the sketch carries, and up to how many values it really counts exactly';

CREATE FUNCTION hll_sparseon(hll)
RETURNS integer
AS 'MODULE_PATHNAME', 'rollup_ext_hll_sparseon' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_sparseon(hll) IS 'whether storage version 1 may use its sparse form: 1 or 0';

-- ------------------------------------------------------------------ settings, as functions

CREATE FUNCTION hll_set_defaults(i_log2m integer, i_regwidth integer, i_expthresh bigint, i_sparseon integer, OUT o_log2m integer, OUT o_regwidth integer, OUT o_expthresh bigint, OUT o_sparseon integer)
AS 'MODULE_PATHNAME', 'rollup_ext_hll_set_defaults' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION hll_set_defaults(i_log2m integer, i_regwidth integer, i_expthresh bigint, i_sparseon integer) IS 'sets the parameters of new sketches for the session (rollup_ext.hll_log2m and so on); returns those before';

CREATE FUNCTION hll_set_max_sparse(integer)
RETURNS integer
AS 'MODULE_PATHNAME', 'rollup_ext_hll_set_max_sparse' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION hll_set_max_sparse(integer) IS 'sets how many registers the sparse form of storage version 1 may have (rollup_ext.hll_max_sparse); returns the number before';

CREATE FUNCTION hll_set_output_version(integer)
RETURNS integer
AS 'MODULE_PATHNAME', 'rollup_ext_hll_set_output_version' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION hll_set_output_version(integer) IS 'sets in which storage version sketches leave the server (rollup_ext.hll_output_version): 1 is that of postgresql-hll; returns the version before';

-- ------------------------------------------------------------------ aggregates

CREATE FUNCTION hll_add_trans0(internal, hll_hashval)
RETURNS internal
AS 'MODULE_PATHNAME', 'rollup_ext_hll_add_trans' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_add_trans0(internal, hll_hashval) IS 'transition function of hll_add_agg';

CREATE FUNCTION hll_add_trans1(internal, hll_hashval, integer)
RETURNS internal
AS 'MODULE_PATHNAME', 'rollup_ext_hll_add_trans' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_add_trans1(internal, hll_hashval, integer) IS 'transition function of hll_add_agg';

CREATE FUNCTION hll_add_trans2(internal, hll_hashval, integer, integer)
RETURNS internal
AS 'MODULE_PATHNAME', 'rollup_ext_hll_add_trans' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_add_trans2(internal, hll_hashval, integer, integer) IS 'transition function of hll_add_agg';

CREATE FUNCTION hll_add_trans3(internal, hll_hashval, integer, integer, bigint)
RETURNS internal
AS 'MODULE_PATHNAME', 'rollup_ext_hll_add_trans' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_add_trans3(internal, hll_hashval, integer, integer, bigint) IS 'transition function of hll_add_agg';

CREATE FUNCTION hll_add_trans4(internal, hll_hashval, integer, integer, bigint, integer)
RETURNS internal
AS 'MODULE_PATHNAME', 'rollup_ext_hll_add_trans' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_add_trans4(internal, hll_hashval, integer, integer, bigint, integer) IS 'transition function of hll_add_agg';

CREATE FUNCTION hll_union_trans(internal, hll)
RETURNS internal
AS 'MODULE_PATHNAME', 'rollup_ext_hll_union_trans' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_union_trans(internal, hll) IS 'transition function of hll_union_agg';

CREATE FUNCTION hll_union_internal(internal, internal)
RETURNS internal
AS 'MODULE_PATHNAME', 'rollup_ext_hll_union_internal' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_union_internal(internal, internal) IS 'combines two transition states';

CREATE FUNCTION hll_pack(internal)
RETURNS hll
AS 'MODULE_PATHNAME', 'rollup_ext_hll_pack' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_pack(internal) IS 'the sketch of a transition state';

CREATE FUNCTION hll_serialize(internal)
RETURNS bytea
AS 'MODULE_PATHNAME', 'rollup_ext_hll_pack' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_serialize(internal) IS 'a transition state as bytes';

CREATE FUNCTION hll_deserialize(bytea, internal)
RETURNS internal
AS 'MODULE_PATHNAME', 'rollup_ext_hll_deserialize' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION hll_deserialize(bytea, internal) IS 'a transition state from bytes';

CREATE FUNCTION hll_card_unpacked(internal)
RETURNS double precision
AS 'MODULE_PATHNAME', 'rollup_ext_hll_card_unpacked' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_card_unpacked(internal) IS 'the count of a transition state';

CREATE FUNCTION hll_floor_card_unpacked(internal)
RETURNS bigint
AS 'MODULE_PATHNAME', 'rollup_ext_hll_whole_card_unpacked' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_floor_card_unpacked(internal) IS 'the count of a transition state';

CREATE FUNCTION hll_ceil_card_unpacked(internal)
RETURNS bigint
AS 'MODULE_PATHNAME', 'rollup_ext_hll_whole_card_unpacked' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION hll_ceil_card_unpacked(internal) IS 'the count of a transition state';

CREATE AGGREGATE hll_add_agg(hll_hashval) (
    SFUNC = hll_add_trans0, STYPE = internal, SSPACE = 64, FINALFUNC = hll_pack,
    COMBINEFUNC = hll_union_internal, SERIALFUNC = hll_serialize, DESERIALFUNC = hll_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE hll_add_agg(hll_hashval) IS 'sketch of the hashes; further arguments: log2m, regwidth, expthresh, sparseon';

CREATE AGGREGATE hll_add_agg(hll_hashval, integer) (
    SFUNC = hll_add_trans1, STYPE = internal, SSPACE = 64, FINALFUNC = hll_pack,
    COMBINEFUNC = hll_union_internal, SERIALFUNC = hll_serialize, DESERIALFUNC = hll_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE hll_add_agg(hll_hashval, integer) IS 'sketch of the hashes; further arguments: log2m, regwidth, expthresh, sparseon';

CREATE AGGREGATE hll_add_agg(hll_hashval, integer, integer) (
    SFUNC = hll_add_trans2, STYPE = internal, SSPACE = 64, FINALFUNC = hll_pack,
    COMBINEFUNC = hll_union_internal, SERIALFUNC = hll_serialize, DESERIALFUNC = hll_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE hll_add_agg(hll_hashval, integer, integer) IS 'sketch of the hashes; further arguments: log2m, regwidth, expthresh, sparseon';

CREATE AGGREGATE hll_add_agg(hll_hashval, integer, integer, bigint) (
    SFUNC = hll_add_trans3, STYPE = internal, SSPACE = 64, FINALFUNC = hll_pack,
    COMBINEFUNC = hll_union_internal, SERIALFUNC = hll_serialize, DESERIALFUNC = hll_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE hll_add_agg(hll_hashval, integer, integer, bigint) IS 'sketch of the hashes; further arguments: log2m, regwidth, expthresh, sparseon';

CREATE AGGREGATE hll_add_agg(hll_hashval, integer, integer, bigint, integer) (
    SFUNC = hll_add_trans4, STYPE = internal, SSPACE = 64, FINALFUNC = hll_pack,
    COMBINEFUNC = hll_union_internal, SERIALFUNC = hll_serialize, DESERIALFUNC = hll_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE hll_add_agg(hll_hashval, integer, integer, bigint, integer) IS 'sketch of the hashes; further arguments: log2m, regwidth, expthresh, sparseon';

CREATE AGGREGATE hll_union_agg(hll) (
    SFUNC = hll_union_trans, STYPE = internal, SSPACE = 64, FINALFUNC = hll_pack,
    COMBINEFUNC = hll_union_internal, SERIALFUNC = hll_serialize, DESERIALFUNC = hll_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE hll_union_agg(hll) IS 'union of the sketches';
