//! SQL from inside. Unless it says otherwise, a statement sees all that is committed when it starts, and reading
//! assigns no transaction id.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;

use pgrx::pg_sys::Datum;
use pgrx::{FromDatum, IntoDatum, pg_sys};

use super::session::{c_string, to_string};

/// An argument of a statement: its type and its value, `None` for NULL.
pub struct Arg(pg_sys::Oid, Option<Datum>);

pub fn text(value: Option<&str>) -> Arg {
    Arg(pg_sys::TEXTOID, value.and_then(|v| v.into_datum()))
}

pub fn int8(value: Option<i64>) -> Arg {
    Arg(pg_sys::INT8OID, value.map(Datum::from))
}

pub fn oid(value: Option<pg_sys::Oid>) -> Arg {
    Arg(pg_sys::OIDOID, value.map(Datum::from))
}

pub fn boolean(value: bool) -> Arg {
    Arg(pg_sys::BOOLOID, Some(Datum::from(value)))
}

pub fn text_array(values: Vec<String>) -> Arg {
    Arg(pg_sys::TEXTARRAYOID, values.into_datum())
}

/// A point in time as PostgreSQL counts it: microseconds since 2000-01-01 UTC.
pub fn timestamptz(value: Option<i64>) -> Arg {
    Arg(pg_sys::TIMESTAMPTZOID, value.map(Datum::from))
}

/// An argument passed on as it came, of any type.
pub fn datum(oid: pg_sys::Oid, value: Option<Datum>) -> Arg {
    Arg(oid, value)
}

/// One row of a result; columns count from 1.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    fn value<T: FromDatum>(&self, column: i32) -> Option<T> {
        let mut is_null = false;
        // SAFETY: tuple and descriptor belong to the open SPI result; the statement's author knows the type.
        unsafe {
            let datum = pg_sys::SPI_getbinval(self.tuple, self.descriptor, column, &mut is_null);
            T::from_datum(datum, is_null)
        }
    }

    pub fn int8(&self, column: i32) -> Option<i64> {
        self.value(column)
    }

    pub fn int4(&self, column: i32) -> Option<i32> {
        self.value(column)
    }

    pub fn boolean(&self, column: i32) -> bool {
        self.value(column).unwrap_or(false)
    }

    pub fn oid(&self, column: i32) -> Option<pg_sys::Oid> {
        self.value(column)
    }

    /// Microseconds since 2000-01-01 UTC.
    pub fn timestamptz(&self, column: i32) -> Option<i64> {
        self.value(column)
    }

    /// The value as it is, valid while the row is; `None` for NULL.
    pub fn datum(&self, column: i32) -> Option<Datum> {
        let mut is_null = false;
        // SAFETY: tuple and descriptor belong to the open SPI result.
        let datum = unsafe { pg_sys::SPI_getbinval(self.tuple, self.descriptor, column, &mut is_null) };
        (!is_null).then_some(datum)
    }

    /// The value as text, whatever its type.
    pub fn text(&self, column: i32) -> Option<String> {
        // SAFETY: as in value(); the function returns a palloc'd C string or NULL.
        unsafe {
            let value = pg_sys::SPI_getvalue(self.tuple, self.descriptor, column);
            (!value.is_null()).then(|| to_string(CStr::from_ptr(value).to_bytes()))
        }
    }
}

/// What a statement sees.
#[derive(Clone, Copy, PartialEq)]
enum Sight {
    /// All that is committed when it starts.
    Latest,
    /// What the statement sees that called us; it can only read.
    Callers,
}

fn run<T>(
    sql: &str,
    args: &[Arg],
    sight: Sight,
    collect: impl FnOnce(u64, *mut pg_sys::SPITupleTable) -> T,
) -> T {
    let mut values: Vec<_> = args.iter().map(|a| a.1.unwrap_or(Datum::from(0))).collect();
    let nulls: Vec<_> = args.iter().map(|a| if a.1.is_some() { b' ' } else { b'n' } as i8).collect();
    let (values, nulls) = (values.as_mut_ptr(), nulls.as_ptr());
    let read_only = sight == Sight::Callers;
    // SAFETY: a balanced connect and finish around one statement, whose arrays have one entry an argument. An error
    // leaves through the transaction's abort, which closes the connection.
    unsafe {
        pg_sys::SPI_connect();
        pg_sys::SPI_tuptable = std::ptr::null_mut();
        let code = match kept_plan(sql, args) {
            Some(plan) => pg_sys::SPI_execute_plan(plan, values, nulls, read_only, 0),
            None => {
                let (command, mut types) = (c_string(sql), types(args));
                let count = args.len() as i32;
                pg_sys::SPI_execute_with_args(
                    command.as_ptr(),
                    count,
                    types.as_mut_ptr(),
                    values,
                    nulls,
                    read_only,
                    0,
                )
            }
        };
        if code < 0 {
            let reason = CStr::from_ptr(pg_sys::SPI_result_code_string(code)).to_string_lossy();
            crate::error::Error::new(
                pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("a statement of this kind cannot run here ({reason})"),
            )
            .detail(format!("The statement is: {sql}."))
            .raise()
        }
        let result = collect(pg_sys::SPI_processed, pg_sys::SPI_tuptable);
        pg_sys::SPI_finish();
        result
    }
}

thread_local! {
    /// Plans by statement, as long as the session; PostgreSQL makes them anew when what they rest on changes.
    static PLANS: RefCell<HashMap<String, pg_sys::SPIPlanPtr>> = RefCell::default();
    static KEEPS_PLANS: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, plans are kept for the next time: for statements that come again and again with the same
/// search_path and the same types of arguments.
pub struct KeepPlans(bool);

impl KeepPlans {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        KeepPlans(KEEPS_PLANS.replace(true))
    }
}

impl Drop for KeepPlans {
    fn drop(&mut self) {
        KEEPS_PLANS.set(self.0);
    }
}

fn types(args: &[Arg]) -> Vec<pg_sys::Oid> {
    args.iter().map(|a| a.0).collect()
}

/// The plan of a statement that is kept or will be from now on; `None` where plans are not kept.
///
/// # Safety
/// SPI is connected.
unsafe fn kept_plan(sql: &str, args: &[Arg]) -> Option<pg_sys::SPIPlanPtr> {
    /// More than there are statements; names in them could make more of them without end.
    const MOST_KEPT: usize = 500;
    if !KEEPS_PLANS.get() {
        return None;
    }
    let (known, count) = PLANS.with_borrow(|plans| (plans.get(sql).copied(), plans.len()));
    if known.is_some() || count >= MOST_KEPT {
        return known;
    }
    let (command, mut types) = (c_string(sql), types(args));
    // One plan for all arguments: these statements find rows by their keys.
    let options = pg_sys::CURSOR_OPT_GENERIC_PLAN as i32;
    // SAFETY: connected by contract; the statement and its types are copied. A kept plan is never freed.
    unsafe {
        let count = args.len() as i32;
        let plan = pg_sys::SPI_prepare_cursor(command.as_ptr(), count, types.as_mut_ptr(), options);
        if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
            return None;
        }
        PLANS.with_borrow_mut(|plans| plans.insert(sql.to_owned(), plan));
        Some(plan)
    }
}

/// Runs a statement; returns how many rows it processed.
pub fn execute(sql: &str, args: &[Arg]) -> u64 {
    run(sql, args, Sight::Latest, |processed, _| processed)
}

/// Runs a query; returns what `read` makes of each row.
pub fn query<T>(sql: &str, args: &[Arg], read: impl FnMut(&Row) -> T) -> Vec<T> {
    rows(sql, args, Sight::Latest, read)
}

fn rows<T>(sql: &str, args: &[Arg], sight: Sight, mut read: impl FnMut(&Row) -> T) -> Vec<T> {
    run(sql, args, sight, |_, table| {
        if table.is_null() {
            return Vec::new();
        }
        // SAFETY: SPI's result table holds `numvals` tuples until SPI_finish.
        let (tuples, descriptor) = unsafe {
            (std::slice::from_raw_parts((*table).vals, (*table).numvals as usize), (*table).tupdesc)
        };
        tuples.iter().map(|&tuple| read(&Row { tuple, descriptor })).collect()
    })
}

/// Runs a query of any size in the memory of a few rows; `read` gets one row after the other.
pub fn stream(sql: &str, mut read: impl FnMut(&Row)) {
    const AT_ONCE: i64 = 1000;
    let command = c_string(sql);
    let none = std::ptr::null_mut();
    // SAFETY: a balanced connect and finish around a cursor without arguments; each batch of tuples is freed when it
    // was read. An error leaves through the transaction's abort.
    unsafe {
        pg_sys::SPI_connect();
        let cursor = pg_sys::SPI_cursor_open_with_args(
            std::ptr::null(),
            command.as_ptr(),
            0,
            none,
            none.cast(),
            std::ptr::null(),
            false,
            0,
        );
        loop {
            pg_sys::SPI_cursor_fetch(cursor, true, AT_ONCE);
            let table = pg_sys::SPI_tuptable;
            if pg_sys::SPI_processed == 0 {
                break;
            }
            let tuples = std::slice::from_raw_parts((*table).vals, pg_sys::SPI_processed as usize);
            tuples.iter().for_each(|&tuple| read(&Row { tuple, descriptor: (*table).tupdesc }));
            pg_sys::SPI_freetuptable(table);
        }
        pg_sys::SPI_cursor_close(cursor);
        pg_sys::SPI_finish();
    }
}

/// Runs a query that returns at most one row.
pub fn query_one<T>(sql: &str, args: &[Arg], read: impl FnMut(&Row) -> T) -> Option<T> {
    query(sql, args, read).pop()
}

/// As [`query_one`], with the snapshot of the statement that called us.
pub fn query_one_as_seen<T>(sql: &str, args: &[Arg], read: impl FnMut(&Row) -> T) -> Option<T> {
    rows(sql, args, Sight::Callers, read).pop()
}

/// As [`query_one`], but all that is committed now is seen above READ COMMITTED too; it can only read.
pub fn query_one_of_now<T>(sql: &str, args: &[Arg], read: impl FnMut(&Row) -> T) -> Option<T> {
    // SAFETY: a snapshot that is taken back after the statement; an error leaves through the transaction's abort.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let answer = query_one_as_seen(sql, args, read);
    // SAFETY: as above.
    unsafe { pg_sys::PopActiveSnapshot() };
    answer
}

/// Parses and analyses a statement with parameters of these types without running it; raises what is wrong with it.
pub fn check(sql: &str, parameter_types: &[pg_sys::Oid]) {
    let command = c_string(sql);
    let mut types = parameter_types.to_vec();
    // SAFETY: a balanced connect and finish; the plan goes with the connection.
    unsafe {
        pg_sys::SPI_connect();
        pg_sys::SPI_prepare(command.as_ptr(), types.len() as i32, types.as_mut_ptr());
        pg_sys::SPI_finish();
    }
}
