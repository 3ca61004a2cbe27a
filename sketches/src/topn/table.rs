//! The state of a large group: a hash table that prunes itself.
//!
//! ```text
//! 0        form              1   log2 of the number of slots
//! 4..8     number of items   8..12  limit: the counters asked for
//! 12..16   room for items   16..20  bytes used of the arena
//! 24..32   floor: no item that is not in the table has occurred more often
//! 32..     entries in order of arrival: u64 count, u64 error, u32 hash, u32 offset in the arena
//! ...      slots: u32, 0 for empty, else the entry's number + 1 with hash bits above it
//! ...      arena: items, each with its length as LEB128 before it
//! ```
//!
//! The algorithm is Misra-Gries with lazy pruning, told by upper bounds as in Space-Saving. A new item
//! starts with the floor as its error, because it may have been here before: count <= truth <= count +
//! error. When `FACTOR * limit` items are there, half of them go, and the floor becomes the largest
//! upper bound among them. Those with the `limit` largest upper bounds always stay, hence
//! floor <= N / limit for N events: let an item's excess be its upper bound minus the floor; an event adds
//! one to the sum of all excesses, and a rise of the floor by d takes d from each of `limit` items.
//! The others that stay are those with the largest counts: in a stream that does not drift they are
//! the frequent ones, and their counts stay exact.

use super::bytes::{put, u32_at, u64_at};
use super::{Counted, Error, MAX_COUNT, MAX_ITEM, MAX_STATE, page};

pub(super) const FORM: u8 = 0x20;

/// Items kept for each counter asked for, at most, before half of them are pruned.
pub(super) const FACTOR: usize = 16;
/// With items so long that the arena holds more bytes than this for each item, pruning starts at
/// `CROWDED * limit` items already.
const ARENA_BYTES: usize = 32;
const CROWDED: usize = 3;

const HEADER: usize = 32;
const ENTRY: usize = 24;
const MIN_ITEMS: usize = 2 * page::MAX_ITEMS;

/// How large a table is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub limit: usize,
    items: usize,
    arena: usize,
}

impl Shape {
    /// Room for `items` items of `bytes` bytes in all, lengths included, and then some.
    pub fn new(limit: usize, items: usize, bytes: usize) -> Self {
        let room = (2 * items).max(MIN_ITEMS).min(most(limit)).max(items + 1);
        let more = (room - items).saturating_mul(bytes.div_ceil(items.max(1)));
        let arena = bytes + more.min(bytes.max(2048));
        Shape { limit, items: room, arena: arena.next_multiple_of(8) }
    }

    fn slots_log2(&self) -> u32 {
        (2 * self.items).next_power_of_two().ilog2()
    }

    pub fn size(&self) -> usize {
        HEADER + self.items * ENTRY + (4 << self.slots_log2()) + self.arena
    }
}

/// Where the parts of a table lie.
#[derive(Clone, Copy)]
struct Parts {
    items: usize,
    slots: usize,
    mask: u32,
    arena: usize,
}

impl Parts {
    #[inline]
    fn of(table: &[u8]) -> Self {
        let items = u32_at(table, 12) as usize;
        let slots = HEADER + items * ENTRY;
        let slots_log2 = table[1];
        Parts { items, slots, mask: (1 << slots_log2) - 1, arena: slots + (4 << slots_log2) }
    }
}

/// The most items a table of this limit holds.
fn most(limit: usize) -> usize {
    limit.saturating_mul(FACTOR).max(MIN_ITEMS)
}

pub(super) fn init(table: &mut [u8], shape: Shape) {
    table[..HEADER].fill(0);
    table[0] = FORM;
    table[1] = shape.slots_log2() as u8;
    put(table, 8, (shape.limit as u32).to_ne_bytes());
    put(table, 12, (shape.items as u32).to_ne_bytes());
    let parts = Parts::of(table);
    table[parts.slots..parts.arena].fill(0);
}

#[inline]
pub(super) fn len(table: &[u8]) -> usize {
    u32_at(table, 4) as usize
}

#[inline]
pub(super) fn limit(table: &[u8]) -> usize {
    u32_at(table, 8) as usize
}

/// Raises the limit to `limit`; never lowers it.
pub(super) fn raise_limit(table: &mut [u8], limit: usize) {
    let limit = (limit as u32).max(u32_at(table, 8));
    put(table, 8, limit.to_ne_bytes());
}

#[inline]
pub(super) fn floor(table: &[u8]) -> u64 {
    u64_at(table, 24)
}

fn set_floor(table: &mut [u8], floor: u64) {
    put(table, 24, floor.min(MAX_COUNT).to_ne_bytes());
}

#[inline]
fn arena_used(table: &[u8]) -> usize {
    u32_at(table, 16) as usize
}

#[inline]
fn entry(i: usize) -> usize {
    HEADER + i * ENTRY
}

#[inline]
fn length_bytes(len: usize) -> usize {
    match len {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// The item at `at`, and how many bytes it takes there.
#[inline]
fn item_at(table: &[u8], at: usize) -> (&[u8], usize) {
    let mut len = usize::from(table[at] & 0x7f);
    let mut head = 1;
    while table[at + head - 1] & 0x80 != 0 {
        len |= usize::from(table[at + head] & 0x7f) << (7 * head);
        head += 1;
    }
    (&table[at + head..at + head + len], head + len)
}

#[inline]
fn entry_item(table: &[u8], parts: Parts, i: usize) -> &[u8] {
    item_at(table, parts.arena + u32_at(table, entry(i) + 20) as usize).0
}

/// The entry that holds `item`, or the empty slot that ends the search for it.
#[inline]
fn find(table: &[u8], parts: Parts, item: &[u8], hash: u32) -> Result<usize, usize> {
    let mut slot = hash & parts.mask;
    loop {
        let at = parts.slots + slot as usize * 4;
        let found = u32_at(table, at);
        if found == 0 {
            return Err(at);
        }
        if (found ^ hash) & !parts.mask == 0 {
            let i = (found & parts.mask) as usize - 1;
            if u32_at(table, entry(i) + 16) == hash && entry_item(table, parts, i) == item {
                return Ok(entry(i));
            }
        }
        slot = (slot + 1) & parts.mask;
    }
}

/// Adds `weight` to the count of `item`. The error of the item is `slack` below what it would be:
/// 0 for an event, for a counter from another state what that state knows better.
///
/// Returns the shape of the larger table that is needed first, if one is.
#[inline]
pub(super) fn add(table: &mut [u8], item: &[u8], weight: u64, slack: u64) -> Result<Option<Shape>, Error> {
    let hash = (super::hash::hash(item) >> 32) as u32;
    let parts = Parts::of(table);
    match find(table, parts, item, hash) {
        Ok(at) => {
            let count = u64_at(table, at).saturating_add(weight).min(MAX_COUNT);
            put(table, at, count.to_ne_bytes());
            if slack > 0 {
                let error = u64_at(table, at + 8).saturating_sub(slack);
                put(table, at + 8, error.to_ne_bytes());
            }
            Ok(None)
        }
        Err(slot) => insert(table, parts, slot, item, hash, weight, slack),
    }
}

fn insert(
    table: &mut [u8],
    parts: Parts,
    slot: usize,
    item: &[u8],
    hash: u32,
    weight: u64,
    slack: u64,
) -> Result<Option<Shape>, Error> {
    if item.len() > MAX_ITEM {
        return Err(Error::ItemTooLong(item.len()));
    }
    let (n, used, limit) = (len(table), arena_used(table), limit(table));
    let head = length_bytes(item.len());
    let need = head + item.len();
    let fits = n < parts.items && parts.arena + used + need <= table.len();
    if !fits {
        let most = most(limit);
        let shape = Shape::new(limit, n, used + need);
        let crowded = used + need > most * ARENA_BYTES && n >= CROWDED * limit;
        if n < most && !crowded && shape.size() <= MAX_STATE {
            return Ok(Some(shape));
        }
        if n <= limit {
            return Err(Error::TooLarge);
        }
        prune(table);
        return add(table, item, weight, slack);
    }
    let mut at = parts.arena + used;
    let mut rest = item.len();
    for i in 0..head {
        table[at] = (rest & 0x7f) as u8 | if i + 1 < head { 0x80 } else { 0 };
        rest >>= 7;
        at += 1;
    }
    table[at..at + item.len()].copy_from_slice(item);
    put_entry(table, n, weight, floor(table).saturating_sub(slack), hash, used as u32);
    put(table, slot, (hash & !parts.mask | (n as u32 + 1)).to_ne_bytes());
    put(table, 4, (n as u32 + 1).to_ne_bytes());
    put(table, 16, ((used + need) as u32).to_ne_bytes());
    Ok(None)
}

#[inline]
fn put_entry(table: &mut [u8], i: usize, count: u64, error: u64, hash: u32, offset: u32) {
    let entry: &mut [u8; ENTRY] = (&mut table[entry(i)..entry(i + 1)]).try_into().expect("an entry's length");
    entry[0..8].copy_from_slice(&count.to_ne_bytes());
    entry[8..16].copy_from_slice(&error.to_ne_bytes());
    entry[16..20].copy_from_slice(&hash.to_ne_bytes());
    entry[20..24].copy_from_slice(&offset.to_ne_bytes());
}

/// Items, counts and errors in order of arrival.
pub(super) fn iter(table: &[u8]) -> impl ExactSizeIterator<Item = Counted<'_>> {
    let parts = Parts::of(table);
    (0..len(table)).map(move |i| Counted {
        item: entry_item(table, parts, i),
        count: u64_at(table, entry(i)),
        error: u64_at(table, entry(i) + 8),
    })
}

/// Copies a table into an initialized, larger one.
pub(super) fn copy_into(old: &[u8], new: &mut [u8]) {
    let (from, to) = (Parts::of(old), Parts::of(new));
    let (n, used) = (len(old), arena_used(old));
    let limit = limit(new).max(limit(old)) as u32;
    put(new, 4, (n as u32).to_ne_bytes());
    put(new, 8, limit.to_ne_bytes());
    put(new, 16, (used as u32).to_ne_bytes());
    set_floor(new, floor(old));
    new[HEADER..entry(n)].copy_from_slice(&old[HEADER..entry(n)]);
    new[to.arena..to.arena + used].copy_from_slice(&old[from.arena..from.arena + used]);
    index(new, to, n);
}

/// Fills the empty slots from the entries.
fn index(table: &mut [u8], parts: Parts, n: usize) {
    for i in 0..n {
        let hash = u32_at(table, entry(i) + 16);
        let mut slot = hash & parts.mask;
        while u32_at(table, parts.slots + slot as usize * 4) != 0 {
            slot = (slot + 1) & parts.mask;
        }
        let value = hash & !parts.mask | (i as u32 + 1);
        put(table, parts.slots + slot as usize * 4, value.to_ne_bytes());
    }
}

/// Takes in what another state may have pruned: up to `floor` events of any item.
pub(super) fn absorb_floor(table: &mut [u8], floor: u64) {
    for i in 0..len(table) {
        let error = u64_at(table, entry(i) + 8).saturating_add(floor).min(MAX_COUNT);
        put(table, entry(i) + 8, error.to_ne_bytes());
    }
    set_floor(table, self::floor(table).saturating_add(floor));
}

/// Keeps half of the items and raises the floor to what the others may have counted.
fn prune(table: &mut [u8]) {
    let (n, limit) = (len(table), limit(table));
    let keep = (n / 2).max(limit).min(n - 1);
    let parts = Parts::of(table);

    // Larger bounds first, among equals the older item: the order is total, so the outcome is determined.
    let mut order: Vec<(u64, u32)> = (0..n)
        .map(|i| {
            let upper = u64_at(table, entry(i)).saturating_add(u64_at(table, entry(i) + 8));
            (!upper, i as u32)
        })
        .collect();
    if limit < n {
        order.select_nth_unstable(limit);
    }
    let rest = &mut order[limit.min(keep)..];
    for (bound, i) in rest.iter_mut() {
        *bound = !u64_at(table, entry(*i as usize));
    }
    let stay = keep - limit.min(keep);
    rest.select_nth_unstable(stay);
    let mut floor = floor(table);
    for &(_, i) in &rest[stay..] {
        let at = entry(i as usize);
        floor = floor.max(u64_at(table, at).saturating_add(u64_at(table, at + 8)));
    }
    let mut kept: Vec<u32> = order[..keep].iter().map(|&(_, i)| i).collect();
    kept.sort_unstable();

    let mut used = 0;
    for (to, &from) in kept.iter().enumerate() {
        let from = entry(from as usize);
        let at = parts.arena + u32_at(table, from + 20) as usize;
        let bytes = item_at(table, at).1;
        table.copy_within(at..at + bytes, parts.arena + used);
        table.copy_within(from..from + ENTRY, entry(to));
        put(table, entry(to) + 20, (used as u32).to_ne_bytes());
        used += bytes;
    }
    put(table, 4, (keep as u32).to_ne_bytes());
    put(table, 16, (used as u32).to_ne_bytes());
    set_floor(table, floor);
    table[parts.slots..parts.arena].fill(0);
    index(table, parts, keep);
}
