//! The setting `topn.number_of_counters`, shared by name with postgresql-topn.

use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

use pgrx::pg_sys;

const NAME: &CStr = c"topn.number_of_counters";
const DEFAULT: c_int = 1000;
/// The peer's maximum: as many pairs as PostgreSQL's jsonb builder takes.
const MAX: c_int = 14_913_080;

static VALUE: AtomicI32 = AtomicI32::new(DEFAULT);
/// Whether another library defined the setting first; then it is read by name.
static FOREIGN: AtomicBool = AtomicBool::new(false);

/// Defines the setting, unless the peer's library did so in this backend.
pub fn define() {
    // SAFETY: called from _PG_init; the strings are static and PostgreSQL keeps the pointer to VALUE,
    // which lives as long as the library.
    unsafe {
        let known = !pg_sys::GetConfigOption(NAME.as_ptr(), true, false).is_null();
        let placeholder = pg_sys::GUC_CUSTOM_PLACEHOLDER as c_int;
        if known && pg_sys::GetConfigOptionFlags(NAME.as_ptr(), true) & placeholder == 0 {
            FOREIGN.store(true, Relaxed);
            return;
        }
        pg_sys::DefineCustomIntVariable(
            NAME.as_ptr(),
            c"Sets the number of counters that a list of frequent items keeps.".as_ptr(),
            c"A list that already has more keeps them.".as_ptr(),
            VALUE.as_ptr(),
            DEFAULT,
            1,
            MAX,
            pg_sys::GucContext::PGC_USERSET,
            0,
            None,
            None,
            None,
        );
    }
}

/// The session's number of counters: at least 1.
#[inline]
pub fn number_of_counters() -> usize {
    if FOREIGN.load(Relaxed) { foreign() } else { VALUE.load(Relaxed) as usize }
}

#[cold]
fn foreign() -> usize {
    // SAFETY: the answer is a C string in a static buffer, or NULL for an unknown setting.
    let value = unsafe {
        let value = pg_sys::GetConfigOption(NAME.as_ptr(), true, false);
        if value.is_null() { None } else { CStr::from_ptr(value).to_str().ok() }
    };
    value.and_then(|n| n.parse().ok()).filter(|n| *n > 0).unwrap_or(DEFAULT as usize)
}
