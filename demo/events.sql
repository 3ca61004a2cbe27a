-- The workshop's event table.

CREATE TABLE events (
    event_id    bigserial,
    event_time  timestamptz NOT NULL DEFAULT now(),
    customer_id bigint,
    event_type  text,
    country     text,
    browser     text,
    device_id   bigint,
    session_id  bigint
) PARTITION BY RANGE (event_time);

-- One partition an hour, from yesterday to a few hours from now.
DO $$
BEGIN
    FOR i IN -26 .. 6 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF events FOR VALUES FROM (%L) TO (%L)',
            'events_' || to_char(date_trunc('hour', now()) + i * interval '1 hour', 'YYYY_MM_DD_HH24'),
            date_trunc('hour', now()) + i * interval '1 hour',
            date_trunc('hour', now()) + (i + 1) * interval '1 hour');
    END LOOP;
END $$;
