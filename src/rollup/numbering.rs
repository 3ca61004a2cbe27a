//! Events that come by logical replication: a subscriber numbers them itself, as they arrive. The ids of the publisher
//! are in the order of its sequence, and the subscriber cannot see who may still send a smaller one; those that it draws
//! itself are drawn by the transactions that insert the rows, like those of any other writer.

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::{self, Datum, Oid};

use crate::error::{Error, OrRaise, Result};
use crate::pg::call::Call;
use crate::pg::spi;
use crate::pg::varlena::varlena;
use crate::rollup::catalog;
use crate::rollup::source::{self, FAMILY};
use crate::sql_function;

sql_function!(draw_event_id, |call| draw(call).or_raise());

fn draw(call: Call) -> Result<Datum> {
    let misused = || {
        Error::new(
            ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
            "draw_event_id is a BEFORE INSERT OR UPDATE row trigger with the name of a sequence",
        )
        .hint("SELECT number_replicated_events('events'); creates it.")
    };
    let trigger = call.row_trigger().ok_or_else(misused)?;
    let name = trigger.argument().ok_or_else(misused)?;
    trigger.with_value(|| {
        let text = varlena(name.as_bytes());
        // SAFETY: functions of SQL with the arguments that their declarations say; the second one checks privileges.
        let id = unsafe {
            pgrx::direct_function_call_as_datum(pg_sys::to_regclass, &[Some(text)])
                .and_then(|sequence| pgrx::direct_function_call_as_datum(pg_sys::nextval_oid, &[Some(sequence)]))
        };
        id.map(|id| id.value() as i64).ok_or_else(|| {
            Error::new(ERRCODE_UNDEFINED_TABLE, format!("sequence \"{name}\" does not exist"))
                .detail("It numbered the events that arrive here, and was renamed, moved or dropped.")
                .hint("SELECT number_replicated_events('events', 'column'); with their names makes the trigger anew.")
        })
    })
}

/// The subscription that fills a table, one of its partitions or its parents. Called under `catalog::internally`.
pub fn subscription(source: Oid) -> Option<String> {
    let subscription = format!(
        "{FAMILY} SELECT s.subname::text FROM pg_subscription_rel sr JOIN pg_subscription s ON s.oid = sr.srsubid \
         WHERE sr.srrelid IN (SELECT oid FROM partitions UNION SELECT oid FROM parents) LIMIT 1"
    );
    spi::query_one(&subscription, &[spi::oid(Some(source))], |row| row.text(1)).flatten()
}

/// Refuses a source that a subscription fills, unless each of its rows gets a number of `sequence` here, whatever the
/// publisher sends: which columns that are cannot be seen. Called under `catalog::internally`.
pub fn check(source: Oid, column: &str, sequence: Option<Oid>) -> Result<()> {
    // 23: before, for each row, on insert and update. Replication writes into partitions directly too.
    const UNNUMBERED: &str = "
        SELECT c.oid::regclass::text FROM partitions JOIN pg_class c USING (oid)
         WHERE c.relkind = 'r' AND NOT EXISTS (
            SELECT FROM pg_trigger t JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $2
             WHERE t.tgrelid = c.oid AND t.tgfoid = '@extschema@.draw_event_id()'::regprocedure AND t.tgenabled = 'A'
               AND t.tgtype = 23 AND t.tgqual IS NULL AND t.tgnargs = 1 AND t.tgattr::text = a.attnum::text
               AND to_regclass(convert_from(substring(t.tgargs FOR length(t.tgargs) - 1), getdatabaseencoding())) = $3)
         LIMIT 1";
    let Some(subscription) = subscription(source) else { return Ok(()) };
    let args = [spi::oid(Some(source)), spi::text(Some(column)), spi::oid(sequence)];
    let query = catalog::sql(&format!("{FAMILY}{UNNUMBERED}"));
    let unnumbered = spi::query_one(&query, &args, |row| row.text(1)).flatten();
    let Some(unnumbered) = unnumbered else { return Ok(()) };
    let name = source::relation_name(source);
    Err(Error::new(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("rows of \"{unnumbered}\" come by logical replication, from subscription \"{subscription}\""),
    )
    .detail("They bring ids and times from another server, in the order of its commits.")
    .hint(format!(
        "SELECT number_replicated_events('{name}'); numbers them here, and the rollup follows that column. Or register it \
         on the publisher, and replicate its target."
    )))
}
