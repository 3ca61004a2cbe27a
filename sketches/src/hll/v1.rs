//! Storage specification 1.0.0 of postgresql-hll: reading and writing.
