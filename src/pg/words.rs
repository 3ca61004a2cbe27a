//! Transition states of 64-bit words, laid out for small groups: the low half of the first word holds the
//! number of words, the rest of the block is the owner's.

use std::ptr::NonNull;

use pg_sys::Datum;
use pgrx::pg_sys;

use super::aggregate::AggregateContext;
use super::call::Call;
use super::memory;

/// A block of words behind an `internal` value.
#[derive(Clone, Copy)]
pub struct Words(NonNull<u64>);

impl Words {
    /// A zeroed block of `len` words (but for the low half of the first, which holds `len`) that lives as long
    /// as the aggregate's states. A power of two wastes nothing.
    #[inline]
    pub fn alloc(context: AggregateContext, len: usize) -> Self {
        // SAFETY: the context is live.
        unsafe { Self::alloc_in(context.raw(), len) }
    }

    /// The same in the current memory context.
    pub fn alloc_here(len: usize) -> Self {
        // SAFETY: there always is a current context.
        unsafe { Self::alloc_in(pg_sys::CurrentMemoryContext, len) }
    }

    /// # Safety
    /// The context is live.
    unsafe fn alloc_in(context: pg_sys::MemoryContext, len: usize) -> Self {
        // SAFETY: by contract; the block has room for its first word.
        unsafe {
            let base: NonNull<u64> = memory::alloc_zeroed(context, len * 8).cast();
            base.write(len as u64);
            Words(base)
        }
    }

    #[inline]
    pub fn datum(self) -> Datum {
        Datum::from(self.0.as_ptr())
    }

    #[inline]
    fn len(&self) -> usize {
        // SAFETY: alloc() wrote the length, and the owner leaves that half alone.
        unsafe { *self.0.as_ptr() as u32 as usize }
    }

    #[inline]
    pub fn words(&self) -> &[u64] {
        // SAFETY: alloc() made a block of that many words.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.len()) }
    }

    #[inline]
    pub fn words_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in words(); a transition function has the state for itself while it runs.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), self.len()) }
    }

    /// Gives the memory back at once, after the contents moved to a larger block.
    pub fn free(self) {
        // SAFETY: the block came from palloc and nothing refers to it any more.
        unsafe { memory::free(self.0.cast()) }
    }
}

impl Call {
    /// The block behind argument `i`, which the SQL declaration gives the type `internal`; not NULL.
    #[inline]
    pub fn words(self, i: usize) -> Words {
        // SAFETY: PostgreSQL passes `internal` values only from functions of the same aggregate, and those make
        // them with Words::datum().
        unsafe { Words(NonNull::new_unchecked(self.datum(i).cast_mut_ptr())) }
    }
}
