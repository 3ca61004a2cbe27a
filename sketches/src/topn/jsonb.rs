//! A list of counters as the bytes of a jsonb object, `{"item": count, ...}`.
//!
//! The layout is PostgreSQL's own (`src/include/utils/jsonb.h`, `jsonb_util.c`, `numeric.c`; the same since 9.4), so that
//! what is written here is byte for byte what `jsonb_in` makes of the same object:
//!
//! ```text
//! u32      flags and the number n of pairs
//! u32[2n]  one word for each key, then for each value: type, and length or (every 32nd) end
//! ...      keys, sorted by length, then by bytes
//! ...      values: numerics, each aligned to 4 bytes, the padding counted with the value
//! ```
//!
//! All numbers are in the machine's byte order.

use std::slice::ChunksExact;

use super::bytes::{array, put, u16_at, u32_at};
use super::{Counter, MAX_COUNT};

const COUNT_MASK: u32 = 0x0fff_ffff;
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;

const LENGTH_MASK: u32 = 0x0fff_ffff;
const TYPE_MASK: u32 = 0x7000_0000;
const STRING: u32 = 0;
const NUMERIC: u32 = 0x1000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;
/// Every so many entries hold an end instead of a length.
const STRIDE: usize = 32;

const NUMERIC_SHORT: u16 = 0x8000;
const NUMERIC_BASE: u64 = 10_000;
/// The bytes of a numeric before its digits: varlena header and numeric header.
const NUMERIC_HEADER: usize = 6;

/// Why a jsonb value is no list of counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotCounters<'a> {
    /// It is an array or a scalar.
    NotAnObject,
    /// The value of this key is no number.
    NotANumber(&'a [u8]),
    Negative(&'a [u8]),
    Fraction(&'a [u8]),
    /// The value of this key exceeds 2^63 - 1.
    TooLarge(&'a [u8]),
    /// The bytes are not a well-formed jsonb value.
    Corrupt,
}

/// A jsonb object seen as a list of counters. The values are checked as they are read.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> List<'a> {
    /// `bytes`: a jsonb value without its varlena header.
    ///
    /// # Errors
    /// [`NotCounters::NotAnObject`] or [`NotCounters::Corrupt`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NotCounters<'a>> {
        if bytes.len() < 4 {
            return Err(NotCounters::Corrupt);
        }
        let header = u32_at(bytes, 0);
        if header & OBJECT == 0 || header & SCALAR != 0 {
            return Err(NotCounters::NotAnObject);
        }
        let len = (header & COUNT_MASK) as usize;
        if (bytes.len() - 4) / 8 < len {
            return Err(NotCounters::Corrupt);
        }
        Ok(List { bytes, len })
    }

    /// The number of counters.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes the items take: those of a corrupt list are no more than the list's.
    pub(super) fn items_bytes(&self) -> usize {
        self.keys_end().min(self.bytes.len())
    }

    /// Where the keys end and the values start.
    #[inline]
    fn keys_end(&self) -> usize {
        let mut sum = 0usize;
        for entry in self.bytes[4..4 + 4 * self.len].chunks_exact(4).rev() {
            let entry = u32_at(entry, 0);
            sum += (entry & LENGTH_MASK) as usize;
            if entry & HAS_OFFSET != 0 {
                break;
            }
        }
        sum
    }

    /// The counters, sorted by length of the item, then by its bytes.
    #[inline]
    pub fn iter(&self) -> Iter<'a> {
        let (entries, data) = self.bytes[4..].split_at(8 * self.len);
        let (keys, values) = entries.split_at(4 * self.len);
        Iter {
            keys: keys.chunks_exact(4),
            values: values.chunks_exact(4),
            data,
            key: 0,
            value: self.keys_end(),
        }
    }
}

/// Iterator over the counters of a [`List`]; after an error it ends.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    keys: ChunksExact<'a, u8>,
    values: ChunksExact<'a, u8>,
    data: &'a [u8],
    /// Where the next key and the next value start in `data`.
    key: usize,
    value: usize,
}

impl<'a> Iter<'a> {
    /// The field of an entry that starts at `start`, and where it ends.
    #[inline]
    fn field(&self, entry: u32, start: usize) -> Result<(&'a [u8], usize), NotCounters<'a>> {
        let length = (entry & LENGTH_MASK) as usize;
        let end = if entry & HAS_OFFSET != 0 { length } else { start + length };
        Ok((self.data.get(start..end).ok_or(NotCounters::Corrupt)?, end))
    }

    #[inline]
    fn read(&mut self, key: u32, value: u32) -> Result<Counter<'a>, NotCounters<'a>> {
        if key & TYPE_MASK != STRING {
            return Err(NotCounters::Corrupt);
        }
        let (item, key_end) = self.field(key, self.key)?;
        let (number, value_end) = self.field(value, self.value)?;
        if value & TYPE_MASK != NUMERIC {
            return Err(NotCounters::NotANumber(item));
        }
        let padding = self.value.next_multiple_of(4) - self.value;
        let number = number.get(padding..).ok_or(NotCounters::Corrupt)?;
        let count = match small_numeric(number) {
            Some(count) => count,
            None => read_numeric(number, item)?,
        };
        (self.key, self.value) = (key_end, value_end);
        Ok(Counter { item, count })
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Result<Counter<'a>, NotCounters<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = (self.keys.next()?, self.values.next()?);
        let counter = self.read(u32_at(key, 0), u32_at(value, 0));
        if counter.is_err() {
            self.keys = [].chunks_exact(4);
        }
        Some(counter)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.keys.len().min(1), Some(self.keys.len()))
    }
}

/// The payload of a varlena, with a header of 1 or 4 bytes.
#[inline]
fn varlena(bytes: &[u8]) -> Option<&[u8]> {
    let first = *bytes.first()?;
    let short = if cfg!(target_endian = "little") { first & 1 == 1 } else { first & 0x80 != 0 };
    if short {
        let len = if cfg!(target_endian = "little") { first >> 1 } else { first & 0x7f };
        return bytes.get(1..len as usize);
    }
    let header = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let (compressed, len) = if cfg!(target_endian = "little") {
        (header & 3 != 0, header >> 2)
    } else {
        (header >> 30 != 0, header & 0x3fff_ffff)
    };
    if compressed { None } else { bytes.get(4..len as usize) }
}

/// What [`encode`] writes for a count from 1 to 9999, quickly.
#[inline]
fn small_numeric(bytes: &[u8]) -> Option<u64> {
    let size = NUMERIC_HEADER + 2;
    let header = if cfg!(target_endian = "little") { (size as u32) << 2 } else { size as u32 };
    let digit = bytes.len() == size && u32_at(bytes, 0) == header && u16_at(bytes, 4) == NUMERIC_SHORT;
    digit.then(|| u64::from(u16_at(bytes, 6))).filter(|&digit| digit < NUMERIC_BASE)
}

/// A numeric that is a whole number from 0 to 2^63 - 1, in whatever form PostgreSQL stored it.
#[inline(never)]
fn read_numeric<'a>(bytes: &[u8], item: &'a [u8]) -> Result<u64, NotCounters<'a>> {
    let numeric = varlena(bytes).filter(|n| n.len() >= 2).ok_or(NotCounters::Corrupt)?;
    let header = u16_at(numeric, 0);
    let (negative, weight, digits) = match header & 0xc000 {
        // Special values: jsonb has none.
        0xc000 => return Err(NotCounters::Corrupt),
        0x8000 => {
            let weight = i32::from(header & 0x3f) - i32::from(header & 0x40);
            (header & 0x2000 != 0, weight, &numeric[2..])
        }
        long => {
            if numeric.len() < 4 {
                return Err(NotCounters::Corrupt);
            }
            (long == 0x4000, i32::from(i16::from_ne_bytes(array(numeric, 2))), &numeric[4..])
        }
    };
    let (mut value, mut over, mut fraction) = (0u64, false, false);
    let mut place = weight;
    for digit in digits.chunks_exact(2) {
        let digit = u64::from(u16_at(digit, 0));
        if digit >= NUMERIC_BASE {
            return Err(NotCounters::Corrupt);
        }
        if place < 0 {
            fraction |= digit != 0;
        } else {
            let next = value.checked_mul(NUMERIC_BASE).and_then(|v| v.checked_add(digit));
            over |= next.is_none();
            value = next.unwrap_or(u64::MAX);
        }
        place -= 1;
    }
    // Trailing zero digits are not stored.
    while place >= 0 && value != 0 && !over {
        over = value.checked_mul(NUMERIC_BASE).is_none();
        value = value.saturating_mul(NUMERIC_BASE);
        place -= 1;
    }
    match () {
        () if negative && (value != 0 || fraction) => Err(NotCounters::Negative(item)),
        () if fraction => Err(NotCounters::Fraction(item)),
        () if over || value > MAX_COUNT => Err(NotCounters::TooLarge(item)),
        () => Ok(value),
    }
}

/// The digits of `count` in base 10,000, the highest first, trailing zeros left out: how many, which, and the
/// place of the first.
#[inline]
fn digits(mut count: u64) -> (usize, [u16; 5], u16) {
    let mut low_first = [0u16; 5];
    let (mut zeros, mut places) = (0, 0);
    while count > 0 {
        low_first[places] = (count % NUMERIC_BASE) as u16;
        if zeros == places && low_first[places] == 0 {
            zeros += 1;
        }
        count /= NUMERIC_BASE;
        places += 1;
    }
    let mut digits = [0u16; 5];
    for (to, from) in (zeros..places).rev().enumerate() {
        digits[to] = low_first[from];
    }
    (places - zeros, digits, places.saturating_sub(1) as u16)
}

/// The bytes that [`encode`] writes for these counters; `None` when jsonb cannot hold them.
pub fn encoded_len(counters: &[Counter]) -> Option<usize> {
    let keys: usize = counters.iter().map(|counter| counter.item.len()).sum();
    let data = counters.iter().fold(keys, |at, counter| {
        let digits = if counter.count < NUMERIC_BASE {
            usize::from(counter.count > 0)
        } else {
            digits(counter.count).0
        };
        at.next_multiple_of(4) + NUMERIC_HEADER + 2 * digits
    });
    let fits = data <= LENGTH_MASK as usize && counters.len() <= COUNT_MASK as usize;
    fits.then_some(4 + 8 * counters.len() + data)
}

/// Writes counters, which are in the order of jsonb without duplicates, into `out`: zeroed bytes of
/// [`encoded_len`].
pub fn encode(counters: &[Counter], out: &mut [u8]) {
    let n = counters.len();
    put(out, 0, (OBJECT | n as u32).to_ne_bytes());
    let (head, data) = out.split_at_mut(4 + 8 * n);
    let entries = &mut head[4..];
    let mut put_entry = |i: usize, kind: u32, length: usize, end: usize| {
        let entry = if i.is_multiple_of(STRIDE) { HAS_OFFSET | end as u32 } else { length as u32 };
        put(entries, 4 * i, (kind | entry).to_ne_bytes());
    };
    let mut at = 0;
    for (i, counter) in counters.iter().enumerate() {
        let end = at + counter.item.len();
        data[at..end].copy_from_slice(counter.item);
        put_entry(i, STRING, counter.item.len(), end);
        at = end;
    }
    for (i, counter) in counters.iter().enumerate() {
        let start = at.next_multiple_of(4);
        let (len, digits, weight) = digits(counter.count);
        let size = NUMERIC_HEADER + 2 * len;
        let header = if cfg!(target_endian = "little") { (size as u32) << 2 } else { size as u32 };
        put(data, start, header.to_ne_bytes());
        put(data, start + 4, (NUMERIC_SHORT | weight).to_ne_bytes());
        for (d, digit) in digits[..len].iter().enumerate() {
            put(data, start + NUMERIC_HEADER + 2 * d, digit.to_ne_bytes());
        }
        put_entry(n + i, NUMERIC, start + size - at, start + size);
        at = start + size;
    }
}
