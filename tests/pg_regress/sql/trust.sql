-- Ids that cannot be trusted any more: restarted, unlogged, foreign and stray ones.
SET client_min_messages = warning;

-- A sequence that was restarted and has passed the position again is not one that just went on.
CREATE TABLE restarted (id bigserial, k int);
SELECT register_rollup('restarted_by_k', 'SELECT k, count(*) FROM restarted GROUP BY k');
INSERT INTO restarted (k) SELECT i % 2 FROM generate_series(1, 10) i;
SELECT window_start, window_end FROM run_rollup('restarted_by_k');
TRUNCATE restarted RESTART IDENTITY;
INSERT INTO restarted (k) SELECT i % 2 FROM generate_series(1, 25) i;
SELECT run_rollup('restarted_by_k');
SELECT last_aggregated_id FROM rollups WHERE name = 'restarted_by_k';
SELECT reset_rollup('restarted_by_k');
SELECT window_start, window_end FROM run_rollup('restarted_by_k');
SELECT * FROM restarted_by_k ORDER BY k;

-- Nor one that counted down for a while.
ALTER SEQUENCE restarted_id_seq INCREMENT -1;
INSERT INTO restarted (k) VALUES (7);
ALTER SEQUENCE restarted_id_seq INCREMENT 1;
ALTER SEQUENCE restarted_id_seq RESTART 26;
INSERT INTO restarted (k) VALUES (8);
SELECT run_rollup('restarted_by_k');
SELECT reset_rollup('restarted_by_k');
SELECT window_start, window_end FROM run_rollup('restarted_by_k');
SELECT * FROM verify_rollup('restarted_by_k');

-- One that was only altered goes on.
ALTER SEQUENCE restarted_id_seq AS bigint MAXVALUE 1000000000000;
INSERT INTO restarted (k) VALUES (8);
SELECT window_start, window_end FROM run_rollup('restarted_by_k');
SELECT drop_rollup('restarted_by_k', true);
DROP TABLE restarted;

-- Where the table was rewritten with it, only its owner knows that the events are the old ones.
CREATE TABLE rewritten (id serial, k int);
SELECT register_rollup('rewritten_total', 'SELECT count(*) FROM rewritten', target => 'rewritten_total');
INSERT INTO rewritten (k) SELECT i FROM generate_series(1, 10) i;
SELECT window_end FROM run_rollup('rewritten_total');
ALTER SEQUENCE rewritten_id_seq AS bigint;
ALTER TABLE rewritten ALTER COLUMN k TYPE bigint;
INSERT INTO rewritten (k) VALUES (1);
SELECT run_rollup('rewritten_total');
SELECT resume_rollup('rewritten_total');
SELECT window_start, window_end FROM run_rollup('rewritten_total');
SELECT * FROM verify_rollup('rewritten_total');
SELECT drop_rollup('rewritten_total', true);
DROP TABLE rewritten;

-- A crash sets an unlogged sequence back.
CREATE UNLOGGED TABLE fleeting (id bigserial, k int);
SELECT register_rollup('fleeting_total', 'SELECT count(*) FROM fleeting');
ALTER SEQUENCE fleeting_id_seq SET LOGGED;
SELECT register_rollup('fleeting_total', 'SELECT count(*) FROM fleeting');
INSERT INTO fleeting (k) VALUES (1);
ALTER TABLE fleeting SET LOGGED;
ALTER TABLE fleeting SET UNLOGGED;
SELECT run_rollup('fleeting_total');
SELECT drop_rollup('fleeting_total', true);
DROP TABLE fleeting;

-- A partition with a default of its own.
CREATE TABLE parted (id bigserial, k int, at timestamptz DEFAULT now()) PARTITION BY LIST (k);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
SELECT register_rollup('parted_total', 'SELECT count(*) FROM parted', id_sequence => 'parted_id_seq');
SELECT register_rollup('parted_recent', 'SELECT count(*) FROM parted', time_column => 'at');
INSERT INTO parted_1 (k) VALUES (1);
SELECT window_end FROM run_rollup('parted_total');
CREATE TABLE parted_2 (id bigserial, k int, at timestamptz DEFAULT '2000-01-01 00:00+00');
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES IN (2);
SELECT run_rollup('parted_total');
SELECT run_rollup('parted_recent');
ALTER TABLE parted_2 ALTER COLUMN id SET DEFAULT nextval('parted_id_seq'), ALTER COLUMN at DROP DEFAULT;
INSERT INTO parted_2 (k) VALUES (2);
SELECT window_end FROM run_rollup('parted_total');
SELECT drop_rollup('parted_total', true);
SELECT drop_rollup('parted_recent', true);
DROP TABLE parted;
