//! The one error type: SQLSTATE, message, detail, hint.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// An error on its way to the user. The message is lowercase and carries the values, the detail is a
/// sentence with a full stop, the hint says what to type next.
#[derive(Debug)]
pub struct Error {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Error { code, message: message.into(), detail: None, hint: None }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Raises it as a PostgreSQL ERROR: the statement ends here.
    pub fn raise(self) -> ! {
        self.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }

    /// Reports it as a warning instead of raising it.
    pub fn warn(mut self) {
        self.code = PgSqlErrorCode::ERRCODE_WARNING;
        self.report(PgLogLevel::WARNING);
    }

    /// Reports it at another level: `NOTICE`, `WARNING`, `LOG`.
    pub fn report(self, level: PgLogLevel) {
        let mut report = ErrorReport::new(self.code, self.message, "rollup_ext");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        report.report(level)
    }
}

/// Raises what PostgreSQL says when there is no memory.
pub fn out_of_memory(bytes: usize) -> ! {
    Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory")
        .detail(format!("Failed on request of size {bytes}."))
        .raise()
}

/// `result.or_raise()`: the value, or the error raised.
pub trait OrRaise<T> {
    fn or_raise(self) -> T;
}

impl<T> OrRaise<T> for Result<T> {
    fn or_raise(self) -> T {
        self.unwrap_or_else(|error| error.raise())
    }
}
