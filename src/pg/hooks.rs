//! Noticing what others do: a database or an extension that is about to be dropped.

use std::ffi::CStr;
use std::sync::OnceLock;

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::{pg_guard, pg_sys};

/// What is about to be dropped. The privileges have been checked; the transaction may still roll back.
pub enum Dropped<'a> {
    Database(pg_sys::Oid),
    /// An extension of this database, by name.
    Extension(&'a CStr),
}

static ON_DROP: OnceLock<fn(Dropped)> = OnceLock::new();
static NEXT: OnceLock<pg_sys::object_access_hook_type> = OnceLock::new();

/// Has `action` run whenever a database or an extension is dropped; called once, while the library is preloaded.
pub fn on_drop(action: fn(Dropped)) {
    if ON_DROP.set(action).is_ok() {
        // SAFETY: in the postmaster, before it starts any other process.
        unsafe {
            let _ = NEXT.set(pg_sys::object_access_hook);
            pg_sys::object_access_hook = Some(object_access);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: i32,
    arg: *mut std::ffi::c_void,
) {
    if let Some(next) = NEXT.get().copied().flatten() {
        // SAFETY: the hook that was there before, called as PostgreSQL called this one.
        unsafe { pg_guard_ffi_boundary(|| next(access, class, object, part, arg)) };
    }
    let Some(action) = ON_DROP.get() else { return };
    if access != pg_sys::ObjectAccessType::OAT_DROP {
        return;
    }
    if class == pg_sys::DatabaseRelationId {
        action(Dropped::Database(object));
    } else if class == pg_sys::ExtensionRelationId {
        // SAFETY: a catalog lookup within the dropping transaction; NULL when there is no such extension.
        let name = unsafe { pg_sys::get_extension_name(object) };
        if !name.is_null() {
            // SAFETY: a NUL-terminated string in the current memory context.
            action(Dropped::Extension(unsafe { CStr::from_ptr(name) }));
        }
    }
}
