-- A table that is dropped and made again within one transaction stays the rollup's, as Citus does it to distribute a
-- table anew.
CREATE TABLE swapped (id bigserial, k int);
SELECT register_rollup('by_k', 'SELECT k, count(*) AS events FROM swapped GROUP BY 1');
INSERT INTO swapped (k) SELECT i % 3 FROM generate_series(1, 30) i;
SELECT * FROM run_rollup('by_k');

-- The events, and with them the definition.
BEGIN;
CREATE TABLE copy (LIKE swapped INCLUDING ALL);
INSERT INTO copy SELECT * FROM swapped;
ALTER SEQUENCE swapped_id_seq OWNED BY copy.id;
DROP TABLE swapped CASCADE;
ALTER TABLE copy RENAME TO swapped;
CREATE VIEW by_k_definition AS SELECT k, count(*) AS events FROM swapped GROUP BY k;
COMMIT;
INSERT INTO swapped (k) VALUES (1);
SELECT * FROM run_rollup('by_k');
SELECT * FROM by_k ORDER BY k;
SELECT * FROM verify_rollup('by_k');

-- The target.
BEGIN;
CREATE TABLE copy (LIKE by_k INCLUDING ALL);
INSERT INTO copy SELECT * FROM by_k;
DROP TABLE by_k;
ALTER TABLE copy RENAME TO by_k;
COMMIT;
INSERT INTO swapped (k) VALUES (1);
SELECT * FROM run_rollup('by_k');
SELECT * FROM by_k ORDER BY k;

-- Not what was undone, nor what comes later, nor another one.
BEGIN;
SAVEPOINT s;
DROP TABLE by_k;
CREATE TABLE by_k (k int, events bigint);
ROLLBACK TO s;
CREATE TABLE other (k int);
COMMIT;
SELECT target FROM rollups WHERE name = 'by_k';
BEGIN;
DROP TABLE by_k;
COMMIT;
CREATE TABLE by_k (k int, events bigint);
INSERT INTO swapped (k) VALUES (1);
SELECT * FROM run_rollup('by_k');
SELECT drop_rollup('by_k');
DROP TABLE by_k, other;

-- Nor what belongs to somebody else, whose code the owner of the rollup would run.
CREATE ROLE rollup_replacer;
GRANT CREATE ON SCHEMA public TO rollup_replacer;
SELECT register_rollup('by_k', 'SELECT k, count(*) AS events FROM swapped GROUP BY 1');
BEGIN;
DROP TABLE by_k;
SET ROLE rollup_replacer;
CREATE TABLE by_k (k int UNIQUE NULLS NOT DISTINCT, events bigint);
RESET ROLE;
COMMIT;
SELECT * FROM run_rollup('by_k');
SELECT drop_rollup('by_k');
DROP TABLE by_k, swapped;
REVOKE CREATE ON SCHEMA public FROM rollup_replacer;
DROP ROLE rollup_replacer;
