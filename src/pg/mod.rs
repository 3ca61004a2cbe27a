//! The only home of shared unsafe code: small safe functions over PostgreSQL's C interface.

pub mod aggregate;
pub mod any;
pub mod background;
pub mod call;
pub mod cpu;
pub mod ddl;
pub mod hooks;
pub mod locks;
pub mod memory;
pub mod query;
pub mod rows;
pub mod session;
pub mod snapshot;
pub mod spi;
pub mod trigger;
pub mod typmod;
pub mod varlena;
pub mod wake;
pub mod words;

/// Declares a version-1 C function: `sql_function!(hll_add, |call| body)` is reached from SQL as
/// `AS 'MODULE_PATHNAME', 'rollup_ext_hll_add'`. The body gets a [`call::Call`] and returns a `Datum`.
///
/// The symbol carries the prefix because PostgreSQL loads libraries into one global namespace, where
/// an unprefixed `hll_add` would meet that of another extension.
#[macro_export]
macro_rules! sql_function {
    ($(#[$doc:meta])* $name:ident, |$call:ident| $body:expr) => {
        $(#[$doc])*
        #[pgrx::pg_guard]
        #[unsafe(export_name = concat!("rollup_ext_", stringify!($name)))]
        pub extern "C-unwind" fn $name(
            fcinfo: pgrx::pg_sys::FunctionCallInfo,
        ) -> pgrx::pg_sys::Datum {
            let body: fn($crate::pg::call::Call) -> pgrx::pg_sys::Datum = |$call| $body;
            // SAFETY: PostgreSQL calls this through its function manager, with a live call frame.
            body(unsafe { $crate::pg::call::Call::new(fcinfo) })
        }
        const _: () = {
            #[unsafe(export_name = concat!("pg_finfo_rollup_ext_", stringify!($name)))]
            extern "C" fn finfo() -> &'static pgrx::pg_sys::Pg_finfo_record {
                const V1: pgrx::pg_sys::Pg_finfo_record =
                    pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
                &V1
            }
        };
    };
}
