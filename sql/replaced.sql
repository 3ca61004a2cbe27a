-- A table, target or definition that is dropped and made again under its name within one transaction stays the rollup's:
-- undistribute_table and alter_distributed_table of Citus do so.

CREATE FUNCTION remember_dropped_tables() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'rollup_ext_remember_dropped_tables'
LANGUAGE C;
COMMENT ON FUNCTION remember_dropped_tables() IS
'event trigger: notes the names of tables and views of rollups that the transaction drops';
CREATE EVENT TRIGGER rollup_ext_remember_dropped_tables ON sql_drop
    WHEN TAG IN ('DROP TABLE', 'DROP VIEW') EXECUTE FUNCTION remember_dropped_tables();
COMMENT ON EVENT TRIGGER rollup_ext_remember_dropped_tables IS
'with rollup_ext_follow_replaced_tables: rollups follow tables that are replaced within one transaction';

CREATE FUNCTION follow_replaced_tables() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'rollup_ext_follow_replaced_tables'
LANGUAGE C;
COMMENT ON FUNCTION follow_replaced_tables() IS
'event trigger: points rollups to the relation that takes the name of one that the transaction has dropped, if it belongs to their owner or a superuser';
CREATE EVENT TRIGGER rollup_ext_follow_replaced_tables ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER VIEW', 'CREATE TABLE', 'CREATE TABLE AS', 'CREATE VIEW')
    EXECUTE FUNCTION follow_replaced_tables();
COMMENT ON EVENT TRIGGER rollup_ext_follow_replaced_tables IS
'with rollup_ext_remember_dropped_tables: rollups follow tables that are replaced within one transaction';
