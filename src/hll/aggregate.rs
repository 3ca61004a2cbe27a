//! The aggregates `hll_add_agg` and `hll_union_agg`: a state is a block of words, small for small groups.

use pgrx::pg_sys::Datum;
use sketches::hll::{Body, Corrupt, Grow, Params, State, cardinality};

use super::{corrupt, settings, stored, value};
use crate::error::OrRaise;
use crate::pg::call::Call;
use crate::pg::words::Words;
use crate::sql_function;

sql_function!(
    /// Transition of `hll_add_agg(hashval [, log2m [, regwidth [, expthresh [, sparseon]]]])`.
    hll_add_trans,
    |call| {
        if call.is_null(0) {
            return first(call);
        }
        let mut state = call.words(0);
        if !call.is_null(1) {
            while let Err(grow) = State::resume(state.words_mut()).add(call.i64(1) as u64) {
                state = moved(call, state, grow);
            }
        }
        state.datum()
    }
);

/// The state of a new group, whose first value may be NULL.
fn first(call: Call) -> Datum {
    let mut state = Words::alloc(call.aggregate_context(), State::SMALLEST);
    let mut sketch = State::init(state.words_mut(), params(call, 2));
    if !call.is_null(1) {
        assert!(sketch.add(call.i64(1) as u64).is_ok(), "an empty state takes a value");
    }
    state.datum()
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

#[cold]
fn moved(call: Call, state: Words, grow: Grow) -> Words {
    let mut larger = Words::alloc(call.aggregate_context(), grow.words);
    let mut old = state;
    State::resume(old.words_mut()).move_to(larger.words_mut(), grow);
    state.free();
    larger
}

sql_function!(
    /// Transition of `hll_union_agg(hll)`.
    hll_union_trans,
    |call| {
        if call.is_null(1) {
            return if call.is_null(0) { call.null() } else { call.datum(0) };
        }
        let bytes = call.bytes(1);
        let mut state = if call.is_null(0) {
            let sketch = stored(&bytes);
            let mut state = Words::alloc(call.aggregate_context(), State::words_for(&sketch));
            State::init(state.words_mut(), sketch.params);
            state
        } else {
            call.words(0)
        };
        while let Some(grow) = merged(State::resume(state.words_mut()).merge_bytes(&bytes)) {
            state = moved(call, state, grow);
        }
        state.datum()
    }
);

#[inline]
fn merged(result: Result<Option<Grow>, Corrupt>) -> Option<Grow> {
    result.unwrap_or_else(|error| corrupt(error).raise())
}

sql_function!(
    /// Combines two states of either aggregate.
    hll_union_internal,
    |call| {
        if call.is_null(1) {
            return if call.is_null(0) { call.null() } else { call.datum(0) };
        }
        let mut other = call.words(1);
        if call.is_null(0) {
            let mut state = Words::alloc(call.aggregate_context(), other.words().len());
            state.words_mut().copy_from_slice(other.words());
            return state.datum();
        }
        let mut state = call.words(0);
        let other = State::resume(other.words_mut());
        while let Some(grow) = State::resume(state.words_mut()).merge_state(&other) {
            state = moved(call, state, grow);
        }
        state.datum()
    }
);

sql_function!(
    /// The stored form of a state: final function, and serial function of parallel plans.
    hll_pack,
    |call| {
        if call.is_null(0) {
            return call.null();
        }
        let mut state = call.words(0);
        value(&State::resume(state.words_mut()).encoder())
    }
);

sql_function!(
    /// The state of a stored form.
    hll_deserialize,
    |call| {
        let bytes = call.bytes(0);
        let sketch = stored(&bytes);
        // Entries are checked as they are merged; registers are copied, and Citus lets anybody send some.
        if let Body::Dense(_) = sketch.body {
            sketch.validate().unwrap_or_else(|error| corrupt(error).raise());
        }
        let mut state = Words::alloc_here(State::words_for(&sketch));
        State::init(state.words_mut(), sketch.params);
        while let Some(grow) = merged(State::resume(state.words_mut()).merge(&sketch)) {
            let mut larger = Words::alloc_here(grow.words);
            State::resume(state.words_mut()).move_to(larger.words_mut(), grow);
            state = larger;
        }
        state.datum()
    }
);

/// The count of the state in argument 0; `None` where there is none.
fn count(call: Call) -> Option<f64> {
    if call.is_null(0) {
        return None;
    }
    let mut state = call.words(0);
    let bytes = State::resume(state.words_mut()).to_bytes();
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
