//! Storage specification 1.0.0 of postgresql-hll (github.com/aggregateknowledge/hll-storage-spec): reading and
//! writing.
//!
//! Three header bytes as ours, with 1 in the high nibble; then nothing (undefined, empty), big-endian
//! 64-bit hashes (explicit), or a bit stream, highest bit first, of index and register (sparse) or of every
//! register (full).

use std::borrow::Cow;

use super::Corrupt;
use super::code;
use super::params::Params;
use super::registers;
use super::sketch::Sketch;
use super::stored::{self, Body, HEADER, Stored};
use crate::memory;

const VERSION: u8 = 1;
const EXPLICIT: u8 = 2;
/// Largest log2m that the header can say.
const MAX_LOG2M: u8 = 31;
/// Hashes or registers that are read: more would keep a server busy for long, and nobody has them.
const MOST: u64 = 1 << 26;

/// Stored bytes of either version as ours: borrowed when they are already, validated in any case.
pub fn import(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Corrupt> {
    match bytes.first() {
        Some(first) if first >> 4 == VERSION => Ok(Cow::Owned(read(bytes)?.to_bytes())),
        _ => {
            Stored::parse(bytes)?.validate()?;
            Ok(Cow::Borrowed(bytes))
        }
    }
}

/// Bytes from hexadecimal digits, as the input of bytea takes them after its `\x`: with space between the bytes.
pub fn from_hex(digits: &[u8]) -> Result<Vec<u8>, Corrupt> {
    let nibble = |digit: u8| (digit as char).to_digit(16).ok_or(Corrupt("invalid hexadecimal digit"));
    let mut bytes = memory::vec(digits.len() / 2);
    let mut rest = digits.iter();
    while let Some(&high) = rest.next() {
        if matches!(high, b' ' | b'\n' | b'\t' | b'\r') {
            continue;
        }
        let high = nibble(high)?;
        let &low = rest.next().ok_or(Corrupt("odd number of hexadecimal digits"))?;
        bytes.push((high << 4 | nibble(low)?) as u8);
    }
    Ok(bytes)
}

/// Reads version 1. Registers keep their ranks, hashes are added; log2m above ours folds.
pub fn read(bytes: &[u8]) -> Result<Sketch, Corrupt> {
    let &[kind, shape, hints, ref body @ ..] = bytes else {
        return Err(Corrupt("sketch is shorter than its header"));
    };
    if kind >> 4 != VERSION {
        return Err(Corrupt("unknown storage version"));
    }
    let written = Params::from_bits((hints as u16 & 0x7f) << 8 | shape as u16);
    let log2m = written.log2m.min(Params::MAX_LOG2M);
    let mut sketch = Sketch::new(Params { log2m, ..written });
    let width = written.regwidth as u32;
    match kind & 15 {
        stored::UNDEFINED | stored::EMPTY if !body.is_empty() => {
            return Err(Corrupt("bytes follow the header of an empty sketch"));
        }
        stored::UNDEFINED => sketch.make_undefined(),
        stored::EMPTY => {}
        EXPLICIT => {
            if body.len() % 8 != 0 {
                return Err(Corrupt("length is not a whole number of hashes"));
            }
            most(body.len() as u64 / 8)?;
            let mut before = None;
            for bytes in body.chunks_exact(8) {
                let hash = i64::from_be_bytes(bytes.try_into().expect("eight bytes"));
                if before.is_some_and(|before| before >= hash) {
                    return Err(Corrupt("hashes are not in ascending order"));
                }
                before = Some(hash);
                sketch.add(hash as u64);
            }
        }
        stored::SPARSE => {
            let entry = written.log2m as u32 + width;
            let bits = 8 * body.len() as u64;
            if bits % entry as u64 >= 8 {
                return Err(Corrupt("length is not a whole number of registers"));
            }
            most(bits / entry as u64)?;
            let mut stream = BitReader::new(body);
            sketch.make_dense();
            for _ in 0..bits / entry as u64 {
                let value = stream.next(entry);
                set(&mut sketch, written.log2m, (value >> width) as usize, value & ((1 << width) - 1));
            }
        }
        stored::DENSE => {
            if (width as u64 * (1u64 << written.log2m)).div_ceil(8) != body.len() as u64 {
                return Err(Corrupt("number of registers does not match log2m"));
            }
            most(1 << written.log2m)?;
            let mut stream = BitReader::new(body);
            sketch.make_dense();
            for index in 0..1usize << written.log2m {
                set(&mut sketch, written.log2m, index, stream.next(width));
            }
        }
        _ => return Err(Corrupt("unknown kind of sketch")),
    }
    Ok(sketch)
}

fn most(entries: u64) -> Result<(), Corrupt> {
    if entries > MOST { Err(Corrupt("more than 67108864 hashes or registers")) } else { Ok(()) }
}

fn set(sketch: &mut Sketch, log2m: u8, index: usize, value: u64) {
    if value > 0 {
        let rank = value.min((65 - log2m).min(63) as u64) as u8;
        let to = log2m.min(Params::MAX_LOG2M);
        let (index, rank) = code::fold_register(index, rank, log2m, to);
        sketch.raise(index, rank);
    }
}

/// Writes version 1: sparse or full, because the sparse list does not have the hashes that an explicit one
/// needs. `max_sparse` as in `hll_set_max_sparse`: the most registers of the sparse form, -1 for the smaller form.
pub fn write(sketch: &Stored, max_sparse: i32) -> Result<Vec<u8>, Corrupt> {
    let Params { log2m, regwidth, sparseon, .. } = sketch.params;
    let [shape, hints] = sketch.params.to_bits().to_le_bytes();
    let header = |kind: u8| vec![VERSION << 4 | kind, shape, hints];
    let mut ranks = vec![0; 1 << log2m];
    match sketch.body {
        Body::Undefined => return Ok(header(stored::UNDEFINED)),
        Body::Empty => return Ok(header(stored::EMPTY)),
        Body::Sparse { .. } => sketch.entries(|entry| {
            let (index, rank) = code::register(entry, log2m);
            ranks[index] = rank.max(ranks[index]);
        })?,
        Body::Dense(bytes) => {
            ranks.iter_mut().zip(registers::iter_stored(bytes, log2m)).for_each(|(to, rank)| *to = rank)
        }
    }
    let top = sketch.params.top_value();
    let filled = ranks.iter().filter(|&&rank| rank > 0).count();
    let (entry, width) = (log2m as usize + regwidth as usize, regwidth as u32);
    let sparse = match max_sparse {
        -1 => filled * entry < ranks.len() * width as usize,
        most => filled as i64 <= most as i64,
    };
    let mut stream;
    if sparseon && sparse {
        stream = BitWriter { out: header(stored::SPARSE), pending: 0, bits: 0 };
        for (index, &rank) in ranks.iter().enumerate().filter(|&(_, &rank)| rank > 0) {
            stream.push((index as u64) << width | rank.min(top) as u64, entry as u32);
        }
    } else {
        stream = BitWriter { out: header(stored::DENSE), pending: 0, bits: 0 };
        for &rank in &ranks {
            stream.push(rank.min(top) as u64, width);
        }
    }
    debug_assert!(stream.out.len() >= HEADER);
    Ok(stream.finish())
}

/// Bits from the highest of each byte; zeros after the end.
struct BitReader<'a> {
    bytes: std::slice::Iter<'a, u8>,
    pending: u64,
    bits: u32,
}

impl<'a> BitReader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes: bytes.iter(), pending: 0, bits: 0 }
    }

    /// The next `width` bits, at most 56.
    fn next(&mut self, width: u32) -> u64 {
        while self.bits < width {
            self.pending = self.pending << 8 | self.bytes.next().copied().unwrap_or(0) as u64;
            self.bits += 8;
        }
        self.bits -= width;
        self.pending >> self.bits & ((1 << width) - 1)
    }
}

struct BitWriter {
    out: Vec<u8>,
    pending: u64,
    bits: u32,
}

impl BitWriter {
    /// `value` is below 2^width; width is at most 56.
    fn push(&mut self, value: u64, width: u32) {
        self.pending = self.pending << width | value;
        self.bits += width;
        while self.bits >= 8 {
            self.bits -= 8;
            self.out.push((self.pending >> self.bits) as u8);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.bits > 0 {
            self.out.push((self.pending << (8 - self.bits)) as u8);
        }
        self.out
    }
}

const _: () = assert!(MAX_LOG2M as u32 + 8 <= 56);
