//! The state of a small group: items in order, behind a log of the newest.
//!
//! ```text
//! 0        form and width: log2 of the bytes of a count
//! 1        number of entries in the log      6        number of entries in the run (u16), at most 256
//! 2..4     where the log ends                4..6     bytes of the run
//! 8..      log: entries of different items in order of arrival
//! ...      run: entries in the order of jsonb, in pages of more than a cache line
//! ```
//!
//! An entry is its count (1, 2, 4 or 8 bytes), its length (u8) and the item. An item is looked for in the log, which is in
//! one cache line with the header, and else added to it; a log that is full is merged into the run. So counting in many
//! groups in turn takes one cache miss for each item and some for each merge, the items need no index, and a finished list
//! is in its order.

use std::cmp::Ordering;

use super::bytes::{array, put, same, u16_at};
use super::list::in_jsonb;
use super::{BLOCK_HEADER, Counter, MAX_COUNT};

/// Bits of byte 0 that say "page"; the low two hold the width.
pub(super) const FORM: u8 = 0x10;
pub(super) const MAX_ITEMS: usize = 256;
pub(super) const MAX_ITEM_LEN: usize = 255;

const HEADER: usize = 8;
/// A block up to this size has no run.
const LINE: usize = 64;
/// Entries in the log of a page with a run: they are searched one by one.
const MAX_LOG: usize = 16;
/// More than fit the log of a page without a run.
const MAX_PENDING: usize = 32;

/// Why an item did not go in.
#[derive(Debug)]
pub(super) enum Refused {
    /// Its count needs wider counts: log2 of the bytes.
    Width(u8),
    Room,
}

pub(super) fn init(page: &mut [u8], width_log2: u8) {
    page[..HEADER].fill(0);
    page[0] = FORM | width_log2;
    put(page, 2, (HEADER as u16).to_ne_bytes());
}

/// Where the log of a page of this size has to end, and the run starts: the first cache line, or an eighth of a large page.
#[inline]
fn log_limit(size: usize) -> usize {
    let block = size + BLOCK_HEADER;
    if block <= LINE { size } else { (block / 8).max(LINE) - BLOCK_HEADER }
}

#[inline]
fn width_log2(page: &[u8]) -> u8 {
    page[0] & 3
}

#[inline]
fn log_end(page: &[u8]) -> usize {
    u16_at(page, 2) as usize
}

#[inline]
fn run_bytes(page: &[u8]) -> usize {
    u16_at(page, 4) as usize
}

#[inline]
fn run_len(page: &[u8]) -> usize {
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
fn entry_size(item: &[u8], width_log2: u8) -> usize {
    (1 << width_log2) + 1 + item.len()
}

#[inline]
fn put_entry(page: &mut [u8], at: usize, width_log2: u8, item: &[u8], count: u64) {
    put_count(page, at, width_log2, count);
    let body = &mut page[at + (1 << width_log2)..];
    body[0] = item.len() as u8;
    body[1..1 + item.len()].copy_from_slice(item);
}

#[inline]
fn sum(a: u64, b: u64) -> u64 {
    a.saturating_add(b).min(MAX_COUNT)
}

/// Adds `weight` to the count of `item`, inserting it when it is new. A refused item leaves the page with what it had.
#[inline]
pub(super) fn add(page: &mut [u8], item: &[u8], weight: u64) -> Result<(), Refused> {
    let width_log2 = width_log2(page);
    let end = log_end(page);
    let mut at = HEADER;
    while at < end {
        let other = item_at(page, at, width_log2);
        if same(other, item) {
            let count = sum(count_at(page, at, width_log2), weight);
            if width_for(count) > width_log2 {
                return Err(Refused::Width(width_for(count)));
            }
            put_count(page, at, width_log2, count);
            return Ok(());
        }
        at += entry_size(other, width_log2);
    }
    if width_for(weight) > width_log2 {
        return Err(Refused::Width(width_for(weight)));
    }
    let limit = log_limit(page.len());
    let full =
        end + entry_size(item, width_log2) > limit || page[1] as usize >= MAX_LOG && limit < page.len();
    if full || item.len() > MAX_ITEM_LEN {
        return add_full(page, item, weight);
    }
    append(page, item, weight);
    Ok(())
}

#[inline]
fn append(page: &mut [u8], item: &[u8], weight: u64) {
    let (end, width_log2) = (log_end(page), width_log2(page));
    put_entry(page, end, width_log2, item, weight);
    put(page, 2, ((end + entry_size(item, width_log2)) as u16).to_ne_bytes());
    page[1] += 1;
}

/// Adds an item that is not in the log and for which the log has no room.
#[inline(never)]
fn add_full(page: &mut [u8], item: &[u8], weight: u64) -> Result<(), Refused> {
    let limit = log_limit(page.len());
    if item.len() > MAX_ITEM_LEN || limit == page.len() {
        return Err(Refused::Room);
    }
    flush(page)?;
    if HEADER + entry_size(item, width_log2(page)) <= limit {
        append(page, item, weight);
        return Ok(());
    }
    let one = Pending { counter: Counter { item, count: weight }, at: 0, known: false };
    let (head, run) = page.split_at_mut(limit);
    merge(head, run, &mut [one])
}

/// An entry on its way into the run.
#[derive(Clone, Copy)]
struct Pending<'a> {
    counter: Counter<'a>,
    /// The entry of the same item, or the first behind it.
    at: usize,
    known: bool,
}

/// Merges the log into the run.
fn flush(page: &mut [u8]) -> Result<(), Refused> {
    let (head, run) = page.split_at_mut(log_limit(page.len()));
    let mut copy = [0; HEADER];
    copy.copy_from_slice(&head[..HEADER]);
    let (mut pending, n) = log(head);
    merge(&mut copy, run, &mut pending[..n])?;
    head[..HEADER].copy_from_slice(&copy);
    head[1] = 0;
    put(head, 2, (HEADER as u16).to_ne_bytes());
    Ok(())
}

/// The entries of the log in the order of jsonb, and their number.
fn log(page: &[u8]) -> ([Pending<'_>; MAX_PENDING], usize) {
    let width_log2 = width_log2(page);
    let mut pending =
        [Pending { counter: Counter { item: &[], count: 0 }, at: 0, known: false }; MAX_PENDING];
    let n = page[1] as usize;
    let mut at = HEADER;
    for to in &mut pending[..n] {
        to.counter = Counter { item: item_at(page, at, width_log2), count: count_at(page, at, width_log2) };
        at += entry_size(to.counter.item, width_log2);
    }
    sort(&mut pending[..n]);
    (pending, n)
}

/// Sorts by insertion: a log has few entries.
fn sort(pending: &mut [Pending]) {
    for end in 1..pending.len() {
        let new = pending[end];
        let mut at = end;
        while at > 0 && in_jsonb(new.counter.item, pending[at - 1].counter.item).is_lt() {
            pending[at] = pending[at - 1];
            at -= 1;
        }
        pending[at] = new;
    }
}

/// Merges entries in the order of jsonb into the run: all of them or, refused, none. `head` is the header.
fn merge(head: &mut [u8], run: &mut [u8], pending: &mut [Pending]) -> Result<(), Refused> {
    let width_log2 = width_log2(head);
    let used = run_bytes(head);
    let (mut at, mut new, mut bytes) = (0, 0, 0);
    for pending in pending.iter_mut() {
        let Counter { item, count } = pending.counter;
        let mut order = Ordering::Greater;
        while at < used {
            let other = item_at(run, at, width_log2);
            order = in_jsonb(other, item);
            if order.is_ge() {
                break;
            }
            at += entry_size(other, width_log2);
        }
        pending.at = at;
        pending.known = at < used && order.is_eq();
        if pending.known {
            let width = width_for(sum(count_at(run, at, width_log2), count));
            if width > width_log2 {
                return Err(Refused::Width(width));
            }
        } else {
            new += 1;
            bytes += entry_size(item, width_log2);
        }
    }
    if used + bytes > run.len() || run_len(head) + new > MAX_ITEMS {
        return Err(Refused::Room);
    }
    let (mut from, mut to) = (used, used + bytes);
    for Pending { counter: Counter { item, count }, at, known } in pending.iter().rev() {
        if *known {
            let count = sum(count_at(run, *at, width_log2), *count);
            put_count(run, *at, width_log2, count);
            continue;
        }
        to -= from - at;
        run.copy_within(*at..from, to);
        from = *at;
        to -= entry_size(item, width_log2);
        put_entry(run, to, width_log2, item, *count);
    }
    put(head, 4, ((used + bytes) as u16).to_ne_bytes());
    put(head, 6, ((run_len(head) + new) as u16).to_ne_bytes());
    Ok(())
}

/// The entries of the run.
fn run(page: &[u8]) -> impl Iterator<Item = Counter<'_>> {
    let width_log2 = width_log2(page);
    let mut at = log_limit(page.len());
    (0..run_len(page)).map(move |_| {
        let item = item_at(page, at, width_log2);
        let count = count_at(page, at, width_log2);
        at += entry_size(item, width_log2);
        Counter { item, count }
    })
}

/// Items and counts in the order of jsonb.
pub(super) fn counters(page: &[u8]) -> Vec<Counter<'_>> {
    let (pending, n) = log(page);
    let mut out: Vec<Counter> = Vec::with_capacity(n + run_len(page));
    let mut log = pending[..n].iter().map(|pending| pending.counter).peekable();
    for mut entry in run(page) {
        while let Some(new) = log.peek() {
            match in_jsonb(new.item, entry.item) {
                Ordering::Less => out.push(*new),
                Ordering::Equal => entry.count = sum(entry.count, new.count),
                Ordering::Greater => break,
            }
            log.next();
        }
        out.push(entry);
    }
    out.extend(log);
    out
}

/// Copies every entry into an empty page, which has the room and at least the width.
pub(super) fn copy_into(old: &[u8], new: &mut [u8]) {
    let (mut pending, n) = log(old);
    let width_log2 = width_log2(new);
    if log_limit(new.len()) == new.len() {
        pending[..n].iter().for_each(|pending| append(new, pending.counter.item, pending.counter.count));
        return;
    }
    let (head, to) = new.split_at_mut(log_limit(new.len()));
    let mut used = 0;
    if width_log2 == self::width_log2(old) {
        used = run_bytes(old);
        to[..used].copy_from_slice(&old[log_limit(old.len())..][..used]);
    } else {
        for Counter { item, count } in run(old) {
            put_entry(to, used, width_log2, item, count);
            used += entry_size(item, width_log2);
        }
    }
    put(head, 4, (used as u16).to_ne_bytes());
    put(head, 6, (run_len(old) as u16).to_ne_bytes());
    merge(head, to, &mut pending[..n]).expect("the new page has room for the old one's entries");
}

/// The size of a page for what this one holds at `width_log2` and one more item of `item_len` bytes;
/// `None` when that outgrows the form. With its [`BLOCK_HEADER`] it is a power of two.
pub(super) fn size_for(page: Option<&[u8]>, item_len: usize, width_log2: u8) -> Option<usize> {
    let (items, bytes) = page.map_or((0, 0), |page| {
        let wider = (1 << width_log2) - (1 << self::width_log2(page));
        let items = page[1] as usize + run_len(page);
        let bytes = log_end(page) - HEADER + run_bytes(page);
        (items, bytes + items * wider)
    });
    if items >= MAX_ITEMS || item_len > MAX_ITEM_LEN {
        return None;
    }
    size_of(bytes + (1 << width_log2) + 1 + item_len)
}

/// The size of a page for `items` items of `bytes` bytes in all and counts of one byte; `None` when that
/// outgrows the form.
pub(super) fn size_for_many(items: usize, bytes: usize) -> Option<usize> {
    if items > MAX_ITEMS { None } else { size_of(bytes + 2 * items) }
}

/// The size of a page whose entries take so many bytes.
fn size_of(bytes: usize) -> Option<usize> {
    let mut size = 32 - BLOCK_HEADER;
    while size <= usize::from(u16::MAX) {
        let limit = log_limit(size);
        if bytes <= if limit == size { size - HEADER } else { size - limit } {
            return Some(size);
        }
        size = 2 * (size + BLOCK_HEADER) - BLOCK_HEADER;
    }
    None
}
