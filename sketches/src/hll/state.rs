//! A sketch being built: an aggregate's transition state.
//!
//! It lies in a slice of 64-bit words that the caller allocates. The first word is the head, of which the
//! low half belongs to the caller (who may keep the length of the slice there); then come
//!
//! * entries ([`code`]) in slots: a list in a slice of 2, 4 or 8 words, a hash table in one of 16, 32, 64, ... words,
//! * or the registers.
//!
//! When a sketch outgrows its slice, adding asks for a larger one by returning [`Grow`]; the caller
//! allocates it, moves the sketch with [`State::move_to`] and repeats the call. Adding and merging are
//! idempotent, so that repeating is harmless.

use super::Corrupt;
use super::code;
use super::params::{Params, dense_words, max_sparse};
use super::registers;
use super::slots::{self, Inserted};
use super::stored::{self, Body, HEADER, Stored};

const COUNT_SHIFT: u32 = 32;
const PARAMS_SHIFT: u32 = 48;
const DENSE: u64 = 1 << 63;
/// A count that says: undefined.
const UNDEFINED: usize = 0xffff;

/// Entries that are sorted on the stack.
const FEW: usize = 14;

/// The slice that a sketch needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grow {
    /// Its length.
    pub words: usize,
    params: Params,
    dense: bool,
}

/// A sketch in a slice of words.
pub struct State<'a> {
    words: &'a mut [u64],
}

impl<'a> State<'a> {
    /// Words of the smallest state: it holds one entry, up to log2m 11 two.
    pub const SMALLEST: usize = 2;

    /// An empty sketch in zeroed words (but for the caller's half of the first one), at least
    /// [`State::SMALLEST`]: a power of two.
    #[inline]
    pub fn init(words: &'a mut [u64], params: Params) -> Self {
        words[0] |= (params.to_bits() as u64) << PARAMS_SHIFT;
        State { words }
    }

    /// The sketch that earlier calls built in these words.
    #[inline]
    pub fn resume(words: &'a mut [u64]) -> Self {
        State { words }
    }

    /// Words that suit a sketch about to receive `sketch`.
    #[inline]
    pub fn words_for(sketch: &Stored) -> usize {
        match sketch.body {
            Body::Undefined | Body::Empty => Self::SMALLEST,
            Body::Sparse { count, .. } => 1 + slots::words_for(count, sketch.params.log2m),
            Body::Dense(_) => 1 + registers::words(sketch.params.log2m),
        }
    }

    #[inline]
    pub fn params(&self) -> Params {
        params(self.words[0])
    }

    /// Adds a hash.
    #[inline]
    pub fn add(&mut self, hash: u64) -> Result<(), Grow> {
        let head = self.words[0];
        let log2m = (head >> PARAMS_SHIFT) as u8 & 31;
        if head & DENSE != 0 {
            registers::raise(&mut self.words[1..], code::register_of_hash(hash, log2m));
            return Ok(());
        }
        self.insert(code::of_hash(hash, log2m))
    }

    /// Adds an entry; the sketch is not dense.
    #[inline]
    fn insert(&mut self, code: u64) -> Result<(), Grow> {
        let [head, slots @ ..] = &mut *self.words else { unreachable!("a state has a head") };
        let log2m = (*head >> PARAMS_SHIFT) as u8 & 31;
        let count = (*head >> COUNT_SHIFT) as usize & 0xffff;
        match slots::insert(slots, log2m, count, max_sparse(log2m), code) {
            Inserted::Known => Ok(()),
            Inserted::New => {
                *head += 1 << COUNT_SHIFT;
                Ok(())
            }
            Inserted::Full => self.full(),
        }
    }

    #[cold]
    fn full(&self) -> Result<(), Grow> {
        let params = self.params();
        match self.count() {
            UNDEFINED => Ok(()),
            n if n >= max_sparse(params.log2m) => Err(self.grow_dense(params)),
            _ => Err(Grow { words: 2 * self.words.len(), params, dense: false }),
        }
    }

    fn grow_dense(&self, params: Params) -> Grow {
        Grow { words: 1 + registers::words(params.log2m), params, dense: true }
    }

    fn count(&self) -> usize {
        (self.words[0] >> COUNT_SHIFT) as usize & 0xffff
    }

    fn is_dense(&self) -> bool {
        self.words[0] & DENSE != 0
    }

    fn is_undefined(&self) -> bool {
        !self.is_dense() && self.count() == UNDEFINED
    }

    /// Entries of a sketch that is not dense, in no order.
    fn entries(&self) -> impl Iterator<Item = u64> + '_ {
        let used = if self.is_undefined() { 1 } else { self.words.len() };
        slots::entries(&self.words[1..used], self.params().log2m)
    }

    /// Merges a stored sketch. Where parameters differ the result takes the smaller of each.
    ///
    /// `Ok(Some(grow))` asks for a larger slice. After an error the state must not be used any more.
    #[inline]
    pub fn merge(&mut self, other: &Stored) -> Result<Option<Grow>, Corrupt> {
        if let Some(grow) = self.meet(other.params, matches!(other.body, Body::Dense(_))) {
            return Ok(Some(grow));
        }
        let (from, to) = (other.params.log2m, self.params().log2m);
        match other.body {
            Body::Undefined => self.make_undefined(),
            Body::Empty => {}
            Body::Sparse { .. } => {
                let mut grow = Ok(());
                other.entries(|entry| {
                    if grow.is_ok() {
                        grow = self.add_entry(if from == to { entry } else { code::fold(entry, from, to) });
                    }
                })?;
                return Ok(grow.err());
            }
            Body::Dense(_) if !self.is_dense() => {}
            Body::Dense(bytes) if from == to => registers::merge(&mut self.words[1..], bytes),
            Body::Dense(bytes) => self.raise_all(registers::iter_stored(bytes, from), from),
        }
        Ok(None)
    }

    /// Merges another state, as [`State::merge`] does.
    pub fn merge_state(&mut self, other: &State) -> Option<Grow> {
        if let Some(grow) = self.meet(other.params(), other.is_dense()) {
            return Some(grow);
        }
        let (from, to) = (other.params().log2m, self.params().log2m);
        if other.is_undefined() {
            self.make_undefined();
        } else if other.is_dense() && self.is_dense() {
            if from == to {
                registers::merge_words(&mut self.words[1..], &other.words[1..]);
            } else {
                self.raise_all(registers::iter(&other.words[1..], from), from);
            }
        } else {
            return other.entries().find_map(|entry| self.add_entry(code::fold(entry, from, to)).err());
        }
        None
    }

    #[inline]
    fn add_entry(&mut self, entry: u64) -> Result<(), Grow> {
        if self.is_dense() {
            let log2m = self.params().log2m;
            registers::raise(&mut self.words[1..], code::register(entry, log2m));
            return Ok(());
        }
        self.insert(entry)
    }

    fn raise_all(&mut self, registers: impl Iterator<Item = u8>, from: u8) {
        let to = self.params().log2m;
        for (index, rank) in registers.enumerate().filter(|&(_, rank)| rank > 0) {
            registers::raise(&mut self.words[1..], code::fold_register(index, rank, from, to));
        }
    }

    /// Takes on the smaller parameters; asks for a new slice when that changes the shape.
    #[inline]
    fn meet(&mut self, other: Params, dense: bool) -> Option<Grow> {
        let mine = self.params();
        let grow_dense = dense && !self.is_dense() && !self.is_undefined();
        if mine == other && !grow_dense {
            return None;
        }
        let params = mine.meet(other);
        if params.log2m == mine.log2m || self.is_undefined() {
            self.words[0] &= !(0x7fff << PARAMS_SHIFT);
            self.words[0] |= (params.to_bits() as u64) << PARAMS_SHIFT;
            return grow_dense.then(|| self.grow_dense(params));
        }
        if dense || self.is_dense() {
            return Some(self.grow_dense(params));
        }
        let folded = self.sorted_entries(params.log2m).len();
        if folded > max_sparse(params.log2m) {
            return Some(self.grow_dense(params));
        }
        Some(Grow { words: 1 + slots::words_for(folded, params.log2m), params, dense: false })
    }

    fn make_undefined(&mut self) {
        self.words[1..].fill(0);
        self.words[0] = self.words[0] & !DENSE | (UNDEFINED as u64) << COUNT_SHIFT;
    }

    /// Moves the sketch to the slice that `grow` asked for: zeroed words but for the caller's half.
    pub fn move_to<'b>(&self, words: &'b mut [u64], grow: &Grow) -> State<'b> {
        let (from, to) = (self.params().log2m, grow.params.log2m);
        let mut moved = State::init(words, grow.params);
        if grow.dense {
            moved.words[0] |= DENSE;
        }
        if self.is_dense() {
            moved.raise_all(registers::iter(&self.words[1..], from), from);
        } else {
            for entry in self.entries() {
                moved.add_entry(code::fold(entry, from, to)).expect("the slice has the length asked for");
            }
        }
        moved
    }

    /// Entries in ascending order at a precision of at most the sketch's own.
    fn sorted_entries(&self, log2m: u8) -> Vec<u64> {
        let from = self.params().log2m;
        let mut entries = Vec::with_capacity(self.count());
        if from == log2m {
            entries.extend(self.entries());
            entries.sort_unstable();
            return entries;
        }
        entries.extend(self.entries().map(|entry| code::fold(entry, from, log2m)));
        entries.sort_unstable();
        // Of two ranks for an index the larger is the last.
        entries.dedup_by(|next, kept| {
            let same = code::index(*next) == code::index(*kept);
            if same {
                *kept = *next;
            }
            same
        });
        entries
    }

    /// What it takes to store the sketch.
    pub fn encoder(&self) -> Encoder<'_> {
        let params = self.params();
        let (len, body) = if self.is_dense() {
            (HEADER + 4 * dense_words(params.log2m), Entries::Registers(&self.words[1..]))
        } else {
            match self.count() {
                UNDEFINED => (HEADER, Entries::Undefined),
                0 => (HEADER, Entries::Few([0; FEW], 0)),
                n if n <= FEW => {
                    let mut few = [0; FEW];
                    few.iter_mut().zip(self.entries()).for_each(|(to, entry)| *to = entry);
                    few[..n].sort_unstable();
                    (stored::sparse_len(&few[..n], params.log2m), Entries::Few(few, n))
                }
                _ => {
                    let many = self.sorted_entries(params.log2m);
                    (stored::sparse_len(&many, params.log2m), Entries::Many(many))
                }
            }
        };
        Encoder { params, len, body }
    }

    /// The sketch as stored bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let encoder = self.encoder();
        let mut bytes = vec![0; encoder.len()];
        encoder.write(&mut bytes);
        bytes
    }
}

/// Writes a sketch: [`Encoder::len`] zeroed bytes, then [`Encoder::write`].
pub struct Encoder<'a> {
    params: Params,
    len: usize,
    body: Entries<'a>,
}

enum Entries<'a> {
    Undefined,
    Few([u64; FEW], usize),
    Many(Vec<u64>),
    Registers(&'a [u64]),
}

impl Encoder<'_> {
    #[allow(clippy::len_without_is_empty)] // a stored sketch has a header at least
    pub fn len(&self) -> usize {
        self.len
    }

    /// `out` is zeroed and [`Encoder::len`] bytes long.
    pub fn write(&self, out: &mut [u8]) {
        match &self.body {
            Entries::Undefined => stored::write_header(out, stored::UNDEFINED, self.params),
            Entries::Few(_, 0) => stored::write_header(out, stored::EMPTY, self.params),
            Entries::Few(entries, n) => stored::write_sparse(&entries[..*n], self.params, out),
            Entries::Many(entries) => stored::write_sparse(entries, self.params, out),
            Entries::Registers(words) => {
                stored::write_header(out, stored::DENSE, self.params);
                registers::store(words, &mut out[HEADER..]);
            }
        }
    }
}

#[inline]
fn params(head: u64) -> Params {
    Params::from_bits((head >> PARAMS_SHIFT) as u16 & 0x7fff)
}

/// A sketch that owns its words and grows by itself.
#[derive(Clone, Debug)]
pub struct Sketch {
    words: Vec<u64>,
}

impl Sketch {
    /// An empty sketch.
    pub fn new(params: Params) -> Self {
        let mut words = vec![0; State::SMALLEST];
        State::init(&mut words, params);
        Sketch { words }
    }

    /// The sketch that a stored one holds.
    pub fn from_stored(sketch: &Stored) -> Result<Self, Corrupt> {
        let mut new = Sketch::new(sketch.params);
        new.merge(sketch)?;
        Ok(new)
    }

    pub fn state(&mut self) -> State<'_> {
        State::resume(&mut self.words)
    }

    pub fn add(&mut self, hash: u64) {
        while let Err(grow) = self.state().add(hash) {
            self.grow(&grow);
        }
    }

    pub fn merge(&mut self, other: &Stored) -> Result<(), Corrupt> {
        while let Some(grow) = self.state().merge(other)? {
            self.grow(&grow);
        }
        Ok(())
    }

    pub fn merge_sketch(&mut self, other: &mut Sketch) {
        while let Some(grow) = self.state().merge_state(&other.state()) {
            self.grow(&grow);
        }
    }

    /// Makes the sketch dense, whatever it holds: for conversions.
    pub fn make_dense(&mut self) {
        let state = self.state();
        if !state.is_dense() {
            let grow = state.grow_dense(state.params());
            self.grow(&grow);
        }
    }

    /// Raises a register of a dense sketch.
    pub fn raise(&mut self, index: usize, rank: u8) {
        debug_assert!(self.state().is_dense());
        registers::raise(&mut self.words[1..], (index, rank));
    }

    pub fn make_undefined(&mut self) {
        self.state().make_undefined();
    }

    fn grow(&mut self, grow: &Grow) {
        let mut words = vec![0; grow.words];
        self.state().move_to(&mut words, grow);
        self.words = words;
    }

    pub fn to_bytes(&mut self) -> Vec<u8> {
        self.state().to_bytes()
    }
}
