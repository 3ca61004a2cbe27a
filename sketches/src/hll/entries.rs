//! The entries of a sketch in memory: packed into 64-bit words, one to a word or, up to log2m 11, two.
//!
//! Packed entries keep the order of their codes, and none is zero.

use std::ops::{Deref, DerefMut};

use super::code;
use super::params::sparse_bits;

/// Entries that are sorted on the stack: those of the tail in a cache line.
pub const FEW: usize = 14;

/// Whether two entries share a word.
#[inline]
fn narrow(log2m: u8) -> bool {
    // The index and what is added to it: see pack().
    sparse_bits(log2m) < 31
}

/// Entries that so many words hold.
#[inline]
pub fn capacity(words: usize, log2m: u8) -> usize {
    words << narrow(log2m) as u32
}

/// Words that so many entries take.
#[inline]
pub fn words(entries: usize, log2m: u8) -> usize {
    if narrow(log2m) { entries.div_ceil(2) } else { entries }
}

/// Writes entry `at`, the last so far.
#[inline]
pub fn put(words: &mut [u64], log2m: u8, at: usize, code: u64) {
    let packed = pack(code, log2m);
    if narrow(log2m) {
        let shift = at % 2 * 32;
        let word = &mut words[at / 2];
        *word = *word & !(u64::MAX << shift) | packed << shift;
    } else {
        words[at] = packed;
    }
}

/// Writes entry `at` as [`put`] does, without reading anything: into the halves of the words as they lie in memory.
/// `false` where there is no room for it.
#[inline]
pub fn put_half(halves: &mut [u32], log2m: u8, at: usize, code: u64) -> bool {
    let packed = pack(code, log2m);
    let place = |half: usize| half ^ cfg!(target_endian = "big") as usize;
    if narrow(log2m) {
        let Some(half) = halves.get_mut(place(at)) else { return false };
        *half = packed as u32;
    } else {
        let Some(halves) = halves.get_mut(2 * at..2 * at + 2) else { return false };
        halves[place(0)] = packed as u32;
        halves[place(1)] = (packed >> 32) as u32;
    }
    true
}

/// Writes these entries, the first of all.
pub fn fill(words: &mut [u64], log2m: u8, codes: &[u64]) {
    if narrow(log2m) {
        for (word, codes) in words.iter_mut().zip(codes.chunks(2)) {
            *word = pack(codes[0], log2m) | codes.get(1).map_or(0, |&code| pack(code, log2m) << 32);
        }
    } else {
        words.iter_mut().zip(codes).for_each(|(word, &code)| *word = pack(code, log2m));
    }
}

/// Entry `at`, as a code.
#[inline]
pub fn get(words: &[u64], log2m: u8, at: usize) -> u64 {
    let packed = if narrow(log2m) { words[at / 2] >> (at % 2 * 32) & 0xffff_ffff } else { words[at] };
    unpack(packed, log2m)
}

/// The first `n` entries, as codes.
#[inline]
pub fn first(words: &[u64], log2m: u8, n: usize) -> impl Iterator<Item = u64> + '_ {
    (0..n).map(move |at| get(words, log2m, at))
}

/// How many different indexes there are at the least among a few codes.
pub fn distinct_at_least(codes: impl Iterator<Item = u64>) -> usize {
    codes.fold(0u64, |seen, code| seen | 1 << (code::index(code) & 63)).count_ones() as usize
}

/// Sorts and keeps one of each index, that of the largest rank; how many there are.
fn sort(codes: &mut [u64]) -> usize {
    codes.sort_unstable();
    let mut n = 0;
    for i in 0..codes.len() {
        let code = codes[i];
        n += !(n > 0 && same(codes[n - 1], code)) as usize;
        codes[n - 1] = code;
    }
    n
}

/// Merges ascending entries of distinct indexes, `n` of them given by their numbers; of two with one index the larger
/// rank stays. Which of two comes first is nothing that a branch could be predicted for: there is none.
#[inline]
fn merge(codes: &[u64], n: usize, others: impl Fn(usize) -> u64) -> Vec<u64> {
    let mut out = vec![0; codes.len() + n];
    let (mut i, mut j, mut len) = (0, 0, 0);
    while i < codes.len() && j < n {
        let (a, b) = (codes[i], others(j));
        let (first, second) = (code::index(a) <= code::index(b), code::index(b) <= code::index(a));
        let smaller = if first { a } else { b };
        out[len] = if second { smaller.max(b) } else { smaller };
        len += 1;
        i += first as usize;
        j += second as usize;
    }
    for &code in &codes[i..] {
        out[len] = code;
        len += 1;
    }
    for j in j..n {
        out[len] = others(j);
        len += 1;
    }
    out.truncate(len);
    out
}

#[inline]
fn same(a: u64, b: u64) -> bool {
    code::index(a) == code::index(b)
}

/// Only entries below 2^log2m have a rank: their codes come first, the other indexes follow.
#[inline]
fn pack(code: u64, log2m: u8) -> u64 {
    let index = code::index(code);
    if code::needs_rank(index, log2m) { code } else { index + ranked(log2m) }
}

#[inline]
fn unpack(packed: u64, log2m: u8) -> u64 {
    if packed < ranked(log2m) { packed } else { code::new(packed - ranked(log2m), 0) }
}

/// The codes of entries with a rank are below this.
#[inline]
fn ranked(log2m: u8) -> u64 {
    code::new(1 << log2m, 0)
}

/// Codes of entries, ascending and of distinct indexes; few of them without an allocation.
pub enum Sorted {
    Few([u64; FEW], usize),
    Many(Vec<u64>),
}

impl Sorted {
    /// At most `most` codes in any order.
    pub fn collect(most: usize, codes: impl Iterator<Item = u64>) -> Self {
        let mut sorted = if most <= FEW {
            let (mut few, mut n) = ([0; FEW], 0);
            for (to, code) in few.iter_mut().zip(codes) {
                *to = code;
                n += 1;
            }
            Sorted::Few(few, n)
        } else {
            Sorted::Many(codes.collect())
        };
        sorted.sort();
        sorted
    }

    pub fn into_vec(self) -> Vec<u64> {
        match self {
            Sorted::Few(few, n) => few[..n].to_vec(),
            Sorted::Many(many) => many,
        }
    }

    /// These and `n` others that are ascending and of distinct indexes, given by their numbers.
    #[inline]
    pub fn merge(self, n: usize, others: impl Fn(usize) -> u64) -> Self {
        if n == 0 { self } else { Sorted::Many(merge(&self, n, others)) }
    }

    /// Restores what holds of them after they were changed.
    pub fn sort(&mut self) {
        match self {
            Sorted::Few(few, n) => *n = sort(&mut few[..*n]),
            Sorted::Many(many) => {
                let n = sort(many);
                many.truncate(n);
            }
        }
    }
}

impl Deref for Sorted {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        match self {
            Sorted::Few(few, n) => &few[..*n],
            Sorted::Many(many) => many,
        }
    }
}

impl DerefMut for Sorted {
    fn deref_mut(&mut self) -> &mut [u64] {
        match self {
            Sorted::Few(few, n) => &mut few[..*n],
            Sorted::Many(many) => many,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hll::murmur;

    #[test]
    fn entries_come_back_in_order() {
        for log2m in 0..=18u8 {
            let hashes = (0..200u64).map(|i| murmur::hash_integer(i, 8, 0)).chain(0..100);
            let mut codes: Vec<u64> =
                hashes.chain([0, 1 << 63, u64::MAX]).map(|hash| code::of_hash(hash, log2m)).collect();
            let mut words = vec![0; codes.len()];
            let mut halves = vec![0; 2 * codes.len()];
            for (at, &code) in codes.iter().enumerate() {
                put(&mut words, log2m, at, code);
                assert!(put_half(&mut halves, log2m, at, code));
            }
            let pairs = halves.chunks(2).map(|pair| [pair[0].to_ne_bytes(), pair[1].to_ne_bytes()].concat());
            assert!(pairs.eq(words.iter().map(|word| word.to_ne_bytes())));
            assert!(!put_half(&mut halves, log2m, 2 * codes.len(), codes[0]));
            let mut filled = vec![0; words.len()];
            fill(&mut filled, log2m, &codes);
            assert_eq!(filled, words);
            assert!(first(&words, log2m, codes.len()).eq(codes.iter().copied()));
            assert!(capacity(words.len(), log2m) >= codes.len());

            codes.sort();
            assert!(codes.is_sorted_by_key(|&code| pack(code, log2m)));
            assert!(codes.iter().all(|&code| pack(code, log2m) >> if narrow(log2m) { 32 } else { 63 } == 0));
        }
    }

    #[test]
    fn of_two_ranks_the_larger_stays() {
        let ranks = |index, ranks: [u64; 3]| ranks.map(|rank| code::new(index, rank));
        let mut codes = [ranks(3, [2, 1, 2]), ranks(1, [5, 7, 6])].concat();
        assert_eq!(sort(&mut codes), 2);
        assert_eq!(codes[..2], [code::new(1, 7), code::new(3, 2)]);
        for (left, right) in [([7, 2, 1], [6, 3, 1]), ([6, 3, 1], [7, 2, 1])] {
            let codes = |ranks: [u64; 3]| {
                ranks.into_iter().zip(1..).map(|(rank, i)| code::new(i, rank)).collect::<Vec<_>>()
            };
            let right = codes(right);
            assert_eq!(merge(&codes(left), 3, |at| right[at]), codes([7, 3, 1]));
        }
        assert_eq!(merge(&[64, 192, 320], 3, |at| [128, 192, 256][at]), [64, 128, 192, 256, 320]);
        assert_eq!(merge(&[64], 2, |at| [128, 192][at]), [64, 128, 192]);
    }
}
