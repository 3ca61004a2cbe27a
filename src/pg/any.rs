//! The bytes of a value of any type.

use pg_sys::Datum;
use pgrx::pg_sys;

use super::call::Call;
use super::varlena::Bytes;

/// A value of any type as bytes.
pub enum AnyValue {
    /// A type passed by value: that many bytes of the datum, lowest first.
    Integer(u64, u64),
    /// The payload of a variable-length type.
    Varlena(Bytes),
    /// A C string (the type `cstring`).
    Text(&'static [u8]),
}

/// How to get at the bytes; found out once for each place in a query.
struct AnyType {
    length: i16,
    by_value: bool,
    /// The function that sends the type, or the one that prints it.
    convert: pg_sys::FmgrInfo,
    sends: bool,
}

impl Call {
    /// Argument `i`, declared `anyelement`, as bytes: those of the datum for types of 1, 2, 4 or 8 bytes by value,
    /// the payload as it is for variable-length types, otherwise what the type's send function makes (or,
    /// where it has none, its output function).
    pub fn any_value(self, i: usize) -> AnyValue {
        let datum = self.datum(i);
        let any = self.any_type(i);
        // SAFETY: any_type() made it; the datum has the type whose length and functions these are.
        unsafe {
            if (*any).by_value {
                return AnyValue::Integer(datum.value() as u64, (*any).length as u64);
            }
            let convert = &raw mut (*any).convert;
            match (*any).length {
                -1 => AnyValue::Varlena(Bytes::from_datum(datum)),
                -2 => AnyValue::Text(c_bytes(datum)),
                _ if (*any).sends => {
                    let sent = pg_sys::SendFunctionCall(convert, datum);
                    AnyValue::Varlena(Bytes::from_datum(Datum::from(sent)))
                }
                _ => {
                    let text = pg_sys::OutputFunctionCall(convert, datum);
                    AnyValue::Text(c_bytes(Datum::from(text)))
                }
            }
        }
    }

    /// What is known of the type of argument `i`: as long as the expression.
    fn any_type(self, i: usize) -> *mut AnyType {
        // SAFETY: fn_extra belongs to this function; what it points to lives in fn_mcxt, as long as flinfo.
        unsafe {
            let flinfo = (*self.frame()).flinfo;
            if (*flinfo).fn_extra.is_null() {
                let oid = self.argument_type(i);
                if oid == pg_sys::InvalidOid {
                    crate::error::Error::new(
                        pgrx::PgSqlErrorCode::ERRCODE_INDETERMINATE_DATATYPE,
                        "could not determine the type of the value",
                    )
                    .raise()
                }
                let any = pg_sys::MemoryContextAllocZero((*flinfo).fn_mcxt, size_of::<AnyType>());
                let any = any as *mut AnyType;
                pg_sys::get_typlenbyval(oid, &raw mut (*any).length, &raw mut (*any).by_value);
                if !(*any).by_value && (*any).length > 0 {
                    (*any).sends = true;
                    let (function, sends) = conversion(oid);
                    pg_sys::fmgr_info_cxt(function, &raw mut (*any).convert, (*flinfo).fn_mcxt);
                    (*any).sends = sends;
                }
                (*flinfo).fn_extra = any.cast();
            }
            (*flinfo).fn_extra.cast()
        }
    }
}

/// The send function of a type, or its output function; and whether it is the former.
fn conversion(oid: pg_sys::Oid) -> (pg_sys::Oid, bool) {
    let (mut function, mut is_varlena) = (pg_sys::InvalidOid, false);
    // SAFETY: the type exists; the cache entry is released; out pointers are ours.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID as i32, Datum::from(oid));
        if !tuple.is_null() {
            function = (*(pg_sys::GETSTRUCT(tuple) as pg_sys::Form_pg_type)).typsend;
            pg_sys::ReleaseSysCache(tuple);
        }
        if function != pg_sys::InvalidOid {
            return (function, true);
        }
        pg_sys::getTypeOutputInfo(oid, &mut function, &mut is_varlena);
    }
    (function, false)
}

/// # Safety
/// The datum is a C string that lives as long as the call.
unsafe fn c_bytes(datum: Datum) -> &'static [u8] {
    // SAFETY: by contract.
    unsafe { std::ffi::CStr::from_ptr(datum.cast_mut_ptr()).to_bytes() }
}
