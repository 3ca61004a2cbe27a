//! rollup

pub mod schedule;
