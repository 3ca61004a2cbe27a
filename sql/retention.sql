-- Getting rid of old events without losing any that a rollup has not aggregated yet.

CREATE FUNCTION rollups_behind("partition" regclass) RETURNS SETOF text
AS 'MODULE_PATHNAME', 'rollup_ext_rollups_behind'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION rollups_behind(regclass) IS
'the rollups that have not aggregated every row of an event table or of one of its partitions, as far as rows are committed; for its owner';

CREATE FUNCTION rollup_partition_end("partition" regclass) RETURNS timestamptz
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET DateStyle = 'ISO'
AS $$
    -- Only the bound of a RANGE over a time, and only one that ends.
    SELECT CASE k.atttypid
           WHEN 'timestamptz'::regtype THEN b.upper::timestamptz
           WHEN 'timestamp'::regtype THEN b.upper::timestamp::timestamptz
           WHEN 'date'::regtype THEN b.upper::date::timestamptz END
      FROM pg_class c
      JOIN pg_inherits i ON i.inhrelid = c.oid
      JOIN pg_partitioned_table p ON p.partrelid = i.inhparent AND p.partstrat = 'r' AND p.partnatts = 1
      JOIN pg_attribute k ON k.attrelid = p.partrelid AND k.attnum = p.partattrs[0]
     CROSS JOIN LATERAL (SELECT (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]) AS b(upper)
     WHERE c.oid = $1
$$;
COMMENT ON FUNCTION rollup_partition_end(regclass) IS
'where a partition by time ends: the upper bound of its range; NULL for every other partition';

CREATE FUNCTION drop_rolled_up_partitions(source regclass, older_than timestamptz, detach boolean DEFAULT false)
RETURNS SETOF text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part       record;
    behind     text;
    candidates text[] := '{}';
    candidate  text;
    patience   CONSTANT text := current_setting('lock_timeout');
BEGIN
    IF source IS NULL OR older_than IS NULL THEN
        RAISE EXCEPTION 'source and older_than must not be NULL' USING ERRCODE = 'null_value_not_allowed',
            HINT = 'SELECT * FROM drop_rolled_up_partitions(''events'', interval ''30 days'');';
    END IF;
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'partitions cannot be dropped safely in a transaction above READ COMMITTED'
            USING ERRCODE = 'invalid_transaction_state',
            DETAIL = 'Its snapshot does not show the rows of writers that ended since.',
            HINT = 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED;';
    END IF;
    IF NOT EXISTS (SELECT FROM @extschema@.rollups r WHERE r.source = drop_rolled_up_partitions.source) THEN
        RAISE EXCEPTION 'no rollup of yours aggregates "%"', source USING ERRCODE = 'undefined_object',
            HINT = 'Name the event table of a rollup, not a partition of it; DROP TABLE drops without looking.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_partitioned_table p
                     JOIN pg_attribute k ON k.attrelid = p.partrelid AND k.attnum = p.partattrs[0]
                    WHERE p.partrelid = source AND p.partstrat = 'r' AND p.partnatts = 1
                      AND k.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)) THEN
        RAISE EXCEPTION '"%" is not partitioned by ranges of time', source USING ERRCODE = 'feature_not_supported',
            HINT = 'SELECT * FROM rollups_behind(''partition''); tells whether one can be dropped by hand.';
    END IF;

    -- Reading may take long: without a lock at first, so that what is locked later is read in a moment.
    FOR part IN
        SELECT i.inhrelid::regclass AS name FROM pg_inherits i
         WHERE i.inhparent = source AND @extschema@.rollup_partition_end(i.inhrelid) <= older_than
         ORDER BY @extschema@.rollup_partition_end(i.inhrelid)
    LOOP
        SELECT string_agg(quote_ident(b), ', ') INTO behind FROM @extschema@.rollups_behind(part.name) b;
        IF behind IS NULL THEN
            candidates := candidates || part.name::text;
        ELSE
            RAISE NOTICE 'kept partition "%": not all of its events are aggregated', part.name
                USING DETAIL = format('Behind: %s.', behind), HINT = 'SELECT * FROM rollup_status; shows why.';
        END IF;
    END LOOP;

    FOREACH candidate IN ARRAY candidates LOOP
        BEGIN
            -- Writers queue behind this lock: be quick or give up. Once it is there, none of them is in flight.
            PERFORM set_config('lock_timeout', '200ms', true);
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', candidate);
            SELECT string_agg(quote_ident(b), ', ') INTO behind FROM @extschema@.rollups_behind(candidate::regclass) b;
            IF behind IS NOT NULL THEN
                RAISE lock_not_available;
            ELSIF detach THEN
                EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', source, candidate);
            ELSE
                EXECUTE format('DROP TABLE %s', candidate);
            END IF;
            RETURN NEXT candidate;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            RAISE NOTICE 'kept partition "%": somebody is using it', candidate
                USING HINT = 'The next call tries again.';
        END;
        PERFORM set_config('lock_timeout', patience, true);
    END LOOP;
END $$;
COMMENT ON FUNCTION drop_rolled_up_partitions(regclass, timestamptz, boolean) IS
'drops (or detaches) the partitions by time that end at or before a moment and whose every row all rollups of the table have aggregated; returns their names, and says in a NOTICE what it kept and why';

CREATE FUNCTION drop_rolled_up_partitions(source regclass, older_than interval, detach boolean DEFAULT false)
RETURNS SETOF text
LANGUAGE sql
AS $$ SELECT @extschema@.drop_rolled_up_partitions(source, pg_catalog.now() OPERATOR(pg_catalog.-) older_than, detach) $$;
COMMENT ON FUNCTION drop_rolled_up_partitions(regclass, interval, boolean) IS
'the same, for partitions that ended at least this long ago';

-- Events that leave before they are aggregated are lost to the rollup for ever, a refused command can be repeated:
-- so dropping or detaching a partition by hand (or by pg_partman) is refused while a rollup is behind.
CREATE FUNCTION guard_partitions() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'rollup_ext_guard_partitions'
LANGUAGE C;
COMMENT ON FUNCTION guard_partitions() IS
'event trigger: refuses to drop or detach a partition that a rollup has not aggregated (with rollup_ext.guard_partitions = off: warns), and warns when one is attached whose events a rollup takes for aggregated';
CREATE EVENT TRIGGER rollup_ext_guard_partitions ON ddl_command_start
    WHEN TAG IN ('DROP TABLE', 'ALTER TABLE') EXECUTE FUNCTION guard_partitions();
COMMENT ON EVENT TRIGGER rollup_ext_guard_partitions IS
'keeps partitions that a rollup has not aggregated; see rollup_ext.guard_partitions';

CREATE FUNCTION rollup_source_changed() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    cure CONSTANT text := CASE TG_OP
        WHEN 'TRUNCATE' THEN 'SELECT reset_rollup(...); starts its rollups again from the beginning.'
        ELSE 'SELECT refresh_rollup(...); recomputes the buckets of the rows, verify_rollup(...) shows them.' END;
BEGIN
    IF TG_ARGV[0] OPERATOR(pg_catalog.=) 'refuse' THEN
        RAISE EXCEPTION '% of events in "%" is refused', TG_OP, TG_RELID::pg_catalog.regclass
            USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'Rollups have aggregated them, and would not notice.',
            HINT = pg_catalog.format('SELECT guard_rollup_source(%L, ''off''); allows it. Afterwards, %s',
                                     TG_RELID::pg_catalog.regclass, cure);
    END IF;
    RAISE WARNING '% of events in "%": what rollups have aggregated of them stays as it is', TG_OP, TG_RELID::pg_catalog.regclass
        USING HINT = cure;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION rollup_source_changed() IS 'trigger of guard_rollup_source';

CREATE FUNCTION guard_rollup_source(source regclass, action text DEFAULT 'warn') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $$
DECLARE
    part regclass;
BEGIN
    IF action IS NULL OR action NOT IN ('warn', 'refuse', 'off') THEN
        RAISE EXCEPTION 'action must be warn, refuse or off, not %', COALESCE(action, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'SELECT guard_rollup_source(''events'', ''refuse'');';
    END IF;
    -- A statement's triggers are those of the table it names, so every partition has its own.
    FOR part IN
        WITH RECURSIVE tree (oid) AS (
            SELECT source::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree t ON i.inhparent = t.oid)
        SELECT oid FROM tree
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS rollup_source_guard ON %s', part);
        IF action <> 'off' THEN
            EXECUTE format('CREATE TRIGGER rollup_source_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
                           'FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.rollup_source_changed(%L)', part, action);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION guard_rollup_source(regclass, text) IS
'has UPDATE, DELETE and TRUNCATE of an event table and its present partitions warn or be refused; off takes the guard away';
