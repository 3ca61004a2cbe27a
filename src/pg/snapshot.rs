//! An answer that is asked for again and again in one statement, and changes only with what the statement sees.

use pgrx::pg_sys;

use super::call::Call;

/// An answer with what it depends on, in the memory of the calling expression.
struct Memo {
    question: usize,
    xmin: u32,
    xmax: u32,
    command: u32,
    /// The transactions in progress that the snapshot does not see; `count` of them, with room for `capacity`.
    in_progress: *mut u32,
    count: usize,
    capacity: usize,
    answer: i64,
}

impl Call {
    /// What `ask` answers for argument 0, asked again only when the argument or the snapshot is another one: a filter
    /// asks for every row. For functions declared STABLE that use `fn_extra` for nothing else.
    pub fn once_per_snapshot(self, ask: impl FnOnce() -> i64) -> i64 {
        // SAFETY: fn_extra belongs to this function; what it points to lives in fn_mcxt, as long as flinfo. The active
        // snapshot outlives the call and holds as many transactions as it says.
        unsafe {
            let flinfo = (*self.frame()).flinfo;
            let snapshot = &*pg_sys::GetActiveSnapshot();
            // A snapshot of a standby has all of them among the subtransactions.
            let (list, count) = match snapshot.takenDuringRecovery {
                true => (snapshot.subxip, snapshot.subxcnt as usize),
                false => (snapshot.xip, snapshot.xcnt as usize),
            };
            let in_progress = match count {
                0 => &[][..],
                count => std::slice::from_raw_parts(list.cast::<u32>(), count),
            };
            let question = self.datum(0).value();
            let xmin: u32 = snapshot.xmin.into_inner();
            let xmax: u32 = snapshot.xmax.into_inner();
            if (*flinfo).fn_extra.is_null() {
                let memo = pg_sys::MemoryContextAllocZero((*flinfo).fn_mcxt, size_of::<Memo>());
                (*flinfo).fn_extra = memo;
            } else {
                let memo = &*((*flinfo).fn_extra as *const Memo);
                let same = memo.question == question
                    && (memo.xmin, memo.xmax, memo.command) == (xmin, xmax, snapshot.curcid)
                    && memo.count == in_progress.len()
                    && (memo.count == 0
                        || std::slice::from_raw_parts(memo.in_progress, memo.count) == in_progress);
                // No transaction has the number 0: the memo of a question that ended in an error.
                if same && memo.xmax != 0 {
                    return memo.answer;
                }
            }
            let memo = &mut *((*flinfo).fn_extra as *mut Memo);
            memo.xmax = 0;
            if memo.capacity < in_progress.len() {
                if !memo.in_progress.is_null() {
                    pg_sys::pfree(memo.in_progress.cast());
                    memo.in_progress = std::ptr::null_mut();
                }
                let size = std::mem::size_of_val(in_progress);
                memo.in_progress = pg_sys::MemoryContextAlloc((*flinfo).fn_mcxt, size).cast();
                memo.capacity = in_progress.len();
            }
            if !in_progress.is_empty() {
                std::ptr::copy_nonoverlapping(in_progress.as_ptr(), memo.in_progress, in_progress.len());
            }
            let answer = ask();
            (memo.question, memo.xmin, memo.command) = (question, xmin, snapshot.curcid);
            (memo.count, memo.answer, memo.xmax) = (in_progress.len(), answer, xmax);
            answer
        }
    }
}
