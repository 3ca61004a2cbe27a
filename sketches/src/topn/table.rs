//! The state of a large group: a hash table that prunes itself.
//!
//! ```text
//! 0        form              1       log2 of the number of slots
//! 2        bits of a slot that hold a record's number
//! 4..8     number of items   8..12   limit: the counters asked for
//! 12..16   bytes of records  16..24  floor: no item that is not in the table has occurred more often
//! 24..     slots: u32, 0 for empty, else where the record is, in units of 8 bytes and plus 1, and hash bits above that
//! ...      records in order of arrival, a multiple of 8 bytes each: u64 count, u64 error, u32 hash, u32 length, the item
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

use super::bytes::{put, same, u32_at, u64_at};
use super::hash::hash;
use super::{Counted, Error, MAX_COUNT, MAX_ITEM, MAX_STATE, page};
use crate::memory;

pub(super) const FORM: u8 = 0x20;

/// Items kept for each counter asked for, at most, before half of them are pruned.
pub(super) const FACTOR: usize = 16;
/// With items so long that the records take more bytes than this for each of them, pruning starts at
/// `CROWDED * limit` items already.
const RECORD_BYTES: usize = 56;
const CROWDED: usize = 3;

const HEADER: usize = 24;
/// The bytes of a record before the item, and the unit of its size.
const RECORD: usize = 24;
const UNIT: usize = 8;
const MIN_ITEMS: usize = 2 * page::MAX_ITEMS;

/// How large a table is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub limit: usize,
    slots_log2: u32,
    records: usize,
}

impl Shape {
    /// Room for `items` items whose records take `bytes` bytes in all, and then some.
    pub fn new(limit: usize, items: usize, bytes: usize) -> Self {
        let room = (2 * items).max(MIN_ITEMS).min(most(limit)).max(items + 1);
        let more = (room - items).saturating_mul(bytes.div_ceil(items.max(1)));
        let records = bytes + more.min(bytes.max(4096));
        Shape {
            limit,
            slots_log2: (2 * room).next_power_of_two().ilog2(),
            records: records.next_multiple_of(UNIT),
        }
    }

    pub fn size(&self) -> usize {
        HEADER + (4 << self.slots_log2) + self.records
    }
}

/// The bytes that the record of an item of `len` bytes takes.
#[inline]
pub(super) fn record_size(len: usize) -> usize {
    (RECORD + len).next_multiple_of(UNIT)
}

/// The most items a table of this limit holds.
fn most(limit: usize) -> usize {
    limit.saturating_mul(FACTOR).max(MIN_ITEMS)
}

/// How the slots of a table are read.
#[derive(Clone, Copy)]
struct Slots {
    /// Bits of the hash that say where to look first.
    home: u32,
    /// Bits of a slot that say where the record is; the others are the hash's.
    place: u32,
    /// Where the slots end and the records start.
    end: usize,
}

impl Slots {
    #[inline]
    fn of(table: &[u8]) -> Self {
        let slots = 1u32 << (table[1] & 31);
        Slots { home: slots - 1, place: (1u32 << (table[2] & 31)) - 1, end: HEADER + slots as usize * 4 }
    }

    #[inline]
    fn record(&self, slot: u32) -> usize {
        self.end + ((slot & self.place) as usize - 1) * UNIT
    }

    #[inline]
    fn slot(&self, hash: u32, record: usize) -> u32 {
        hash & !self.place | ((record - self.end) / UNIT + 1) as u32
    }

    /// How many items the slots take: half of them stay empty.
    #[inline]
    fn room(&self) -> usize {
        (self.home as usize).div_ceil(2)
    }
}

pub(super) fn init(table: &mut [u8], shape: Shape) {
    table[..HEADER].fill(0);
    table[0] = FORM;
    table[1] = shape.slots_log2 as u8;
    let records = table.len() - HEADER - (4 << shape.slots_log2);
    table[2] = (records / UNIT + 2).next_power_of_two().ilog2() as u8;
    put(table, 8, (shape.limit as u32).to_ne_bytes());
    let slots = Slots::of(table);
    table[HEADER..slots.end].fill(0);
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
    u64_at(table, 16)
}

fn set_floor(table: &mut [u8], floor: u64) {
    put(table, 16, floor.min(MAX_COUNT).to_ne_bytes());
}

/// The bytes that the records take.
#[inline]
fn used(table: &[u8]) -> usize {
    u32_at(table, 12) as usize
}

#[inline]
fn item_at(table: &[u8], record: usize) -> &[u8] {
    let len = u32_at(table, record + 20) as usize;
    &table[record + RECORD..record + RECORD + len]
}

/// The record of `item`, or the empty slot that ends the search for it.
#[inline]
fn find(table: &[u8], slots: Slots, item: &[u8], hash: u32) -> Result<usize, usize> {
    let mut home = hash & slots.home;
    loop {
        let at = HEADER + home as usize * 4;
        let slot = u32_at(table, at);
        if slot == 0 {
            return Err(at);
        }
        if (slot ^ hash) & !slots.place == 0 {
            let record = slots.record(slot);
            if same(item_at(table, record), item) {
                return Ok(record);
            }
        }
        home = (home + 1) & slots.home;
    }
}

/// Adds `weight` to the count of `item`, whose [`hash_of`] is `hash`. The error of a new item is the floor less
/// `slack`: 0 for an event, for a counter from another state what that state knows better.
///
/// Returns the shape of the larger table that is needed first, if one is.
#[inline]
pub(super) fn add(
    table: &mut [u8],
    hash: u32,
    item: &[u8],
    weight: u64,
    slack: u64,
) -> Result<Option<Shape>, Error> {
    let slots = Slots::of(table);
    match find(table, slots, item, hash) {
        Ok(record) => {
            let count = u64_at(table, record).saturating_add(weight).min(MAX_COUNT);
            put(table, record, count.to_ne_bytes());
            if slack > 0 {
                let error = u64_at(table, record + 8).saturating_sub(slack);
                put(table, record + 8, error.to_ne_bytes());
            }
            Ok(None)
        }
        Err(slot) => insert(table, slots, slot, hash, item, weight, slack),
    }
}

/// The hash by which a table knows an item.
#[inline]
pub(super) fn hash_of(item: &[u8]) -> u32 {
    (hash(item) >> 32) as u32
}

/// Reads what looking up these hashes will read, without a branch in between: so the memory's latencies
/// overlap, which are most of the cost when many tables take turns.
pub(super) fn warm<const N: usize>(table: &[u8], hashes: &[u32; N]) {
    let slots = Slots::of(table);
    let found = hashes.map(|hash| u32_at(table, HEADER + (hash & slots.home) as usize * 4));
    let first = |slot: u32| table[slots.record(slot.max(1)).min(table.len() - 1)];
    std::hint::black_box(found.iter().fold(0, |sum, &slot| sum ^ first(slot)));
}

fn insert(
    table: &mut [u8],
    slots: Slots,
    slot: usize,
    hash: u32,
    item: &[u8],
    weight: u64,
    slack: u64,
) -> Result<Option<Shape>, Error> {
    if item.len() > MAX_ITEM {
        return Err(Error::ItemTooLong(item.len()));
    }
    let (n, limit, used) = (len(table), limit(table), used(table));
    let (most, size) = (most(limit), record_size(item.len()));
    if n >= slots.room().min(most) || slots.end + used + size > table.len() {
        let shape = Shape::new(limit, n, used + size);
        let crowded = used + size > most * RECORD_BYTES && n >= CROWDED * limit;
        if n < most && !crowded && shape.size() <= MAX_STATE {
            return Ok(Some(shape));
        }
        if n <= limit {
            return Err(Error::TooLarge);
        }
        prune(table);
        return add(table, hash, item, weight, slack);
    }
    let record = slots.end + used;
    let error = floor(table).saturating_sub(slack);
    let bytes = &mut table[record..record + RECORD + item.len()];
    put(bytes, 0, weight.min(MAX_COUNT).to_ne_bytes());
    put(bytes, 8, error.to_ne_bytes());
    put(bytes, 16, hash.to_ne_bytes());
    put(bytes, 20, (item.len() as u32).to_ne_bytes());
    bytes[RECORD..].copy_from_slice(item);
    put(table, slot, slots.slot(hash, record).to_ne_bytes());
    put(table, 4, (n as u32 + 1).to_ne_bytes());
    put(table, 12, ((used + size) as u32).to_ne_bytes());
    Ok(None)
}

/// Where the records are, in order of arrival.
fn records(table: &[u8]) -> impl Iterator<Item = usize> {
    let mut next = Slots::of(table).end;
    (0..len(table)).map(move |_| {
        let record = next;
        next += record_size(u32_at(table, record + 20) as usize);
        record
    })
}

fn counted(table: &[u8], record: usize) -> Counted<'_> {
    Counted { item: item_at(table, record), count: u64_at(table, record), error: u64_at(table, record + 8) }
}

/// Items, counts and errors in order of arrival.
pub(super) fn iter(table: &[u8]) -> impl Iterator<Item = Counted<'_>> {
    records(table).map(|record| counted(table, record))
}

/// Copies a table into an initialized one that has the room.
pub(super) fn copy_into(old: &[u8], new: &mut [u8]) {
    let (from, to, used) = (Slots::of(old).end, Slots::of(new).end, used(old));
    put(new, 4, (len(old) as u32).to_ne_bytes());
    put(new, 12, (used as u32).to_ne_bytes());
    raise_limit(new, limit(old));
    set_floor(new, floor(old));
    new[to..to + used].copy_from_slice(&old[from..from + used]);
    index(new);
}

/// Fills the slots, all of them empty, from the records.
fn index(table: &mut [u8]) {
    let slots = Slots::of(table);
    let mut record = slots.end;
    for _ in 0..len(table) {
        let hash = u32_at(table, record + 16);
        let mut home = hash & slots.home;
        while u32_at(table, HEADER + home as usize * 4) != 0 {
            home = (home + 1) & slots.home;
        }
        put(table, HEADER + home as usize * 4, slots.slot(hash, record).to_ne_bytes());
        record += record_size(u32_at(table, record + 20) as usize);
    }
}

/// Takes in what another state may have pruned: up to `floor` events of any item.
pub(super) fn absorb_floor(table: &mut [u8], floor: u64) {
    let mut record = Slots::of(table).end;
    for _ in 0..len(table) {
        let error = u64_at(table, record + 8).saturating_add(floor).min(MAX_COUNT);
        put(table, record + 8, error.to_ne_bytes());
        record += record_size(u32_at(table, record + 20) as usize);
    }
    set_floor(table, self::floor(table).saturating_add(floor));
}

/// Keeps half of the items and raises the floor to what the others may have counted.
fn prune(table: &mut [u8]) {
    let (n, limit) = (len(table), limit(table));
    let keep = (n / 2).max(limit).min(n - 1);

    // Larger bounds first, among equals the older item: the order is total, so the outcome is determined.
    let upper = |c: Counted| c.count.saturating_add(c.error);
    let bounds = records(table).map(|record| (!upper(counted(table, record)), record));
    let mut order: Vec<(u64, usize)> = memory::collect(n, bounds);
    let bounded = limit.min(keep);
    order.select_nth_unstable(bounded);
    let rest = &mut order[bounded..];
    for (bound, record) in rest.iter_mut() {
        *bound = !u64_at(table, *record);
    }
    rest.select_nth_unstable(keep - bounded);
    let dropped = order[keep..].iter().map(|&(_, record)| upper(counted(table, record)));
    let floor = dropped.fold(floor(table), u64::max);
    let mut kept: Vec<usize> = memory::collect(keep, order[..keep].iter().map(|&(_, record)| record));
    kept.sort_unstable();

    let slots = Slots::of(table);
    let mut end = slots.end;
    for record in kept {
        let size = record_size(u32_at(table, record + 20) as usize);
        table.copy_within(record..record + size, end);
        end += size;
    }
    put(table, 4, (keep as u32).to_ne_bytes());
    put(table, 12, ((end - slots.end) as u32).to_ne_bytes());
    set_floor(table, floor);
    table[HEADER..slots.end].fill(0);
    index(table);
}
