//! Reading and writing fixed-width numbers and varints in byte slices.

use std::cmp::Ordering;

#[inline]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(array(bytes, at))
}

#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(array(bytes, at))
}

#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(array(bytes, at))
}

#[inline]
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has the array's length")
}

#[inline]
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// Whether two items are the same; short ones without a call of memcmp.
#[inline]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let len = a.len();
    if len != b.len() {
        return false;
    }
    match len {
        0 => true,
        1..4 => a[0] == b[0] && a[len / 2] == b[len / 2] && a[len - 1] == b[len - 1],
        4..8 => u32_at(a, 0) == u32_at(b, 0) && u32_at(a, len - 4) == u32_at(b, len - 4),
        8..=16 => u64_at(a, 0) == u64_at(b, 0) && u64_at(a, len - 8) == u64_at(b, len - 8),
        _ => a == b,
    }
}

/// Copies an item to a place of its length; a short one without a call of memcpy.
#[inline]
pub(super) fn copy(item: &[u8], to: &mut [u8]) {
    let len = item.len();
    match len {
        0 => {}
        1..4 => {
            let [first, middle, last] = [item[0], item[len / 2], item[len - 1]];
            to[0] = first;
            to[len / 2] = middle;
            to[len - 1] = last;
        }
        4..8 => {
            put::<4>(to, 0, array(item, 0));
            put::<4>(to, len - 4, array(item, len - 4));
        }
        8..=16 => {
            put::<8>(to, 0, array(item, 0));
            put::<8>(to, len - 8, array(item, len - 8));
        }
        _ => to.copy_from_slice(item),
    }
}

/// The order of two items of one length by their bytes; of short ones without a call of memcmp.
#[inline]
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let len = a.len();
    // Where both ends overlap, the first end being equal leaves it to the second.
    let ends = |bytes: &[u8]| {
        let end = |at| u64::from(u32::from_be_bytes(array(bytes, at)));
        end(0) << 32 | end(len - 4)
    };
    match len {
        0 => Ordering::Equal,
        1..4 => [a[0], a[len / 2], a[len - 1]].cmp(&[b[0], b[len / 2], b[len - 1]]),
        4..=8 => ends(a).cmp(&ends(b)),
        _ => a.cmp(b),
    }
}

/// Appends `value` as LEB128: seven bits a byte, the lowest first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a LEB128 number off the front of `bytes`; `None` when it is cut off or exceeds 64 bits.
#[inline]
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if i == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Takes `len` bytes off the front; `None` when there are fewer.
#[inline]
pub(super) fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_every_length_are_copied() {
        for len in 0..20u8 {
            let item: Vec<u8> = (1..=len).collect();
            let mut to = vec![0; item.len()];
            copy(&item, &mut to);
            assert_eq!(to, item);
        }
    }

    #[test]
    fn short_items_compare_as_long_ones() {
        for len in 0..20 {
            for i in 0..len {
                let (mut a, mut b) = (vec![7u8; len], vec![7u8; len]);
                assert!(same(&a, &b) && compare(&a, &b).is_eq());
                b[i] = 0xf0;
                assert!(!same(&a, &b) && compare(&a, &b).is_lt() && compare(&b, &a).is_gt());
                // What differs first decides.
                a[i + 1..].fill(0xff);
                assert!(!same(&a, &b) && compare(&a, &b).is_lt() && compare(&b, &a).is_gt());
            }
        }
    }
}
