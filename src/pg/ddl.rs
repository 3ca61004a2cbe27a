//! Which tables a DROP TABLE or ALTER TABLE takes out of another one, or puts into it.

use pgrx::{PgList, is_a, pg_sys};

use super::call::Call;

/// What a command is about to do to a table or partition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    Leaves { partition: pg_sys::Oid, how: Departure },
    Joins { partition: pg_sys::Oid, parent: pg_sys::Oid },
}

/// How a table or partition leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Departure {
    Dropped,
    Detached {
        parent: pg_sys::Oid,
        concurrently: bool,
    },
    /// It no longer inherits.
    Disowned,
}

/// The changes that the command of a `ddl_command_start` event trigger is about to make; none when the function is
/// not called as such a trigger. Takes no lock: the names may mean something else when the command runs.
pub fn changes(call: Call) -> Vec<Change> {
    let mut found = Vec::new();
    // SAFETY: the context of an event trigger's call is an EventTriggerData; the tags say what its nodes are.
    unsafe {
        let context = (*call.frame()).context;
        if !is_a(context, pg_sys::NodeTag::T_EventTriggerData) {
            return found;
        }
        let tree = (*(context as *mut pg_sys::EventTriggerData)).parsetree;
        if is_a(tree, pg_sys::NodeTag::T_DropStmt) {
            let statement = &*(tree as *mut pg_sys::DropStmt);
            if statement.removeType == pg_sys::ObjectType::OBJECT_TABLE {
                for names in PgList::<pg_sys::List>::from_pg(statement.objects).iter_ptr() {
                    let table = lookup(pg_sys::makeRangeVarFromNameList(names));
                    let leaves = |partition| Change::Leaves { partition, how: Departure::Dropped };
                    found.extend(table.map(leaves));
                }
            }
        } else if is_a(tree, pg_sys::NodeTag::T_AlterTableStmt) {
            let statement = &*(tree as *mut pg_sys::AlterTableStmt);
            for command in PgList::<pg_sys::AlterTableCmd>::from_pg(statement.cmds).iter_ptr() {
                found.extend(change(statement.relation, &*command));
            }
        }
    }
    found
}

/// # Safety
/// `table` is the table of the ALTER TABLE that `command` belongs to.
#[allow(non_upper_case_globals, reason = "the names are those of PostgreSQL")]
unsafe fn change(table: *const pg_sys::RangeVar, command: &pg_sys::AlterTableCmd) -> Option<Change> {
    use pg_sys::AlterTableType::*;
    // SAFETY: the definition of these commands is of the type given here.
    unsafe {
        match command.subtype {
            AT_DetachPartition => {
                let detach = &*(command.def as *mut pg_sys::PartitionCmd);
                let how = Departure::Detached { parent: lookup(table)?, concurrently: detach.concurrent };
                Some(Change::Leaves { partition: lookup(detach.name)?, how })
            }
            AT_DropInherit => Some(Change::Leaves { partition: lookup(table)?, how: Departure::Disowned }),
            AT_AttachPartition => {
                let partition = lookup((*(command.def as *mut pg_sys::PartitionCmd)).name)?;
                Some(Change::Joins { partition, parent: lookup(table)? })
            }
            AT_AddInherit => {
                Some(Change::Joins { partition: lookup(table)?, parent: lookup(command.def.cast())? })
            }
            _ => None,
        }
    }
}

/// # Safety
/// `name` points to a RangeVar.
unsafe fn lookup(name: *const pg_sys::RangeVar) -> Option<pg_sys::Oid> {
    let flags = pg_sys::RVROption::RVR_MISSING_OK;
    // SAFETY: by contract; without a lock and a callback.
    let oid = unsafe {
        pg_sys::RangeVarGetRelidExtended(name, pg_sys::NoLock as i32, flags, None, std::ptr::null_mut())
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}
