//! `hll_hash_*`: MurmurHash3 with the values of postgresql-hll.

use pgrx::pg_sys::Datum;
use pgrx::{PgLogLevel, PgSqlErrorCode};
use sketches::hll::murmur;

use crate::error::Error;
use crate::pg::any::AnyValue;
use crate::pg::call::Call;
use crate::sql_function;

/// The seed, argument 1.
#[inline]
fn seed(call: Call) -> u32 {
    let seed = call.i32(1);
    if seed < 0 {
        warn_of_negative_seed();
    }
    seed as u32
}

#[cold]
fn warn_of_negative_seed() {
    Error::new(PgSqlErrorCode::ERRCODE_WARNING, "negative seed values not compatible")
        .report(PgLogLevel::WARNING);
}

#[inline]
fn integer(call: Call, size: u64) -> Datum {
    Datum::from(murmur::hash_integer(call.datum(0).value() as u64, size, seed(call)))
}

sql_function!(
    /// `hll_hash_boolean(boolean, seed)`
    hll_hash_boolean,
    |call| integer(call, 1)
);
sql_function!(
    /// `hll_hash_smallint(smallint, seed)`
    hll_hash_smallint,
    |call| integer(call, 2)
);
sql_function!(
    /// `hll_hash_integer(integer, seed)`
    hll_hash_integer,
    |call| integer(call, 4)
);
sql_function!(
    /// `hll_hash_bigint(bigint, seed)`
    hll_hash_bigint,
    |call| integer(call, 8)
);
sql_function!(
    /// `hll_hash_bytea(bytea, seed)`, `hll_hash_text(text, seed)`
    hll_hash_varlena,
    |call| Datum::from(murmur::hash(&call.bytes(0), seed(call)))
);
sql_function!(
    /// `hll_hash_any(anyelement, seed)`: the hash of the function for the value's type.
    hll_hash_any,
    |call| {
        let seed = seed(call);
        Datum::from(match call.any_value(0) {
            AnyValue::Integer(value, size) => murmur::hash_integer(value, size, seed),
            AnyValue::Varlena(bytes) => murmur::hash(&bytes, seed),
            AnyValue::Text(bytes) => murmur::hash(bytes, seed),
        })
    }
);
