-- Whatever is not a sketch or a list of counters is an error of its own, and nothing else happens.
CREATE TABLE sketches AS
SELECT hll_add_agg(hll_hash_integer(i), log2m) AS s FROM (VALUES (0, 5), (4, 2), (4, 90), (6, 40), (11, 1), (11, 9)) x(log2m, n), generate_series(1, n) i GROUP BY log2m, n
UNION ALL SELECT hll_add_agg(h, 5) FROM unnest('{0, 1, 2, 4611686018427387904}'::hll_hashval[]) h
UNION ALL VALUES (hll_empty()), ('\x208b7f');
SELECT hll_set_output_version(1);
CREATE TABLE bytes AS SELECT s::bytea AS b FROM sketches UNION ALL VALUES ('\x128b7f80000000000000000000000000000001'::bytea), ('\x138b7f00217f81');
SELECT hll_set_output_version(2);
INSERT INTO bytes SELECT s::bytea FROM sketches;
-- Cut off anywhere, longer, each bit turned round, each byte replaced.
CREATE TABLE inputs AS
SELECT substr(b, 1, n) AS b FROM bytes, generate_series(0, length(b)) n
UNION SELECT b || x FROM bytes, unnest('{"\\x00", "\\xff", "\\x0001020304050607"}'::bytea[]) x
UNION SELECT set_bit(b, n, 1 - get_bit(b, n)) FROM bytes, generate_series(0, 8 * length(b) - 1) n
UNION SELECT set_byte(b, n, x) FROM bytes, generate_series(0, length(b) - 1) n, unnest('{0, 127, 128, 255}'::int[]) x;
SELECT count(*) > 3000 AS many FROM inputs;

-- Outcome of an expression over a sketch: 'ok' or the error's code.
CREATE FUNCTION outcome(expression text, input anyelement) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    EXECUTE 'SELECT ' || expression USING input INTO result;
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || CASE WHEN SQLERRM ~ 'panic|unwrap|overflow|index out of' THEN ' ' || SQLERRM ELSE '' END;
END $$;
CREATE TABLE outcomes AS SELECT b, outcome('$1::hll', b) AS cast, outcome('$1::text::hll', b) AS text, outcome('$1::hll(3, 2)', b) AS narrow FROM inputs;
SELECT DISTINCT "cast", text FROM outcomes ORDER BY 1;
SELECT DISTINCT narrow FROM outcomes WHERE "cast" = 'ok' ORDER BY 1;
-- What is taken works everywhere: it counts, prints, merges with itself to itself, and comes back through text and version 1.
CREATE TABLE taken AS SELECT b::hll AS s FROM outcomes WHERE "cast" = 'ok';
SELECT count(*) > 500 AS many FROM taken;
SELECT count(*) AS wrong FROM taken
WHERE s || s <> s OR s::text::hll <> s OR s::bytea::hll <> s OR (s = s) IS NOT TRUE OR hll_print(s)::text = ''
   OR (hll_cardinality(s) < 0 OR hll_cardinality(s) <> floor(hll_cardinality(s)) OR hll_cardinality(s) = 'Infinity')
   OR hll_cardinality(s || hll_hash_text('one')) < hll_cardinality(s) - 1 OR hll_log2m(s || hll_empty(18, 8, -1, 1)) <> hll_log2m(s);
SELECT count(*) AS wrong FROM taken a, (SELECT s FROM taken ORDER BY s LIMIT 40) b WHERE a.s || b.s <> b.s || a.s;
SELECT hll_log2m(hll_union_agg(s)), count(*) = count(hll_hash(s)) AS hashed FROM taken;
-- What version 1 holds of it are its registers: again and again the same.
SELECT hll_set_output_version(1);
CREATE TABLE version_1 AS SELECT s, s::bytea AS b FROM taken;
SELECT count(*) AS wrong FROM version_1 WHERE b::hll::bytea <> b OR hll_type(b::hll) <> CASE hll_type(s) WHEN 0 THEN 0 WHEN 1 THEN 1 ELSE 4 END;
SELECT count(*) AS wrong FROM version_1 WHERE hll_log2m(s) > 3 AND hll_regwidth(s) > 4 AND abs((# b::hll) - (# s)) > greatest(3, 0.3 * (# s)) AND # s < 1000;
SELECT hll_set_output_version(2);

-- Text that is no sketch.
SELECT t, outcome('$1::hll', t) FROM unnest(ARRAY['', '\x', '\x2', '\xzz', '\x21 8b 7f', ' \x218b7f', '218b7f', '\x218b7', E'\\x21\n8b7F', '\x2 18b7f', 'hll', '\\', '\041\213\177', '\041\213\777',
                                         '\x218b7f00', '\xé', repeat('\x21', 3)]) t;

-- Transition functions cannot be called outside of an aggregate.
SELECT e, outcome(e, NULL::int) IN ('42883', '0A000') AS refused FROM unnest(ARRAY['hll_pack(NULL)', 'hll_pack(hll_add_trans0(NULL, 1))', 'hll_pack(hll_union_trans(NULL, hll_empty()))',
    'hll_pack(hll_union_internal(NULL, NULL))', 'hll_pack(hll_deserialize(''\x'', NULL))', 'hll_card_unpacked(NULL)', 'topn_pack(NULL)', 'topn_pack_error(NULL)',
    'topn_pack(topn_add_trans(NULL, ''a''))', 'topn_pack(topn_add_trans(NULL, NULL))', 'topn_pack(topn_union_trans(NULL, ''{"a": 1}''))', 'topn_pack(topn_union_internal(NULL, NULL))',
    'topn_serialize(NULL)', 'topn_pack(topn_deserialize(''\x01'', NULL))']) e;

-- jsonb that is no list of counters, at every place that takes a list.
SELECT left(v::text, 40) AS v, string_agg(DISTINCT outcome(e, v), ', ') AS outcome
FROM unnest(ARRAY['1', '"a"', 'null', 'true', '[]', '[1]', '[{"a": 1}]', '{"a": null}', '{"a": "1"}', '{"a": [1]}', '{"a": {}}', '{"a": true}', '{"a": -1}', '{"a": 0.5}', '{"a": 1e-400}',
                  '{"a": 9223372036854775808}', '{"a": 1e400}', '{"a": -1e-20}', '{"b": 1, "a": -1}',
                  '{}', '{"a": 0}', '{"a": 1.000}', '{"a": -0}', '{"a": 9223372036854775807}', '{"a": 9.2e18}', '{"": 1}', '{"a": 1, "a": 2}']::jsonb[]) v,
     unnest(ARRAY['topn($1, 3)', 'topn_add($1, ''b'')', 'topn_union($1, ''{}'')', 'topn_union(''{"x": 3}'', $1)', 'topn_error_bound($1, 9223372036854775807)',
                  'topn_union_agg($1)', 'topn_union_error_agg($1)', '(''{"b": 1}''::jsonb + $1)']) e
GROUP BY v::text ORDER BY 2, v::text;
DROP TABLE sketches, bytes, inputs, outcomes, taken, version_1;
DROP FUNCTION outcome;
