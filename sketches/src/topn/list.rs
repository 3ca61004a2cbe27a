//! Lists of counters: merging, pruning, ranking.

use std::cmp::{Ordering, Reverse};

use super::bytes::compare;
use super::jsonb::{List, NotCounters};
use super::{Counter, MAX_COUNT};
use crate::memory;

/// The order of keys in jsonb: by length, then by bytes.
#[inline]
pub(super) fn in_jsonb(a: &[u8], b: &[u8]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| compare(a, b))
}

/// Sorts into the order of jsonb.
pub fn sort(counters: &mut [Counter]) {
    counters.sort_unstable_by(|a, b| in_jsonb(a.item, b.item));
}

/// The rank of a counter: larger counts first, then by the bytes of the item.
fn rank<'a>(counter: &Counter<'a>) -> (Reverse<u64>, &'a [u8]) {
    (Reverse(counter.count), counter.item)
}

/// Keeps the `limit` counters that rank highest, in no particular order.
pub fn keep(counters: &mut Vec<Counter>, limit: usize) {
    if counters.len() > limit {
        counters.select_nth_unstable_by(limit, |a, b| rank(a).cmp(&rank(b)));
        counters.truncate(limit);
    }
}

fn prune(counters: &mut Vec<Counter>, limit: usize) {
    if counters.len() > limit {
        keep(counters, limit);
        sort(counters);
    }
}

/// The counters of both lists, in the order of jsonb: as many as `limit` or the longer list asks for.
pub fn union<'a>(
    left: &List<'a>,
    right: &List<'a>,
    limit: usize,
) -> Result<Vec<Counter<'a>>, NotCounters<'a>> {
    let mut out = memory::vec(left.len() + right.len());
    let (mut left_iter, mut right_iter) = (left.iter(), right.iter());
    let mut a = left_iter.next().transpose()?;
    let mut b = right_iter.next().transpose()?;
    loop {
        let order = match (&a, &b) {
            (Some(a), Some(b)) => in_jsonb(a.item, b.item),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let from_left = if order.is_le() { a.take() } else { None };
        let from_right = if order.is_ge() { b.take() } else { None };
        match (from_left, from_right) {
            (Some(one), Some(two)) => {
                out.push(Counter { item: one.item, count: (one.count + two.count).min(MAX_COUNT) });
            }
            (one, two) => out.extend(one.or(two)),
        }
        if order.is_le() {
            a = left_iter.next().transpose()?;
        }
        if order.is_ge() {
            b = right_iter.next().transpose()?;
        }
    }
    prune(&mut out, limit.max(left.len()).max(right.len()));
    Ok(out)
}

fn all<'a>(list: &List<'a>) -> Result<Vec<Counter<'a>>, NotCounters<'a>> {
    let mut out = memory::vec(list.len() + 1);
    for counter in list.iter() {
        out.push(counter?);
    }
    Ok(out)
}

/// The list with `item` counted once more; as many counters as `limit` or the list asks for.
pub fn add<'a>(list: &List<'a>, item: &'a [u8], limit: usize) -> Result<Vec<Counter<'a>>, NotCounters<'a>> {
    let mut out = all(list)?;
    match out.binary_search_by(|counter| in_jsonb(counter.item, item)) {
        Ok(i) => out[i].count = (out[i].count + 1).min(MAX_COUNT),
        Err(i) => out.insert(i, Counter { item, count: 1 }),
    }
    prune(&mut out, limit.max(list.len()));
    Ok(out)
}

/// The `n` counters that rank highest, the highest first.
pub fn top<'a>(list: &List<'a>, n: usize) -> Result<Vec<Counter<'a>>, NotCounters<'a>> {
    let mut out = all(list)?;
    keep(&mut out, n);
    out.sort_unstable_by(|a, b| rank(a).cmp(&rank(b)));
    Ok(out)
}

/// The sum of all counts, up to 2^63 - 1.
pub fn total<'a>(list: &List<'a>) -> Result<u64, NotCounters<'a>> {
    list.iter().try_fold(0u64, |sum, counter| Ok((sum + counter?.count).min(MAX_COUNT)))
}
