//! A sketch as it is stored.
//!
//! | bytes | content |
//! | --- | --- |
//! | 0 | high nibble 2 (postgresql-hll's storage version 1 has 1 there), low nibble: 0 undefined, 1 empty, 3 sparse, 4 dense |
//! | 1 | low five bits: log2m; high three bits: regwidth - 1 |
//! | 2 | low six bits: encoded expthresh; bit 6: sparseon |
//! | sparse | number of entries (seven bits a byte), then for each entry in ascending order its index as a Golomb-Rice coded gap, and six bits of rank if the index has no bit set above the log2m low ones |
//! | dense | 32-bit little-endian words of five 6-bit registers, the first lowest |

use super::Corrupt;
use super::code;
use super::params::{Params, dense_words, max_sparse, sparse_bits};
use super::registers;
use super::rice::{self, Gaps};

pub(crate) const HEADER: usize = 3;
pub(crate) const VERSION: u8 = 2;

pub(crate) const UNDEFINED: u8 = 0;
pub(crate) const EMPTY: u8 = 1;
pub(crate) const SPARSE: u8 = 3;
pub(crate) const DENSE: u8 = 4;

/// A view of stored bytes.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    pub params: Params,
    pub body: Body<'a>,
}

#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// Absorbs every sketch that meets it; counts nothing. Only made by hand.
    Undefined,
    Empty,
    /// `count` entries; `gaps` holds them.
    Sparse {
        count: usize,
        gaps: &'a [u8],
    },
    /// Register words as bytes.
    Dense(&'a [u8]),
}

impl<'a> Stored<'a> {
    /// Reads the header and checks the lengths; entries are checked where they are read.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        let &[kind, shape, hints, ref rest @ ..] = bytes else {
            return Err(Corrupt("sketch is shorter than its header"));
        };
        if kind >> 4 != VERSION {
            return Err(Corrupt("unknown storage version"));
        }
        if hints & 0x80 != 0 {
            return Err(Corrupt("unknown flag in the header"));
        }
        let params = Params::from_bits((hints as u16) << 8 | shape as u16);
        if params.log2m > Params::MAX_LOG2M {
            return Err(Corrupt("log2m is larger than 18"));
        }
        let body = match kind & 15 {
            UNDEFINED if rest.is_empty() => Body::Undefined,
            EMPTY if rest.is_empty() => Body::Empty,
            UNDEFINED | EMPTY => return Err(Corrupt("bytes follow the header of an empty sketch")),
            SPARSE => {
                let Some((count, len)) = rice::read_count(rest) else {
                    return Err(Corrupt("number of entries is malformed"));
                };
                if count == 0 || count > max_sparse(params.log2m) {
                    return Err(Corrupt("number of entries is out of range"));
                }
                Body::Sparse { count, gaps: &rest[len..] }
            }
            DENSE if rest.len() == 4 * dense_words(params.log2m) => Body::Dense(rest),
            DENSE => return Err(Corrupt("number of registers does not match log2m")),
            _ => return Err(Corrupt("unknown kind of sketch")),
        };
        Ok(Stored { params, body })
    }

    /// The same sketch with other hints for version 1.
    pub fn with_hints_of(mut self, other: Params) -> Self {
        self.params.expthresh = other.expthresh;
        self.params.sparseon = other.sparseon;
        self
    }

    /// Reads everything: `Ok` only for bytes that an encoder would write.
    pub fn validate(&self) -> Result<(), Corrupt> {
        match self.body {
            Body::Undefined | Body::Empty => Ok(()),
            Body::Sparse { .. } => self.entries(|_| ()),
            Body::Dense(bytes) => {
                let log2m = self.params.log2m;
                if !registers::padding_is_zero(bytes, log2m) {
                    return Err(Corrupt("bits beside the registers are set"));
                }
                let top = (65 - log2m).min(63);
                if registers::iter_stored(bytes, log2m).any(|rank| rank > top) {
                    return Err(Corrupt("register is larger than any rank"));
                }
                Ok(())
            }
        }
    }

    /// Passes every entry of a sparse sketch to `each`, ascending; nothing for another kind.
    #[inline]
    pub fn entries(&self, each: impl FnMut(u64)) -> Result<(), Corrupt> {
        let Body::Sparse { count, gaps } = self.body else { return Ok(()) };
        list(rice::Reader::new(gaps), count, self.params.log2m, each)
    }
}

/// Passes the entries of a list to `each`.
#[inline]
fn list(mut gaps: impl Gaps, count: usize, log2m: u8, mut each: impl FnMut(u64)) -> Result<(), Corrupt> {
    let end = 1u64 << sparse_bits(log2m);
    let k = rice::parameter(sparse_bits(log2m), count);
    let mut next = 0;
    for _ in 0..count {
        if next == end {
            return Err(Corrupt("entry is out of range"));
        }
        let Some(gap) = gaps.gap(k, end - 1 - next) else {
            return Err(Corrupt("entry is out of range"));
        };
        let index = next + gap;
        let rank = if code::needs_rank(index, log2m) { gaps.bits(6) } else { 0 };
        if code::needs_rank(index, log2m) && (rank == 0 || rank > code::max_rank(log2m)) {
            return Err(Corrupt("rank of an entry is out of range"));
        }
        each(code::new(index, rank));
        next = index + 1;
    }
    if !gaps.at_end() {
        return Err(Corrupt("length does not match the number of entries"));
    }
    Ok(())
}

/// Passes the entries of a sparse sketch to `each` if it has these parameters and its list fits two words, as most lists of a
/// rollup do. `false` if not, or if it is corrupt, when some entries may have been passed.
#[inline]
pub(crate) fn few_entries(bytes: &[u8], params: u16, mut each: impl FnMut(u64)) -> bool {
    let Some(&[kind, shape, hints, count]) = bytes.first_chunk() else { return false };
    if kind != VERSION << 4 | SPARSE || u16::from_le_bytes([shape, hints]) != params {
        return false;
    }
    let (log2m, count) = (params as u8 & 31, count as usize);
    if count == 1
        && let Some(entry) = one_entry(&bytes[HEADER + 1..], log2m)
    {
        each(entry);
        return true;
    }
    (1..=max_sparse(log2m).min(127)).contains(&count)
        && rice::Words::new(bytes, HEADER + 1).is_some_and(|gaps| list(gaps, count, log2m, each).is_ok())
}

/// The entry of a list that is four bytes long and has one without a rank, as more than half of those in a rollup of small
/// groups: its index as a gap whose quotient is zero.
#[inline]
fn one_entry(gaps: &[u8], log2m: u8) -> Option<u64> {
    let word = u32::from_le_bytes(gaps.try_into().ok()?) as u64;
    let (bits, index) = (sparse_bits(log2m), word >> 1);
    ((bits + 1).div_ceil(8) == 4 && word & 1 == 1 && index >> bits == 0 && !code::needs_rank(index, log2m))
        .then(|| code::new(index, 0))
}

/// Writes the header.
pub(crate) fn write_header(out: &mut [u8], kind: u8, params: Params) {
    let [shape, hints] = params.to_bits().to_le_bytes();
    out[..HEADER].copy_from_slice(&[VERSION << 4 | kind, shape, hints]);
}

/// Bytes that these entries (sorted, distinct) take, header included.
pub(crate) fn sparse_len(codes: &[u64], log2m: u8) -> usize {
    let k = rice::parameter(sparse_bits(log2m), codes.len());
    let (mut bits, mut next) = (codes.len() * (k as usize + 1), 0);
    for &code in codes {
        let index = code::index(code);
        bits += ((index - next) >> k) as usize + 6 * code::needs_rank(index, log2m) as usize;
        next = index + 1;
    }
    HEADER + rice::count_len(codes.len()) + bits.div_ceil(8)
}

/// Writes entries (sorted, distinct) into as many bytes.
pub(crate) fn write_sparse(codes: &[u64], params: Params, out: &mut [u8]) {
    write_header(out, SPARSE, params);
    let (count, gaps) = out[HEADER..].split_at_mut(rice::count_len(codes.len()));
    rice::write_count(codes.len(), count);
    let k = rice::parameter(sparse_bits(params.log2m), codes.len());
    let mut writer = rice::Writer::new(gaps);
    let mut next = 0;
    for &code in codes {
        let index = code::index(code);
        writer.gap(index - next, k);
        if code::needs_rank(index, params.log2m) {
            writer.bits(code::rank_of(code), 6);
        }
        next = index + 1;
    }
    writer.finish();
}
