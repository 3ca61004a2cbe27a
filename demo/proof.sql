-- Each rollup against an exact recomputation from all events, group by group: keys, counts, both sketches, top devices.
-- One row: rollup, groups, events in them, groups that are missing, surplus or different.

WITH recomputed AS (
    SELECT customer_id, event_type, country, browser, date_bin('5 minutes', event_time, 'epoch') AS minute,
           count(*) AS event_count,
           hll_add_agg(hll_hash_bigint(device_id)) AS device_distinct_count,
           hll_add_agg(hll_hash_bigint(session_id)) AS session_distinct_count,
           topn_add_agg(device_id::text) AS top_devices_1000
    FROM events GROUP BY 1, 2, 3, 4, 5)
SELECT 'rollup_events_5min', count(*), sum(r.event_count),
       count(*) FILTER (WHERE r.event_count IS DISTINCT FROM e.event_count
           OR r.device_distinct_count IS DISTINCT FROM e.device_distinct_count
           OR r.session_distinct_count IS DISTINCT FROM e.session_distinct_count
           OR r.top_devices_1000 IS DISTINCT FROM e.top_devices_1000)
FROM rollup_events_5min r FULL JOIN recomputed e USING (customer_id, event_type, country, browser, minute);

WITH recomputed AS (
    SELECT customer_id, event_type, country, browser, date_bin('1 hour', event_time, 'epoch') AS hour,
           count(*) AS event_count,
           hll_add_agg(hll_hash_bigint(device_id)) AS device_distinct_count,
           hll_add_agg(hll_hash_bigint(session_id)) AS session_distinct_count,
           topn_add_agg(device_id::text) AS top_devices_1000
    FROM events GROUP BY 1, 2, 3, 4, 5)
SELECT 'rollup_events_1hr', count(*), sum(r.event_count),
       count(*) FILTER (WHERE r.event_count IS DISTINCT FROM e.event_count
           OR r.device_distinct_count IS DISTINCT FROM e.device_distinct_count
           OR r.session_distinct_count IS DISTINCT FROM e.session_distinct_count
           OR r.top_devices_1000 IS DISTINCT FROM e.top_devices_1000)
FROM rollup_events_1hr r FULL JOIN recomputed e USING (customer_id, event_type, country, browser, hour);
