-- n events spread evenly over a span of time, everything else independent and uniform: customers 1 to 1,000, four
-- event types, seven country slots of which China takes two, four browsers, 10,000 devices, 100,000 sessions.
-- setseed() before it makes them the same each time.
CREATE FUNCTION generate_events(n bigint, since timestamptz, until timestamptz)
RETURNS TABLE (event_time timestamptz, customer_id bigint, event_type text, country text, browser text,
               device_id bigint, session_id bigint)
LANGUAGE sql VOLATILE AS $$
    SELECT since + (until - since) * (i::float8 / n),
           1 + floor(random() * 1000)::bigint,
           (ARRAY['click', 'buy', 'scroll', 'download'])[1 + floor(random() * 4)::int],
           (ARRAY['USA', 'China', 'India', 'China', 'France', 'Germany', 'Brazil'])[1 + floor(random() * 7)::int],
           (ARRAY['Chrome', 'Firefox', 'Safari', 'Edge'])[1 + floor(random() * 4)::int],
           1 + floor(random() * 10000)::bigint,
           1 + floor(random() * 100000)::bigint
    FROM generate_series(0, n - 1) AS i
$$;
