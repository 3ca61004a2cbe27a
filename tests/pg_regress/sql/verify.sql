-- verify_rollup finds what differs, refresh_rollup puts it right.
\set VERBOSITY terse
SET client_min_messages = warning;
SET TimeZone = 'UTC';
CREATE SCHEMA verify_test;
SET search_path = verify_test, public;
\pset null -
CREATE TABLE events (id bigserial PRIMARY KEY, at timestamptz, day date, k int, v numeric, f double precision, g real, i interval);
INSERT INTO events (at, day, k, v, f, g, i) SELECT '2024-03-30 00:00+00'::timestamptz + n * interval '1 hour', '2024-03-30'::date + n / 24, n % 2, n, n / 7.0, n / 7.0, n * interval '1 day'
  FROM generate_series(0, 71) n;
SELECT register_rollup('hours', 'SELECT date_bin(''6 hours'', at, ''2000-01-01 00:00+00'') AS bin, k, count(*) AS n, sum(v) AS v FROM events GROUP BY 1, 2');
SELECT register_rollup('days', 'SELECT day, count(*) AS n, sum(v) AS v FROM events GROUP BY day');
SELECT register_rollup('totals', 'SELECT k, count(*) AS n, sum(f) AS f, sum(g) AS g, max(i) AS i FROM events GROUP BY k');
SELECT register_rollup('one', 'SELECT count(*) AS n, sum(f) AS f FROM events');
SELECT name, (SELECT count(*) FROM verify_rollup(name)) AS wrong FROM rollups ORDER BY name;
SELECT name, rows_written FROM rollups, run_rollup(name) ORDER BY name;
SELECT name, (SELECT count(*) FROM verify_rollup(name)) AS wrong FROM rollups ORDER BY name;
-- Events that the rollup has not reached are no difference.
INSERT INTO events (at, day, k, v) VALUES ('2024-03-30 00:10+00', '2024-03-30', 5, 1);
SELECT name, (SELECT count(*) FROM verify_rollup(name)) AS wrong FROM rollups ORDER BY name;

-- A group changed, one too many, one missing, events deleted and updated.
UPDATE days SET n = n + 1 WHERE day = '2024-03-30';
INSERT INTO days VALUES ('1999-01-01', 1, NULL), (NULL, 1, 1);
DELETE FROM days WHERE day = '2024-04-01';
SELECT * FROM verify_rollup('days');
SELECT * FROM verify_rollup('days', '2024-03-31', '2024-03-31 12:00+00');
SELECT * FROM verify_rollup('days', "to" => '2000-01-01');
SELECT refresh_rollup('days', '2024-03-30 13:00+00', '2024-03-30 14:00+00');
SELECT * FROM verify_rollup('days');
SELECT refresh_rollup('days');
SELECT * FROM verify_rollup('days');
DELETE FROM events WHERE at BETWEEN '2024-03-30 05:30+00' AND '2024-03-30 06:30+00';
UPDATE events SET v = -1 WHERE at = '2024-03-31 07:00+00';
SELECT * FROM verify_rollup('hours');
SELECT refresh_rollup('hours', '2024-03-30 05:30+00', '2024-03-30 06:30+00');
SELECT * FROM verify_rollup('hours');
SELECT refresh_rollup('hours', '2024-03-31 07:00+00', '2024-03-31 07:00+00');
SELECT refresh_rollup('hours', '2024-03-31 07:00+00', '2024-03-31 07:00:01+00');
SELECT * FROM verify_rollup('hours');
-- All events of a group gone: the group goes.
DELETE FROM events WHERE at < '2024-03-30 06:00+00' AND k = 1;
SELECT refresh_rollup('hours', "to" => '2024-03-30 06:00+00');
SELECT * FROM verify_rollup('hours');
SELECT count(*) FROM hours WHERE bin = '2024-03-30 00:00+00';
-- The run after it continues where it was.
SELECT rows_written FROM run_rollup('hours');
SELECT * FROM verify_rollup('hours');
SELECT refresh_rollup('totals', '2024-03-30');
SELECT verify_rollup('one', '2024-03-30');

-- Floating point: the last digits depend on the order, the others do not.
SELECT refresh_rollup('totals'), refresh_rollup('one');
UPDATE totals SET f = f * (1 + 1e-13), g = g * (1 + 1e-5);
SELECT * FROM verify_rollup('totals');
UPDATE totals SET f = f * (1 + 1e-6) WHERE k = 0;
UPDATE totals SET g = NULL WHERE k = 1;
UPDATE one SET f = f + 1;
SELECT group_key, in_rollup ->> 'g' IS NULL AS g_missing FROM verify_rollup('totals');
SELECT count(*) FROM verify_rollup('one');
SELECT refresh_rollup('totals'), refresh_rollup('one');
INSERT INTO events (k, f, g) SELECT k, f, g FROM (VALUES (0, 1e300, 1), (1, 'NaN', 'Infinity'), (2, '-Infinity', 1e-40)) t (k, f, g);
INSERT INTO events (k, f, g) VALUES (3, 1e300, 1e38), (4, 1e-300, 0), (5, NULL, NULL);
SELECT rows_written FROM run_rollup('totals');
SELECT * FROM verify_rollup('totals');
SELECT k, f FROM totals WHERE k > 0 ORDER BY k;
-- An aggregate of no events differs from none.
DELETE FROM one;
SELECT count(*) FROM verify_rollup('one');

-- Keys that are equal and look different are one group.
CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE words (id bigserial, word text COLLATE caseless, amount numeric, span interval, j jsonb);
SELECT register_rollup('words_rollup', 'SELECT word, amount, span, j, count(*) AS n FROM words GROUP BY word, amount, span, j');
INSERT INTO words (word, amount, span, j) VALUES ('abc', 1.0, '1 month', '{"a": 1}');
SELECT rows_written FROM run_rollup('words_rollup');
INSERT INTO words (word, amount, span, j) VALUES ('ABC', 1.00, '30 days', '{"a": 1.0}');
SELECT rows_written FROM run_rollup('words_rollup');
DELETE FROM words WHERE id = 1;
INSERT INTO words (id, word, amount, span, j) VALUES (1, 'Abc', 1.000, '30 days', '{"a": 1.00}');
TABLE words_rollup;
SELECT * FROM verify_rollup('words_rollup');
-- Names of columns that the comparison could trip over.
SELECT register_rollup('names', 'SELECT k AS key, day AS measures, at AS stored, count(*) AS fresh, sum(v) AS groups, count(f) AS "it''s" FROM events GROUP BY 1, 2, 3');
SELECT rows_written > 0 FROM run_rollup('names');
SELECT * FROM verify_rollup('names');
UPDATE names SET "it's" = -1 WHERE stored = '2024-03-31 00:00+00';
SELECT * FROM verify_rollup('names');
-- A time range in another zone means the same moments.
SET TimeZone = 'Asia/Tokyo';
SELECT * FROM verify_rollup('hours', '2024-03-30 09:00+09', '2024-03-30 15:00+09');
SELECT refresh_rollup('hours', '2024-03-31 09:00', '2024-03-31 15:00');
RESET TimeZone;
SELECT count(drop_rollup(name)) FROM rollups;
DROP SCHEMA verify_test CASCADE;
