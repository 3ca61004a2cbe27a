//! Frequent items (TopN) on bytes.
//!
//! A state counts items in bytes that the caller owns (a [`Block`]) and asks for more only when it
//! outgrows them. Small groups are a page (`page.rs`) that holds every item exactly; beyond some 256
//! items a state is a table (`table.rs`) that prunes itself and knows by how much its counts may fall short.
//! A finished state is a list of counters, the jsonb object `{"item": count, ...}` ([`jsonb`]), and
//! lists merge as such ([`list`]).
//!
//! Counts never exceed the truth, and saturate at 2^63 - 1. The outcome depends on nothing but the order of
//! the input; equal counts rank by the bytes of the item.

mod bytes;
mod hash;
pub mod jsonb;
pub mod list;
mod page;
mod state;
mod table;
mod wire;

pub use page::{Cursor, count, cursor, settle};
pub use state::{ListError, add, add_list, counters, error_bound, insert, limit};
pub use wire::{merge, serialize};

/// Counts saturate here: the largest bigint.
pub const MAX_COUNT: u64 = i64::MAX as u64;
/// jsonb cannot hold a longer string.
pub const MAX_ITEM: usize = 0x0fff_ffff;
/// The bytes that the caller keeps in front of a state: small states are sized so that both together
/// fill a power of two.
pub const BLOCK_HEADER: usize = 8;
/// A state never asks for more: PostgreSQL gives no larger block.
pub const MAX_STATE: usize = 0x3fff_ff00;

/// The memory of one state: empty bytes at first.
pub trait Block {
    fn bytes(&mut self) -> &mut [u8];

    /// Exchanges the memory for zeroed memory of at least `size` bytes; `fill` moves the contents from old to new.
    fn replace(&mut self, size: usize, fill: impl FnOnce(&[u8], &mut [u8]));
}

impl Block for Vec<u8> {
    fn bytes(&mut self) -> &mut [u8] {
        self
    }

    fn replace(&mut self, size: usize, fill: impl FnOnce(&[u8], &mut [u8])) {
        let mut new = vec![0; size];
        fill(self, &mut new);
        *self = new;
    }
}

/// One counter, as it is stored: `count` is at most 2^63 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter<'a> {
    pub item: &'a [u8],
    pub count: u64,
}

/// One counter of a state: the item occurred at least `count` and at most `count + error` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted<'a> {
    item: &'a [u8],
    count: u64,
    error: u64,
}

/// What can be wrong with an item or with a serialized state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The item is longer than [`MAX_ITEM`] bytes: this many.
    ItemTooLong(usize),
    /// As many counters as are asked for, of the lengths they have, take more than [`MAX_STATE`] bytes.
    TooLarge,
    /// A serialized state that [`serialize`] did not write.
    Malformed,
}
