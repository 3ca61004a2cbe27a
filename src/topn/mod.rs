//! SQL surface of the TopN sketches: transition states in the aggregate's memory context, lists of
//! counters as jsonb.

mod setting;

use pg_sys::Datum;
use pgrx::PgSqlErrorCode::{
    ERRCODE_DATA_CORRUPTED, ERRCODE_INVALID_BINARY_REPRESENTATION, ERRCODE_INVALID_PARAMETER_VALUE,
    ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
};
use pgrx::pg_sys;
use sketches::topn::jsonb::{self, List, NotCounters};
use sketches::topn::{self, Block, Counter, Cursor, MAX_ITEM, list};

pub use setting::{define as define_setting, number_of_counters};

use crate::error::{Error, OrRaise, Result};
use crate::pg::call::Call;
use crate::pg::rows::Rows;
use crate::pg::varlena::{varlena, varlena_with};
use crate::pg::words::{Value, Words};
use crate::sql_function;

/// The transition state of the aggregate that makes the call. Its cursor is the tag of the `internal` value.
struct Transition {
    call: Call,
    state: Option<Words>,
}

impl Transition {
    /// The state behind argument 0, which is NULL before the first item.
    #[inline]
    fn of(call: Call) -> Self {
        Transition { call, state: state(call, 0) }
    }

    #[inline]
    fn datum(self) -> Datum {
        match self.state {
            Some(state) => {
                let (cursor, open) = topn::cursor(state.bytes());
                state.value(open / 4, cursor.to_bits()).datum()
            }
            None => self.call.null(),
        }
    }
}

impl Block for Transition {
    #[inline]
    fn bytes(&mut self) -> &mut [u8] {
        match &mut self.state {
            Some(state) => state.bytes_mut(),
            None => &mut [],
        }
    }

    fn replace(&mut self, size: usize, fill: impl FnOnce(&[u8], &mut [u8])) {
        let mut new = Words::alloc(self.call.aggregate_context(), 1 + size.div_ceil(8));
        fill(self.bytes(), new.bytes_mut());
        if let Some(old) = self.state.replace(new) {
            old.free();
        }
    }
}

/// The state in argument `i`; `None` when it is NULL.
#[inline]
fn state(call: Call, i: usize) -> Option<Words> {
    (!call.is_null(i)).then(|| settled(call.words(i)))
}

/// The state behind a value that is not serialized, which knows then what was counted by its cursor.
#[inline]
fn settled(value: Value) -> Words {
    let mut state = value.block();
    topn::settle(state.bytes_mut(), Cursor::from_bits(value.tag()));
    state
}

sql_function!(
    /// `topn_add_trans(internal, text)` and `(internal, text, bigint)`: counts one item, `weight` times.
    topn_add_trans,
    |call| {
        let weighted = call.nargs() > 2;
        if call.is_null(1) || weighted && (call.is_null(2) || call.i64(2) == 0) {
            return Transition::of(call).datum();
        }
        let weight = if weighted { call.i64(2) } else { 1 };
        if weight < 0 {
            negative_weight(weight).raise()
        }
        let (item, weight) = (call.bytes(1), weight as u64);
        if !call.is_null(0) {
            let mut value = call.words(0);
            if let Some(cursor) = Cursor::from_bits(value.tag()).put(value.open_bytes(), &item, weight) {
                value.set_tag(cursor.to_bits());
                return value.datum();
            }
            if topn::count(value.block().bytes_mut(), &item, weight) {
                return call.datum(0);
            }
        }
        insert(call, &item, weight)
    }
);

/// Adds an item to a state that has to be looked at: apart, so that it costs the others nothing.
#[inline(never)]
fn insert(call: Call, item: &[u8], weight: u64) -> Datum {
    let mut transition = Transition::of(call);
    topn::insert(&mut transition, number_of_counters(), item, weight).map_err(state_error).or_raise();
    transition.datum()
}

sql_function!(
    /// `topn_union_trans(internal, jsonb)`: adds the counters of a stored list.
    topn_union_trans,
    |call| {
        let mut transition = Transition::of(call);
        if !call.is_null(1) {
            let bytes = call.bytes(1);
            let list = List::parse(&bytes).map_err(list_error).or_raise();
            topn::add_list(&mut transition, number_of_counters(), &list)
                .map_err(|error| match error {
                    topn::ListError::NotCounters(error) => list_error(error),
                    topn::ListError::State(error) => state_error(error),
                })
                .or_raise();
        }
        transition.datum()
    }
);

sql_function!(
    /// `topn_serialize(internal) -> bytea`
    topn_serialize,
    |call| state(call, 0).map_or_else(|| call.null(), |state| varlena(&topn::serialize(state.bytes())))
);

sql_function!(
    /// `topn_deserialize(bytea, internal) -> internal`: [`topn_union_internal`] reads the bytes.
    topn_deserialize,
    |call| Value::serialized(call.datum(0)).datum()
);

sql_function!(
    /// `topn_union_internal(internal, internal)`: merges the second state into the first.
    topn_union_internal,
    |call| {
        let mut transition = Transition::of(call);
        if !call.is_null(1) {
            let mut merge = |wire: &[u8]| topn::merge(&mut transition, number_of_counters(), wire);
            let other = call.words(1);
            match other.wire() {
                Some(wire) => merge(&wire),
                None => merge(&topn::serialize(settled(other).bytes())),
            }
            .map_err(state_error)
            .or_raise();
        }
        transition.datum()
    }
);

sql_function!(
    /// `topn_pack(internal) -> jsonb`: the finished list; `{}` over no items.
    topn_pack,
    |call| match state(call, 0) {
        None => list_datum(&[]).or_raise(),
        Some(state) => {
            let limit = topn::limit(state.bytes(), number_of_counters());
            list_datum(&topn::counters(state.bytes(), limit)).or_raise()
        }
    }
);

sql_function!(
    /// `topn_pack_error(internal) -> bigint`: by how much a count of the finished list may fall short.
    topn_pack_error,
    |call| {
        let bound = state(call, 0).map_or(0, |state| {
            let limit = topn::limit(state.bytes(), number_of_counters());
            topn::error_bound(state.bytes(), limit)
        });
        Datum::from(bound as i64)
    }
);

sql_function!(
    /// `topn_union(jsonb, jsonb) -> jsonb`, strict
    topn_union,
    |call| {
        let (left, right) = (call.bytes(0), call.bytes(1));
        let union = List::parse(&left)
            .and_then(|left| Ok((left, List::parse(&right)?)))
            .and_then(|(left, right)| list::union(&left, &right, number_of_counters()));
        union.map_err(list_error).and_then(|union| list_datum(&union)).or_raise()
    }
);

sql_function!(
    /// `topn_add(jsonb, text) -> jsonb`: NULL counts as the empty list or as no item.
    topn_add,
    |call| {
        let bytes = (!call.is_null(0)).then(|| call.bytes(0));
        if call.is_null(1) {
            return if bytes.is_some() { call.datum(0) } else { list_datum(&[]).or_raise() };
        }
        let item = call.bytes(1);
        let added = match &bytes {
            None => Ok(vec![Counter { item: &item, count: 1 }]),
            Some(bytes) => {
                List::parse(bytes).and_then(|list| list::add(&list, &item, number_of_counters()))
            }
        };
        added.map_err(list_error).and_then(|added| list_datum(&added)).or_raise()
    }
);

sql_function!(
    /// `topn(jsonb, integer) -> setof topn_record`, strict: the most frequent items, at most so many.
    topn,
    |call| {
        let bytes = call.bytes(0);
        let n = call.i32(1).max(0) as usize;
        let top = List::parse(&bytes).and_then(|list| list::top(&list, n));
        let mut rows = Rows::of(call);
        for counter in top.map_err(list_error).or_raise() {
            let (item, count) = (varlena(counter.item), Datum::from(counter.count as i64));
            // SAFETY: topn_record is (text, bigint); jsonb keys are in the database's encoding, as text is.
            unsafe { rows.put([Some(item), Some(count)]) }
        }
        call.null()
    }
);

sql_function!(
    /// `topn_error_bound(jsonb, bigint) -> bigint`, strict: events less the sum of the counts.
    topn_error_bound,
    |call| {
        let bytes = call.bytes(0);
        let events = call.i64(1);
        let counted = List::parse(&bytes)
            .and_then(|list| list::total(&list))
            .map_err(list_error)
            .or_raise() as i64;
        if events < counted {
            Error::new(
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("{events} events are fewer than the {counted} that the list counts"),
            )
            .hint("Pass the number of items that went into the list, such as the rollup's count(*).")
            .raise()
        }
        Datum::from(events - counted)
    }
);

/// The jsonb value of counters that are in its order.
fn list_datum(counters: &[Counter]) -> Result<Datum> {
    let len = jsonb::encoded_len(counters).ok_or_else(too_large)?;
    Ok(varlena_with(len, |out| jsonb::encode(counters, out)))
}

fn too_large() -> Error {
    Error::new(ERRCODE_PROGRAM_LIMIT_EXCEEDED, "list of counters exceeds the size of a jsonb value")
        .detail("jsonb holds at most 268435455 bytes.")
        .hint("Lower topn.number_of_counters or shorten the items.")
}

fn negative_weight(weight: i64) -> Error {
    Error::new(ERRCODE_INVALID_PARAMETER_VALUE, format!("weight {weight} is negative"))
        .hint("Counts only grow: pass a weight of 0 or more.")
}

fn state_error(error: topn::Error) -> Error {
    match error {
        topn::Error::ItemTooLong(len) => {
            Error::new(ERRCODE_PROGRAM_LIMIT_EXCEEDED, format!("item of {len} bytes is too long to count"))
                .detail(format!("A jsonb key holds at most {MAX_ITEM} bytes."))
                .hint("Count a prefix or a hash of the item: left(item, 1000), md5(item).")
        }
        topn::Error::TooLarge => too_large(),
        topn::Error::Malformed => {
            Error::new(ERRCODE_INVALID_BINARY_REPRESENTATION, "malformed state of a TopN aggregate")
                .hint("All nodes must run the same version of rollup_ext.")
        }
    }
}

fn list_error(error: NotCounters) -> Error {
    let not_a_list = |why: String| {
        Error::new(ERRCODE_INVALID_PARAMETER_VALUE, "jsonb value is not a list of counters")
            .detail(why)
            .hint("A list of counters looks like {\"item\": 3, \"other item\": 1}.")
    };
    let shown = |item: &[u8]| {
        let text = String::from_utf8_lossy(item);
        let mut short: String = text.chars().take(60).collect();
        if short.len() < text.len() {
            short.push_str("...");
        }
        short
    };
    match error {
        NotCounters::NotAnObject => not_a_list("It is not an object.".into()),
        NotCounters::NotANumber(item) => {
            not_a_list(format!("The value of \"{}\" is not a number.", shown(item)))
        }
        NotCounters::Negative(item) => not_a_list(format!("The count of \"{}\" is negative.", shown(item))),
        NotCounters::Fraction(item) => {
            not_a_list(format!("The count of \"{}\" is not a whole number.", shown(item)))
        }
        NotCounters::TooLarge(item) => Error::new(
            ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            format!("count of \"{}\" is out of range", shown(item)),
        )
        .detail("Counts go up to 9223372036854775807.")
        .hint("Correct the list; counters that are added up stop there by themselves."),
        NotCounters::Corrupt => Error::new(ERRCODE_DATA_CORRUPTED, "malformed jsonb value")
            .hint("Check the table for corruption (extension amcheck)."),
    }
}
