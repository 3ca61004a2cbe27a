//! The type `hll` itself: input, output, casts, type modifiers, and the functions on values.

use std::borrow::Cow;

use pgrx::pg_sys::{self, Datum};
use pgrx::{PgSqlErrorCode, direct_function_call_as_datum};
use sketches::hll::{
    Body, Corrupt, Params, Sketch, Stored, cardinality, params, registers, standard_error, v1,
};

use super::aggregate::params as params_of_arguments;
use super::{corrupt, settings, sketch_value, stored};
use crate::error::{Error, OrRaise, Result};
use crate::pg::call::Call;
use crate::pg::varlena::{Bytes, varlena};
use crate::sql_function;

/// A value of type `hll` with the parameters of its column: from bytes of either storage version.
fn import(bytes: &[u8], typmod: i32, code: PgSqlErrorCode) -> Datum {
    let native = v1::import(bytes).unwrap_or_else(|error| invalid(error, code).raise());
    varlena(&coerce(&native, typmod).or_raise())
}

fn invalid(error: Corrupt, code: PgSqlErrorCode) -> Error {
    Error::new(code, format!("invalid hll: {error}"))
}

/// The sketch with the parameters of a column. It may lose precision by that, but it cannot gain it.
fn coerce(bytes: &[u8], typmod: i32) -> Result<Cow<'_, [u8]>> {
    let sketch = stored(bytes);
    if typmod < 0 {
        return Ok(Cow::Borrowed(bytes));
    }
    let (from, to) = (sketch.params, Params::from_typmod(typmod));
    if from == to {
        return Ok(Cow::Borrowed(bytes));
    }
    if from.log2m < to.log2m {
        return Err(mismatch("register count", from.registers(), to.registers()));
    }
    if from.regwidth < to.regwidth {
        return Err(mismatch("register width", from.regwidth as usize, to.regwidth as usize));
    }
    let mut coerced = Sketch::new(to);
    coerced.merge(&sketch.with_hints_of(to)).map_err(corrupt)?;
    Ok(Cow::Owned(coerced.to_bytes()))
}

fn mismatch(what: &str, source: usize, dest: usize) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
        format!("{what} does not match: source uses {source} and dest uses {dest}"),
    )
    .hint("A sketch can take on fewer or narrower registers, but not more or wider ones.")
}

/// The bytes in which a sketch leaves the server.
fn export(bytes: &[u8]) -> Cow<'_, [u8]> {
    if settings::output_version() != 1 {
        return Cow::Borrowed(bytes);
    }
    let written = v1::write(&stored(bytes), settings::max_sparse());
    Cow::Owned(written.unwrap_or_else(|error| corrupt(error).raise()))
}

sql_function!(
    /// Input: the text form of bytea, of either storage version.
    hll_in,
    |call| {
        let text = call.c_string(0);
        let code = PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION;
        if let Some(digits) = text.strip_prefix(b"\\x") {
            let bytes = v1::from_hex(digits).unwrap_or_else(|error| invalid(error, code).raise());
            return import(&bytes, call.i32(2), code);
        }
        // SAFETY: the input function of bytea, on the C string that the declaration gives argument 0.
        let bytes = unsafe {
            let datum = direct_function_call_as_datum(pg_sys::byteain, &[Some(call.datum(0))]);
            Bytes::from_datum(datum.expect("byteain returns a value"))
        };
        import(&bytes, call.i32(2), code)
    }
);

sql_function!(
    /// Output: the text form of bytea.
    hll_out,
    |call| {
        let bytes = call.bytes(0);
        let datum = varlena(&export(&bytes));
        // SAFETY: the output function of bytea, on a bytea.
        unsafe { direct_function_call_as_datum(pg_sys::byteaout, &[Some(datum)]) }
            .expect("byteaout returns a value")
    }
);

sql_function!(
    /// Binary input, of either storage version.
    hll_recv,
    |call| {
        // SAFETY: the receive function of bytea, on the StringInfo that the declaration gives argument 0.
        let bytes = unsafe {
            let datum = direct_function_call_as_datum(pg_sys::bytearecv, &[Some(call.datum(0))]);
            Bytes::from_datum(datum.expect("bytearecv returns a value"))
        };
        import(&bytes, call.i32(2), PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION)
    }
);

sql_function!(
    /// Binary output; also the cast to bytea.
    hll_send,
    |call| {
        let bytes = call.bytes(0);
        varlena(&export(&bytes))
    }
);

sql_function!(
    /// The cast from bytea, of either storage version.
    hll_from_bytea,
    |call| {
        let bytes = call.bytes(0);
        import(&bytes, -1, PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION)
    }
);

sql_function!(
    /// `hll(hll, typmod, explicit)`: the cast to a column's parameters.
    hll,
    |call| {
        let bytes = call.bytes(0);
        match coerce(&bytes, call.i32(1)).or_raise() {
            Cow::Borrowed(_) => call.datum(0),
            Cow::Owned(bytes) => varlena(&bytes),
        }
    }
);

sql_function!(
    /// `hll(log2m [, regwidth [, expthresh [, sparseon]]])` in a declaration.
    hll_typmod_in,
    |call| {
        let given = crate::pg::typmod::modifiers(call, 0).or_raise();
        if given.len() > 4 {
            Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "invalid number of type modifiers")
                .detail("The modifiers are log2m, regwidth, expthresh and sparseon.")
                .raise()
        }
        let defaults = settings::defaults();
        let or = |i: usize, default| given.get(i).copied().unwrap_or(default);
        let params = settings::params(
            or(0, defaults.log2m as i64),
            or(1, defaults.regwidth as i64),
            or(2, defaults.expthresh_value()),
            or(3, defaults.sparseon as i64),
        );
        Datum::from(params.or_raise().to_typmod())
    }
);

sql_function!(
    /// The modifiers as text.
    hll_typmod_out,
    |call| {
        let params = Params::from_typmod(call.i32(0));
        crate::pg::typmod::c_string(&format!(
            "({},{},{},{})",
            params.log2m,
            params.regwidth,
            params.expthresh_value(),
            params.sparseon as u8
        ))
    }
);

sql_function!(
    /// `hll_empty([log2m [, regwidth [, expthresh [, sparseon]]]])`
    hll_empty,
    |call| sketch_value(Sketch::new(params_of_arguments(call, 0)))
);

fn add(bytes: &[u8], hash: i64) -> Datum {
    let mut sketch = own(bytes);
    sketch.add(hash as u64);
    sketch_value(sketch)
}

fn own(bytes: &[u8]) -> Sketch {
    Sketch::from_stored(&stored(bytes)).unwrap_or_else(|error| corrupt(error).raise())
}

sql_function!(
    /// `hll_add(hll, hll_hashval)`
    hll_add,
    |call| add(&call.bytes(0), call.i64(1))
);

sql_function!(
    /// `hll_add_rev(hll_hashval, hll)`
    hll_add_rev,
    |call| add(&call.bytes(1), call.i64(0))
);

sql_function!(
    /// `hll_union(hll, hll)`
    hll_union,
    |call| {
        let (left, right) = (call.bytes(0), call.bytes(1));
        let mut sketch = own(&left);
        sketch.merge(&stored(&right)).unwrap_or_else(|error| corrupt(error).raise());
        sketch_value(sketch)
    }
);

/// A double precision result, NULL for none.
fn float(call: Call, value: Option<f64>) -> Datum {
    value.map_or_else(|| call.null(), |value| Datum::from(value.to_bits()))
}

sql_function!(
    /// `hll_cardinality(hll)`
    hll_cardinality,
    |call| float(call, cardinality(&stored(&call.bytes(0))))
);

sql_function!(
    /// `hll_error(hll)`
    hll_error,
    |call| float(call, standard_error(&stored(&call.bytes(0))))
);

sql_function!(
    /// `hll_print(hll)`
    hll_print,
    |call| crate::pg::typmod::c_string(&print(&stored(&call.bytes(0))))
);

fn print(sketch: &Stored) -> String {
    let Params { log2m, regwidth, sparseon, .. } = sketch.params;
    let tail = format!(
        "nregs={}, nbits={regwidth}, expthresh={}({}), sparseon={}",
        sketch.params.registers(),
        sketch.params.expthresh_value(),
        params::max_sparse(log2m),
        sparseon as u8
    );
    match sketch.body {
        Body::Undefined => format!("UNDEFINED {tail}"),
        Body::Empty => format!("EMPTY, {tail}"),
        Body::Sparse { count, .. } => {
            let mut text = format!("SPARSE, {count} elements, {tail}:");
            let mut n = 0;
            let entries = sketch.entries(|entry| {
                let (register, rank) = sketches::hll::code::register(entry, log2m);
                text += &format!("\n{n}: {:>20} (register {register}, rank {rank}) ", entry >> 6);
                n += 1;
            });
            entries.unwrap_or_else(|error| corrupt(error).raise());
            text
        }
        Body::Dense(bytes) => {
            let ranks: Vec<u8> = registers::iter_stored(bytes, log2m).collect();
            let filled = ranks.iter().filter(|&&rank| rank > 0).count();
            let mut text = format!("COMPRESSED, {filled} filled {tail}:");
            for (row, ranks) in ranks.chunks(32).enumerate() {
                text += &format!("\n{:>4}: ", 32 * row);
                ranks.iter().for_each(|rank| text += &format!("{rank:>2} "));
            }
            text
        }
    }
}
