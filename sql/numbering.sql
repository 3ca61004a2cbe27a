-- Events that come by logical replication get ids of this server as they arrive.

CREATE FUNCTION draw_event_id() RETURNS trigger
AS 'MODULE_PATHNAME', 'rollup_ext_draw_event_id'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION draw_event_id() IS
'trigger of number_replicated_events: the next number of the sequence in its argument takes the place of whatever a new row brings; an update keeps it';

CREATE FUNCTION number_replicated_events(source regclass, id_column name DEFAULT 'event_id') RETURNS regclass
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $$
DECLARE
    kind     record;
    given    record;
    sequence text;
    part     record;
    stray    boolean;
BEGIN
    IF source IS NULL OR id_column IS NULL THEN
        RAISE EXCEPTION 'source and id_column must not be NULL' USING ERRCODE = 'null_value_not_allowed',
            HINT = 'SELECT number_replicated_events(''events'');';
    END IF;
    SELECT c.relkind, c.relispartition INTO kind FROM pg_class c WHERE c.oid = source;
    IF kind.relkind NOT IN ('r', 'p') OR kind.relispartition THEN
        RAISE EXCEPTION '"%" is not a table of its own', source USING ERRCODE = 'wrong_object_type',
            HINT = 'Name the event table, of partitions the one that they belong to.';
    END IF;
    -- Whoever writes now has no number for it.
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', source);
    SELECT a.atttypid, a.attidentity INTO given FROM pg_attribute a
     WHERE a.attrelid = source AND a.attname = id_column AND a.attnum > 0 AND NOT a.attisdropped;
    IF NOT FOUND THEN
        EXECUTE format('ALTER TABLE %s ADD COLUMN %I bigserial', source, id_column);
    ELSIF given.atttypid <> 'bigint'::regtype OR given.attidentity <> ''
          OR pg_get_serial_sequence(source::text, id_column) IS NULL THEN
        RAISE EXCEPTION 'column "%" of "%" is not a bigserial', id_column, source USING ERRCODE = 'datatype_mismatch',
            HINT = format('Name a new one: SELECT number_replicated_events(%L, ''arrival_id'');', source);
    END IF;
    sequence := pg_get_serial_sequence(source::text, id_column);
    EXECUTE format('SELECT EXISTS (SELECT FROM %s t, %s s WHERE (t.%I > s.last_value OR NOT s.is_called OR t.%3$I IS NULL))',
                   source, sequence, id_column) INTO stray;
    IF stray THEN
        RAISE EXCEPTION 'column "%" of "%" has ids that sequence "%" has not drawn', id_column, source, sequence
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'They came from elsewhere.',
            HINT = format('Name a new column: SELECT number_replicated_events(%L, ''arrival_id'');', source);
    END IF;
    -- The trigger alone draws: a default would draw too, for rows that get another number then.
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP DEFAULT', source, id_column);
    -- Partitions get it from their parents, those that come later too; inheritance children do not.
    FOR part IN
        WITH RECURSIVE tree (oid) AS (
            SELECT source::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree t ON i.inhparent = t.oid)
        SELECT c.oid::regclass AS name, c.relispartition AS is_partition FROM tree JOIN pg_class c USING (oid)
         WHERE c.relkind IN ('r', 'p') ORDER BY c.relispartition
    LOOP
        IF NOT part.is_partition THEN
            EXECUTE format('DROP TRIGGER IF EXISTS rollup_event_id ON %s', part.name);
            EXECUTE format('CREATE TRIGGER rollup_event_id BEFORE INSERT OR UPDATE OF %I ON %s FOR EACH ROW '
                           'EXECUTE FUNCTION @extschema@.draw_event_id(%L)', id_column, part.name, sequence);
        END IF;
        -- Replication fires no others.
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER rollup_event_id', part.name);
    END LOOP;
    RETURN sequence::regclass;
END $$;
COMMENT ON FUNCTION number_replicated_events(regclass, name) IS
'has the rows that a subscription brings into an event table numbered here, as they arrive, in a column of their own that is created if need be; returns its sequence, which rollups can follow';
