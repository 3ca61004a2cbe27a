\pset footer off
\echo '-- the total number of events and count of distinct devices in the last 15 minutes'
\timing on
SELECT sum(event_count) num_events,
      ceil(hll_cardinality(hll_union_agg(device_distinct_count))) distinct_devices
FROM rollup_events_5min
WHERE minute >=now()-interval '15 minutes'
  AND minute <=now();

\timing off
\echo
\echo '-- the count of distinct sessions over the past week'
\timing on
SELECT sum(event_count) num_events,
        ceil(hll_cardinality(hll_union_agg(device_distinct_count))) distinct_devices
FROM rollup_events_1hr
WHERE hour >=date_trunc('day',now())-interval '7 days'
    AND hour <=now();

\timing off
\echo
\echo '-- the trend of app usage in the past 2 days, broken down by hour'
\timing on
SELECT hour,
        sum(event_count) event_count,
        ceil(hll_cardinality(hll_union_agg(device_distinct_count))) device_count,
        ceil(hll_cardinality(hll_union_agg(session_distinct_count))) session_count
FROM rollup_events_1hr
WHERE hour >=date_trunc('day',now())-interval '2 days'
    AND hour <=now()
GROUP BY hour;

\timing off
\echo
\echo '-- the total number of events and count of distinct devices in the last 15 minutes for customer_id=1'
\timing on
SELECT sum(event_count) num_events,
    ceil(hll_cardinality(hll_union_agg(device_distinct_count))) distinct_devices
FROM rollup_events_5min
WHERE minute >=now()-interval '15 minutes'
    AND minute <=now()
    AND customer_id=1;

\timing off
\echo
\echo '-- the top devices in the past 30 minutes for customer 2'
\timing on
SELECT (topn(topn_union_agg(top_devices_1000), 10)).item device_id
FROM rollup_events_5min
WHERE minute >=date_trunc('day',now())-interval '30 minutes'
    AND minute <=now()
    AND customer_id=2;
