//! Additions to transition states that are made later, many at once, state by state.
//!
//! A hash aggregate meets its groups in turn. With many of them, each row waits for the memory of a state that was last
//! touched long ago, and bringing it into the processor's caches drives other things out, such as the hash table itself.
//! So additions are only noted, one after the other in a log, and when the log is full they are made in the order
//! of their states. Whoever reads a state makes first what was noted ([`Deferred::make_all`]).
//!
//! Making an addition may move a state to a larger block, at a time when PostgreSQL has the transition value of
//! another group in hand. So that value is a [`Slot`], which stays where it is and says where the block is.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};

use pg_sys::Datum;
use pgrx::{pg_guard, pg_sys};

use super::aggregate::AggregateContext;
use super::memory;

/// Words of a log at first, and at most; of `work_mem` it and its copy take a thirty-second part each.
const LEAST: usize = 64;
const MOST: usize = 1 << 20;
/// Up to so many states are in the caches anyhow: their additions are made in order of arrival.
const FEW: usize = 1024;
/// States that are taken together, in order of arrival: their first lines fit the innermost caches.
const TOGETHER: usize = 128;
const MOST_PARTS: usize = 1024;
/// How many additions ahead the processor is told to fetch the state.
const AHEAD: usize = 8;

/// Where the block of a state is. As a transition value it is told from a block by its lowest bit.
#[derive(Clone, Copy)]
pub struct Slot(NonNull<NonNull<u8>>);

impl Slot {
    /// The slot that a transition value is; `None` when it is a block.
    #[inline]
    pub(super) fn of(value: Datum) -> Option<Self> {
        let value = value.value();
        // SAFETY: odd values are made by datum() alone.
        (value & 1 == 1).then(|| unsafe { Slot(NonNull::new_unchecked((value - 1) as *mut NonNull<u8>)) })
    }

    #[inline]
    pub fn datum(self) -> Datum {
        Datum::from(self.0.as_ptr() as usize | 1)
    }

    #[inline]
    pub(super) fn block(self) -> NonNull<u8> {
        // SAFETY: a slot lives as long as the states of its context, and so does the log that names it.
        unsafe { self.0.read() }
    }

    #[inline]
    pub(super) fn set(self, block: NonNull<u8>) {
        // SAFETY: as in block().
        unsafe { self.0.write(block) }
    }
}

/// Makes an addition that was noted, in these words, to the state in a slot.
pub type Make = fn(Slot, AggregateContext, &[u64]);

/// The additions to states of one kind that were not made yet: a static of its own for each kind.
pub struct Deferred {
    make: Make,
    logs: UnsafeCell<Vec<Box<Log>>>,
}

// SAFETY: a backend has one thread.
unsafe impl Sync for Deferred {}

/// The additions to the states of one memory context, in which slots and records live too.
struct Log {
    context: AggregateContext,
    /// Unused slots, how many there will be the next time, and how many there are in all.
    next: *mut NonNull<u8>,
    left: usize,
    room: usize,
    slots: usize,
    /// Between which addresses the slots are.
    low: usize,
    high: usize,
    /// Records: a word with the slot's address and, above ADDRESS, the number of words that follow.
    records: *mut u64,
    len: usize,
    capacity: usize,
    /// As many words as `records`, once they were needed.
    spare: *mut u64,
}

const ADDRESS: u32 = 48;

#[inline]
fn address(head: u64) -> usize {
    (head & ((1 << ADDRESS) - 1)) as usize
}

/// Words of the record that starts with `head`.
#[inline]
fn size(head: u64) -> usize {
    1 + (head >> ADDRESS) as usize
}

impl Deferred {
    pub const fn new(make: Make) -> Self {
        Deferred { make, logs: UnsafeCell::new(Vec::new()) }
    }

    #[allow(clippy::mut_from_ref)]
    #[inline]
    fn logs(&self) -> &mut Vec<Box<Log>> {
        // SAFETY: one thread; `make`, which runs between a caller's uses of what this returns, adds and removes no log.
        unsafe { &mut *self.logs.get() }
    }

    /// The log of a context in which slots were made.
    #[inline]
    fn log(&self, context: AggregateContext) -> &mut Log {
        let logs = self.logs();
        // The last one mostly is the only one.
        let at = logs.iter().rposition(|log| log.context == context).expect("a slot's context has a log");
        &mut logs[at]
    }

    /// Notes an addition to the state in a slot; `fill` writes the `words` words of it, at most 65,535.
    #[inline]
    pub fn note(&self, context: AggregateContext, slot: Slot, words: usize, fill: impl FnOnce(&mut [u64])) {
        let log = self.log(context);
        if log.len + 1 + words > log.capacity {
            self.make_room(log, 1 + words);
        }
        // SAFETY: there is room for the record.
        let record = unsafe { std::slice::from_raw_parts_mut(log.records.add(log.len), 1 + words) };
        record[0] = slot.0.as_ptr() as u64 | (words as u64) << ADDRESS;
        fill(&mut record[1..]);
        log.len += 1 + words;
    }

    #[cold]
    fn make_room(&self, log: &mut Log, words: usize) {
        self.make(log);
        // SAFETY: a global variable of the server, in kilobytes.
        let most = (unsafe { pg_sys::work_mem } as usize * 1024 / 32 / 8).clamp(LEAST, MOST);
        let capacity = (8 * log.slots).clamp(LEAST, most).max(words);
        if capacity > log.capacity {
            // SAFETY: the context is live, and nothing is in the old blocks.
            unsafe {
                for old in [&mut log.records, &mut log.spare] {
                    if let Some(block) = NonNull::new(std::mem::replace(old, null_mut())) {
                        memory::free(block.cast());
                    }
                }
                log.capacity = 0;
                log.records = memory::alloc(log.context.raw(), 8 * capacity).cast().as_ptr();
            }
            log.capacity = capacity;
        }
    }

    /// Makes every addition that was noted.
    #[inline]
    pub fn make_all(&self) {
        for log in self.logs() {
            if log.len > 0 {
                self.make(log);
            }
        }
    }

    /// Makes those of one log.
    fn make(&self, log: &mut Log) {
        let len = std::mem::take(&mut log.len);
        if len == 0 {
            return;
        }
        if log.slots > FEW {
            if log.spare.is_null() {
                // SAFETY: the context is live.
                log.spare = unsafe { memory::alloc(log.context.raw(), 8 * log.capacity) }.cast().as_ptr();
            }
            // SAFETY: two blocks of `capacity` words, the first `len` of which are records.
            let (records, spare) = unsafe {
                (std::slice::from_raw_parts(log.records, len), std::slice::from_raw_parts_mut(log.spare, len))
            };
            log.arrange(records, spare);
            std::mem::swap(&mut log.records, &mut log.spare);
        }
        // SAFETY: as above; making additions allocates, but notes none.
        let records = unsafe { std::slice::from_raw_parts(log.records, len) };
        let (mut at, mut ahead, mut count) = (0, 0, 0);
        while at < len {
            while ahead < len && count < AHEAD {
                memory::prefetch(slot(records[ahead]).block());
                ahead += size(records[ahead]);
                count += 1;
            }
            let end = at + size(records[at]);
            (self.make)(slot(records[at]), log.context, &records[at + 1..end]);
            at = end;
            count -= 1;
        }
    }

    /// A slot for the state in `block`.
    pub(super) fn slot(&'static self, context: AggregateContext, block: NonNull<u8>) -> Slot {
        if !self.logs().iter().any(|log| log.context == context) {
            self.forget_with(context);
            self.logs().push(Box::new(Log {
                context,
                next: null_mut(),
                left: 0,
                room: 8,
                slots: 0,
                low: usize::MAX,
                high: 0,
                records: null_mut(),
                len: 0,
                capacity: 0,
                spare: null_mut(),
            }));
        }
        let log = self.log(context);
        if log.left == 0 {
            // SAFETY: the context is live.
            log.next = unsafe { memory::alloc(context.raw(), log.room * size_of::<Slot>()) }.cast().as_ptr();
            log.left = log.room;
            log.low = log.low.min(log.next as usize);
            log.high = log.high.max(log.next.wrapping_add(log.room) as usize);
            log.room = (2 * log.room).min(1024);
        }
        // SAFETY: `left` slots are left from `next` on.
        let slot = unsafe {
            let slot = Slot(NonNull::new_unchecked(log.next));
            log.next = log.next.add(1);
            slot
        };
        log.left -= 1;
        log.slots += 1;
        slot.set(block);
        slot
    }

    /// Has the log of a context forgotten when its states go.
    fn forget_with(&'static self, context: AggregateContext) {
        let end = End { callback: pg_sys::MemoryContextCallback::default(), context, of: self };
        // SAFETY: the context is live; the block lives in it and is read last when it is reset.
        unsafe {
            let block = memory::alloc(context.raw(), size_of::<End>()).cast::<End>();
            block.write(end);
            let end = block.as_ptr();
            (*end).callback.func = Some(context_ends);
            (*end).callback.arg = end.cast();
            pg_sys::MemoryContextRegisterResetCallback(context.raw(), &mut (*end).callback);
        }
    }
}

/// The slot of the record that starts with `head`.
#[inline]
fn slot(head: u64) -> Slot {
    // SAFETY: note() wrote the address of a slot, which is not zero.
    Slot(unsafe { NonNull::new_unchecked(address(head) as *mut NonNull<u8>) })
}

impl Log {
    /// Copies the records to `to` so that those of neighbouring slots follow each other, in order of arrival.
    fn arrange(&self, records: &[u64], to: &mut [u64]) {
        let parts = (self.slots / TOGETHER).next_power_of_two().min(MOST_PARTS);
        let shift = ((self.high - self.low) / parts + 1).next_power_of_two().ilog2();
        let part = |head| (address(head) - self.low) >> shift & (MOST_PARTS - 1);
        let mut ends = [0; MOST_PARTS];
        let mut at = 0;
        while at < records.len() {
            ends[part(records[at])] += size(records[at]);
            at += size(records[at]);
        }
        let mut end = 0;
        for part in &mut ends {
            end += std::mem::replace(part, end);
        }
        let mut at = 0;
        while at < records.len() {
            let size = size(records[at]);
            let end = &mut ends[part(records[at])];
            to[*end..*end + size].copy_from_slice(&records[at..at + size]);
            *end += size;
            at += size;
        }
    }
}

/// What has to be done when a context ends, or is reset.
struct End {
    callback: pg_sys::MemoryContextCallback,
    context: AggregateContext,
    of: &'static Deferred,
}

#[pg_guard]
unsafe extern "C-unwind" fn context_ends(end: *mut c_void) {
    // SAFETY: forget_with() registered this function with such an argument.
    let end = unsafe { &*end.cast::<End>() };
    end.of.logs().retain(|log| log.context != end.context);
}
