//! Memory of PostgreSQL's contexts, for code that allocates for every group or row.
//!
//! The generated bindings save the machine's registers before each call (`sigsetjmp`), because PostgreSQL reports errors
//! by a jump. The functions here are called without that, in ways in which they report none.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    fn MemoryContextAllocExtended(
        context: pg_sys::MemoryContext,
        size: pg_sys::Size,
        flags: c_int,
    ) -> *mut c_void;
    #[link_name = "pfree"]
    fn release(block: *mut c_void);
    fn AggCheckCallContext(fcinfo: pg_sys::FunctionCallInfo, context: *mut pg_sys::MemoryContext) -> c_int;
}

/// PostgreSQL's MaxAllocSize.
const MOST: usize = 0x3fff_ffff;

/// A zeroed block; an error where there is no memory for it.
///
/// # Safety
/// The context is live.
#[inline]
pub unsafe fn alloc_zeroed(context: pg_sys::MemoryContext, size: usize) -> NonNull<u8> {
    if size <= MOST {
        let flags = pg_sys::MCXT_ALLOC_NO_OOM | pg_sys::MCXT_ALLOC_ZERO;
        // SAFETY: the context is live by contract; with a valid size and this flag the function reports no error.
        let block = unsafe { MemoryContextAllocExtended(context, size, flags as c_int) };
        if let Some(block) = NonNull::new(block.cast()) {
            return block;
        }
    }
    // SAFETY: as above. This one says what is wrong.
    let block = unsafe { pg_sys::MemoryContextAllocZero(context, size) };
    NonNull::new(block.cast()).expect("an allocation succeeds or raises")
}

/// Gives a block back.
///
/// # Safety
/// The block came from a memory context and nothing refers to it any more.
#[inline]
pub unsafe fn free(block: NonNull<u8>) {
    // SAFETY: by contract; the function reports no error about a block that is one.
    unsafe { release(block.as_ptr().cast()) }
}

/// The memory context of the aggregate that calls a function; `None` outside of an aggregate.
///
/// # Safety
/// `fcinfo` is a live call frame.
#[inline]
pub unsafe fn of_aggregate(fcinfo: pg_sys::FunctionCallInfo) -> Option<pg_sys::MemoryContext> {
    let mut context: pg_sys::MemoryContext = std::ptr::null_mut();
    // SAFETY: by contract, and the out pointer is ours; the function only looks at the frame.
    (unsafe { AggCheckCallContext(fcinfo, &mut context) } != 0).then_some(context)
}
