//! The `rollup_ext.*` settings and their getters.

/// Defines every setting; called once from `_PG_init`.
pub fn define() {
    crate::topn::define_setting();
    crate::hll::settings::define();
    crate::worker::settings::define();
    crate::rollup::retention::define();
}
