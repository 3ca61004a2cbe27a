//! Rollups on a Citus cluster. Skipped where Citus is not installed.

mod failures;
mod moves;
mod nodes;
mod placement;
mod seeds;
mod writers;
