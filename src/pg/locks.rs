//! Who may still write rows with ids that were already drawn, and waiting for them without standing in anyone's way.

use std::collections::HashSet;

use pgrx::pg_sys;

/// A transaction, running or prepared, that holds a writer's lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Writer {
    /// Process id; 0 for a prepared transaction.
    pub pid: i32,
    backend: i32,
    local_xid: u32,
}

impl Writer {
    #[cfg(test)]
    pub(crate) fn for_test(pid: i32) -> Self {
        Writer { pid, backend: pid, local_xid: 1 }
    }

    fn virtual_xid(&self) -> pg_sys::VirtualTransactionId {
        pg_sys::VirtualTransactionId {
            #[cfg(any(feature = "pg15", feature = "pg16"))]
            backendId: self.backend,
            #[cfg(not(any(feature = "pg15", feature = "pg16")))]
            procNumber: self.backend,
            localTransactionId: self.local_xid,
        }
    }
}

/// The virtual transaction that holds a lock.
fn holder(lock: &pg_sys::LockInstanceData) -> (i32, u32) {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    return (lock.backend, lock.lxid);
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    return (lock.vxid.procNumber, lock.vxid.localTransactionId);
}

/// The transactions of other sessions that now hold a writer's lock (ROW EXCLUSIVE) on one of `relations`
/// (tables or sequences of this database). Takes no lock that anybody could queue behind.
///
/// A transaction takes that lock on a sequence before its first `nextval` and on a table before its first row, and
/// keeps it to its end: whoever is not in this list has drawn no id yet, or has ended. A lock without a transaction
/// belongs to one that every new snapshot sees as ended and that is about to let its locks go.
pub fn writers(relations: &[pg_sys::Oid]) -> Vec<Writer> {
    let me = own_pid();
    holders(relations).into_iter().filter(|writer| writer.pid != me).collect()
}

/// Whether our own transaction is one of them.
pub fn is_writer(relations: &[pg_sys::Oid]) -> bool {
    let me = own_pid();
    holders(relations).iter().any(|writer| writer.pid == me)
}

fn own_pid() -> i32 {
    // SAFETY: every process that runs SQL has its entry.
    unsafe { (*pg_sys::MyProc).pid }
}

fn holders(relations: &[pg_sys::Oid]) -> HashSet<Writer> {
    let wanted: HashSet<u32> = relations.iter().map(|oid| oid.to_u32()).collect();
    let row_exclusive = 1 << pg_sys::RowExclusiveLock;
    let mut found = HashSet::new();
    // SAFETY: the function returns a palloc'd copy of the lock table, `nelements` long.
    unsafe {
        let data = pg_sys::GetLockStatusData();
        let locks = if (*data).nelements == 0 {
            &[][..]
        } else {
            std::slice::from_raw_parts((*data).locks, (*data).nelements as usize)
        };
        for lock in locks {
            let tag = &lock.locktag;
            let is_relation = u32::from(tag.locktag_type) == pg_sys::LockTagType::LOCKTAG_RELATION;
            let (backend, local_xid) = holder(lock);
            if is_relation
                && local_xid != 0
                && tag.locktag_field1 == pg_sys::MyDatabaseId.to_u32()
                && wanted.contains(&tag.locktag_field2)
                && lock.holdMask & row_exclusive != 0
            {
                found.insert(Writer { pid: lock.pid, backend, local_xid });
            }
        }
        if !(*data).locks.is_null() {
            pg_sys::pfree((*data).locks.cast());
        }
        pg_sys::pfree(data.cast());
    }
    found
}

/// Waits until nobody is about to drop or rewrite a relation, and keeps it so; others read and write it as before.
pub fn keep(relation: pg_sys::Oid) {
    // SAFETY: takes a lock until the end of the transaction, also on an id that no relation has any more.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::AccessShareLock as i32) };
}

/// How a relation is locked by a command that changes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hold {
    /// Keeps writers out.
    Unwritten,
    /// Keeps everybody out.
    Alone,
}

/// Waits until a relation is ours in this way, and keeps it so. Obeys `lock_timeout`, cancel and the deadlock detector.
pub fn hold(relation: pg_sys::Oid, how: Hold) {
    let mode = match how {
        Hold::Unwritten => pg_sys::ShareLock,
        Hold::Alone => pg_sys::AccessExclusiveLock,
    };
    // SAFETY: takes a lock until the end of the transaction, also on an id that no relation has any more.
    unsafe { pg_sys::LockRelationOid(relation, mode as i32) };
}

/// Those of `writers` whose transaction has not ended.
pub fn still_open(writers: &[Writer]) -> Vec<Writer> {
    // SAFETY: asks for the state of a virtual transaction id, without waiting.
    writers.iter().filter(|w| !unsafe { pg_sys::VirtualXactLock(w.virtual_xid(), false) }).cloned().collect()
}

/// Waits until every one of `writers` has ended. Obeys `lock_timeout`, cancel and the deadlock detector, each of
/// which raises its error from here.
pub fn wait_for(writers: &[Writer]) {
    for writer in writers {
        // SAFETY: waits on the lock that every transaction holds on its own id.
        unsafe { pg_sys::VirtualXactLock(writer.virtual_xid(), true) };
    }
}
