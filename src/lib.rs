//! rollup_ext: keeps aggregate tables of an event stream up to date, exactly once.
//!
//! The install SQL is written by hand in `sql/`, by topic, so that every object stands next to its
//! COMMENT; the functions behind it are declared with [`sql_function!`].

use pgrx::prelude::*;

pub mod error;
pub mod hll;
pub mod pg;
pub mod rollup;
pub mod settings;
#[cfg(any(test, feature = "pg_test"))]
mod tests;
pub mod topn;
pub mod worker;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/hll.sql", name = "hll", bootstrap);
extension_sql_file!("../sql/topn.sql", name = "topn", requires = ["hll"]);
extension_sql_file!("../sql/catalog.sql", name = "catalog", requires = ["topn"]);
extension_sql_file!("../sql/rollup.sql", name = "rollup", requires = ["catalog"]);
extension_sql_file!("../sql/live.sql", name = "live", requires = ["rollup"]);
extension_sql_file!("../sql/retention.sql", name = "retention", requires = ["live"]);
extension_sql_file!("../sql/replaced.sql", name = "replaced", requires = ["retention"]);
extension_sql_file!("../sql/numbering.sql", name = "numbering", requires = ["replaced"]);
extension_sql_file!("../sql/worker.sql", name = "worker", requires = ["numbering"]);

/// Called by PostgreSQL when the library is loaded: defines the settings and, when preloaded,
/// registers the launcher.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // Every PostgreSQL error passes through Rust as a panic; with RUST_BACKTRACE in the server's environment each
    // would carry a backtrace in its DETAIL.
    // SAFETY: a PostgreSQL process has one thread, and nothing else of it reads the environment now.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
    sketches::on_out_of_memory(error::out_of_memory);
    pg::cpu::suit();
    settings::define();
    worker::register();
}

/// Required by `cargo pgrx test` at the root of the crate.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["shared_preload_libraries='rollup_ext'"]
    }
}
