//! The state of a small group: items in order, behind a log of the newest.
//!
//! ```text
//! 0        form and width: log2 of the bytes of a count
//! 1        whether items are looked for in the tail before they are added
//! 2..4     where the tail ends     4..6     bytes of the run     6..8     bytes of the log
//! 8..      tail: entries in order of arrival
//! ...      run: entries of different items in the order of jsonb; log: tails that were full, as they were
//! ```
//!
//! An entry is its count (1, 2, 4 or 8 bytes), its length (u8) and the item. The tail is in one cache line with the header; a
//! smaller page has nothing else. When neither tail nor log has room, all is sorted into a new run, and the page grows where
//! that takes more than three quarters of it. So counting in many groups in turn takes one cache miss for each item, for
//! which nobody waits, because a [`Cursor`] says where to write; each item is merged a few times only, it needs no index,
//! and a finished list is in its order. Only where there are few items, and most of them again, is the tail searched first.

use std::cmp::Ordering;

use super::bytes::{array, copy, put, same, u16_at};
use super::list::in_jsonb;
use super::{BLOCK_HEADER, Counter, MAX_COUNT};

/// Bits of byte 0 that say "page"; the low two hold the width.
const FORM: u8 = 0x10;
pub(super) const MAX_ITEMS: usize = 256;
pub(super) const MAX_ITEM_LEN: usize = 255;

const HEADER: usize = 8;
/// Where the tail has to end: the page up to there is in one cache line with the caller's header.
const TAIL_LIMIT: usize = 64 - BLOCK_HEADER;
/// Up to so many items, a tail has a good part of them.
const SEARCHED: usize = 16;
const SMALLEST: usize = 32 - BLOCK_HEADER;
const LARGEST: usize = u16::MAX as usize;

/// Why an item did not go in.
#[derive(Debug)]
pub(super) enum Refused {
    /// Its count needs wider counts: log2 of the bytes.
    Width(u8),
    Room,
}

/// What it takes to count an item without looking at the state.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// Where the tail ends; 0 where the state has to be looked at.
    end: u8,
    width_log2: u8,
}

impl Cursor {
    /// Eight bits.
    #[inline]
    pub fn to_bits(self) -> u16 {
        (self.width_log2 as u16) << 6 | self.end as u16
    }

    #[inline]
    pub fn from_bits(bits: u16) -> Self {
        Cursor { end: bits as u8 & 63, width_log2: (bits >> 6) as u8 & 3 }
    }

    /// Counts an item where the tail has room: writes into the first bytes of the state, [`open`] of them, and returns the
    /// next cursor. `None` leaves it to [`super::add`].
    #[inline]
    pub fn put(self, state: &mut [u8], item: &[u8], weight: u64) -> Option<Cursor> {
        let at = self.end as usize;
        let end = at + entry_size(item.len(), self.width_log2);
        if at == 0 || end > state.len() || width_for(weight) > self.width_log2 {
            return None;
        }
        put_entry(state, at, self.width_log2, item, weight);
        Some(Cursor { end: end as u8, ..self })
    }
}

/// Whether a state is a page.
#[inline]
pub(super) fn is_page(state: &[u8]) -> bool {
    state.first().is_some_and(|form| form & !3 == FORM)
}

/// The cursor of a state, and how many of its bytes [`Cursor::put`] may use.
#[inline]
pub fn cursor(state: &[u8]) -> (Cursor, usize) {
    if !is_page(state) || searched(state) {
        return (Cursor { end: 0, width_log2: 0 }, 0);
    }
    (Cursor { end: tail_end(state) as u8, width_log2: width_log2(state) }, tail_limit(state))
}

/// Makes the state know what was counted by its cursor.
#[inline]
pub fn settle(state: &mut [u8], cursor: Cursor) {
    if cursor.end > 0 {
        set_tail_end(state, cursor.end as usize);
    }
}

pub(super) fn init(page: &mut [u8], width_log2: u8) {
    page[..HEADER].fill(0);
    page[0] = FORM | width_log2;
    set_tail_end(page, HEADER);
}

#[inline]
fn width_log2(page: &[u8]) -> u8 {
    page[0] & 3
}

#[inline]
fn searched(page: &[u8]) -> bool {
    page[1] != 0
}

#[inline]
fn tail_end(page: &[u8]) -> usize {
    u16_at(page, 2) as usize
}

#[inline]
fn set_tail_end(page: &mut [u8], end: usize) {
    put(page, 2, (end as u16).to_ne_bytes());
}

/// Where the tail of a page has to end, and the run starts.
#[inline]
fn tail_limit(page: &[u8]) -> usize {
    page.len().min(TAIL_LIMIT)
}

#[inline]
fn run_bytes(page: &[u8]) -> usize {
    u16_at(page, 4) as usize
}

#[inline]
fn log_bytes(page: &[u8]) -> usize {
    u16_at(page, 6) as usize
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

#[inline]
fn item_at(page: &[u8], at: usize, width_log2: u8) -> &[u8] {
    let body = &page[at + (1 << width_log2)..];
    &body[1..1 + body[0] as usize]
}

#[inline]
fn entry_size(item_len: usize, width_log2: u8) -> usize {
    (1 << width_log2) + 1 + item_len
}

#[inline]
fn put_entry(page: &mut [u8], at: usize, width_log2: u8, item: &[u8], count: u64) {
    put_count(page, at, width_log2, count);
    let body = &mut page[at + (1 << width_log2)..];
    body[0] = item.len() as u8;
    copy(item, &mut body[1..1 + item.len()]);
}

#[inline]
fn sum(a: u64, b: u64) -> u64 {
    a.saturating_add(b).min(MAX_COUNT)
}

/// Adds an entry of `item`, which there may be some of already. A refused item leaves the page with what it had.
#[inline]
pub(super) fn add(page: &mut [u8], item: &[u8], weight: u64) -> Result<(), Refused> {
    let width_log2 = width_log2(page);
    if width_for(weight) > width_log2 {
        return Err(Refused::Width(width_for(weight)));
    }
    let (size, limit) = (entry_size(item.len(), width_log2), tail_limit(page));
    if item.len() > MAX_ITEM_LEN || tail_end(page) + size > limit && !log_tail(page) {
        return Err(Refused::Room);
    }
    if tail_end(page) + size <= limit {
        let end = tail_end(page);
        put_entry(page, end, width_log2, item, weight);
        set_tail_end(page, end + size);
        return Ok(());
    }
    // Longer than a tail.
    let at = limit + run_bytes(page) + log_bytes(page);
    if at + size > page.len() {
        return Err(Refused::Room);
    }
    put_entry(page, at, width_log2, item, weight);
    set_log_bytes(page, log_bytes(page) + size);
    Ok(())
}

/// Adds to the count of an item that is in the tail, if that is searched; this leaves the cursor as it is. `false` where the
/// item was not found, or where the sum needs wider counts: then there may be two entries until the next merge.
#[inline]
pub fn count(state: &mut [u8], item: &[u8], weight: u64) -> bool {
    if !is_page(state) || !searched(state) {
        return false;
    }
    let (width_log2, end) = (width_log2(state), tail_end(state));
    let mut at = HEADER;
    while at < end {
        let other = item_at(state, at, width_log2);
        if same(other, item) {
            let count = sum(count_at(state, at, width_log2), weight);
            let fits = width_for(count) <= width_log2;
            if fits {
                put_count(state, at, width_log2, count);
            }
            return fits;
        }
        at += entry_size(other.len(), width_log2);
    }
    false
}

#[inline]
fn set_log_bytes(page: &mut [u8], bytes: usize) {
    put(page, 6, (bytes as u16).to_ne_bytes());
}

/// Moves the tail into the log; `false` when that has no room for it.
#[inline]
fn log_tail(page: &mut [u8]) -> bool {
    let (end, limit, log) = (tail_end(page), tail_limit(page), log_bytes(page));
    let (bytes, to) = (end - HEADER, limit + run_bytes(page) + log);
    if to + bytes > page.len() {
        return false;
    }
    page.copy_within(HEADER..end, to);
    set_log_bytes(page, log + bytes);
    set_tail_end(page, HEADER);
    true
}

/// A counter with what orders it in jsonb: its length and its first bytes, as a number.
#[derive(Clone, Copy)]
struct Keyed<'a> {
    key: u64,
    counter: Counter<'a>,
}

impl Keyed<'_> {
    #[inline(always)]
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.key.cmp(&other.key);
        // Of up to seven bytes the key holds them all.
        if order.is_eq() && self.counter.item.len() > 7 {
            return in_jsonb(self.counter.item, other.counter.item);
        }
        order
    }
}

/// The length at `at` and the first seven bytes of the item behind it.
#[inline]
fn key(entries: &[u8], at: usize) -> u64 {
    let word = match entries.get(at..at + 8) {
        Some(eight) => u64::from_be_bytes(array(eight, 0)),
        None => {
            let mut eight = [0; 8];
            eight[..entries.len() - at].copy_from_slice(&entries[at..]);
            u64::from_be_bytes(eight)
        }
    };
    let beyond = 8 * 7u32.saturating_sub(entries[at] as u32);
    word >> beyond << beyond
}

/// The entries in `bytes`, each with where it starts.
#[inline]
fn entries(bytes: &[u8], width_log2: u8) -> impl Iterator<Item = (usize, Counter<'_>)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let at = next;
        (at < bytes.len()).then(|| {
            let (item, count) = (item_at(bytes, at, width_log2), count_at(bytes, at, width_log2));
            next = at + entry_size(item.len(), width_log2);
            (at, Counter { item, count })
        })
    })
}

/// Appends the entries in `bytes`.
#[inline]
fn read<'a>(bytes: &'a [u8], width_log2: u8, out: &mut Vec<Keyed<'a>>) {
    for (at, counter) in entries(bytes, width_log2) {
        out.push(Keyed { key: key(bytes, at + (1 << width_log2)), counter });
    }
}

/// Adds up the counts of equal items, which are next to each other.
fn add_up(entries: &mut Vec<Keyed>) {
    entries.dedup_by(|entry, before| {
        let same = before.cmp(entry).is_eq();
        if same {
            before.counter.count = sum(before.counter.count, entry.counter.count);
        }
        same
    });
}

/// Items and counts in the order of jsonb.
pub(super) fn counters(page: &[u8]) -> Vec<Counter<'_>> {
    let (width_log2, start) = (width_log2(page), tail_limit(page));
    let (run, log) = page[start..start + run_bytes(page) + log_bytes(page)].split_at(run_bytes(page));
    let tail = &page[HEADER..tail_end(page)];
    // A guess: an entry has two bytes at least, hardly ever less than four.
    let mut known: Vec<Keyed> = Vec::with_capacity(run.len() / 4);
    read(run, width_log2, &mut known);
    let mut new: Vec<Keyed> = Vec::with_capacity((tail.len() + log.len()) / 4);
    read(log, width_log2, &mut new);
    read(tail, width_log2, &mut new);
    new.sort_unstable_by(Keyed::cmp);
    add_up(&mut new);

    // As entries of HLL are merged: no branch says which of two comes first, since none could be predicted.
    let mut out: Vec<Counter> = Vec::with_capacity(known.len() + new.len());
    let (mut i, mut j) = (0, 0);
    while let (Some(a), Some(b)) = (known.get(i), new.get(j)) {
        let order = a.cmp(b);
        let smaller = if order.is_le() { a.counter } else { b.counter };
        let more = if order.is_eq() { b.counter.count } else { 0 };
        out.push(Counter { count: sum(smaller.count, more), ..smaller });
        i += order.is_le() as usize;
        j += order.is_ge() as usize;
    }
    out.extend(known[i..].iter().map(|entry| entry.counter));
    out.extend(new[j..].iter().map(|entry| entry.counter));
    out
}

/// What a page holds, as a run.
#[derive(Default)]
pub(super) struct Run {
    bytes: Vec<u8>,
    items: usize,
    width_log2: u8,
    searched: bool,
}

impl Run {
    /// The number of items.
    pub(super) fn len(&self) -> usize {
        self.items
    }

    /// Items and counts in the order of jsonb.
    pub(super) fn counters(&self) -> impl Iterator<Item = Counter<'_>> {
        entries(&self.bytes, self.width_log2).map(|(_, counter)| counter)
    }
}

/// The run of all that a page holds, with counts of this width at least, and of the page's own.
pub(super) fn run(page: &[u8], width_log2: u8) -> Run {
    let counters = counters(page);
    let width_log2 = width_log2.max(self::width_log2(page));
    let width_log2 = counters.iter().fold(width_log2, |width, counter| width.max(width_for(counter.count)));
    let mut bytes = vec![0; counters.iter().map(|counter| entry_size(counter.item.len(), width_log2)).sum()];
    let mut at = 0;
    for Counter { item, count } in &counters {
        put_entry(&mut bytes, at, width_log2, item, *count);
        at += entry_size(item.len(), width_log2);
    }
    let events = counters.iter().fold(0, |events, counter| sum(events, counter.count));
    let searched = counters.len() <= SEARCHED && events > 2 * counters.len() as u64;
    Run { bytes, items: counters.len(), width_log2, searched }
}

/// Makes a run all that a page holds.
pub(super) fn fill(page: &mut [u8], run: &Run) {
    init(page, run.width_log2);
    page[1] = run.searched as u8;
    let (len, limit) = (run.bytes.len(), tail_limit(page));
    if limit == page.len() {
        page[HEADER..HEADER + len].copy_from_slice(&run.bytes);
        set_tail_end(page, HEADER + len);
    } else {
        page[limit..limit + len].copy_from_slice(&run.bytes);
        put(page, 4, (len as u16).to_ne_bytes());
    }
}

/// The size of a page for this run and one more item of `item_len` bytes; `None` when that outgrows the form. With its
/// [`BLOCK_HEADER`] it is a power of two.
pub(super) fn size_for(run: &Run, item_len: usize) -> Option<usize> {
    let fits = run.items < MAX_ITEMS && item_len <= MAX_ITEM_LEN;
    if fits { size_of(run.bytes.len(), entry_size(item_len, run.width_log2)) } else { None }
}

/// The size of a page for a first item of `item_len` bytes; `None` as above.
pub(super) fn size_for_first(item_len: usize, width_log2: u8) -> Option<usize> {
    if item_len > MAX_ITEM_LEN { None } else { size_of(0, entry_size(item_len, width_log2)) }
}

/// The size of a page for `items` items of `bytes` bytes in all and counts of one byte; `None` as above.
pub(super) fn size_for_many(items: usize, bytes: usize) -> Option<usize> {
    if items > MAX_ITEMS { None } else { size_of(bytes + 2 * items, 0) }
}

/// The size of a page that a run of so many bytes leaves a quarter of, and room for an entry.
fn size_of(run: usize, entry: usize) -> Option<usize> {
    let mut size = SMALLEST;
    while size <= LARGEST {
        let body = if size <= TAIL_LIMIT { size - HEADER } else { size - TAIL_LIMIT };
        if 4 * run <= 3 * body && run + entry <= body {
            return Some(size);
        }
        size = 2 * (size + BLOCK_HEADER) - BLOCK_HEADER;
    }
    None
}
