//! SQL surface of the TopN sketches.
