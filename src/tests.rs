//! Tests that look at the extension from inside the server: what the catalog says about its objects.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    /// The members of the extension that a user sees, as rows `(kind, identity, comment)`. Views and tables bring
    /// their row types along; those of no name of their own, and what lives in the tests' own schema, are left out.
    const MEMBERS: &str = "
        SELECT o.type AS kind, o.identity, obj_description(d.objid, d.classid::regclass::name) AS comment
        FROM pg_depend d
        JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
        CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) o
        WHERE d.deptype = 'e' AND e.extname = 'rollup_ext' AND o.schema IS DISTINCT FROM 'tests'
          AND o.type IN ('aggregate', 'function', 'procedure', 'operator', 'table', 'view')
          OR d.deptype = 'e' AND e.extname = 'rollup_ext' AND o.type = 'type' AND o.identity !~ '\\[\\]$'
             AND EXISTS (SELECT 1 FROM pg_type t WHERE t.oid = d.objid AND t.typrelid = 0)";

    fn lines(query: &str) -> Vec<String> {
        Spi::connect(|client| {
            client
                .select(query, None, &[])
                .expect("the catalog query runs")
                .map(|row| row.get::<String>(1).expect("a text column").unwrap_or_default())
                .collect()
        })
    }

    #[pg_test]
    fn every_object_has_a_comment() {
        let bare = lines(&format!(
            "SELECT kind || ' ' || identity FROM ({MEMBERS}) m WHERE comment IS NULL ORDER BY 1"
        ));
        assert!(bare.is_empty(), "objects without a COMMENT:\n{}", bare.join("\n"));
    }

    /// A sketch's functions depend on their arguments alone and run in parallel workers, so that a plan with a
    /// Partial Aggregate is possible; a rollup's functions read and write tables and do neither.
    #[pg_test]
    fn sketch_functions_are_parallel_safe() {
        let unsafe_ones = lines(
            "SELECT p.oid::regprocedure::text FROM pg_proc p
             JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
             JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'rollup_ext'
             WHERE p.proname ~ '^(hll|topn)' AND (p.proparallel <> 's' OR p.provolatile = 'v')
               AND p.proname !~ '_set_' ORDER BY 1",
        );
        assert!(unsafe_ones.is_empty(), "not PARALLEL SAFE or VOLATILE:\n{}", unsafe_ones.join("\n"));
    }
}
