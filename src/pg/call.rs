//! One call of a SQL function: its arguments and its result.

use pg_sys::Datum;
use pgrx::{PgMemoryContexts, pg_sys};

use super::aggregate::AggregateContext;
use super::session::to_string;
use super::varlena::Bytes;

/// The frame of a SQL function call. Copyable and only valid while the call lasts.
#[derive(Clone, Copy)]
pub struct Call(pg_sys::FunctionCallInfo);

impl Call {
    /// # Safety
    /// `fcinfo` is the live frame that the function manager passed to the function.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        Call(fcinfo)
    }

    /// The raw frame, for the rare PostgreSQL function that wants it.
    pub fn frame(self) -> pg_sys::FunctionCallInfo {
        self.0
    }

    /// How many arguments were passed.
    #[inline]
    pub fn nargs(self) -> usize {
        // SAFETY: the frame is live.
        unsafe { (*self.0).nargs as usize }
    }

    #[inline]
    fn argument(self, i: usize) -> pg_sys::NullableDatum {
        assert!(i < self.nargs(), "argument {i} of {}", self.nargs());
        // SAFETY: the frame holds `nargs` arguments and `i` is below it.
        unsafe { *(*self.0).args.as_ptr().add(i) }
    }

    /// Whether argument `i` (from 0) is NULL.
    #[inline]
    pub fn is_null(self, i: usize) -> bool {
        self.argument(i).isnull
    }

    /// Argument `i` as it was passed; meaningless when it is NULL.
    #[inline]
    pub fn datum(self, i: usize) -> Datum {
        self.argument(i).value
    }

    #[inline]
    pub fn i64(self, i: usize) -> i64 {
        self.datum(i).value() as i64
    }

    #[inline]
    pub fn i32(self, i: usize) -> i32 {
        self.datum(i).value() as i32
    }

    #[inline]
    pub fn bool(self, i: usize) -> bool {
        self.datum(i).value() & 0xff != 0
    }

    #[inline]
    pub fn f64(self, i: usize) -> f64 {
        f64::from_bits(self.datum(i).value() as u64)
    }

    /// Argument `i` as text; `None` when it is NULL.
    pub fn text(self, i: usize) -> Option<String> {
        (!self.is_null(i)).then(|| to_string(&self.bytes(i)))
    }

    /// Argument `i`, of type `name`, as text; `None` when it is NULL.
    pub fn name(self, i: usize) -> Option<String> {
        // SAFETY: the SQL declaration gives this argument the type name: a NUL-padded C string.
        (!self.is_null(i))
            .then(|| unsafe { to_string(std::ffi::CStr::from_ptr(self.datum(i).cast_mut_ptr()).to_bytes()) })
    }

    /// Argument `i` as it was passed; `None` when it is NULL.
    pub fn optional(self, i: usize) -> Option<Datum> {
        (!self.is_null(i)).then(|| self.datum(i))
    }

    /// Argument `i` as an oid (also of the types regclass and regrole); `None` when it is NULL.
    pub fn oid(self, i: usize) -> Option<pg_sys::Oid> {
        self.optional(i).map(|datum| pg_sys::Oid::from(datum.value() as u32))
    }

    /// The result of a function with OUT arguments: one row, `None` for NULL.
    pub fn row(self, values: &[Option<Datum>]) -> Datum {
        let mut descriptor: pg_sys::TupleDesc = std::ptr::null_mut();
        let (mut datums, mut nulls) = split(values);
        // SAFETY: the row type of the live call has as many columns as its declaration has OUT arguments.
        unsafe {
            pg_sys::get_call_result_type(self.0, std::ptr::null_mut(), &mut descriptor);
            assert!((*descriptor).natts as usize == values.len(), "the row does not match its declaration");
            let descriptor = pg_sys::BlessTupleDesc(descriptor);
            let tuple = pg_sys::heap_form_tuple(descriptor, datums.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
        }
    }

    /// The payload of a variable-length argument (`bytea`, `text`, `hll`, `jsonb`), detoasted.
    #[inline]
    pub fn bytes(self, i: usize) -> Bytes {
        // SAFETY: the SQL declaration of the function gives this argument a varlena type.
        unsafe { Bytes::from_datum(self.datum(i)) }
    }

    /// The bytes of argument `i`, which the SQL declaration gives the type `cstring`.
    pub fn c_string(self, i: usize) -> &'static [u8] {
        // SAFETY: by that declaration; the caller's string outlives the call.
        unsafe { std::ffi::CStr::from_ptr(self.datum(i).cast_mut_ptr()).to_bytes() }
    }

    /// The type that argument `i` has in the calling expression; `InvalidOid` when unknown.
    pub fn argument_type(self, i: usize) -> pg_sys::Oid {
        // SAFETY: flinfo belongs to the live frame; the function copes with a missing expression.
        unsafe { pg_sys::get_fn_expr_argtype((*self.0).flinfo, i as i32) }
    }

    /// The collation of the call.
    pub fn collation(self) -> pg_sys::Oid {
        // SAFETY: the frame is live.
        unsafe { (*self.0).fncollation }
    }

    /// Makes the result NULL: `return call.null()`.
    #[inline]
    pub fn null(self) -> Datum {
        // SAFETY: the frame is live.
        unsafe { (*self.0).isnull = true };
        Datum::from(0)
    }

    /// The memory context of the aggregate that makes this call; an error outside an aggregate.
    #[inline]
    pub fn aggregate_context(self) -> AggregateContext {
        // SAFETY: the frame is live.
        unsafe { AggregateContext::of(self.0) }
    }

    /// The memory context that lives as long as the expression: a cache across calls.
    pub fn expression_context(self) -> PgMemoryContexts {
        // SAFETY: flinfo belongs to the live frame.
        PgMemoryContexts::For(unsafe { (*(*self.0).flinfo).fn_mcxt })
    }
}

/// The arrays that PostgreSQL forms a tuple from.
fn split(values: &[Option<Datum>]) -> (Vec<Datum>, Vec<bool>) {
    values.iter().map(|value| (value.unwrap_or(Datum::from(0)), value.is_none())).unzip()
}
