//! worker
/// Whether the library was preloaded, so that the worker runs.
pub fn is_preloaded() -> bool {
    false
}

/// Wakes the scheduler of this database when the transaction commits.
pub fn wake() {}
