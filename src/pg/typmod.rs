//! Type modifiers.

use pg_sys::Datum;
use pgrx::{FromDatum, PgSqlErrorCode, pg_sys};

use super::call::Call;
use crate::error::{Error, Result};

/// The modifiers in argument `i`, a `cstring[]`, as numbers.
pub fn modifiers(call: Call, i: usize) -> Result<Vec<i64>> {
    let invalid = |code, message: String| Error::new(code, message);
    // SAFETY: the SQL declaration gives this argument the type cstring[].
    let array = unsafe { pgrx::Array::<&std::ffi::CStr>::from_datum(call.datum(i), call.is_null(i)) };
    let array = array.expect("the function is strict");
    array
        .iter()
        .map(|modifier| {
            let Some(modifier) = modifier else {
                return Err(invalid(
                    PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                    "typmod array must not contain nulls".into(),
                ));
            };
            let text = modifier.to_string_lossy();
            text.trim().parse().map_err(|_| {
                invalid(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("typmod array must contain integers, not \"{text}\""),
                )
            })
        })
        .collect()
}

/// A `cstring` in the current memory context.
pub fn c_string(text: &str) -> Datum {
    let text = super::session::c_string(text);
    // SAFETY: pstrdup copies a NUL-terminated string.
    Datum::from(unsafe { pg_sys::pstrdup(text.as_ptr()) })
}
