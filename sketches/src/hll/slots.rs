//! The entries of a sketch in memory: slots in 64-bit words, one to a word or, up to log2m 11, two.
//!
//! Few slots are searched one after the other, more are a hash table. An empty slot is zero.

use super::code;
use super::params::sparse_bits;

/// Words up to which the slots are a list: with the state's head they make a cache line.
const LIST: usize = 7;

/// Set in a narrow slot whose entry has a rank; the rank then stands in the index's zero bits.
const RANKED: u64 = 1 << 31;
const RANK: u64 = 63;

/// Whether two slots share a word: the index and the mark fit 32 bits.
#[inline]
pub fn narrow(log2m: u8) -> bool {
    sparse_bits(log2m) < 32
}

/// What became of an entry.
#[derive(PartialEq, Eq)]
pub enum Inserted {
    /// It is there, and was before.
    Known,
    /// It is there, and was not before.
    New,
    /// There is no room for it.
    Full,
}

/// Inserts an entry among `count` others, of which there may be `most` (and no more than the slots take).
#[inline]
pub fn insert(words: &mut [u64], log2m: u8, count: usize, most: usize, code: u64) -> Inserted {
    if narrow(log2m) {
        insert_in::<true>(words, log2m, count, most, code)
    } else {
        insert_in::<false>(words, log2m, count, most, code)
    }
}

#[inline]
fn insert_in<const NARROW: bool>(
    words: &mut [u64],
    log2m: u8,
    count: usize,
    most: usize,
    code: u64,
) -> Inserted {
    let len = words.len() << NARROW as u32;
    let new = if NARROW { pack(code, log2m) } else { code };
    let mut at = if words.len() <= LIST { 0 } else { home(code, len) };
    for _ in 0..len {
        let old = get::<NARROW>(words, at);
        if old == 0 {
            if count >= capacity(words.len(), log2m).min(most) {
                break;
            }
            set::<NARROW>(words, at, new);
            return Inserted::New;
        }
        let same = if NARROW {
            old == new || old & new & RANKED != 0 && (old ^ new) & !(RANK << log2m) == 0
        } else {
            (old ^ new) >> 6 == 0
        };
        if same {
            // Entries of one index compare by their ranks.
            if new > old {
                set::<NARROW>(words, at, new);
            }
            return Inserted::Known;
        }
        at = if at + 1 == len { 0 } else { at + 1 };
    }
    Inserted::Full
}

/// The entries, in no order.
pub fn entries(words: &[u64], log2m: u8) -> impl Iterator<Item = u64> + '_ {
    let (narrow, wide) = if narrow(log2m) { (words, &[][..]) } else { (&[][..], words) };
    let halves = narrow.iter().flat_map(|word| [word & 0xffff_ffff, word >> 32]);
    let unpacked = halves.filter(|&slot| slot != 0).map(move |slot| unpack(slot, log2m));
    unpacked.chain(wide.iter().copied().filter(|&slot| slot != 0))
}

/// Entries that so many words take. A table is left a quarter empty.
#[inline]
pub fn capacity(words: usize, log2m: u8) -> usize {
    let slots = words << narrow(log2m) as u32;
    if words <= LIST { slots } else { slots * 3 / 4 }
}

/// Words, one less than a power of two, that take `n` entries.
pub fn words_for(n: usize, log2m: u8) -> usize {
    let mut words = 1;
    while capacity(words, log2m) < n {
        words = 2 * words + 1;
    }
    words
}

#[inline]
fn get<const NARROW: bool>(words: &[u64], at: usize) -> u64 {
    if NARROW { words[at / 2] >> (at % 2 * 32) & 0xffff_ffff } else { words[at] }
}

#[inline]
fn set<const NARROW: bool>(words: &mut [u64], at: usize, slot: u64) {
    if NARROW {
        let (word, shift) = (&mut words[at / 2], at % 2 * 32);
        *word = *word & !(0xffff_ffff << shift) | slot << shift;
    } else {
        words[at] = slot;
    }
}

#[inline]
fn pack(code: u64, log2m: u8) -> u64 {
    let index = code::index(code);
    if code::needs_rank(index, log2m) { RANKED | code::rank_of(code) << log2m | index } else { index }
}

#[inline]
fn unpack(slot: u64, log2m: u8) -> u64 {
    if slot & RANKED != 0 {
        code::new(slot & ((1 << log2m) - 1), slot >> log2m & RANK)
    } else {
        code::new(slot, 0)
    }
}

/// The slot at which the search for an entry starts: Fibonacci hashing of its index.
#[inline]
fn home(code: u64, slots: usize) -> usize {
    let mixed = code::index(code).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (mixed as usize * slots) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hll::murmur;

    #[test]
    fn entries_come_back() {
        for log2m in 0..=18u8 {
            let hashes = (0..200u64).map(|i| murmur::hash_integer(i, 8, 0));
            let mut codes: Vec<u64> =
                hashes.chain(0..100).chain([0, 1 << 63]).map(|hash| code::of_hash(hash, log2m)).collect();
            let mut words = vec![0; words_for(codes.len(), log2m)];
            let mut count = 0;
            for &code in codes.iter().chain(&codes) {
                match insert(&mut words, log2m, count, 1000, code) {
                    Inserted::New => count += 1,
                    Inserted::Known => {}
                    Inserted::Full => panic!("full"),
                }
            }
            let mut found: Vec<u64> = entries(&words, log2m).collect();
            found.sort();
            codes.sort();
            codes.reverse();
            codes.dedup_by_key(|code| code::index(*code));
            codes.reverse();
            assert_eq!(found, codes, "log2m {log2m}");
            assert_eq!(count, codes.len());
        }
    }
}
