//! HyperLogLog++ and TopN sketches as plain Rust on byte slices.
#![forbid(unsafe_code)]

pub mod hll;
pub mod topn;
