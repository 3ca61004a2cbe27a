//! The hash of an item inside a state. It never leaves the process, so it may change between versions.

use super::bytes::{u32_at, u64_at};

const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xd6e8_feb8_6659_fd93;
const K2: u64 = 0xa076_1d64_78bd_642f;

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// A 64-bit hash by folded multiplication of 16 bytes at a time (the construction of wyhash).
#[inline]
pub(super) fn hash(item: &[u8]) -> u64 {
    let len = item.len();
    let (a, b) = match len {
        0 => (0, 0),
        1..4 => {
            let ends = u64::from(item[0]) << 16 | u64::from(item[len - 1]);
            (ends | u64::from(item[len / 2]) << 8, 0)
        }
        4..8 => (u64::from(u32_at(item, 0)), u64::from(u32_at(item, len - 4))),
        8..=16 => (u64_at(item, 0), u64_at(item, len - 8)),
        _ => return hash_long(item),
    };
    finish(a, b, K0, len)
}

#[inline]
fn finish(a: u64, b: u64, seed: u64, len: usize) -> u64 {
    fold(fold(a ^ K1, b ^ seed) ^ len as u64, K2)
}

fn hash_long(item: &[u8]) -> u64 {
    let len = item.len();
    let mut seed = K0;
    let mut at = 0;
    while len - at > 16 {
        seed = fold(u64_at(item, at) ^ K2, u64_at(item, at + 8) ^ seed);
        at += 16;
    }
    finish(u64_at(item, len - 16), u64_at(item, len - 8), seed, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Neither the low bits (the home slot) nor the high ones (the tag) may cluster.
    #[test]
    fn bits_spread_over_decimal_keys() {
        let n = 1 << 16;
        let hashes: Vec<u64> = (0..n).map(|i: u64| hash(i.to_string().as_bytes())).collect();
        for shift in [0, 16, 32, 48] {
            let seen: HashSet<u16> = hashes.iter().map(|h| (h >> shift) as u16).collect();
            let expected = n as f64 * (1.0 - (-1.0f64).exp());
            assert!((seen.len() as f64 - expected).abs() < 0.02 * expected, "{}", seen.len());
        }
    }

    #[test]
    fn every_byte_and_the_length_count() {
        for len in 0..70 {
            let item = vec![7u8; len];
            assert_ne!(hash(&item), hash(&vec![7u8; len + 1]));
            for i in 0..len {
                let mut other = item.clone();
                other[i] ^= 1;
                assert_ne!(hash(&item), hash(&other), "length {len}, byte {i}");
            }
        }
    }
}
