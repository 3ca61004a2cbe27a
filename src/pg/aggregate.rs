//! Transition states of aggregates: plain words in the aggregate's memory context, where `work_mem` sees them.

use std::ptr::NonNull;

use pg_sys::Datum;
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

    /// A zeroed state of at least `words` 32-bit words.
    pub fn alloc(self, words: usize) -> State {
        let bytes = (words + 1) * 4;
        // SAFETY: the context is the aggregate's and outlives the state, whose block has room for the length word.
        unsafe {
            let base: NonNull<u32> = memory::alloc_zeroed(self.0, bytes).cast();
            base.write(words as u32);
            State(base)
        }
    }

    /// The memory context of the current call: what a deserial function returns lives there.
    pub fn current() -> Self {
        // SAFETY: a backend always has a current memory context.
        AggregateContext(unsafe { pg_sys::CurrentMemoryContext })
    }
}

/// A transition state: a length word followed by that many words of the sketch. `internal` in SQL.
#[derive(Clone, Copy)]
pub struct State(NonNull<u32>);

impl State {
    /// The state behind an `internal` argument.
    ///
    /// # Safety
    /// The datum came from [`State::datum`] in the same query.
    #[inline]
    pub unsafe fn from_datum(datum: Datum) -> Self {
        State(NonNull::new(datum.cast_mut_ptr()).expect("a transition state is never NULL here"))
    }

    #[inline]
    pub fn datum(self) -> Datum {
        Datum::from(self.0.as_ptr())
    }

    #[inline]
    pub fn words(&self) -> &[u32] {
        // SAFETY: alloc() laid out the length word and that many words behind it.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(1), *self.0.as_ptr() as usize) }
    }

    #[inline]
    pub fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: as in words(); a transition function has the state for itself while it runs.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().add(1), *self.0.as_ptr() as usize) }
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes of words().
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(1).cast(), self.size()) }
    }

    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the bytes of words_mut().
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().add(1).cast(), self.size()) }
    }

    #[inline]
    fn size(&self) -> usize {
        // SAFETY: the length word is alloc()'s.
        unsafe { *self.0.as_ptr() as usize * 4 }
    }

    /// Gives the memory back at once, after the contents moved to a larger state.
    pub fn free(self) {
        // SAFETY: the block came from palloc in alloc() and nothing refers to it any more.
        unsafe { memory::free(self.0.cast()) }
    }
}
