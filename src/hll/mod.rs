//! SQL surface of the HyperLogLog++ sketches.
