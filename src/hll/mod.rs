//! SQL surface of the HyperLogLog++ sketches.

mod aggregate;
mod hash;
mod metadata;
pub mod settings;
mod value;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Datum;
use sketches::hll::{Corrupt, Encoder, Sketch, Stored};

use crate::error::Error;
use crate::pg::varlena::varlena_with;

/// The error for bytes that are no sketch, in binary form.
fn corrupt(error: Corrupt) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION, format!("invalid hll: {error}"))
}

/// The sketch in a value of type `hll`.
#[inline]
fn stored(bytes: &[u8]) -> Stored<'_> {
    Stored::parse(bytes).unwrap_or_else(|error| corrupt(error).raise())
}

/// A value of type `hll`.
fn value(encoder: &Encoder) -> Datum {
    varlena_with(encoder.len(), |out| encoder.write(out))
}

fn sketch_value(mut sketch: Sketch) -> Datum {
    value(&sketch.state().encoder())
}
