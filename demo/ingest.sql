INSERT INTO events (event_time, customer_id, event_type, country, browser, device_id, session_id)
SELECT clock_timestamp(), customer_id, event_type, country, browser, device_id, session_id
FROM generate_events(100, now(), now());
