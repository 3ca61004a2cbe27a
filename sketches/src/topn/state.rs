//! A state, whichever its form: adding, growing, finishing.

use std::cmp::Reverse;

use super::jsonb::{List, NotCounters};
use super::page::{Refused, Run};
use super::table::Shape;
use super::{Block, Counted, Counter, Error, MAX_COUNT, MAX_ITEM, list, page, table};
use crate::memory;

/// Adds `weight` (at most 2^63 - 1) to the count of `item`. `limit` is the number of counters asked for,
/// which a state keeps from the moment it becomes a table.
#[inline]
pub fn add(block: &mut impl Block, limit: usize, item: &[u8], weight: u64) -> Result<(), Error> {
    if page::count(block.bytes(), item, weight) { Ok(()) } else { insert(block, limit, item, weight) }
}

/// The same for an item that [`page::count`] has not found.
#[inline]
pub fn insert(block: &mut impl Block, limit: usize, item: &[u8], weight: u64) -> Result<(), Error> {
    loop {
        let state = block.bytes();
        match state.first() {
            Some(&table::FORM) => return look_up(block, table::hash_of(item), item, weight, 0),
            Some(_) => match page::add(state, item, weight) {
                Ok(()) => return Ok(()),
                Err(refused) => grow_page(block, limit, item, refused)?,
            },
            None => {
                check_length(item)?;
                let width = page::width_for(weight);
                match page::size_for_first(item.len(), width) {
                    Some(size) => block.replace(size, |_, new| page::init(new, width)),
                    None => make_table(block, limit, item.len()),
                }
            }
        }
    }
}

/// Adds to the count of an item in a table, which grows where it has to; [`table::add`] says what `slack` is.
#[inline]
fn look_up(block: &mut impl Block, hash: u32, item: &[u8], weight: u64, slack: u64) -> Result<(), Error> {
    while let Some(shape) = table::add(block.bytes(), hash, item, weight, slack)? {
        grow_table(block, shape);
    }
    Ok(())
}

#[cold]
fn grow_table(block: &mut impl Block, shape: Shape) {
    block.replace(shape.size(), |old, new| {
        table::init(new, shape);
        table::copy_into(old, new);
    });
}

fn check_length(item: &[u8]) -> Result<(), Error> {
    if item.len() > MAX_ITEM { Err(Error::ItemTooLong(item.len())) } else { Ok(()) }
}

#[cold]
fn grow_page(block: &mut impl Block, limit: usize, item: &[u8], refused: Refused) -> Result<(), Error> {
    check_length(item)?;
    let state = block.bytes();
    let width = if let Refused::Width(width) = refused { width } else { 0 };
    let run = page::run(state, width);
    match page::size_for(&run, item.len()) {
        Some(size) if size <= state.len() => page::fill(state, &run),
        Some(size) => block.replace(size, |_, new| page::fill(new, &run)),
        None => fill_table(block, limit, &run, item.len()),
    }
    Ok(())
}

/// Turns whatever the block holds into a table of at least this limit, with room for an item of
/// `item_len` bytes.
pub(super) fn make_table(block: &mut impl Block, limit: usize, item_len: usize) {
    let state = block.bytes();
    if state.first() == Some(&table::FORM) {
        table::raise_limit(state, limit);
        return;
    }
    let run = if state.is_empty() { Run::default() } else { page::run(state, 0) };
    fill_table(block, limit, &run, item_len);
}

/// Replaces what the block holds by a table of these counters, with room for an item of `item_len` bytes.
fn fill_table(block: &mut impl Block, limit: usize, run: &Run, item_len: usize) {
    let bytes: usize = run.counters().map(|c| table::record_size(c.item.len())).sum();
    let shape = Shape::new(limit, run.len(), bytes + table::record_size(item_len));
    block.replace(shape.size(), |_, new| {
        table::init(new, shape);
        for Counter { item, count } in run.counters() {
            let grown = table::add(new, table::hash_of(item), item, count, 0);
            debug_assert!(matches!(grown, Ok(None)), "the table has the room");
        }
    });
}

/// Makes room in an empty block for about `items` items of `bytes` bytes in all, so that it need not grow by
/// doubling.
pub(super) fn reserve(block: &mut impl Block, limit: usize, items: usize, bytes: usize) {
    if !block.bytes().is_empty() {
        return;
    }
    match page::size_for_many(items, bytes) {
        Some(size) => block.replace(size, |_, new| page::init(new, 0)),
        None => {
            let shape = Shape::new(limit, items, bytes + items * table::record_size(0));
            block.replace(shape.size(), |_, new| table::init(new, shape));
        }
    }
}

/// Adds every counter of a stored list. A list of more than `limit` counters raises the state's own limit:
/// nothing is pruned below an input.
pub fn add_list<'a>(block: &mut impl Block, limit: usize, list: &List<'a>) -> Result<(), ListError<'a>> {
    let limit = if list.len() > limit {
        make_table(block, list.len(), 0);
        list.len()
    } else {
        limit
    };
    reserve(block, limit, list.len(), list.items_bytes());
    add_all(block, limit, list.iter().map(|counter| Ok((counter?, 0))))
}

/// How many counters are looked up in a table at once.
const BATCH: usize = 16;

/// Adds counters, each with its slack, which is 0 but for a table.
pub(super) fn add_all<'a, E: From<Error>>(
    block: &mut impl Block,
    limit: usize,
    mut counters: impl Iterator<Item = Result<(Counter<'a>, u64), E>>,
) -> Result<(), E> {
    while block.bytes().first() != Some(&table::FORM) {
        let Some(counter) = counters.next() else { return Ok(()) };
        let (Counter { item, count }, _) = counter?;
        add(block, limit, item, count)?;
    }
    loop {
        let mut batch = [(Counter { item: &[], count: 0 }, 0); BATCH];
        let mut n = 0;
        for (to, counter) in batch.iter_mut().zip(&mut counters) {
            *to = counter?;
            n += 1;
        }
        let hashes = batch.map(|(counter, _)| table::hash_of(counter.item));
        table::warm(block.bytes(), &hashes);
        for (&(Counter { item, count }, slack), hash) in batch[..n].iter().zip(hashes) {
            look_up(block, hash, item, count, slack)?;
        }
        if n < BATCH {
            return Ok(());
        }
    }
}

/// Why [`add_list`] failed.
#[derive(Debug)]
pub enum ListError<'a> {
    NotCounters(NotCounters<'a>),
    State(Error),
}

impl From<Error> for ListError<'_> {
    fn from(error: Error) -> Self {
        ListError::State(error)
    }
}

impl<'a> From<NotCounters<'a>> for ListError<'a> {
    fn from(error: NotCounters<'a>) -> Self {
        ListError::NotCounters(error)
    }
}

/// How many counters the state is to end with; `session` decides for a state that has no limit of its own.
pub fn limit(state: &[u8], session: usize) -> usize {
    match state.first() {
        Some(&table::FORM) => table::limit(state),
        _ => session,
    }
}

/// The counters of a state in the order of jsonb: the `limit` most frequent ones.
pub fn counters(state: &[u8], limit: usize) -> Vec<Counter<'_>> {
    let mut counters: Vec<Counter> = match state.first() {
        None => Vec::new(),
        Some(&table::FORM) => {
            let counters = table::iter(state).map(|c| Counter { item: c.item, count: c.count });
            memory::collect(table::len(state), counters)
        }
        Some(_) => page::counters(state),
    };
    let in_order = counters.len() <= limit && state.first() != Some(&table::FORM);
    if !in_order {
        list::keep(&mut counters, limit);
        list::sort(&mut counters);
    }
    counters
}

/// By how much a count in `counters(state, limit)` may fall short of the truth, and how often an item that is
/// missing there may have occurred at most.
pub fn error_bound<'a>(state: &'a [u8], limit: usize) -> u64 {
    let (mut all, floor): (Vec<Counted<'a>>, u64) = match state.first() {
        None => return 0,
        Some(&table::FORM) => (memory::collect(table::len(state), table::iter(state)), table::floor(state)),
        Some(_) => {
            let exact = |c: Counter<'a>| Counted { item: c.item, count: c.count, error: 0 };
            (page::counters(state).into_iter().map(exact).collect(), 0)
        }
    };
    if all.len() > limit {
        all.select_nth_unstable_by_key(limit, |c| (Reverse(c.count), c.item));
    }
    let (kept, dropped) = all.split_at(limit.min(all.len()));
    let short = kept.iter().map(|c| c.error);
    let missing = dropped.iter().map(|c| c.count.saturating_add(c.error));
    short.chain(missing).fold(floor, u64::max).min(MAX_COUNT)
}
