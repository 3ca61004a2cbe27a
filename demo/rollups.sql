-- Both rollups of the workshop, each from its query. The psql variable `options` adds arguments: schedule, batch_size.

SELECT register_rollup('rollup_events_5min', $$
    SELECT customer_id, event_type, country, browser,
           date_bin('5 minutes', event_time, 'epoch') AS minute,
           count(*) AS event_count,
           hll_add_agg(hll_hash_bigint(device_id)) AS device_distinct_count,
           hll_add_agg(hll_hash_bigint(session_id)) AS session_distinct_count,
           topn_add_agg(device_id::text) AS top_devices_1000
    FROM events
    GROUP BY 1, 2, 3, 4, 5 $$ :options);

SELECT register_rollup('rollup_events_1hr', $$
    SELECT customer_id, event_type, country, browser,
           date_bin('1 hour', event_time, 'epoch') AS hour,
           count(*) AS event_count,
           hll_add_agg(hll_hash_bigint(device_id)) AS device_distinct_count,
           hll_add_agg(hll_hash_bigint(session_id)) AS session_distinct_count,
           topn_add_agg(device_id::text) AS top_devices_1000
    FROM events
    GROUP BY 1, 2, 3, 4, 5 $$ :options);
