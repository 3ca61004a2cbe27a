//! Running SQL as another role and under other settings, for a while.

use std::ffi::CString;
use std::time::Duration;

use pgrx::pg_sys;

/// While it lives, SQL runs as another role. An error restores the role with the transaction it aborts.
pub struct AsRole {
    user: pg_sys::Oid,
    context: i32,
}

impl AsRole {
    /// The role that owns the catalogs: for the extension's own constant SQL on its own tables.
    pub fn internal() -> Self {
        Self::enter(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), pg_sys::SECURITY_LOCAL_USERID_CHANGE)
    }

    /// The owner of a rollup, for SQL that the owner wrote. Called by another role, that SQL is restricted as in
    /// REFRESH MATERIALIZED VIEW: it can leave nothing behind that would run later with the caller's rights.
    pub fn owner(owner: pg_sys::Oid) -> Self {
        let restricted = if owner == current_user() { 0 } else { pg_sys::SECURITY_RESTRICTED_OPERATION };
        Self::enter(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE | restricted)
    }

    fn enter(role: pg_sys::Oid, flags: u32) -> Self {
        let mut saved = AsRole { user: pg_sys::InvalidOid, context: 0 };
        // SAFETY: plain getters and setters of the session's state.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut saved.user, &mut saved.context);
            pg_sys::SetUserIdAndSecContext(role, saved.context | flags as i32);
        }
        saved
    }
}

impl Drop for AsRole {
    fn drop(&mut self) {
        // SAFETY: puts back what enter() read.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}

/// While it lives, these settings hold. An error restores them with the transaction it aborts.
pub struct WithSettings(i32);

impl WithSettings {
    pub fn new(settings: &[(&str, &str)]) -> Self {
        // SAFETY: opens a nesting level of the settings, closed in drop().
        let level = unsafe { pg_sys::NewGUCNestLevel() };
        for (name, value) in settings {
            let (name, value) = (c_string(name), c_string(value));
            // SAFETY: both strings are NUL-terminated and live through the call.
            unsafe {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                )
            };
        }
        WithSettings(level)
    }
}

impl Drop for WithSettings {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // As if it had failed: what SQL in between set, in whatever way, must not outlive it either.
            // SAFETY: closes the level that new() opened.
            unsafe { pg_sys::AtEOXact_GUC(false, self.0) };
        }
    }
}

/// The role whose rights count now.
pub fn current_user() -> pg_sys::Oid {
    // SAFETY: a plain getter.
    unsafe { pg_sys::GetUserId() }
}

/// Whether the current role may act as `owner`: it is a member of it, or a superuser.
pub fn may_act_as(owner: pg_sys::Oid) -> bool {
    // SAFETY: looks roles up in the catalog.
    unsafe { pg_sys::has_privs_of_role(current_user(), owner) }
}

/// A number that no other transaction of this process has.
pub fn transaction() -> u32 {
    // SAFETY: the process has an entry of its own in shared memory, which only it writes.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        return (*pg_sys::MyProc).lxid;
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        return (*pg_sys::MyProc).vxid.lxid;
    }
}

/// Whether the current transaction keeps one snapshot for all its statements.
pub fn has_fixed_snapshot() -> bool {
    // SAFETY: reads the session's state.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// A setting as `SHOW` would print it.
pub fn setting(name: &str) -> String {
    let name = c_string(name);
    // SAFETY: a known setting's value is a NUL-terminated string owned by PostgreSQL.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), false, false);
        to_string(std::ffi::CStr::from_ptr(value).to_bytes())
    }
}

/// `work_mem` while it is at least as large as `maintenance_work_mem`, otherwise that; in kilobytes.
pub fn run_memory() -> String {
    // SAFETY: reads the session's settings.
    unsafe { pg_sys::work_mem.max(pg_sys::maintenance_work_mem) }.to_string()
}

/// How long a wait for a lock may last; zero for no limit.
pub fn lock_timeout() -> Duration {
    // SAFETY: reads the session's setting, in milliseconds.
    Duration::from_millis(unsafe { pg_sys::LockTimeout } as u64)
}

/// Sleeps for a while, but no longer than a pending cancel or shutdown allows.
pub fn sleep(duration: Duration) {
    // SAFETY: sleeps, and then looks for interrupts, of which one ends in an error.
    unsafe { pg_sys::pg_usleep(duration.as_micros() as _) };
    check_for_interrupts();
}

/// Ends with the query-cancel or shutdown error if one is pending.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Text of the database as a Rust string. An error where it is not UTF-8, in databases of other encodings: a
/// character that changed on its way would change what is aggregated.
pub fn to_string(text: &[u8]) -> String {
    match std::str::from_utf8(text) {
        Ok(text) => text.to_owned(),
        Err(_) => crate::error::Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
            format!("text is not UTF-8: {}", String::from_utf8_lossy(text)),
        )
        .detail("In a database of another encoding, rollups can be defined with ASCII characters only.")
        .hint("CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0;")
        .raise(),
    }
}

/// A NUL-terminated copy; an interior NUL cannot come from PostgreSQL, which has none in its strings.
pub(super) fn c_string(text: &str) -> CString {
    CString::new(text).expect("strings of PostgreSQL hold no NUL")
}
