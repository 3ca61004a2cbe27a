-- Events that come from elsewhere are numbered here, whatever they bring.
SET client_min_messages = warning;
CREATE TABLE arrivals (k int);
INSERT INTO arrivals SELECT generate_series(1, 3);
SELECT number_replicated_events('arrivals');
INSERT INTO arrivals VALUES (4);
INSERT INTO arrivals (k, event_id) VALUES (5, 99), (6, NULL);
UPDATE arrivals SET event_id = 100, k = k + 10 WHERE k = 5;
UPDATE arrivals SET k = 7 WHERE k = 6;
-- As replication writes: its role fires no other triggers.
SET session_replication_role = replica;
INSERT INTO arrivals (k, event_id) VALUES (8, 1);
COPY arrivals (k, event_id) FROM stdin;
9	1
10	2
\.
RESET session_replication_role;
SELECT * FROM arrivals ORDER BY event_id;
SELECT register_rollup('of_arrivals', 'SELECT count(*) FROM arrivals');
SELECT * FROM run_rollup('of_arrivals');
-- Once more is no change, but for names that changed.
SELECT number_replicated_events('arrivals');
ALTER SEQUENCE arrivals_event_id_seq RENAME TO "Arrivals' numbers";
ALTER TABLE arrivals RENAME event_id TO "Number";
INSERT INTO arrivals VALUES (11);
SELECT number_replicated_events('arrivals', 'Number');
INSERT INTO arrivals VALUES (11);
SELECT max("Number") FROM arrivals;
SELECT rows_written FROM run_rollup('of_arrivals');
SELECT * FROM verify_rollup('of_arrivals');
SELECT drop_rollup('of_arrivals', true);

-- Partitions at any depth, also those that come later, and inheritance children when they are asked for.
CREATE TABLE parts (k int) PARTITION BY RANGE (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10) PARTITION BY LIST (k);
CREATE TABLE parts_1_1 PARTITION OF parts_1 DEFAULT;
CREATE TABLE parents (k int);
CREATE TABLE children () INHERITS (parents);
SELECT number_replicated_events('parts', 'n'), number_replicated_events('parents', 'n');
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
CREATE TABLE parts_3 (n bigint NOT NULL, k int);
ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (20) TO (30);
SELECT tgrelid::regclass, tgenabled, tgattr FROM pg_trigger WHERE tgname = 'rollup_event_id' ORDER BY 1;
INSERT INTO parts (k, n) VALUES (1, 70), (11, 70), (21, 70);
INSERT INTO parts_3 (k) VALUES (22);
INSERT INTO children VALUES (1);
INSERT INTO parents VALUES (2);
SELECT tableoid::regclass, * FROM parts UNION ALL SELECT tableoid::regclass, * FROM parents ORDER BY 1, 3;

-- What cannot be numbered so.
CREATE TABLE identities (a bigint GENERATED ALWAYS AS IDENTITY, b serial, c bigint, d bigserial);
INSERT INTO identities (d) VALUES (7);
SELECT number_replicated_events(NULL);
SELECT number_replicated_events('parts_2');
CREATE VIEW parts_view AS SELECT * FROM parts;
SELECT number_replicated_events('parts_view');
SELECT number_replicated_events('identities', 'a');
SELECT number_replicated_events('identities', 'b');
SELECT number_replicated_events('identities', 'c');
SELECT number_replicated_events('identities', 'd');
SELECT setval('identities_d_seq', 7);
SELECT number_replicated_events('identities', 'd');
INSERT INTO identities (d) VALUES (1);
SELECT d FROM identities ORDER BY d;
CREATE ROLE numbering_other;
GRANT INSERT ON identities TO numbering_other;
GRANT USAGE ON SEQUENCE identities_a_seq, identities_b_seq TO numbering_other;
SET ROLE numbering_other;
SELECT number_replicated_events('identities');
-- The trigger is no way to draw from a sequence that one may not use.
INSERT INTO identities (d) VALUES (1);
RESET ROLE;
SELECT draw_event_id();
CREATE TRIGGER after_all AFTER INSERT ON identities FOR EACH ROW EXECUTE FUNCTION draw_event_id('identities_d_seq');
INSERT INTO identities (d) VALUES (1);
DROP TRIGGER after_all ON identities;
CREATE TRIGGER any_column BEFORE INSERT ON identities FOR EACH ROW EXECUTE FUNCTION draw_event_id('identities_d_seq');
INSERT INTO identities (d) VALUES (1);
DROP TABLE arrivals, parts, parents, children, identities CASCADE;
DROP ROLE numbering_other;
