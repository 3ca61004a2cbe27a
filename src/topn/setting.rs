//! The setting `topn.number_of_counters`, shared by name with postgresql-topn.
//!
//! A setting has one owner in a backend, and defining it twice is an error. Where the peer's library came first, its
//! setting is read by name. Where it is installed and may still come, ours is defined as the placeholder that
//! PostgreSQL makes for any unknown setting of an extension, which the peer then replaces; value and checks are the same.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering::Relaxed};

use pgrx::pg_sys;

const NAME: &CStr = c"topn.number_of_counters";
const SHORT: &CStr = c"Sets the number of counters that a list of frequent items keeps.";
const LONG: &CStr = c"A list that already has more keeps them.";
const DEFAULT: c_int = 1000;
const DEFAULT_TEXT: &CStr = c"1000";
/// The peer's maximum: as many pairs as PostgreSQL's jsonb builder takes.
const MAX: c_int = 14_913_080;

static VALUE: AtomicI32 = AtomicI32::new(DEFAULT);
/// Whether the setting is not, or may not remain, ours.
static SHARED: AtomicBool = AtomicBool::new(false);
/// The placeholder's text; PostgreSQL sets it to NULL when another library takes the setting over.
static TEXT: AtomicPtr<c_char> = AtomicPtr::new(null_mut());

/// Defines the setting, unless the peer's library did so in this backend.
pub fn define() {
    if defined() {
        SHARED.store(true, Relaxed);
    } else if peer_installed() {
        SHARED.store(true, Relaxed);
        define_placeholder();
    } else {
        // SAFETY: called from _PG_init; the strings are static and VALUE lives as long as the library.
        unsafe {
            pg_sys::DefineCustomIntVariable(
                NAME.as_ptr(),
                SHORT.as_ptr(),
                LONG.as_ptr(),
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
}

/// Whether a library has defined the setting for good.
fn defined() -> bool {
    // SAFETY: the name is static; both functions answer for unknown settings too.
    unsafe {
        !pg_sys::GetConfigOption(NAME.as_ptr(), true, false).is_null()
            && pg_sys::GetConfigOptionFlags(NAME.as_ptr(), true) as u32 & pg_sys::GUC_CUSTOM_PLACEHOLDER == 0
    }
}

fn peer_installed() -> bool {
    // SAFETY: the path is a C string that PostgreSQL fills at start.
    let libraries = unsafe { CStr::from_ptr((&raw const pg_sys::pkglib_path).cast()) };
    let name = format!("topn{}", std::env::consts::DLL_SUFFIX);
    libraries.to_str().is_ok_and(|libraries| Path::new(libraries).join(name).exists())
}

fn define_placeholder() {
    // SAFETY: as for the integer; TEXT is only read through its address while PostgreSQL owns what it holds.
    unsafe {
        pg_sys::DefineCustomStringVariable(
            NAME.as_ptr(),
            SHORT.as_ptr(),
            LONG.as_ptr(),
            TEXT.as_ptr(),
            DEFAULT_TEXT.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GUC_CUSTOM_PLACEHOLDER as c_int,
            Some(check),
            Some(assign),
            None,
        );
    }
}

/// # Safety
/// `text` is a C string.
unsafe fn parse(text: *const c_char) -> Option<c_int> {
    let mut value = 0;
    // SAFETY: a C string by contract; no hint is wanted.
    let parsed = unsafe { pg_sys::parse_int(text, &mut value, 0, null_mut()) };
    (parsed && (1..=MAX).contains(&value)).then_some(value)
}

unsafe extern "C-unwind" fn check(
    text: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes the new value, never NULL since the default is not.
    let valid = unsafe { parse(*text) }.is_some();
    if !valid {
        // SAFETY: read once by the caller, never freed.
        unsafe {
            pg_sys::GUC_check_errdetail_string = c"Valid values are 1 to 14913080.".as_ptr().cast_mut();
        }
    }
    valid
}

unsafe extern "C-unwind" fn assign(text: *const c_char, _extra: *mut c_void) {
    // SAFETY: the text passed check().
    let value = unsafe { parse(text) };
    VALUE.store(value.unwrap_or(DEFAULT), Relaxed);
}

/// The session's number of counters: at least 1.
#[inline]
pub fn number_of_counters() -> usize {
    if SHARED.load(Relaxed) && TEXT.load(Relaxed).is_null() {
        return of_another_library();
    }
    VALUE.load(Relaxed) as usize
}

#[cold]
fn of_another_library() -> usize {
    // SAFETY: the answer is a C string in a static buffer, or NULL for an unknown setting.
    let value = unsafe {
        let value = pg_sys::GetConfigOption(NAME.as_ptr(), true, false);
        if value.is_null() { None } else { parse(value) }
    };
    value.unwrap_or(DEFAULT) as usize
}
