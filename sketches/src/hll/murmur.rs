//! MurmurHash3 x64 128 (Austin Appleby, public domain), first 64-bit half: the hash of postgresql-hll.

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

/// Hash of `data`. The seed is widened as postgresql-hll does it: an unsigned 32-bit number.
pub fn hash(data: &[u8], seed: u32) -> u64 {
    let (mut h1, mut h2) = (seed as u64, seed as u64);
    let mut blocks = data.chunks_exact(16);
    for block in &mut blocks {
        h1 ^= mix1(word(&block[..8]));
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix2(word(&block[8..]));
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let tail = blocks.remainder();
    if tail.len() > 8 {
        h2 ^= mix2(word(&tail[8..]));
        h1 ^= mix1(word(&tail[..8]));
    } else if !tail.is_empty() {
        h1 ^= mix1(word(tail));
    }
    finish(h1, h2, data.len() as u64)
}

/// [`hash`] of the `size` low bytes of `value`, little-endian: integers without the loop.
#[inline]
pub fn hash_integer(value: u64, size: u64, seed: u32) -> u64 {
    let value = if size < 8 { value & ((1 << (8 * size)) - 1) } else { value };
    finish(seed as u64 ^ mix1(value), seed as u64, size)
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    match bytes.try_into() {
        Ok(eight) => u64::from_le_bytes(eight),
        Err(_) => bytes.iter().rev().fold(0, |word, &byte| word << 8 | byte as u64),
    }
}

#[inline]
fn mix1(k: u64) -> u64 {
    k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

#[inline]
fn mix2(k: u64) -> u64 {
    k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

#[inline]
fn finish(h1: u64, h2: u64, len: u64) -> u64 {
    let (h1, h2) = (h1 ^ len, h2 ^ len);
    let h1 = h1.wrapping_add(h2);
    let h2 = h2.wrapping_add(h1);
    avalanche(h1).wrapping_add(avalanche(h2))
}

#[inline]
fn avalanche(mut k: u64) -> u64 {
    k = (k ^ (k >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    k = (k ^ (k >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference implementation (also those of Guava's `murmur3_128`, first half).
    #[test]
    fn reference_values() {
        assert_eq!(hash(b"", 0), 0);
        assert_eq!(hash(b"hello", 0), 0xcbd8_a7b3_41bd_9b02);
        assert_eq!(hash(b"hello, world", 0), 0x342f_ac62_3a5e_bc8e);
        assert_eq!(hash(b"The quick brown fox jumps over the lazy dog.", 0), 0xcd99_481f_9ee9_02c9);
    }

    #[test]
    fn integers_hash_as_their_bytes() {
        for value in [0u64, 1, 0xff, 0x1234, u64::MAX, 0x8000_0000_0000_0000] {
            for seed in [0, 1, u32::MAX] {
                for size in [1usize, 2, 4, 8] {
                    let bytes = value.to_le_bytes();
                    assert_eq!(hash_integer(value, size as u64, seed), hash(&bytes[..size], seed));
                }
            }
        }
    }

    #[test]
    fn every_tail_length_differs() {
        let data = [7u8; 64];
        let hashes: std::collections::HashSet<u64> = (0..64).map(|n| hash(&data[..n], 3)).collect();
        assert_eq!(hashes.len(), 64);
    }
}
