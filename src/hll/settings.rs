//! The settings of the sketches, and the functions by which postgresql-hll sets them.

use std::ffi::{CStr, CString};

use pgrx::PgSqlErrorCode;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys::{self, Datum};
use sketches::hll::Params;

use crate::error::{Error, OrRaise, Result};
use crate::sql_function;

static LOG2M: GucSetting<i32> = GucSetting::<i32>::new(11);
static REGWIDTH: GucSetting<i32> = GucSetting::<i32>::new(5);
static EXPTHRESH: GucSetting<i32> = GucSetting::<i32>::new(-1);
static SPARSEON: GucSetting<i32> = GucSetting::<i32>::new(1);
static MAX_SPARSE: GucSetting<i32> = GucSetting::<i32>::new(-1);
static OUTPUT_VERSION: GucSetting<i32> = GucSetting::<i32>::new(2);

const MAX_EXPTHRESH: i64 = 1 << 30;

/// Defines the settings; called once when the library is loaded.
pub fn define() {
    let define = |name, short, long, setting, min, max| {
        GucRegistry::define_int_guc(
            name,
            short,
            long,
            setting,
            min,
            max,
            GucContext::Userset,
            GucFlags::default(),
        )
    };
    define(
        c"rollup_ext.hll_log2m",
        c"Base-2 logarithm of the number of registers of new hll sketches.",
        c"The standard error of a large count is 1.04 / sqrt(2^log2m): 2.3 % at 11.",
        &LOG2M,
        0,
        Params::MAX_LOG2M as i32,
    );
    define(
        c"rollup_ext.hll_regwidth",
        c"Bits of a register when an hll sketch is written in version 1.",
        c"",
        &REGWIDTH,
        1,
        8,
    );
    define(
        c"rollup_ext.hll_expthresh",
        c"Explicit threshold that new hll sketches carry for version 1.",
        c"-1, 0 or a power of two.",
        &EXPTHRESH,
        -1,
        MAX_EXPTHRESH as i32,
    );
    define(
        c"rollup_ext.hll_sparseon",
        c"Whether new hll sketches may be written in the sparse form of version 1.",
        c"",
        &SPARSEON,
        0,
        1,
    );
    define(
        c"rollup_ext.hll_max_sparse",
        c"Most registers of the sparse form of version 1; -1 takes the smaller form.",
        c"",
        &MAX_SPARSE,
        -1,
        i32::MAX,
    );
    define(
        c"rollup_ext.hll_output_version",
        c"Storage version in which hll sketches leave the server: text, binary, bytea.",
        c"1 is that of postgresql-hll.",
        &OUTPUT_VERSION,
        1,
        2,
    );
}

/// The parameters of new sketches. The settings have their ranges; only the threshold can be wrong.
#[inline]
pub fn defaults() -> Params {
    let Some(expthresh) = Params::encode_expthresh(EXPTHRESH.get() as i64) else {
        not_a_power(EXPTHRESH.get() as i64).raise()
    };
    Params {
        log2m: LOG2M.get() as u8,
        regwidth: REGWIDTH.get() as u8,
        expthresh,
        sparseon: SPARSEON.get() == 1,
    }
}

pub fn max_sparse() -> i32 {
    MAX_SPARSE.get()
}

pub fn output_version() -> i32 {
    OUTPUT_VERSION.get()
}

/// Checks the four parameters as SQL knows them.
pub fn params(log2m: i64, regwidth: i64, expthresh: i64, sparseon: i64) -> Result<Params> {
    range("log2m", log2m, 0, Params::MAX_LOG2M as i64)?;
    range("regwidth", regwidth, 1, 8)?;
    range("expthresh", expthresh, -1, MAX_EXPTHRESH)?;
    range("sparseon", sparseon, 0, 1)?;
    let Some(expthresh) = Params::encode_expthresh(expthresh) else {
        return Err(not_a_power(expthresh));
    };
    Ok(Params { log2m: log2m as u8, regwidth: regwidth as u8, expthresh, sparseon: sparseon == 1 })
}

fn range(name: &str, value: i64, min: i64, max: i64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(invalid(format!("{name} modifier must be between {min} and {max}, not {value}")))
}

fn not_a_power(expthresh: i64) -> Error {
    invalid(format!("expthresh modifier must be power of 2, not {expthresh}"))
}

fn invalid(message: String) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
}

/// Sets a setting for the session, as SET does: a transaction that is rolled back takes it back.
fn set(name: &CStr, value: i32) {
    let value = CString::new(value.to_string()).expect("digits");
    // SAFETY: both strings are NUL-terminated and live through the call.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
        )
    }
}

sql_function!(
    /// `hll_set_defaults(log2m, regwidth, expthresh, sparseon)`: returns the four values before.
    hll_set_defaults,
    |call| {
        let old = defaults();
        let new =
            params(call.i32(0) as i64, call.i32(1) as i64, call.i64(2), call.i32(3) as i64).or_raise();
        set(c"rollup_ext.hll_log2m", new.log2m as i32);
        set(c"rollup_ext.hll_regwidth", new.regwidth as i32);
        set(c"rollup_ext.hll_expthresh", new.expthresh_value() as i32);
        set(c"rollup_ext.hll_sparseon", new.sparseon as i32);
        call.row(&[
            Some(Datum::from(old.log2m as i32)),
            Some(Datum::from(old.regwidth as i32)),
            Some(Datum::from(old.expthresh_value())),
            Some(Datum::from(old.sparseon as i32)),
        ])
    }
);

sql_function!(
    /// `hll_set_max_sparse(integer)`: returns the value before.
    hll_set_max_sparse,
    |call| {
        let (old, new) = (max_sparse(), call.i32(0));
        if new < -1 {
            invalid(format!("sparse threshold must be -1 or more, not {new}")).raise()
        }
        set(c"rollup_ext.hll_max_sparse", new);
        Datum::from(old)
    }
);

sql_function!(
    /// `hll_set_output_version(integer)`: returns the value before.
    hll_set_output_version,
    |call| {
        let (old, new) = (output_version(), call.i32(0));
        if !(1..=2).contains(&new) {
            invalid(format!("output version must be 1 or 2, not {new}")).raise()
        }
        set(c"rollup_ext.hll_output_version", new);
        Datum::from(old)
    }
);
