//! HyperLogLog++ on bytes.
