//! The parameters of a sketch and what follows from them.

/// What postgresql-hll keeps in the second and third header byte of each sketch.
///
/// Only `log2m` changes what is stored: registers are 6 bits wide and the sparse list always comes first.
/// `regwidth` limits what the estimate reads from a register, so that sketches converted from narrower
/// registers count right; `expthresh` and `sparseon` are remembered for the way back to version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// 2^log2m registers; at most [`Params::MAX_LOG2M`].
    pub log2m: u8,
    /// Bits of a version 1 register: 1 to 8.
    pub regwidth: u8,
    /// Encoded explicit threshold: 63 is automatic, 0 none, otherwise 2^(n-1).
    pub expthresh: u8,
    /// Whether version 1 may write its sparse form.
    pub sparseon: bool,
}

impl Default for Params {
    fn default() -> Self {
        Params { log2m: 11, regwidth: 5, expthresh: Self::AUTO, sparseon: true }
    }
}

impl Params {
    pub const MAX_LOG2M: u8 = 18;
    /// Encoded `expthresh` for "automatic".
    pub const AUTO: u8 = 63;

    /// Where two sketches meet: the smaller of each parameter. Commutative, associative, idempotent.
    pub fn meet(self, other: Params) -> Params {
        Params {
            log2m: self.log2m.min(other.log2m),
            regwidth: self.regwidth.min(other.regwidth),
            expthresh: self.expthresh.min(other.expthresh),
            sparseon: self.sparseon & other.sparseon,
        }
    }

    /// The 15 bits of the two header bytes.
    #[inline]
    pub(crate) fn to_bits(self) -> u16 {
        let shape = (self.regwidth - 1) << 5 | self.log2m;
        let hints = (self.sparseon as u8) << 6 | self.expthresh;
        (hints as u16) << 8 | shape as u16
    }

    #[inline]
    pub(crate) fn from_bits(bits: u16) -> Params {
        let (shape, hints) = (bits as u8, (bits >> 8) as u8);
        Params {
            log2m: shape & 31,
            regwidth: (shape >> 5) + 1,
            expthresh: hints & 63,
            sparseon: hints & 64 != 0,
        }
    }

    /// The modifier of a column with these parameters.
    pub fn to_typmod(self) -> i32 {
        self.to_bits() as i32
    }

    /// The parameters of a column's modifier.
    pub fn from_typmod(typmod: i32) -> Params {
        Params::from_bits(typmod as u16 & 0x7fff)
    }

    /// Number of registers.
    pub fn registers(self) -> usize {
        1 << self.log2m
    }

    /// The explicit threshold as a number: -1 automatic, 0 none.
    pub fn expthresh_value(self) -> i64 {
        match self.expthresh {
            Self::AUTO => -1,
            0 => 0,
            n => 1 << (n - 1),
        }
    }

    /// Encodes an explicit threshold: -1, 0 or a power of two; `None` for anything else.
    pub fn encode_expthresh(value: i64) -> Option<u8> {
        match value {
            -1 => Some(Self::AUTO),
            0 => Some(0),
            n if n > 0 && n & (n - 1) == 0 => Some(n.trailing_zeros() as u8 + 1),
            _ => None,
        }
    }

    /// The largest value of a version 1 register that ours can hold.
    pub fn top_value(self) -> u8 {
        if self.regwidth >= 6 { 63 } else { (1 << self.regwidth) - 1 }
    }

    /// The rank at which a register is full: the width of version 1 and of the hash set it.
    pub fn top_rank(self) -> u8 {
        self.top_value().min(65 - self.log2m)
    }
}

/// Bits of the hash that the sparse list keeps.
///
/// The list of a sketch of 2^p registers holds up to some 0.28 x 2^p entries. With 2p + 8 bits two of them
/// collide in less than 2 of 10,000 full lists, at every p: the count is exact. (HyperLogLog++ keeps 25
/// bits, which at p = 14 and 3,500 values collide in one list of five.)
#[inline]
pub const fn sparse_bits(log2m: u8) -> u32 {
    2 * log2m as u32 + 8
}

/// Words of 32 bits that the registers take, five to a word.
#[inline]
pub const fn dense_words(log2m: u8) -> usize {
    (1usize << log2m).div_ceil(5)
}

/// The longest sparse list: the most entries that can never take more bytes than the registers.
#[inline]
pub const fn max_sparse(log2m: u8) -> usize {
    MAX_SPARSE[log2m as usize] as usize
}

const MAX_SPARSE: [u16; Params::MAX_LOG2M as usize + 1] = {
    let mut table = [0; Params::MAX_LOG2M as usize + 1];
    let mut log2m = 0;
    while log2m <= Params::MAX_LOG2M {
        // worst_case() grows with n: bisect.
        let (mut fits, mut outgrows) = (0, 4 << log2m as usize);
        while outgrows - fits > 1 {
            let n = (fits + outgrows) / 2;
            if worst_case(log2m, n) <= 4 * dense_words(log2m) { fits = n } else { outgrows = n }
        }
        table[log2m as usize] = fits as u16;
        log2m += 1;
    }
    table
};

/// Most bytes that `n` entries can take: see [`super::rice`].
const fn worst_case(log2m: u8, n: usize) -> usize {
    let bits = sparse_bits(log2m);
    let k = super::rice::parameter(bits, n);
    super::rice::count_len(n) + (n * (k as usize + 1) + (1 << (bits - k))).div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_round_trip() {
        for bits in 0..1u16 << 15 {
            assert_eq!(Params::from_bits(bits).to_bits(), bits);
        }
    }

    #[test]
    fn sparse_lists_are_long_enough() {
        assert!(max_sparse(11) >= 500 && max_sparse(12) >= 1000 && max_sparse(14) >= 3500);
        // A state counts the entries of its tail in 16 bits, of which the last value is a mark.
        assert!((0..=Params::MAX_LOG2M).all(|p| max_sparse(p) > 0 && max_sparse(p) < 0xffff));
    }
}
