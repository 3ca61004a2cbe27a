//! Waking another process, and doing something when the transaction commits.

use std::cell::Cell;

use pgrx::{pg_guard, pg_sys};

/// Where a process can be woken. It may have ended since and another one taken its place: that one is then woken
/// for nothing, which every PostgreSQL process copes with.
#[derive(Clone, Copy, Default)]
pub struct Bell(usize);

impl Bell {
    /// That of this process.
    pub fn mine() -> Self {
        // SAFETY: the latch of a process that has shared memory lies there, in a slot that is never freed.
        Bell(unsafe { &raw mut (*pg_sys::MyProc).procLatch } as usize)
    }

    pub fn ring(self) {
        if self.0 != 0 {
            // SAFETY: mine() took the address, and every process maps shared memory at the same place.
            unsafe { pg_sys::SetLatch(self.0 as *mut pg_sys::Latch) };
        }
    }
}

thread_local! {
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    static AT_COMMIT: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// Has `action` run, once, when this transaction commits; it must not raise an error. Nothing happens on rollback.
pub fn at_commit(action: fn()) {
    if !REGISTERED.replace(true) {
        // SAFETY: a function of this library, which is never unloaded.
        unsafe { pg_sys::RegisterXactCallback(Some(on_transaction_end), std::ptr::null_mut()) };
    }
    AT_COMMIT.set(Some(action));
}

#[pg_guard]
unsafe extern "C-unwind" fn on_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::*;
    match event {
        // Prepared: the action comes early rather than never.
        XACT_EVENT_COMMIT | XACT_EVENT_PREPARE => {
            if let Some(action) = AT_COMMIT.take() {
                action()
            }
        }
        XACT_EVENT_ABORT => AT_COMMIT.set(None),
        _ => {}
    }
}
