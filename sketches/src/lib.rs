//! HyperLogLog++ and TopN sketches as plain Rust on byte slices.
#![forbid(unsafe_code)]

pub mod hll;
mod memory;
pub mod topn;

pub use memory::on_out_of_memory;
