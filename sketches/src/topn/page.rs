//! The state of a small group: a slotted page.
//!
//! ```text
//! 0        form and width: log2 of the bytes of a count
//! 1        number of items, at most 128
//! 2..4     where the entries start
//! 4..      slots, one for each item: u16 offset of its entry, u16 of its hash
//! ...      free
//! start..  entries, growing downwards: count (1, 2, 4 or 8 bytes), u8 length, the item
//! ```
//!
//! A look-up compares the 16 hash bits of every slot, eight at a time: for up to 128 items that beats
//! a hash table, which would take three cache misses where this takes one or two.

use super::bytes::{array, put, same, u16_at};
use super::hash::hash;
use super::{BLOCK_HEADER, MAX_COUNT};

/// Bits of byte 0 that say "page"; the low two hold the width.
pub(super) const FORM: u8 = 0x10;
pub(super) const MAX_ITEMS: usize = 128;
pub(super) const MAX_ITEM_LEN: usize = 255;

const HEADER: usize = 4;
const SLOT: usize = 4;
/// Slots compared at once.
const GROUP: usize = 8 * SLOT;

/// Why an item did not go in.
#[derive(Debug)]
pub(super) enum Refused {
    /// Its count needs wider counts: log2 of the bytes.
    Width(u8),
    Room,
}

pub(super) fn init(page: &mut [u8], width_log2: u8) {
    page[0] = FORM | width_log2;
    page[1] = 0;
    let end = page.len() as u16;
    put(page, 2, end.to_ne_bytes());
}

#[inline]
pub(super) fn len(page: &[u8]) -> usize {
    page[1] as usize
}

#[inline]
fn width_log2(page: &[u8]) -> u8 {
    page[0] & 3
}

#[inline]
fn start(page: &[u8]) -> usize {
    u16_at(page, 2) as usize
}

/// The narrowest count that holds `count`, as log2 of its bytes.
#[inline]
pub(super) fn width_for(count: u64) -> u8 {
    match count {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        _ => 3,
    }
}

#[inline]
fn count_at(page: &[u8], at: usize, width_log2: u8) -> u64 {
    match width_log2 {
        0 => u64::from(page[at]),
        1 => u64::from(u16_at(page, at)),
        2 => u64::from(u32::from_ne_bytes(array(page, at))),
        _ => u64::from_ne_bytes(array(page, at)),
    }
}

#[inline]
fn put_count(page: &mut [u8], at: usize, width_log2: u8, count: u64) {
    match width_log2 {
        0 => page[at] = count as u8,
        1 => put(page, at, (count as u16).to_ne_bytes()),
        2 => put(page, at, (count as u32).to_ne_bytes()),
        _ => put(page, at, count.to_ne_bytes()),
    }
}

/// The entry of `item`: where its count is.
#[inline]
fn find(page: &[u8], item: &[u8], tag: u16) -> Option<usize> {
    let width = 1 << width_log2(page);
    let slots = &page[HEADER..HEADER + len(page) * SLOT];
    for group in slots.chunks(GROUP) {
        let tag_of = |slot: &[u8]| u16_at(slot, 2);
        if !group.chunks_exact(SLOT).fold(false, |any, slot| any | (tag_of(slot) == tag)) {
            continue;
        }
        for slot in group.chunks_exact(SLOT).filter(|slot| tag_of(slot) == tag) {
            let at = u16_at(slot, 0) as usize;
            let body = &page[at + width..];
            if same(&body[1..1 + body[0] as usize], item) {
                return Some(at);
            }
        }
    }
    None
}

/// Adds `weight` to the count of `item`, inserting it when it is new. A refused item leaves the page as it was.
#[inline]
pub(super) fn add(page: &mut [u8], item: &[u8], weight: u64) -> Result<(), Refused> {
    let tag = (hash(item) >> 48) as u16;
    let width_log2 = width_log2(page);
    if let Some(at) = find(page, item, tag) {
        let count = count_at(page, at, width_log2).saturating_add(weight).min(MAX_COUNT);
        if width_for(count) > width_log2 {
            return Err(Refused::Width(width_for(count)));
        }
        put_count(page, at, width_log2, count);
        return Ok(());
    }
    if width_for(weight) > width_log2 {
        return Err(Refused::Width(width_for(weight)));
    }
    insert(page, item, tag, weight)
}

#[inline]
fn insert(page: &mut [u8], item: &[u8], tag: u16, count: u64) -> Result<(), Refused> {
    let (n, width_log2) = (len(page), width_log2(page));
    let slot = HEADER + n * SLOT;
    let entry = (1 << width_log2) + 1 + item.len();
    let start = start(page);
    if n == MAX_ITEMS || item.len() > MAX_ITEM_LEN || slot + SLOT + entry > start {
        return Err(Refused::Room);
    }
    let at = start - entry;
    put_count(page, at, width_log2, count);
    let body = at + (1 << width_log2);
    page[body] = item.len() as u8;
    page[body + 1..body + 1 + item.len()].copy_from_slice(item);
    put(page, slot, (at as u16).to_ne_bytes());
    put(page, slot + 2, tag.to_ne_bytes());
    put(page, 2, (at as u16).to_ne_bytes());
    page[1] = n as u8 + 1;
    Ok(())
}

/// Items and counts in order of arrival.
pub(super) fn iter(page: &[u8]) -> impl ExactSizeIterator<Item = (&[u8], u64)> {
    let width_log2 = width_log2(page);
    (0..len(page)).map(move |i| {
        let at = u16_at(page, HEADER + i * SLOT) as usize;
        let body = &page[at + (1 << width_log2)..];
        (&body[1..1 + body[0] as usize], count_at(page, at, width_log2))
    })
}

/// Copies every entry into an empty page, which has the room and at least the width.
pub(super) fn copy_into(old: &[u8], new: &mut [u8]) {
    for (i, (item, count)) in iter(old).enumerate() {
        let tag = u16_at(old, HEADER + i * SLOT + 2);
        insert(new, item, tag, count).expect("the new page has room for the old one's entries");
    }
}

/// The size of a page for what this one holds at `width_log2` and one more item of `item_len` bytes;
/// `None` when that outgrows the form. With its [`BLOCK_HEADER`] it is a power of two.
pub(super) fn size_for(page: Option<&[u8]>, item_len: usize, width_log2: u8) -> Option<usize> {
    let (items, bytes) = page.map_or((0, 0), |page| {
        let wider = (1 << width_log2) - (1 << self::width_log2(page));
        (len(page), page.len() - start(page) + len(page) * wider)
    });
    if items == MAX_ITEMS || item_len > MAX_ITEM_LEN {
        return None;
    }
    let entry = (1 << width_log2) + 1 + item_len;
    let block = BLOCK_HEADER + HEADER + (items + 1) * SLOT + bytes + entry;
    let size = block.next_power_of_two().max(32) - BLOCK_HEADER;
    (size <= usize::from(u16::MAX)).then_some(size)
}

/// The size of a page for `items` items of `bytes` bytes in all and counts of one byte; `None` when that
/// outgrows the form.
pub(super) fn size_for_many(items: usize, bytes: usize) -> Option<usize> {
    let block = BLOCK_HEADER + HEADER + items * (SLOT + 2) + bytes;
    let size = block.next_power_of_two().max(32) - BLOCK_HEADER;
    (items <= MAX_ITEMS && size <= usize::from(u16::MAX)).then_some(size)
}
