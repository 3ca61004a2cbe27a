//! Background processes: registering, starting and watching them, their signals, their sleep, and transactions
//! whose errors are values.

use std::ffi::CStr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder, pg_sys};

use super::session::c_string;
use crate::error::Error;

const LIBRARY: &str = "rollup_ext";

/// What a background process is called and where it starts.
pub struct Kind {
    /// `backend_type` in `pg_stat_activity`.
    pub backend_type: &'static str,
    /// The exported function that it runs.
    pub entry: &'static str,
}

fn worker(kind: &Kind, name: &str, database: pg_sys::Oid, restart_seconds: i32) -> pg_sys::BackgroundWorker {
    fn fill(field: &mut [std::ffi::c_char], text: &str) {
        // The last byte stays NUL; a long name is cut between characters.
        let mut len = text.len().min(field.len() - 1);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        for (to, from) in field.iter_mut().zip(&text.as_bytes()[..len]) {
            *to = *from as std::ffi::c_char;
        }
    }
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: restart_seconds,
        bgw_main_arg: pg_sys::Datum::from(database),
        ..Default::default()
    };
    fill(&mut worker.bgw_name, name);
    fill(&mut worker.bgw_type, kind.backend_type);
    fill(&mut worker.bgw_library_name, LIBRARY);
    fill(&mut worker.bgw_function_name, kind.entry);
    worker
}

/// Whether the library is being loaded through `shared_preload_libraries`.
pub fn is_preloading() -> bool {
    // SAFETY: reads a flag.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Registers a process that starts with the server, once it is no standby (any more), and again after it ended.
/// Only while the library is preloaded.
pub fn register(kind: &Kind, restart_seconds: i32) {
    let mut worker = worker(kind, kind.backend_type, pg_sys::InvalidOid, restart_seconds);
    // SAFETY: the function copies the structure.
    unsafe { pg_sys::RegisterBackgroundWorker(&mut worker) };
}

/// A process that this one started.
pub struct Process(*mut pg_sys::BackgroundWorkerHandle);

impl Process {
    /// Starts a process for a database, which is not started again when it ends; `extra` travels with it (see
    /// [`extra`]). This process is woken when the other starts and ends. `None` when `max_worker_processes` is
    /// exhausted.
    pub fn start(kind: &Kind, name: &str, database: pg_sys::Oid, extra: &[u8]) -> Option<Process> {
        let mut worker = worker(kind, name, database, pg_sys::BGW_NEVER_RESTART);
        assert!(extra.len() <= worker.bgw_extra.len());
        for (to, from) in worker.bgw_extra.iter_mut().zip(extra) {
            *to = *from as std::ffi::c_char;
        }
        let mut handle = std::ptr::null_mut();
        // SAFETY: the function copies the structure. The handle is allocated where it outlives any transaction, and
        // freed in drop().
        unsafe {
            worker.bgw_notify_pid = pg_sys::MyProcPid;
            let caller = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let started = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
            pg_sys::MemoryContextSwitchTo(caller);
            started.then(|| Process(handle))
        }
    }

    /// Whether it has ended, or can never start because the postmaster is gone.
    pub fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: the handle came from start().
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &mut pid) };
        matches!(
            status,
            pg_sys::BgwHandleStatus::BGWH_STOPPED | pg_sys::BgwHandleStatus::BGWH_POSTMASTER_DIED
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: start() allocated it and nobody else refers to it.
        unsafe { pg_sys::pfree(self.0.cast()) };
    }
}

/// What [`Process::start`] sent along.
pub fn extra() -> [u8; pg_sys::BGW_EXTRALEN as usize] {
    // SAFETY: set for the whole life of a background process.
    unsafe { (*pg_sys::MyBgworkerEntry).bgw_extra }.map(|byte| byte as u8)
}

// The bare functions: those of pgrx are wrapped in what is not safe in a signal handler.
unsafe extern "C-unwind" {
    fn die(signal: i32);
    fn StatementCancelHandler(signal: i32);
    fn SignalHandlerForConfigReload(signal: i32);
}

/// Makes the process listen: SIGTERM ends it, even inside a query; SIGINT cancels a query; SIGHUP rereads the
/// configuration, at the next [`sleep`].
pub fn accept_signals() {
    // SAFETY: PostgreSQL's own handlers, set before signals are let in.
    unsafe {
        for (signal, handler) in [
            (pg_sys::SIGTERM, die as unsafe extern "C-unwind" fn(i32)),
            (pg_sys::SIGINT, StatementCancelHandler),
            (pg_sys::SIGHUP, SignalHandlerForConfigReload),
        ] {
            #[cfg(not(feature = "pg18"))]
            pg_sys::pqsignal(signal as i32, Some(handler));
            #[cfg(feature = "pg18")]
            pg_sys::pqsignal_be(signal as i32, Some(handler));
        }
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Connects to a database as the bootstrap superuser, whatever it is called and whether or not it may log in;
/// `None`: to the shared catalogs alone.
pub fn connect(database: Option<pg_sys::Oid>) {
    // SAFETY: called once, at the start of a background process. Without a role both functions take the superuser.
    unsafe {
        match database {
            Some(oid) => pg_sys::BackgroundWorkerInitializeConnectionByOid(oid, pg_sys::InvalidOid, 0),
            None => pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0),
        }
    }
    // A database or server default that suits its users must not reach the worker's own transactions.
    set_for_session("default_transaction_isolation", "read committed");
    set_for_session("default_transaction_read_only", "off");
}

/// Sets a setting for the rest of this process.
pub fn set_for_session(name: &str, value: &str) {
    let (name, value) = (c_string(name), c_string(value));
    // SAFETY: both strings are NUL-terminated and live through the call.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
        )
    };
}

/// What this process is doing, for `pg_stat_activity`; `None`: it is idle.
pub fn show_activity(query: Option<&str>) {
    // SAFETY: the function copies the string.
    unsafe {
        match query.map(c_string) {
            Some(text) => pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr()),
            None => pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null()),
        }
    }
}

/// Sleeps until woken or until `timeout` has passed, with nothing held, and does what came in by signal. Ends the
/// process when it was asked to end or the postmaster is gone.
///
/// A wait for a lock inside a transaction may swallow a wake: look for what it was about before sleeping, not only
/// after.
pub fn sleep(timeout: Duration) {
    let wake_on = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: outside any transaction.
    unsafe {
        pg_sys::pgstat_report_stat(false);
        show_activity(None);
        obey_signals();
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            wake_on as i32,
            timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as _,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
        obey_signals();
    }
}

/// # Safety
/// Outside any transaction, in a background process.
unsafe fn obey_signals() {
    // SAFETY: the flags are set by the signal handlers of this very process.
    unsafe {
        if pg_sys::ProcDiePending != 0 {
            // Quietly, and with the status that makes the postmaster start a static process again.
            pg_sys::proc_exit(i32::from((*pg_sys::MyBgworkerEntry).bgw_restart_time >= 0));
        }
        // There is no query to cancel.
        pg_sys::QueryCancelPending = 0;
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
    pgrx::check_for_interrupts!();
}

/// Ends this process without a word in the log.
#[allow(unreachable_code, reason = "the bindings of PostgreSQL 18 do not say that proc_exit never returns")]
pub fn exit() -> ! {
    // SAFETY: runs PostgreSQL's exit handlers.
    unsafe { pg_sys::proc_exit(0) };
    unreachable!()
}

/// An error that ended a transaction.
#[derive(Debug)]
pub struct Failure {
    pub code: PgSqlErrorCode,
    pub message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Failure {
    /// The five characters of its SQLSTATE.
    pub fn sqlstate(&self) -> String {
        // SAFETY: returns a static, NUL-terminated buffer.
        unsafe { CStr::from_ptr(pg_sys::unpack_sql_state(self.code as i32)) }.to_string_lossy().into_owned()
    }

    /// Writes it to the server's log, after the words `context`.
    pub fn log(&self, context: &str) {
        let mut error = Error::new(self.code, format!("{context}: {}", self.message));
        if let Some(detail) = &self.detail {
            error = error.detail(detail);
        }
        if let Some(hint) = &self.hint {
            error = error.hint(hint);
        }
        error.report(PgLogLevel::LOG)
    }
}

/// Runs `work` in a transaction of its own, which has its own memory; an error, or a panic, rolls it back and is
/// the result. Leaves nothing behind: no lock, no snapshot, no memory.
pub fn transaction<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    let result = PgTryBuilder::new(AssertUnwindSafe(|| {
        // SAFETY: a balanced transaction; an error in between arrives in the handler below.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let value = work();
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
            Ok(value)
        }
    }))
    .catch_others(|error| {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = error;
        Err(Failure {
            code: report.sql_error_code(),
            message: report.message().to_string(),
            detail: report.detail().map(str::to_string),
            hint: report.hint().map(str::to_string),
        })
    })
    .execute();
    if result.is_err() {
        // SAFETY: rolls back whatever state the transaction was left in.
        unsafe { pg_sys::AbortCurrentTransaction() };
    }
    result
}

/// Now, in microseconds since 2000-01-01 UTC.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// The database this process is connected to.
pub fn database() -> pg_sys::Oid {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::MyDatabaseId }
}

/// Whether an extension of this name is installed in this database.
pub fn has_extension(name: &CStr) -> bool {
    // SAFETY: a catalog lookup; needs a transaction.
    unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) != pg_sys::InvalidOid }
}

/// The databases that can be connected to, without the templates: oid and name. Needs a transaction, but no
/// database.
pub fn databases() -> Vec<(pg_sys::Oid, String)> {
    let mut found = Vec::new();
    // SAFETY: a scan of a shared catalog, opened and closed here; its rows start with the fixed columns.
    unsafe {
        let relation =
            pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if row.datallowconn && !row.datistemplate && row.datconnlimit != pg_sys::DATCONNLIMIT_INVALID_DB {
                let name = CStr::from_ptr(row.datname.data.as_ptr()).to_string_lossy().into_owned();
                found.push((row.oid, name));
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
    }
    found
}
