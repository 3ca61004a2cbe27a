//! The memory context of an aggregate.

use pgrx::pg_sys;

use super::memory;

/// The memory context in which an aggregate keeps its transition states.
#[derive(Clone, Copy)]
pub struct AggregateContext(pg_sys::MemoryContext);

impl AggregateContext {
    /// # Safety
    /// `fcinfo` is a live call frame.
    #[inline]
    pub unsafe fn of(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        // SAFETY: the frame is live.
        let Some(context) = (unsafe { memory::of_aggregate(fcinfo) }) else {
            crate::error::Error::new(
                pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "aggregate support function called in non-aggregate context",
            )
            .raise()
        };
        AggregateContext(context)
    }

    pub(super) fn raw(self) -> pg_sys::MemoryContext {
        self.0
    }
}
