//! The worker: keeps scheduled rollups current without anybody asking.
//!
//! The server starts one **launcher**, which starts one **scheduler** for each database that has the extension. A
//! scheduler watches its rollups and starts a **job**, a process of its own, for each run. A scheduler never waits
//! for anybody: neither for writers (it looks again later) nor for locks.

mod history;
mod job;
mod launcher;
mod pending;
mod registry;
mod scheduler;
pub mod settings;
mod status;

use std::ffi::CStr;

use crate::pg::background;
use crate::pg::hooks::{self, Dropped};

const EXTENSION: &CStr = c"rollup_ext";

/// Registers the launcher; called once from `_PG_init`. Does nothing unless the library is preloaded.
pub fn register() {
    if background::is_preloading() {
        registry::reserve();
        launcher::register();
        hooks::on_drop(|dropped| match dropped {
            // DROP DATABASE waits a moment for others to leave.
            Dropped::Database(database) => registry::dismiss(database),
            Dropped::Extension(name) if name == EXTENSION => wake(),
            Dropped::Extension(_) => {}
        });
    }
}

/// Has the worker look at this database's rollups as soon as the current transaction commits. Does nothing unless
/// the library is preloaded.
pub fn wake() {
    registry::wake();
}

/// Whether the library is preloaded, so that schedules have somebody to follow them.
pub fn is_preloaded() -> bool {
    registry::is_preloaded()
}
