//! The aggregates `hll_add_agg` and `hll_union_agg`: a state is a block of words, small for small groups.

use pgrx::pg_sys::Datum;
use sketches::hll::{Body, Cursor, Grow, Params, State, Stored, cardinality};

use super::{corrupt, settings, stored, value};
use crate::error::OrRaise;
use crate::pg::call::Call;
use crate::pg::words::{Value, Words};
use crate::sql_function;

/// A state: a sketch in a block of words. Its cursor is the tag of the `internal` value.
struct Sketch {
    words: Words,
    cursor: Cursor,
}

impl Sketch {
    #[inline]
    fn init(mut words: Words, params: Params) -> Self {
        let cursor = State::init(words.words_mut(), params).cursor();
        Sketch { words, cursor }
    }

    /// The state in argument `i`, which is not NULL.
    #[inline]
    fn of(call: Call, i: usize) -> Self {
        let value = call.words(i);
        Sketch { words: value.block(), cursor: Cursor::from_bits(value.tag()) }
    }

    #[inline]
    fn state(&mut self) -> State<'_> {
        State::resume(self.words.words_mut(), self.cursor)
    }

    /// Makes a change; one that asks for a larger block is made again in one from `alloc`.
    #[inline]
    fn change(&mut self, alloc: impl Fn(usize) -> Words, mut change: impl FnMut(&mut State) -> Option<Grow>) {
        loop {
            let mut state = self.state();
            let grow = change(&mut state);
            self.cursor = state.cursor();
            match grow {
                None => return,
                Some(grow) => self.grow(&alloc, grow),
            }
        }
    }

    #[cold]
    fn grow(&mut self, alloc: impl Fn(usize) -> Words, grow: Grow) {
        let mut larger = alloc(grow.words);
        self.cursor = self.state().move_to(larger.words_mut(), grow).cursor();
        std::mem::replace(&mut self.words, larger).free();
    }

    /// Adds a hash in a call of the aggregate.
    fn add(&mut self, call: Call, hash: u64) {
        self.change(alloc(call), |state| state.add(hash).err());
    }

    #[inline]
    fn datum(mut self) -> Datum {
        let open = self.state().open();
        self.words.value(open, self.cursor.to_bits()).datum()
    }
}

/// Where an aggregate's states are made.
fn alloc(call: Call) -> impl Fn(usize) -> Words {
    move |len| Words::alloc(call.aggregate_context(), len)
}

sql_function!(
    /// Transition of `hll_add_agg(hashval [, log2m [, regwidth [, expthresh [, sparseon]]]])`.
    hll_add_trans,
    |call| {
        if call.is_null(0) {
            return first(call);
        }
        if call.is_null(1) {
            return call.datum(0);
        }
        let (mut value, hash) = (call.words(0), call.i64(1) as u64);
        if let Some(cursor) = Cursor::from_bits(value.tag()).put(value.halves(), hash) {
            value.set_tag(cursor.to_bits());
            return value.datum();
        }
        add(call, hash)
    }
);

/// Adds a hash to a state that has to be looked at: apart, so that it costs the others nothing.
#[inline(never)]
fn add(call: Call, hash: u64) -> Datum {
    let mut sketch = Sketch::of(call, 0);
    if sketch.state().raise(hash) {
        return call.datum(0);
    }
    sketch.add(call, hash);
    sketch.datum()
}

/// The state of a new group, whose first value may be NULL.
#[inline(never)]
fn first(call: Call) -> Datum {
    let mut sketch = Sketch::init(alloc(call)(State::SMALLEST), params(call, 2));
    if !call.is_null(1) {
        sketch.add(call, call.i64(1) as u64);
    }
    sketch.datum()
}

/// The parameters from argument `i` on; those that are missing or NULL have their defaults.
pub fn params(call: Call, i: usize) -> Params {
    let given = |at: usize| i + at < call.nargs() && !call.is_null(i + at);
    let mut params = settings::defaults();
    if (0..4).any(given) {
        let or = |at, default, value: fn(Call, usize) -> i64| {
            if given(at) { value(call, i + at) } else { default }
        };
        let int = |call: Call, i| call.i32(i) as i64;
        params = settings::params(
            or(0, params.log2m as i64, int),
            or(1, params.regwidth as i64, int),
            or(2, params.expthresh_value(), Call::i64),
            or(3, params.sparseon as i64, int),
        )
        .or_raise();
    }
    params
}

sql_function!(
    /// Transition of `hll_union_agg(hll)`.
    hll_union_trans,
    |call| {
        if call.is_null(1) {
            return if call.is_null(0) { call.null() } else { call.datum(0) };
        }
        let bytes = call.bytes(1);
        if !call.is_null(0) && Sketch::of(call, 0).state().merge_few(&bytes) {
            return call.datum(0);
        }
        merge(call, &stored(&bytes))
    }
);

/// Merges a stored sketch in the general way.
#[inline(never)]
fn merge(call: Call, other: &Stored) -> Datum {
    let alloc = alloc(call);
    let mut sketch = if call.is_null(0) {
        Sketch::init(alloc(State::words_for(other)), other.params)
    } else {
        Sketch::of(call, 0)
    };
    sketch.change(alloc, |state| state.merge(other).unwrap_or_else(|error| corrupt(error).raise()));
    sketch.datum()
}

sql_function!(
    /// Combines two states of either aggregate.
    hll_union_internal,
    |call| {
        if call.is_null(1) {
            return if call.is_null(0) { call.null() } else { call.datum(0) };
        }
        if let Some(wire) = call.words(1).wire() {
            // Entries are checked as they are merged; registers are copied, and Citus lets anybody send some.
            let sketch = stored(&wire);
            if let Body::Dense(_) = sketch.body {
                sketch.validate().unwrap_or_else(|error| corrupt(error).raise());
            }
            return merge(call, &sketch);
        }
        let mut other = Sketch::of(call, 1);
        let alloc = alloc(call);
        if call.is_null(0) {
            let mut words = alloc(other.words.words().len());
            words.words_mut().copy_from_slice(other.words.words());
            return Sketch { words, ..other }.datum();
        }
        let mut sketch = Sketch::of(call, 0);
        let other = other.state();
        sketch.change(alloc, |state| state.merge_state(&other));
        sketch.datum()
    }
);

sql_function!(
    /// The stored form of a state: final function, and serial function of parallel plans.
    hll_pack,
    |call| {
        if call.is_null(0) {
            return call.null();
        }
        value(&Sketch::of(call, 0).state().encoder())
    }
);

sql_function!(
    /// The state of a stored form, which [`hll_union_internal`] reads.
    hll_deserialize,
    |call| Value::serialized(call.datum(0)).datum()
);

/// The count of the state in argument 0; `None` where there is none.
fn count(call: Call) -> Option<f64> {
    if call.is_null(0) {
        return None;
    }
    let bytes = Sketch::of(call, 0).state().to_bytes();
    cardinality(&stored(&bytes))
}

sql_function!(
    /// Final function: the count of a state, for aggregates of one's own.
    hll_card_unpacked,
    |call| count(call).map_or_else(|| call.null(), |count| Datum::from(count.to_bits()))
);

sql_function!(
    /// Final function: the count of a state as a bigint. Counts are whole numbers: it is floor and ceil.
    hll_whole_card_unpacked,
    |call| count(call).map_or_else(|| call.null(), |count| Datum::from(count as i64))
);
