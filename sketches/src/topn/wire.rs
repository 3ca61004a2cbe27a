//! A state on its way between parallel workers.
//!
//! ```text
//! u8      version, 1
//! LEB128  limit, 0 when the state has none of its own
//! LEB128  floor
//! LEB128  number of items, then for each
//! LEB128  length, the item, LEB128 count, and LEB128 error when the floor is not 0
//! ```

use super::bytes::{put_varint, take, take_varint};
use super::state::{add_all, make_table, reserve};
use super::{Block, Counter, Error, MAX_COUNT, page, table};
use crate::memory;

const VERSION: u8 = 1;
/// The largest limit that a state can have been given.
const MAX_LIMIT: u64 = 0x0fff_ffff;

/// The state as bytes that [`merge`] reads.
pub fn serialize(state: &[u8]) -> Vec<u8> {
    // No number takes more bytes here than in a table; those of a page may.
    let mut out = memory::vec(2 * state.len().min(1 << 16) + state.len() + 32);
    out.push(VERSION);
    let mut head = |limit: usize, floor: u64, n: usize| {
        put_varint(&mut out, limit as u64);
        put_varint(&mut out, floor);
        put_varint(&mut out, n as u64);
    };
    match state.first() {
        None => head(0, 0, 0),
        Some(&table::FORM) => {
            let floor = table::floor(state);
            head(table::limit(state), floor, table::len(state));
            for counted in table::iter(state) {
                put_varint(&mut out, counted.item.len() as u64);
                out.extend_from_slice(counted.item);
                put_varint(&mut out, counted.count);
                if floor > 0 {
                    put_varint(&mut out, counted.error);
                }
            }
        }
        Some(_) => {
            let counters = page::counters(state);
            head(0, 0, counters.len());
            for Counter { item, count } in counters {
                put_varint(&mut out, item.len() as u64);
                out.extend_from_slice(item);
                put_varint(&mut out, count);
            }
        }
    }
    out
}

/// Merges a serialized state into this one. The errors of both add up, never more:
/// floor <= N / limit holds for all events of both.
pub fn merge(block: &mut impl Block, session: usize, wire: &[u8]) -> Result<(), Error> {
    let mut rest = wire;
    let number = |rest: &mut &[u8]| take_varint(rest).ok_or(Error::Malformed);
    if take(&mut rest, 1) != Some(&[VERSION]) {
        return Err(Error::Malformed);
    }
    let limit = number(&mut rest)?;
    let floor = number(&mut rest)?;
    let items = number(&mut rest)?;
    if items > wire.len() as u64 {
        return Err(Error::Malformed);
    }
    if limit > MAX_LIMIT || floor > MAX_COUNT {
        return Err(Error::Malformed);
    }
    if limit > 0 || floor > 0 {
        make_table(block, (limit as usize).max(1), 0);
        table::absorb_floor(block.bytes(), floor);
    }
    // Every item takes two bytes at least, for its length and its count.
    let bytes = rest.len().checked_sub(2 * items as usize).ok_or(Error::Malformed)?;
    reserve(block, session, items as usize, bytes);
    let counters = (0..items).map(|_| {
        let len = number(&mut rest)?;
        let item = usize::try_from(len).ok().and_then(|len| take(&mut rest, len));
        let item = item.ok_or(Error::Malformed)?;
        let count = number(&mut rest)?;
        let error = if floor > 0 { number(&mut rest)? } else { 0 };
        let whole = count <= MAX_COUNT && error <= floor;
        if whole { Ok((Counter { item, count }, floor - error)) } else { Err(Error::Malformed) }
    });
    add_all(block, session, counters)?;
    if rest.is_empty() { Ok(()) } else { Err(Error::Malformed) }
}
