//! Row triggers: what a BEFORE INSERT OR UPDATE trigger is told, and the row that it puts in place of the new one.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum};
use pgrx::{PgSqlErrorCode, is_a};

use super::call::Call;
use super::session::to_string;
use crate::error::{Error, Result};

/// A call for a row that is about to be inserted or updated.
pub struct RowTrigger(*mut pg_sys::TriggerData);

impl Call {
    /// What called this function, if it is such a trigger.
    pub fn row_trigger(self) -> Option<RowTrigger> {
        const BEFORE_ROW: u32 = pg_sys::TRIGGER_EVENT_BEFORE | pg_sys::TRIGGER_EVENT_ROW;
        const KIND: u32 = pg_sys::TRIGGER_EVENT_TIMINGMASK | pg_sys::TRIGGER_EVENT_ROW;
        // SAFETY: the context of a trigger's call is a TriggerData, as its tag says.
        unsafe {
            let context = (*self.frame()).context;
            if context.is_null() || !is_a(context, pg_sys::NodeTag::T_TriggerData) {
                return None;
            }
            let data = context as *mut pg_sys::TriggerData;
            let event = (*data).tg_event;
            let writes = matches!(
                event & pg_sys::TRIGGER_EVENT_OPMASK,
                pg_sys::TRIGGER_EVENT_INSERT | pg_sys::TRIGGER_EVENT_UPDATE
            );
            (event & KIND == BEFORE_ROW && writes).then_some(RowTrigger(data))
        }
    }
}

impl RowTrigger {
    /// Its only argument.
    pub fn argument(&self) -> Option<String> {
        // SAFETY: the trigger of a live call, with as many C strings as it says.
        unsafe {
            let trigger = &*(*self.0).tg_trigger;
            (trigger.tgnargs == 1).then(|| to_string(CStr::from_ptr(*trigger.tgargs).to_bytes()))
        }
    }

    /// The row with a bigint in the only column of its UPDATE OF list: what `new` makes, or when the row is updated what
    /// it had.
    pub fn with_value(&self, new: impl FnOnce() -> Result<i64>) -> Result<Datum> {
        // SAFETY: trigger, relation and rows of a live call; the column belongs to the relation.
        unsafe {
            let data = &*self.0;
            let (trigger, descriptor) = (&*data.tg_trigger, (*data.tg_relation).rd_att);
            if trigger.tgnattr != 1
                || pg_sys::SPI_gettypeid(descriptor, (*trigger.tgattr).into()) != pg_sys::INT8OID
            {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                    "a trigger that numbers rows has to be for UPDATE OF one column of type bigint",
                ));
            }
            let mut column: i32 = (*trigger.tgattr).into();
            let mut is_null = false;
            let is_update = data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_UPDATE;
            let (row, mut value) = match is_update {
                true => (
                    data.tg_newtuple,
                    pg_sys::SPI_getbinval(data.tg_trigtuple, descriptor, column, &mut is_null),
                ),
                false => (data.tg_trigtuple, Datum::from(new()?)),
            };
            let changed =
                pg_sys::heap_modify_tuple_by_cols(row, descriptor, 1, &mut column, &mut value, &mut is_null);
            Ok(Datum::from(changed))
        }
    }
}
