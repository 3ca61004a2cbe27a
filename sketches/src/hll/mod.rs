//! HyperLogLog++ on bytes: distinct counting with the conventions of postgresql-hll.
//!
//! A sketch is built from 64-bit hashes ([`murmur`]). While it is small it keeps a sorted list of
//! truncated hashes ([`code`]), which counts exactly; a list that would outgrow the registers becomes
//! 2^log2m registers of 6 bits ([`registers`]). The same set of hashes gives the same bytes, whatever the
//! order or grouping of adds and merges. (Where precisions meet, the same registers: in one order they may have
//! become registers already, in another still be a list.)
//!
//! * [`State`]: a sketch being built, in a slice of words that the caller owns.
//! * [`Stored`]: a view of a sketch as it is stored; the format is described there.
//! * [`estimate`]: from registers to a count.
//! * [`v1`]: reading and writing storage specification 1.0.0 of postgresql-hll.
//!
//! Conventions: the register index is the hash's low bits and the rank is one more than the number of
//! trailing zeros above them. HyperLogLog++ (Heule, Nunkesser, Hall, 2013) takes the high bits and leading
//! zeros; the two differ by a bit reversal of the hash.

pub mod code;
mod entries;
pub mod estimate;
pub mod murmur;
pub mod params;
pub mod registers;
mod rice;
mod sketch;
pub mod state;
pub mod stored;
pub mod v1;

pub use estimate::{cardinality, standard_error};
pub use params::Params;
pub use sketch::Sketch;
pub use state::{Cursor, Encoder, Grow, State};
pub use stored::{Body, Stored};

/// Stored bytes that no encoder writes; the text says what is wrong with them, in lowercase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(pub &'static str);

impl std::fmt::Display for Corrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Corrupt {}
