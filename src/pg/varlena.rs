//! Values of variable length: reading them without a copy where PostgreSQL allows it, and making them.

use std::ops::Deref;

use pg_sys::Datum;
use pgrx::pg_sys;

use super::memory;

/// The payload of a detoasted varlena, in the memory context of the call.
#[derive(Clone, Copy)]
pub struct Bytes {
    data: *const u8,
    len: usize,
}

impl Bytes {
    /// # Safety
    /// `datum` is a non-NULL value of a varlena type that stays valid while the call lasts.
    #[inline(always)]
    pub unsafe fn from_datum(datum: Datum) -> Self {
        // SAFETY: by contract a varlena; a packed (short) header needs no copy.
        unsafe {
            let mut value: *const pg_sys::varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
            if pgrx::varatt_is_1b_e(value) || pgrx::varatt_is_4b_c(value) {
                value = pg_sys::pg_detoast_datum_packed(value.cast_mut());
            }
            Bytes { data: pgrx::vardata_any(value).cast(), len: pgrx::varsize_any_exhdr(value) }
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: from_datum() took pointer and length from one live varlena.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// A new varlena with this payload, in the current memory context.
#[inline]
pub fn varlena(payload: &[u8]) -> Datum {
    varlena_with(payload.len(), |out| out.copy_from_slice(payload))
}

/// A new varlena of `len` payload bytes, filled by `fill`: saves a copy where the encoder can write in place.
#[inline]
pub fn varlena_with(len: usize, fill: impl FnOnce(&mut [u8])) -> Datum {
    let size = len + pg_sys::VARHDRSZ;
    // SAFETY: there always is a current context; header and payload lie within the `size` bytes of the block.
    unsafe {
        let value = memory::alloc_zeroed(pg_sys::CurrentMemoryContext, size).as_ptr() as *mut pg_sys::varlena;
        pgrx::set_varsize_4b(value, size as i32);
        let data = value.cast::<u8>().add(pg_sys::VARHDRSZ);
        fill(std::slice::from_raw_parts_mut(data, len));
        Datum::from(value)
    }
}

/// A value of type `name`: cut to its length where it is longer.
pub fn name(text: &str) -> Datum {
    let text = super::session::c_string(text);
    // SAFETY: the type's own input function, on a NUL-terminated string.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::namein, &[Some(Datum::from(text.as_ptr()))]) }
        .expect("namein returns a value")
}

/// A value of type `int8multirange`, in the current memory context.
pub fn int8multirange(ids: &str) -> Datum {
    let text = super::session::c_string(ids);
    let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: the type's own input function, on a NUL-terminated string.
    unsafe {
        pg_sys::getTypeInputInfo(pg_sys::INT8MULTIRANGEOID, &mut input, &mut parameter);
        pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, -1)
    }
}
