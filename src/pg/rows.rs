//! Functions that return a set of rows, all of them at once (materialize mode).

use pg_sys::Datum;
use pgrx::pg_sys;

use super::call::Call;

/// The rows that a set-returning function gives back; spills to disk beyond `work_mem`.
pub struct Rows(*mut pg_sys::ReturnSetInfo);

impl Rows {
    /// Starts the result of `call`, whose SQL declaration says `RETURNS TABLE` or `SETOF` a composite type.
    /// An error where a set cannot be returned.
    pub fn of(call: Call) -> Self {
        Self::start(call, 0)
    }

    /// As [`Self::of`], for `RETURNS SETOF` a type that is not composite: rows of one column.
    pub fn of_values(call: Call) -> Self {
        Self::start(call, pg_sys::MAT_SRF_USE_EXPECTED_DESC)
    }

    fn start(call: Call, flags: u32) -> Self {
        // SAFETY: the frame is live; the function raises unless resultinfo is a ReturnSetInfo that
        // takes a materialized set.
        unsafe {
            pg_sys::InitMaterializedSRF(call.frame(), flags as _);
            Rows((*call.frame()).resultinfo.cast())
        }
    }

    /// Adds a row; `None` is NULL.
    ///
    /// # Safety
    /// `N` is the number of columns of the declared type and every value is of its column's type.
    pub unsafe fn put<const N: usize>(&mut self, row: [Option<Datum>; N]) {
        let mut nulls = row.map(|value| value.is_none());
        let mut values = row.map(|value| value.unwrap_or(Datum::from(0)));
        // SAFETY: InitMaterializedSRF made the store and the descriptor; the columns fit by contract.
        unsafe {
            pg_sys::tuplestore_putvalues(
                (*self.0).setResult,
                (*self.0).setDesc,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            )
        }
    }
}
