//! Tables that another one takes the place of: Citus undistributes a table, or distributes it anew, by filling a copy,
//! dropping the table and giving the copy its name, all in one transaction. The views on it are dropped and made again.

use std::cell::RefCell;

use pgrx::pg_sys::Oid;

use crate::pg::{session, spi};
use crate::rollup::{catalog, nodes};
use crate::sql_function;

/// A table or view of a rollup that the current transaction has dropped.
struct Dropped {
    transaction: u32,
    oid: Oid,
    /// Qualified and quoted.
    name: String,
}

thread_local! {
    static DROPPED: RefCell<Vec<Dropped>> = const { RefCell::new(Vec::new()) };
}

sql_function!(remember_dropped_tables, |call| {
    const OURS: &str = "
        SELECT d.objid, d.object_identity FROM pg_event_trigger_dropped_objects() d
         WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0
           AND EXISTS (SELECT FROM @extschema@.rollups r WHERE d.objid IN (r.source, r.definition, r.target, r.live_view))";
    let transaction = session::transaction();
    let found = catalog::internally(|| spi::query(&catalog::sql(OURS), &[], |row| (row.oid(1), row.text(2))));
    DROPPED.with_borrow_mut(|dropped| {
        dropped.retain(|before| before.transaction == transaction);
        for (oid, name) in found {
            if let (Some(oid), Some(name)) = (oid, name) {
                dropped.push(Dropped { transaction, oid, name });
            }
        }
    });
    call.null()
});

sql_function!(follow_replaced_tables, |call| {
    let dropped = DROPPED.take();
    let transaction = session::transaction();
    let left = dropped.into_iter().filter(|d| d.transaction == transaction && !follow(d)).collect();
    DROPPED.set(left);
    call.null()
});

/// Whether another relation has the name now, and the rollups have it. One of another owner is not theirs: it may run
/// code of that owner. A definition runs as the rollup's owner, so it has to belong to that role itself.
fn follow(dropped: &Dropped) -> bool {
    const SUCCESSOR: &str = "
        SELECT c.oid, c.relowner FROM pg_class c
         WHERE c.oid = to_regclass($2) AND NOT EXISTS (SELECT FROM pg_class old WHERE old.oid = $1)";
    const FOLLOW: &str = "
        UPDATE @extschema@.rollups r
           SET source = CASE WHEN r.source = $1 THEN $2 ELSE r.source::oid END,
               definition = CASE WHEN r.definition = $1 THEN $2 ELSE r.definition::oid END,
               target = CASE WHEN r.target = $1 THEN $2 ELSE r.target::oid END,
               live_view = CASE WHEN r.live_view = $1 THEN $2 ELSE r.live_view::oid END
         WHERE $1 IN (r.source, r.definition, r.target, r.live_view)
           AND (r.owner = $3
                OR $1 IN (r.source, r.target) AND EXISTS (SELECT FROM pg_roles WHERE oid = $3 AND rolsuper))
        RETURNING r.name, r.source = $2";
    catalog::internally(|| {
        let args = [spi::oid(Some(dropped.oid)), spi::text(Some(&dropped.name))];
        let successor = spi::query_one(SUCCESSOR, &args, |row| (row.oid(1), row.oid(2)));
        let Some((Some(successor), Some(owner))) = successor else { return false };
        let args = [spi::oid(Some(dropped.oid)), spi::oid(Some(successor)), spi::oid(Some(owner))];
        let moved = spi::query(&catalog::sql(FOLLOW), &args, |row| (row.text(1), row.boolean(2)));
        for (name, _) in moved.iter().filter(|(_, is_source)| *is_source) {
            // What other nodes have inserted before is found by their positions from now on.
            nodes::keep_positions(name.as_deref().unwrap_or_default());
        }
        !moved.is_empty()
    })
}
