//! 2^log2m registers of 6 bits, five to a 32-bit word, lowest first; two such words make a `u64`.
//!
//! The same words are stored, in little-endian order.

use std::sync::OnceLock;

use super::params::dense_words;

/// 64-bit words that hold the registers.
pub const fn words(log2m: u8) -> usize {
    dense_words(log2m).div_ceil(2)
}

/// Sets a register to `rank` if that is more.
#[inline]
pub fn raise(words: &mut [u64], (index, rank): (usize, u8)) {
    let (word, lane) = (index / 5, index % 5);
    let shift = (word & 1) * 32 + lane * 6;
    let word = &mut words[word >> 1];
    let current = *word >> shift & 63;
    if rank as u64 > current {
        *word ^= (current ^ rank as u64) << shift;
    }
}

/// [`merge_stored`], compiled for the processor at hand.
pub type Merge = fn(&mut [u64], &[u8]);

static MERGE: OnceLock<Merge> = OnceLock::new();

/// Says how registers are to be merged: by [`merge_stored`], inlined where more of the processor may be used.
pub fn merge_by(merge: Merge) {
    MERGE.get_or_init(|| merge);
}

/// Merges stored registers (bytes of 32-bit words) of the same precision.
#[inline]
pub fn merge(words: &mut [u64], stored: &[u8]) {
    match MERGE.get() {
        Some(merge) => merge(words, stored),
        None => merge_stored(words, stored),
    }
}

/// The same for any processor.
#[inline(always)]
pub fn merge_stored(words: &mut [u64], stored: &[u8]) {
    let mut pairs = stored.chunks_exact(8);
    for (word, pair) in words.iter_mut().zip(&mut pairs) {
        *word = max(*word, u64::from_le_bytes(pair.try_into().expect("eight bytes")));
    }
    if let (Some(word), Ok(last)) = (words.last_mut(), <[u8; 4]>::try_from(pairs.remainder())) {
        *word = max(*word, u32::from_le_bytes(last) as u64);
    }
}

/// Merges the registers of another sketch in memory, of the same precision.
pub fn merge_words(words: &mut [u64], other: &[u64]) {
    for (word, &other) in words.iter_mut().zip(other) {
        *word = max(*word, other);
    }
}

/// The larger of each pair of registers in two words.
#[inline(always)]
fn max(a: u64, b: u64) -> u64 {
    // Lanes 0, 2, 4 and lanes 1, 3 of each half, so that a clear bit above each lane takes the borrow.
    const EVEN: u64 = 0x3f03_f03f_3f03_f03f;
    const EVEN_TOP: u64 = 0x4004_0040_4004_0040;
    const ODD: u64 = 0x00fc_0fc0_00fc_0fc0;
    const ODD_TOP: u64 = 0x0100_1000_0100_1000;
    lanes(a, b, EVEN, EVEN_TOP) | lanes(a, b, ODD, ODD_TOP)
}

/// `top` has, for each lane of `mask`, the bit above it.
#[inline(always)]
fn lanes(a: u64, b: u64, mask: u64, top: u64) -> u64 {
    let (a, b) = (a & mask, b & mask);
    let a_wins = ((a | top) - b) & top;
    let keep = a_wins - (a_wins >> 6);
    b ^ ((a ^ b) & keep)
}

/// Copies stored bytes into words.
pub fn load(words: &mut [u64], stored: &[u8]) {
    words.fill(0);
    merge(words, stored);
}

/// Writes words as stored bytes; `out` has four bytes for each 32-bit word.
pub fn store(words: &[u64], out: &mut [u8]) {
    for (bytes, word) in out.chunks_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
    }
}

/// Every register in words, in order.
pub fn iter(words: &[u64], log2m: u8) -> impl Iterator<Item = u8> + '_ {
    let halves = words.iter().flat_map(|&word| [word as u32, (word >> 32) as u32]);
    halves.flat_map(lanes_of).take(1 << log2m)
}

/// Every register in stored bytes, in order.
pub fn iter_stored(stored: &[u8], log2m: u8) -> impl Iterator<Item = u8> + '_ {
    let words = stored.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")));
    words.flat_map(lanes_of).take(1 << log2m)
}

#[inline]
fn lanes_of(word: u32) -> [u8; 5] {
    std::array::from_fn(|lane| (word >> (6 * lane) & 63) as u8)
}

/// How many registers have each value. Four tables, because one would wait for its own stores.
pub fn histogram(stored: &[u8], log2m: u8) -> [u32; 64] {
    let mut tables = [[0u32; 64]; 4];
    let mut words = stored.chunks_exact(4);
    for bytes in &mut words {
        let word = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        tables[0][(word & 63) as usize] += 1;
        tables[1][(word >> 6 & 63) as usize] += 1;
        tables[2][(word >> 12 & 63) as usize] += 1;
        tables[3][(word >> 18 & 63) as usize] += 1;
        tables[0][(word >> 24 & 63) as usize] += 1;
    }
    let mut counts = [0; 64];
    for table in tables {
        for (count, n) in counts.iter_mut().zip(table) {
            *count += n;
        }
    }
    // Lanes of the last word that are no register were counted too, whatever they hold.
    let used = (1usize << log2m) - 5 * (dense_words(log2m) - 1);
    let last = stored.last_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    for rank in &lanes_of(last)[used..] {
        counts[*rank as usize] -= 1;
    }
    counts
}

/// Whether the bits that hold no register are zero.
pub fn padding_is_zero(stored: &[u8], log2m: u8) -> bool {
    let mut words = stored.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")));
    let used = (1usize << log2m) - 5 * (dense_words(log2m) - 1);
    let last = stored.last_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
    words.all(|word| word >> 30 == 0) && (last as u64) >> (6 * used) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hll::murmur;

    #[test]
    fn merging_takes_the_larger_register() {
        for log2m in 0..=12u8 {
            let (mut a, mut b) = (vec![0; words(log2m)], vec![0; words(log2m)]);
            for i in 0..1 << log2m {
                let h = murmur::hash_integer(i as u64, 8, 0);
                raise(&mut a, (i, (h & 63) as u8));
                raise(&mut b, (i, (h >> 6 & 63) as u8));
            }
            let expected: Vec<u8> = iter(&a, log2m).zip(iter(&b, log2m)).map(|(a, b)| a.max(b)).collect();
            let mut stored = vec![0; 4 * dense_words(log2m)];
            store(&b, &mut stored);
            assert!(padding_is_zero(&stored, log2m));
            assert!(iter_stored(&stored, log2m).eq(iter(&b, log2m)));
            let counts = histogram(&stored, log2m);
            assert!(
                (0..64).all(|r| counts[r] as usize == iter(&b, log2m).filter(|&x| x as usize == r).count())
            );

            let mut merged = a.clone();
            merge(&mut merged, &stored);
            assert!(iter(&merged, log2m).eq(expected.iter().copied()));
            merge_words(&mut a, &b);
            assert_eq!(a, merged);
        }
    }

    #[test]
    fn every_pair_of_values_in_every_lane() {
        for lane in 0..10 {
            let shift = lane / 5 * 32 + lane % 5 * 6;
            for a in 0..64u64 {
                for b in 0..64u64 {
                    assert_eq!(max(a << shift, b << shift), a.max(b) << shift);
                }
            }
        }
    }
}
