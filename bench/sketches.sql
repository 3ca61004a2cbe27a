-- What the sketch benchmarks run over. Tables of sketches exist twice, in the schemas ours and peer, so that the same
-- SQL text runs on either under its search_path.

CREATE SCHEMA peer;
CREATE EXTENSION hll SCHEMA peer;
CREATE SCHEMA ours;

-- The workshop's events over 2 hours: about 1.3 million five-minute groups of one or two.
SELECT setseed(0.42);
CREATE TABLE workshop AS
SELECT date_bin('5 minutes', event_time, 'epoch') AS minute, customer_id, event_type, country, browser, device_id, session_id
FROM generate_events(:events, '2020-01-01 00:00+00', '2020-01-01 02:00+00');

-- Skewed events over 24 hours: few customers and devices have most of them.
SELECT setseed(0.43);
CREATE TABLE skewed AS
SELECT date_bin('5 minutes', event_time, 'epoch') AS minute, date_bin('1 hour', event_time, 'epoch') AS hour,
       1 + floor(1000 * random() ^ 3)::bigint AS customer_id, event_type,
       1 + floor(10000 * random() ^ 3)::bigint AS device_id, session_id
FROM generate_events(:skewed, '2020-01-01 00:00+00', '2020-01-02 00:00+00');

SET search_path = public;
CREATE TABLE ours.small AS SELECT hll_add_agg(hll_hash_bigint(device_id)) AS sketch
    FROM workshop GROUP BY customer_id, event_type, country, browser, minute;
CREATE TABLE ours.dense AS SELECT hll_add_agg(hll_hash_bigint(g * 10000 + i)) AS sketch
    FROM generate_series(1, 10000) g, generate_series(1, 5000) i GROUP BY g;
CREATE TABLE ours.top AS SELECT topn_add_agg(device_id::text) AS top FROM skewed GROUP BY customer_id, event_type, hour;

SET search_path = peer, public;
CREATE TABLE peer.small AS SELECT hll_add_agg(hll_hash_bigint(device_id)) AS sketch
    FROM workshop GROUP BY customer_id, event_type, country, browser, minute;
CREATE TABLE peer.dense AS SELECT hll_add_agg(hll_hash_bigint(g * 10000 + i)) AS sketch
    FROM generate_series(1, 10000) g, generate_series(1, 5000) i GROUP BY g;

VACUUM ANALYZE;
