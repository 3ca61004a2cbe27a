//! Sorted numbers as Golomb-Rice coded gaps: within a few percent of the entropy of a random set.
//!
//! A gap (minus one, but for the first) is its quotient by 2^k in unary (zeros, then a one), then its k low
//! bits; bits fill each byte from the lowest. k follows from how many numbers there are, so `n` numbers of
//! `bits` bits never take more than `n (k + 1) + 2^(bits - k)` bits.

/// k for `n` numbers below 2^bits: the logarithm of their mean distance, rounded down.
#[inline]
pub const fn parameter(bits: u32, n: usize) -> u32 {
    bits - (usize::BITS - (n - 1).leading_zeros())
}

/// Bytes of the count in front of the gaps: seven bits each, lowest first, the high bit says that more follow.
pub const fn count_len(n: usize) -> usize {
    if n < 1 << 7 {
        1
    } else if n < 1 << 14 {
        2
    } else {
        3
    }
}

pub fn write_count(mut n: usize, out: &mut [u8]) {
    let (last, more) = out.split_last_mut().expect("count_len() is at least one");
    for byte in more {
        *byte = n as u8 | 0x80;
        n >>= 7;
    }
    *last = n as u8;
}

/// The count and how many bytes it took; `None` when it is cut off or not the shortest form.
#[inline]
pub fn read_count(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut n = 0;
    for (i, &byte) in bytes.iter().take(3).enumerate() {
        n |= (byte as usize & 0x7f) << (7 * i);
        if byte < 0x80 {
            return (count_len(n) == i + 1).then_some((n, i + 1));
        }
    }
    None
}

/// Writes bits, which it collects in a word: [`Writer::finish`] writes the last of them.
pub struct Writer<'a> {
    out: &'a mut [u8],
    /// Where the word goes.
    at: usize,
    word: u64,
    /// Bits in the word, fewer than 64.
    used: u32,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut [u8]) -> Self {
        Writer { out, at: 0, word: 0, used: 0 }
    }

    /// `value` is below 2^width; width is at most 56.
    #[inline]
    pub fn bits(&mut self, value: u64, width: u32) {
        self.word |= value << self.used;
        self.used += width;
        if self.used >= 64 {
            self.out[self.at..self.at + 8].copy_from_slice(&self.word.to_le_bytes());
            self.at += 8;
            self.used -= 64;
            self.word = value >> (width - self.used);
        }
    }

    #[inline]
    pub fn gap(&mut self, gap: u64, k: u32) {
        let mut quotient = gap >> k;
        let low = gap & ((1 << k) - 1);
        if quotient + 1 + k as u64 <= 56 {
            self.bits((1 | low << 1) << quotient, quotient as u32 + 1 + k);
            return;
        }
        while quotient > 0 {
            let zeros = quotient.min(56);
            self.bits(0, zeros as u32);
            quotient -= zeros;
        }
        self.bits(1, 1);
        self.bits(low, k);
    }

    pub fn finish(self) {
        let rest = &mut self.out[self.at..];
        let bytes = self.used.div_ceil(8) as usize;
        rest[..bytes].copy_from_slice(&self.word.to_le_bytes()[..bytes]);
    }
}

/// What [`Writer`] wrote, read from the start; past the end there are zeros.
pub trait Gaps {
    fn bits(&mut self, width: u32) -> u64;

    /// `None` when the bytes end before the quotient does, or when it exceeds `most`.
    fn gap(&mut self, k: u32, most: u64) -> Option<u64>;

    /// Whether everything was read: no byte left over, and none but zeros in the last one.
    fn at_end(&self) -> bool;
}

/// Reads bytes of any length.
#[derive(Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    bit: usize,
    /// The last eight bytes; of fewer, as if zeros were before them.
    last: u64,
}

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        let len = bytes.len();
        let byte = |i: usize| (bytes[i] as u64) << (8 * i);
        let four = |i: usize| u32::from_le_bytes(bytes[i..i + 4].try_into().expect("four bytes")) as u64;
        let last = match len {
            0 => 0,
            1..4 => (byte(0) | byte(len / 2) | byte(len - 1)) << (8 * (8 - len)),
            4..8 => (four(0) | four(len - 4) << (8 * (len - 4))) << (8 * (8 - len)),
            _ => u64::from_le_bytes(bytes[len - 8..].try_into().expect("eight bytes")),
        };
        Reader { bytes, bit: 0, last }
    }

    /// At least the next 57 bits.
    #[inline]
    fn window(&self) -> u64 {
        let from = self.bit >> 3;
        let word = match self.bytes.get(from..from + 8) {
            Some(eight) => u64::from_le_bytes(eight.try_into().expect("eight bytes")),
            None => self.last.checked_shr(8 * (from + 8 - self.bytes.len()) as u32).unwrap_or(0),
        };
        word >> (self.bit & 7)
    }
}

impl Gaps for Reader<'_> {
    #[inline]
    fn bits(&mut self, width: u32) -> u64 {
        let value = self.window() & ((1 << width) - 1);
        self.bit += width as usize;
        value
    }

    #[inline]
    fn gap(&mut self, k: u32, most: u64) -> Option<u64> {
        let window = self.window();
        let zeros = window.trailing_zeros();
        if zeros + 1 + k <= 56 {
            self.bit += (zeros + 1 + k) as usize;
            let gap = (zeros as u64) << k | window >> (zeros + 1) & ((1 << k) - 1);
            return (gap <= most).then_some(gap);
        }
        let mut quotient = 0;
        loop {
            let zeros = self.window().trailing_zeros().min(56);
            self.bit += zeros as usize;
            quotient += zeros as u64;
            if zeros < 56 {
                break;
            }
            if quotient > most >> k || self.bit >> 3 >= self.bytes.len() {
                return None;
            }
        }
        self.bit += 1;
        let gap = quotient << k | self.bits(k);
        (gap <= most).then_some(gap)
    }

    #[inline]
    fn at_end(&self) -> bool {
        self.bit.div_ceil(8) == self.bytes.len()
            && (self.bit & 7 == 0 || self.bytes[self.bit >> 3] >> (self.bit & 7) == 0)
    }
}

/// Reads a few bytes at the end of a longer slice, held in two words. A gap of more than 63 bits is `None` too.
pub struct Words {
    words: [u64; 2],
    /// Bits that were read, and bytes that there were.
    used: u32,
    len: usize,
}

impl Words {
    /// The bytes from `from` on, at most sixteen; `None` for more, and where there are not eight in all.
    #[inline]
    pub fn new(bytes: &[u8], from: usize) -> Option<Self> {
        let (rest, last) = (bytes.get(from..)?, u64::from_le_bytes(*bytes.last_chunk()?));
        let words = match (rest.len(), rest.first_chunk()) {
            (1..=8, _) => [last >> (64 - 8 * rest.len()), 0],
            (9..=16, Some(&eight)) => [u64::from_le_bytes(eight), last >> (128 - 8 * rest.len())],
            _ => return None,
        };
        Some(Words { words, used: 0, len: rest.len() })
    }

    /// Goes on by 1 to 63 bits.
    #[inline]
    fn skip(&mut self, bits: u32) {
        let [low, high] = self.words;
        self.words = [low >> bits | high << 1 << (63 - bits), high >> bits];
        self.used += bits;
    }
}

impl Gaps for Words {
    #[inline]
    fn bits(&mut self, width: u32) -> u64 {
        let value = self.words[0] & ((1 << width) - 1);
        self.skip(width);
        value
    }

    #[inline]
    fn gap(&mut self, k: u32, most: u64) -> Option<u64> {
        let word = self.words[0];
        let quotient = word.trailing_zeros();
        if quotient + 1 + k > 63 {
            return None;
        }
        self.skip(quotient + 1 + k);
        let gap = (quotient as u64) << k | word >> quotient >> 1 & ((1 << k) - 1);
        (gap <= most).then_some(gap)
    }

    #[inline]
    fn at_end(&self) -> bool {
        self.words == [0, 0] && self.used.div_ceil(8) as usize == self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_round_trip() {
        for k in [0, 1, 7, 29, 43, 44] {
            let gaps: Vec<u64> =
                (0..300).map(|i: u64| ((i * i) << k.min(30)) | (i & ((1 << k) - 1))).collect();
            let bits: u64 = gaps.iter().map(|gap| (gap >> k) + 1 + k as u64).sum();
            let mut bytes = vec![0; bits.div_ceil(8) as usize];
            let mut writer = Writer::new(&mut bytes);
            gaps.iter().for_each(|&gap| writer.gap(gap, k));
            writer.finish();
            let mut reader = Reader::new(&bytes);
            for &gap in &gaps {
                assert_eq!(reader.gap(k, u64::MAX >> 1), Some(gap));
            }
            assert!(reader.at_end());
            assert_eq!(reader.gap(k, 1 << 50), None);
        }
    }

    #[test]
    fn the_parameter_is_the_logarithm_of_the_mean_distance() {
        for bits in 8..=44 {
            for n in (1..=256).chain([1 << 16, (1 << 16) + 1]).filter(|&n| n as u64 <= 1 << bits) {
                assert_eq!(parameter(bits, n), ((1u64 << bits) / n as u64).ilog2(), "{bits} {n}");
            }
        }
    }

    #[test]
    fn windows_end_in_zeros() {
        for len in 0..20usize {
            let bytes: Vec<u8> = (1..=len as u8).map(|i| i.wrapping_mul(0x9d)).collect();
            for bit in 0..8 * len + 80 {
                let reader = Reader { bit, ..Reader::new(&bytes) };
                let mut padded = bytes.clone();
                padded.resize(len + 30, 0);
                let eight = padded[bit / 8..bit / 8 + 8].try_into().unwrap();
                assert_eq!(reader.window(), u64::from_le_bytes(eight) >> (bit % 8), "{len} {bit}");
            }
        }
    }

    #[test]
    fn counts_round_trip() {
        for n in [1, 127, 128, 16383, 16384, 65535] {
            let mut out = vec![0; count_len(n)];
            write_count(n, &mut out);
            assert_eq!(read_count(&out), Some((n, out.len())));
        }
        assert_eq!(read_count(&[0x80, 0]), None);
        assert_eq!(read_count(&[0x80]), None);
        assert_eq!(read_count(&[0xff; 4]), None);
    }
}
