//! An entry of the sparse list: a truncated hash that any register can be computed from.
//!
//! `index << 6 | rank`: the index is the hash's low [`sparse_bits`]. The rank of a register of 2^p is
//! found in the index's bits from p on; only when all of these are zero the entry needs the rank of the
//! bits above the index, otherwise the field is zero. No entry is zero.

use super::params::sparse_bits;

const RANK_BITS: u32 = 6;
const MAX_RANK: u64 = 63;

/// The entry of a hash.
#[inline]
pub fn of_hash(hash: u64, log2m: u8) -> u64 {
    let bits = sparse_bits(log2m);
    let index = hash & ((1 << bits) - 1);
    if index >> log2m != 0 { index << RANK_BITS } else { index << RANK_BITS | rank(hash >> bits, 64 - bits) }
}

/// One more than the trailing zeros of a number of `width` bits.
#[inline]
fn rank(bits: u64, width: u32) -> u64 {
    (bits.trailing_zeros().min(width) + 1) as u64
}

/// Whether an index needs a rank.
#[inline]
pub fn needs_rank(index: u64, log2m: u8) -> bool {
    index >> log2m == 0
}

#[inline]
pub fn new(index: u64, rank: u64) -> u64 {
    index << RANK_BITS | rank
}

#[inline]
pub fn index(code: u64) -> u64 {
    code >> RANK_BITS
}

#[inline]
pub fn rank_of(code: u64) -> u64 {
    code & MAX_RANK
}

/// Largest rank an entry can carry.
pub fn max_rank(log2m: u8) -> u64 {
    (64 - sparse_bits(log2m) + 1) as u64
}

/// The register that an entry sets, and the rank it sets it to.
#[inline]
pub fn register(code: u64, log2m: u8) -> (usize, u8) {
    let index = index(code);
    let above = index >> log2m;
    let rank = if above != 0 {
        above.trailing_zeros() as u64 + 1
    } else {
        ((sparse_bits(log2m) - log2m as u32) as u64 + rank_of(code)).min(MAX_RANK)
    };
    ((index & ((1 << log2m) - 1)) as usize, rank as u8)
}

/// The register and rank of a hash.
#[inline]
pub fn register_of_hash(hash: u64, log2m: u8) -> (usize, u8) {
    let index = hash & ((1 << log2m) - 1);
    (index as usize, rank(hash >> log2m, 64 - log2m as u32).min(MAX_RANK) as u8)
}

/// The entry of the same hash at a smaller precision.
pub fn fold(code: u64, from: u8, to: u8) -> u64 {
    let (wide, narrow) = (sparse_bits(from), sparse_bits(to));
    let index = index(code);
    let folded = index & ((1 << narrow) - 1);
    if !needs_rank(folded, to) {
        return new(folded, 0);
    }
    let above = index >> narrow;
    let rank =
        if above != 0 { above.trailing_zeros() as u64 + 1 } else { (wide - narrow) as u64 + rank_of(code) };
    new(folded, rank.min(MAX_RANK))
}

/// The register at a smaller precision that a set register belongs to.
#[inline]
pub fn fold_register(index: usize, rank: u8, from: u8, to: u8) -> (usize, u8) {
    let above = index >> to;
    let folded = if above != 0 { above.trailing_zeros() as u8 + 1 } else { (rank + (from - to)).min(63) };
    (index & ((1 << to) - 1), folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes() -> impl Iterator<Item = u64> {
        let random = (0..2000u64).map(|i| super::super::murmur::hash_integer(i, 8, 0));
        let low = (0..300u64).chain((0..64).map(|i| 1 << i));
        let masked =
            (0..2000u64).map(|i| super::super::murmur::hash_integer(i, 8, 1) & 0xffff_0000_0000_0fff);
        random.chain(low).chain(masked)
    }

    #[test]
    fn entries_give_the_registers_of_their_hash_at_every_precision() {
        for hash in hashes() {
            for from in 0..=18u8 {
                let code = of_hash(hash, from);
                assert!(code != 0 && rank_of(code) <= max_rank(from));
                assert_eq!(register(code, from), register_of_hash(hash, from));
                for to in 0..from {
                    assert_eq!(fold(code, from, to), of_hash(hash, to), "{hash:x} {from} {to}");
                    let (index, rank) = register_of_hash(hash, from);
                    assert_eq!(fold_register(index, rank, from, to), register_of_hash(hash, to));
                }
            }
        }
    }
}
