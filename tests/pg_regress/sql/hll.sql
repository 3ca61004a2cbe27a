-- HLL sketches as a user of postgresql-hll meets them. Constants were made with postgresql-hll 2.17.

-- Hash values.
SELECT hll_hash_boolean(true), hll_hash_smallint(-7::smallint), hll_hash_integer(42), hll_hash_bigint(42),
       hll_hash_bigint(42, 123), hll_hash_text(''), hll_hash_text('grüße'), hll_hash_bytea('\x00ff');
SELECT hll_hash_text(repeat('0123456789', 1000)), hll_hash_bigint(1, -1);
-- Any type: by value, variable length, fixed length by reference, and what has only a text form.
SELECT hll_hash_any(42) = hll_hash_integer(42) AS integer, hll_hash_any('a'::text) = hll_hash_text('a') AS text,
       hll_hash_any(1.5::float8), hll_hash_any('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid),
       hll_hash_any('1 day'::interval), hll_hash_any('abc'::name) = hll_hash_text('abc') AS name,
       hll_hash_any('08:00:2b:01:02:03:04:05'::macaddr8) = hll_hash_bytea('\x08002b0102030405') AS macaddr8;
SELECT 5::hll_hashval, (-5)::bigint::hll_hashval = (-5)::hll_hashval AS same, hll_hashval(7) <> 7::hll_hashval AS differ;

-- Counting: exact while few, NULL and empty input as in postgresql-hll.
SELECT n, hll_cardinality(s), hll_type(s), hll_error(s), pg_column_size(s)
FROM unnest(ARRAY[0, 1, 10, 100, 300, 500, 100000]) n,
     LATERAL (SELECT hll_add_agg(hll_hash_integer(i)) s FROM generate_series(1, n) i) x ORDER BY n;
SELECT hll_print(hll_add_agg(NULL)), hll_union_agg(NULL) IS NULL AS no_union;
SELECT hll_add_agg(hll_hash_integer(i)) FILTER (WHERE i > 5) IS NULL AS none FROM generate_series(1, 5) i;
SELECT hll_cardinality(hll_add_agg(DISTINCT hll_hash_integer(i % 10))) FROM generate_series(1, 50) i;
SELECT hll_add_agg(hll_hash_integer(i) ORDER BY i) = hll_add_agg(hll_hash_integer(i) ORDER BY -i) AS same
FROM generate_series(1, 5000) i;
SELECT i, # hll_add_agg(hll_hash_integer(i / 2)) OVER (ORDER BY i) FROM generate_series(1, 4) i;
SELECT i, # hll_add_agg(hll_hash_integer(i)) OVER (ORDER BY i ROWS 2 PRECEDING) FROM generate_series(1, 4) i;

-- Adding and merging by function and operator.
SELECT # (hll_empty() || 1::hll_hashval || 2::hll_hashval), # (3::hll_hashval || hll_add(hll_empty(), 3::hll_hashval));
SELECT # hll_union(a, b), # (a || b), a || b = b || a AS commutes, a || a = a AS idempotent, a <> b AS differ
FROM (SELECT hll_add_agg(hll_hash_integer(i)) FILTER (WHERE i <= 60) a, hll_add_agg(hll_hash_integer(i)) FILTER (WHERE i > 40) b
      FROM generate_series(1, 100) i) x;
-- Any grouping of the same values gives the same bytes.
SELECT parts, hll_union_agg(s) = (SELECT hll_add_agg(hll_hash_integer(i)) FROM generate_series(1, 3000) i) AS same
FROM unnest(ARRAY[2, 30, 3000]) parts,
     LATERAL (SELECT hll_add_agg(hll_hash_integer(i)) s FROM generate_series(1, 3000) i GROUP BY i % parts) x
GROUP BY parts ORDER BY parts;
-- Two precisions meet at the smaller.
SELECT hll_log2m(u), u = hll_union(b, a) AS commutes, u = c AS folds
FROM (SELECT hll_union(a, b) u, * FROM
      (SELECT hll_add_agg(hll_hash_integer(i), 14) FILTER (WHERE i <= 4000) a, hll_add_agg(hll_hash_integer(i), 10) FILTER (WHERE i > 3000) b,
              hll_add_agg(hll_hash_integer(i), 10) c FROM generate_series(1, 6000) i) x) y;
SELECT hll_union_agg(s) = (SELECT hll_add_agg(hll_hash_integer(i), 9) FROM generate_series(1, 2000) i) AS folds
FROM (SELECT hll_add_agg(hll_hash_integer(i), 12 - i % 4) s FROM generate_series(1, 2000) i GROUP BY i % 4) x;

-- Parameters, of aggregates, sketches and columns.
SELECT hll_log2m(s), hll_regwidth(s), hll_expthresh(s), hll_sparseon(s), hll_schema_version(s)
FROM (SELECT hll_add_agg(1::hll_hashval) UNION ALL SELECT hll_add_agg(1::hll_hashval, 12)
      UNION ALL SELECT hll_add_agg(1::hll_hashval, 12, 6) UNION ALL SELECT hll_add_agg(1::hll_hashval, 12, 6, 64)
      UNION ALL SELECT hll_add_agg(1::hll_hashval, 12, 6, 64, 0) UNION ALL SELECT hll_empty(9, 4, 0, 1)) x(s);
SELECT hll_set_defaults(13, 6, 128, 0);
SELECT hll_empty(), # hll_add_agg(1::hll_hashval) FROM generate_series(1, 3);
SHOW rollup_ext.hll_log2m;
SELECT hll_set_defaults(11, 5, -1, 1);
CREATE TABLE sketches (id int, s hll(11, 5));
INSERT INTO sketches SELECT 1, hll_add_agg(hll_hash_integer(i), 13) FROM generate_series(1, 2000) i;
SELECT format_type(atttypid, atttypmod), hll_log2m(s), s = (SELECT hll_add_agg(hll_hash_integer(i)) FROM generate_series(1, 2000) i) AS folded
FROM pg_attribute, sketches WHERE attrelid = 'sketches'::regclass AND attname = 's';
INSERT INTO sketches VALUES (2, hll_empty(10));
INSERT INTO sketches VALUES (2, hll_empty(11, 4));
SELECT hll_empty(19);
SELECT hll_empty(-1);
SELECT hll_empty(11, 0);
SELECT hll_empty(11, 9);
SELECT hll_empty(11, 5, 3);
SELECT hll_empty(11, 5, -2);
SELECT hll_empty(11, 5, 4, 2);
SELECT hll_add_agg(1::hll_hashval, 32);
CREATE TABLE wrong (s hll(11, 5, -1, 1, 0));
CREATE TABLE wrong (s hll(eleven));
SELECT hll_set_output_version(3);
SELECT hll_set_max_sparse(-2);

-- Storage version 1: undefined, empty, explicit, sparse and full, read as text, bytea and typed literal.
SELECT hll_type(s), # s, hll_print(s) FROM (VALUES ('\x108b7f'::hll), ('\x118b7f'), ('\x128b7f11111111111111112222222222222222'), ('\x13857f1880')) v(s);
SELECT # '\x128b7f1111111111111111'::bytea::hll, # '\x138b7f0021'::hll, # '\x14857f0840008001000020000008042000062884120021'::hll;
SELECT '\x108b7f'::hll || 1::hll_hashval = '\x108b7f'::hll AS undefined_stays;
-- Explicit hashes are exactly those of our own sketch.
SELECT '\x128b7f8895a3f5af28cafeda0ce907e4355b60'::hll = hll_add_agg(h) AS same
FROM (VALUES (x'8895a3f5af28cafe'::bigint::hll_hashval), (x'da0ce907e4355b60'::bigint::hll_hashval)) v(h);
-- Writing it.
SELECT hll_set_output_version(1), hll_set_max_sparse(2);
SELECT hll_empty(), hll_add_agg(hll_hash_integer(i), 4), hll_add_agg(hll_hash_integer(i), 4) FILTER (WHERE i < 3),
       hll_add_agg(hll_hash_integer(i), 4)::bytea = hll_send(hll_add_agg(hll_hash_integer(i), 4)) AS same
FROM generate_series(1, 20) i;
SELECT md5(hll_add_agg(hll_hash_integer(i))::text) FROM generate_series(1, 20000) i;
SELECT hll_set_output_version(2), hll_set_max_sparse(-1);

-- Out and in again, as text and in binary.
CREATE TABLE copies (LIKE sketches);
INSERT INTO sketches SELECT 1000 + n, hll_add_agg(hll_hash_integer(i)) FROM unnest(ARRAY[0, 1, 2, 7, 8, 100, 570, 580, 20000]) n, generate_series(0, n) i GROUP BY n;
INSERT INTO copies SELECT id, s::text::hll FROM sketches;
INSERT INTO copies SELECT id, s::bytea::hll FROM sketches;
SELECT count(*), count(*) FILTER (WHERE c.s = o.s AND # c.s = # o.s) AS same FROM copies c JOIN sketches o USING (id);
SELECT count(DISTINCT s), count(*) FROM copies;

-- Bytes that are no sketch.
\set VERBOSITY sqlstate
SELECT 'hello'::hll;
SELECT ''::hll;
SELECT '\x2'::hll;
SELECT '\x20'::hll;
SELECT '\x318b7f'::hll;
SELECT '\x218b7f00'::hll;
SELECT '\x218bff'::hll;
SELECT '\x21937f'::hll;
SELECT '\x238b7f00'::hll;
SELECT '\x238b7f80'::hll;
SELECT '\x238b7f01ffffffff'::bytea::hll;
SELECT '\x238b7f0100000000'::bytea::hll;
SELECT '\x248b7f00'::bytea::hll;
SELECT '\x128b7f2222222222222222111111111111111100'::hll;
SELECT '\x128b7f22222222222222221111111111111111'::hll;
SELECT '\x138b7f00'::hll;
SELECT '\x148b7f00'::hll;
\set VERBOSITY default
SELECT '\x148b7f00'::hll;

DROP TABLE sketches, copies;
