//! A sketch that owns its words: for single values, conversions and tests.

use super::Corrupt;
use super::params::Params;
use super::registers;
use super::state::{Cursor, Grow, State};
use super::stored::Stored;

/// A sketch that owns its words and grows by itself.
#[derive(Clone, Debug)]
pub struct Sketch {
    words: Vec<u64>,
    cursor: Cursor,
}

impl Sketch {
    /// An empty sketch.
    pub fn new(params: Params) -> Self {
        let mut words = vec![0; State::SMALLEST];
        let cursor = State::init(&mut words, params).cursor();
        Sketch { words, cursor }
    }

    /// The sketch that a stored one holds.
    pub fn from_stored(sketch: &Stored) -> Result<Self, Corrupt> {
        let mut new = Sketch::new(sketch.params);
        new.merge(sketch)?;
        Ok(new)
    }

    /// The sketch as a state, to look at.
    pub fn state(&mut self) -> State<'_> {
        State::resume(&mut self.words, self.cursor)
    }

    /// Lets a change be made.
    fn change<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        self.cursor = state.cursor();
        result
    }

    pub fn add(&mut self, hash: u64) {
        while let Err(grow) = self.change(|state| state.add(hash)) {
            self.grow(grow);
        }
    }

    pub fn merge(&mut self, other: &Stored) -> Result<(), Corrupt> {
        while let Some(grow) = self.change(|state| state.merge(other))? {
            self.grow(grow);
        }
        Ok(())
    }

    /// Merges stored bytes as an aggregate does it.
    pub fn merge_bytes(&mut self, other: &[u8]) -> Result<(), Corrupt> {
        if self.state().merge_few(other) { Ok(()) } else { self.merge(&Stored::parse(other)?) }
    }

    pub fn merge_sketch(&mut self, other: &mut Sketch) {
        self.merge_state(&other.state());
    }

    pub fn merge_state(&mut self, other: &State) {
        while let Some(grow) = self.change(|state| state.merge_state(other)) {
            self.grow(grow);
        }
    }

    /// Makes the sketch dense, whatever it holds: for conversions.
    pub fn make_dense(&mut self) {
        let state = self.state();
        if !state.is_dense() {
            let grow = state.grow_dense(state.params());
            self.grow(grow);
        }
    }

    /// Raises a register of a dense sketch.
    pub fn raise(&mut self, index: usize, rank: u8) {
        debug_assert!(self.state().is_dense());
        registers::raise(&mut self.words[1..], (index, rank));
    }

    pub fn make_undefined(&mut self) {
        self.change(|state| state.make_undefined());
    }

    fn grow(&mut self, grow: Grow) {
        let mut words = vec![0; grow.words];
        self.cursor = self.state().move_to(&mut words, grow).cursor();
        self.words = words;
    }

    pub fn to_bytes(&mut self) -> Vec<u8> {
        self.state().to_bytes()
    }
}
