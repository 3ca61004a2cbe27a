//! A sketch being built: an aggregate's transition state.
//!
//! It lies in a slice of 64-bit words that the caller allocates, and a [`Cursor`] that the caller keeps elsewhere. The
//! first word is the head, of which the low half belongs to the caller (who may keep the length of the slice there);
//! then come
//!
//! * entries ([`code`]): a *tail* in order of arrival, which fills the first cache line. From 16 words on there follow
//!   two numbers, a *run*, ascending, and a *log*, which takes in full tails as they are. When it has no room for
//!   another one, all is sorted into the run. So adding to many sketches in turn takes one cache miss each, where a
//!   hash table would take two; nobody waits for that one, because the cursor says where to write and nothing has to be
//!   read; and each entry is merged a few times only, however large the sketch gets;
//! * or the registers.
//!
//! When a sketch outgrows its slice, adding asks for a larger one by returning [`Grow`]; the caller
//! allocates it, moves the sketch with [`State::move_to`] and repeats the call. Adding and merging are
//! idempotent, so that repeating is harmless.

use std::borrow::Cow;
use std::ops::Range;

use super::Corrupt;
use super::code;
use super::entries::{self, Sorted};
use super::params::{Params, dense_words, max_sparse};
use super::registers;
use super::stored::{self, Body, HEADER, Stored};

/// What the head says besides: a flag, the parameters and another flag.
const UNDEFINED: u64 = 1 << 32;
const PARAMS_SHIFT: u32 = 48;
const DENSE: u64 = 1 << 63;

/// Words of a cache line: a state of as many has a tail only.
const LINE: usize = 8;
/// Words of the tail in a larger one.
const TAIL: usize = LINE - 1;
const _: () = assert!(2 * TAIL <= entries::FEW);

/// The word with the numbers of a larger state: entries in the run and, in the high half, words in the log.
const NUMBERS: usize = LINE;
const LOG_SHIFT: u32 = 32;
/// Where the run starts.
const RUN: usize = NUMBERS + 1;

/// Words from which on a slice leaves an eighth to the log: with none, each full tail would be merged by itself.
const LARGE: usize = 64;
const _: () = assert!(LARGE / 8 >= TAIL);

/// Entries that fit a slice of so many words when they are sorted.
fn sorted_capacity(len: usize, log2m: u8) -> usize {
    let words = if len <= LINE {
        len - 1
    } else if len < LARGE {
        len - RUN
    } else {
        len - RUN - len / 8
    };
    entries::capacity(words, log2m)
}

/// The smallest slice that takes `n` sorted entries: the smallest there is, a cache line, or twice as much and so on.
fn words_for(n: usize, log2m: u8) -> usize {
    let mut len = State::SMALLEST;
    while sorted_capacity(len, log2m) < n {
        len = (2 * len).max(LINE);
    }
    len
}

/// The slice that a sketch needs next.
pub struct Grow {
    /// Its length.
    pub words: usize,
    params: Params,
    dense: bool,
    /// What the sketch holds, where that was found out already, with what it is about to receive. Otherwise the entries
    /// of a full tail move as they are.
    entries: Option<Vec<u64>>,
}

/// What it takes to add to a sketch without looking at it: the number of entries in its tail and its precision.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    tail: u8,
    log2m: u8,
}

impl Cursor {
    const LOG2M_BITS: u32 = 5;

    /// Nine bits.
    #[inline]
    pub fn to_bits(self) -> u16 {
        (self.tail as u16) << Self::LOG2M_BITS | self.log2m as u16
    }

    #[inline]
    pub fn from_bits(bits: u16) -> Self {
        Cursor { tail: (bits >> Self::LOG2M_BITS) as u8, log2m: bits as u8 & ((1 << Self::LOG2M_BITS) - 1) }
    }

    /// Adds a hash, where the tail has room: writes into `halves`, the first [`State::open`] halves of words behind the head,
    /// and returns the next cursor. `None` leaves it to [`State::add`].
    #[inline]
    pub fn put(self, halves: &mut [u32], hash: u64) -> Option<Cursor> {
        if halves.is_empty() {
            return None;
        }
        let code = code::of_hash(hash, self.log2m);
        entries::put_half(halves, self.log2m, self.tail as usize, code)
            .then_some(Cursor { tail: self.tail + 1, ..self })
    }
}

/// A sketch in a slice of words.
pub struct State<'a> {
    words: &'a mut [u64],
    /// Entries in the tail.
    tail: usize,
}

impl<'a> State<'a> {
    /// Words of the smallest state: it holds one entry, up to log2m 11 two.
    pub const SMALLEST: usize = 2;

    /// An empty sketch in zeroed words (but for the caller's half of the first one), at least
    /// [`State::SMALLEST`]: a power of two.
    #[inline]
    pub fn init(words: &'a mut [u64], params: Params) -> Self {
        words[0] |= (params.to_bits() as u64) << PARAMS_SHIFT;
        State { words, tail: 0 }
    }

    /// The sketch that earlier calls built in these words and left with this cursor.
    #[inline]
    pub fn resume(words: &'a mut [u64], cursor: Cursor) -> Self {
        State { words, tail: cursor.tail as usize }
    }

    #[inline]
    pub fn cursor(&self) -> Cursor {
        Cursor { tail: self.tail as u8, log2m: log2m(self.words[0]) }
    }

    /// Halves of words behind the head that [`Cursor::put`] may use: none of a sketch without a tail.
    #[inline]
    pub fn open(&self) -> usize {
        if self.words[0] & (DENSE | UNDEFINED) != 0 { 0 } else { 2 * self.tail_words() }
    }

    /// Words that suit a sketch about to receive `sketch`.
    #[inline]
    pub fn words_for(sketch: &Stored) -> usize {
        match sketch.body {
            Body::Undefined | Body::Empty => Self::SMALLEST,
            Body::Sparse { count, .. } => words_for(count, sketch.params.log2m),
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
        if self.raise(hash) { Ok(()) } else { self.push(code::of_hash(hash, log2m(self.words[0]))) }
    }

    /// Adds a hash to registers, which leaves the cursor as it is; `false` where there are none.
    #[inline]
    pub fn raise(&mut self, hash: u64) -> bool {
        let dense = self.is_dense();
        if dense {
            let register = code::register_of_hash(hash, log2m(self.words[0]));
            registers::raise(&mut self.words[1..], register);
        }
        dense
    }

    /// Adds an entry; the sketch is not dense.
    #[inline]
    fn push(&mut self, code: u64) -> Result<(), Grow> {
        let log2m = log2m(self.words[0]);
        if self.tail < entries::capacity(self.open() / 2, log2m) {
            entries::put(&mut self.words[1..], log2m, self.tail, code);
            self.tail += 1;
            return Ok(());
        }
        self.push_full(code)
    }

    /// Adds an entry where the tail is full.
    #[inline(never)]
    fn push_full(&mut self, code: u64) -> Result<(), Grow> {
        if self.is_undefined() {
            return Ok(());
        }
        if self.words.len() > LINE {
            if !self.log_tail() {
                self.store(self.sorted())?;
            }
            return self.push(code);
        }
        // There is no log to move to: the tail itself has to become shorter by a quarter.
        let Params { log2m, .. } = self.params();
        let few = entries::capacity(self.tail_words(), log2m) * 3 / 4;
        if self.words.len() == LINE
            && entries::distinct_at_least(entries::first(&self.words[1..], log2m, self.tail)) > few
        {
            return Err(Grow { words: 2 * LINE, params: self.params(), dense: false, entries: None });
        }
        let entries = self.sorted();
        if self.words.len() < LINE && entries.contains(&code) {
            return Ok(());
        }
        if entries.len() > few {
            return Err(self.grow_for(entries));
        }
        self.store(entries)?;
        self.push(code)
    }

    /// Moves the full tail into the log; `false` when that has no room for it.
    fn log_tail(&mut self) -> bool {
        let end = self.logged().end;
        if self.words.len() - end < TAIL {
            return false;
        }
        self.words.copy_within(1..LINE, end);
        self.words[NUMBERS] += (TAIL as u64) << LOG_SHIFT;
        self.tail = 0;
        true
    }

    /// Entries in the run of a state that has one.
    fn run_len(&self) -> usize {
        self.words[NUMBERS] as u32 as usize
    }

    /// The words of the log of a state that has one.
    fn logged(&self) -> Range<usize> {
        let start = RUN + entries::words(self.run_len(), self.params().log2m);
        start..start + (self.words[NUMBERS] >> LOG_SHIFT) as usize
    }

    /// Merges ascending entries of distinct indexes; the sketch is not dense.
    fn absorb(&mut self, codes: &[u64]) -> Result<(), Grow> {
        if self.is_undefined() {
            return Ok(());
        }
        let entries = self.sorted();
        self.store(entries.merge(codes.len(), |at| codes[at]))
    }

    /// Makes these the entries: ascending, of distinct indexes.
    fn store(&mut self, entries: Sorted) -> Result<(), Grow> {
        let Params { log2m, .. } = self.params();
        let len = self.words.len();
        if entries.len() > max_sparse(log2m) || entries.len() > sorted_capacity(len, log2m) {
            return Err(self.grow_for(entries));
        }
        self.tail = 0;
        if len <= LINE {
            self.tail = entries.len();
            entries::fill(&mut self.words[1..], log2m, &entries);
        } else {
            self.words[NUMBERS] = entries.len() as u64;
            entries::fill(&mut self.words[RUN..], log2m, &entries);
        }
        Ok(())
    }

    /// The slice for these entries, twice this one at least.
    fn grow_for(&self, entries: Sorted) -> Grow {
        let params = self.params();
        let n = entries.len();
        let entries = Some(entries.into_vec());
        if n > max_sparse(params.log2m) {
            return Grow { entries, ..self.grow_dense(params) };
        }
        let words = words_for(n, params.log2m).max(2 * self.words.len()).max(LINE);
        Grow { words, params, dense: false, entries }
    }

    pub(super) fn grow_dense(&self, params: Params) -> Grow {
        Grow { words: 1 + registers::words(params.log2m), params, dense: true, entries: None }
    }

    #[inline]
    fn tail_words(&self) -> usize {
        (self.words.len() - 1).min(TAIL)
    }

    pub(super) fn is_dense(&self) -> bool {
        self.words[0] & DENSE != 0
    }

    fn is_undefined(&self) -> bool {
        self.words[0] & UNDEFINED != 0
    }

    /// The entries of a sketch that is not dense, ascending and of distinct indexes.
    fn sorted(&self) -> Sorted {
        let Params { log2m, .. } = self.params();
        let tail = entries::first(&self.words[1..], log2m, self.tail);
        if self.words.len() <= LINE {
            return Sorted::collect(self.tail, tail);
        }
        let log = &self.words[self.logged()];
        let logged = entries::capacity(log.len(), log2m);
        let new = Sorted::collect(logged + self.tail, entries::first(log, log2m, logged).chain(tail));
        let run = &self.words[RUN..];
        new.merge(self.run_len(), |at| entries::get(run, log2m, at))
    }

    /// The same at a precision of at most the sketch's own.
    fn sorted_at(&self, log2m: u8) -> Sorted {
        let from = self.params().log2m;
        let mut entries = self.sorted();
        if from != log2m {
            entries.iter_mut().for_each(|entry| *entry = code::fold(*entry, from, log2m));
            entries.sort();
        }
        entries
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
            Body::Sparse { .. } if self.is_dense() => {
                let registers = &mut self.words[1..];
                other.entries(|entry| {
                    let entry = if from == to { entry } else { code::fold(entry, from, to) };
                    registers::raise(registers, code::register(entry, to));
                })?;
            }
            Body::Sparse { count, .. } if count <= entries::FEW => {
                let mut grow = Ok(());
                other.entries(|entry| {
                    if grow.is_ok() {
                        grow = self.push(if from == to { entry } else { code::fold(entry, from, to) });
                    }
                })?;
                return Ok(grow.err());
            }
            Body::Sparse { count, .. } => {
                let mut entries = Vec::with_capacity(count);
                other.entries(|entry| entries.push(entry))?;
                let mut entries = Sorted::Many(entries);
                if from != to {
                    entries.iter_mut().for_each(|entry| *entry = code::fold(*entry, from, to));
                    entries.sort();
                }
                return Ok(self.absorb(&entries).err());
            }
            Body::Dense(_) if !self.is_dense() => {}
            Body::Dense(bytes) if from == to => registers::merge(&mut self.words[1..], bytes),
            Body::Dense(bytes) => self.raise_all(registers::iter_stored(bytes, from), from),
        }
        Ok(None)
    }

    /// The case that decides how long a union over many small sketches takes: few entries, as stored bytes, into registers
    /// of the same parameters; the cursor stays. `false` leaves all others, corrupt bytes too, to [`State::merge`].
    #[inline]
    pub fn merge_few(&mut self, bytes: &[u8]) -> bool {
        let [head, registers @ ..] = &mut *self.words else { unreachable!("a state has a head") };
        let (params, log2m) = ((*head >> PARAMS_SHIFT) as u16 & 0x7fff, log2m(*head));
        *head & DENSE != 0
            && stored::few_entries(bytes, params, |entry| {
                registers::raise(registers, code::register(entry, log2m));
            })
    }

    /// Merges another state, as [`State::merge`] does.
    pub fn merge_state(&mut self, other: &State) -> Option<Grow> {
        if let Some(grow) = self.meet(other.params(), other.is_dense()) {
            return Some(grow);
        }
        let (from, to) = (other.params().log2m, self.params().log2m);
        if self.is_undefined() || other.is_undefined() {
            self.make_undefined();
        } else if other.is_dense() && self.is_dense() {
            if from == to {
                registers::merge_words(&mut self.words[1..], &other.words[1..]);
            } else {
                self.raise_all(registers::iter(&other.words[1..], from), from);
            }
        } else {
            let entries = other.sorted_at(to);
            if !self.is_dense() {
                return self.absorb(&entries).err();
            }
            entries
                .iter()
                .for_each(|&entry| registers::raise(&mut self.words[1..], code::register(entry, to)));
        }
        None
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
        let folded = self.sorted_at(params.log2m);
        if folded.len() > max_sparse(params.log2m) {
            return Some(self.grow_dense(params));
        }
        Some(Grow {
            words: words_for(folded.len(), params.log2m),
            params,
            dense: false,
            entries: Some(folded.into_vec()),
        })
    }

    pub(super) fn make_undefined(&mut self) {
        self.words[1..].fill(0);
        self.words[0] = self.words[0] & !DENSE | UNDEFINED;
        self.tail = 0;
    }

    /// Moves the sketch to the slice that `grow` asked for: zeroed words but for the caller's half.
    pub fn move_to<'b>(&self, words: &'b mut [u64], grow: Grow) -> State<'b> {
        let (from, to) = (self.params().log2m, grow.params.log2m);
        let mut moved = State::init(words, grow.params);
        if grow.dense {
            moved.words[0] |= DENSE;
        }
        if self.is_dense() {
            moved.raise_all(registers::iter(&self.words[1..], from), from);
        } else {
            match grow.entries.map(Sorted::Many) {
                entries if grow.dense => {
                    let entries = entries.unwrap_or_else(|| self.sorted_at(to));
                    let registers = entries.iter().map(|&entry| code::register(entry, to));
                    registers.for_each(|register| registers::raise(&mut moved.words[1..], register));
                }
                Some(entries) => assert!(moved.store(entries).is_ok(), "the slice has the length asked for"),
                None => {
                    moved.words[1..LINE].copy_from_slice(&self.words[1..LINE]);
                    moved.log_tail();
                }
            }
        }
        moved
    }

    /// What it takes to store the sketch.
    pub fn encoder(&self) -> Encoder<'_> {
        let params = self.params();
        let body = if self.is_dense() {
            Entries::Registers(Cow::Borrowed(&self.words[1..]))
        } else if self.is_undefined() {
            Entries::Undefined
        } else {
            let entries = self.sorted();
            if entries.len() <= max_sparse(params.log2m) {
                Entries::Sorted(entries)
            } else {
                // The tail was not merged yet: with it the sketch is dense.
                let mut words = vec![0; registers::words(params.log2m)];
                let registers = entries.iter().map(|&entry| code::register(entry, params.log2m));
                registers.for_each(|register| registers::raise(&mut words, register));
                Entries::Registers(Cow::Owned(words))
            }
        };
        let len = match &body {
            Entries::Undefined => HEADER,
            Entries::Sorted(entries) if entries.is_empty() => HEADER,
            Entries::Sorted(entries) => stored::sparse_len(entries, params.log2m),
            Entries::Registers(_) => HEADER + 4 * dense_words(params.log2m),
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
    Sorted(Sorted),
    Registers(Cow<'a, [u64]>),
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
            Entries::Sorted(entries) if entries.is_empty() => {
                stored::write_header(out, stored::EMPTY, self.params)
            }
            Entries::Sorted(entries) => stored::write_sparse(entries, self.params, out),
            Entries::Registers(words) => {
                stored::write_header(out, stored::DENSE, self.params);
                registers::store(words, &mut out[HEADER..]);
            }
        }
    }
}

#[inline]
fn log2m(head: u64) -> u8 {
    (head >> PARAMS_SHIFT) as u8 & 31
}

#[inline]
fn params(head: u64) -> Params {
    Params::from_bits((head >> PARAMS_SHIFT) as u16 & 0x7fff)
}
