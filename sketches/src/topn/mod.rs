//! Frequent items on bytes.
