//! The table `rollups`: reading a registration, locking it for a run, moving its position.

use pgrx::PgSqlErrorCode::{
    ERRCODE_DATA_CORRUPTED, ERRCODE_INSUFFICIENT_PRIVILEGE, ERRCODE_LOCK_NOT_AVAILABLE,
    ERRCODE_UNDEFINED_OBJECT, ERRCODE_UNDEFINED_TABLE,
};
use pgrx::pg_sys::Oid;

use crate::error::{Error, Result};
use crate::pg::session::{self, AsRole};
use crate::pg::spi::{self, Row};
use crate::rollup::citus;
use crate::rollup::ids::Ids;
use crate::rollup::window::{Bound, NodeWindow};

/// One registered rollup: a row of the table `rollups`.
#[derive(Clone, Debug)]
pub struct Rollup {
    pub name: String,
    pub source: Oid,
    /// The event table as SQL, qualified.
    pub source_name: String,
    pub id_sequence: Option<Oid>,
    pub id_column: Option<String>,
    pub time_column: Option<String>,
    /// The file of the sequence when the rollup last ran, see [`crate::rollup::trust`].
    pub sequence_file: Option<Oid>,
    pub last_aggregated_id: i64,
    /// The first and the last id up to there that is not aggregated, see [`crate::rollup::passing`].
    pub passed_over: Option<(i64, i64)>,
    /// The events up to there are not in the rollup, and are not to be.
    pub start: Option<Bound>,
    /// Microseconds since 2000-01-01 UTC.
    pub last_aggregated_time: Option<i64>,
    pub kind: Kind,
    pub schedule: Option<String>,
    pub batch_size: Option<i64>,
    pub paused: bool,
    pub owner: Oid,
    pub search_path: String,
    pub time_zone: String,
}

/// How the events of a window reach the target.
#[derive(Clone, Debug)]
pub enum Kind {
    /// From the query of the view `definition` into the table `target`; its name is empty once it was dropped.
    Declarative { definition: Oid, target: Oid, target_name: String },
    /// By SQL with the bounds as `$1` and `$2`.
    Command(String),
    /// By the caller of `incremental_rollup_window`.
    WindowOnly,
}

// The id column by the sequence that fills it and the time column by its number, so that renaming them is followed;
// the name of a dropped column is that of no other.
const COLUMNS: &str = "r.name, r.source::oid, r.source::text, \
     r.id_sequence::oid, COALESCE((SELECT a.attname FROM pg_attribute a \
      WHERE a.attrelid = r.source AND NOT a.attisdropped AND ( \
            EXISTS (SELECT FROM pg_depend d \
                     WHERE d.classid = 'pg_class'::regclass AND d.objid = r.id_sequence \
                       AND d.refclassid = 'pg_class'::regclass AND d.refobjid = r.source \
                       AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i')) \
         OR EXISTS (SELECT FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid \
                     WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass \
                       AND d.refobjid = r.id_sequence AND f.adrelid = r.source AND f.adnum = a.attnum)) \
      ORDER BY a.attname = r.id_column DESC LIMIT 1), \
     r.id_column), COALESCE((SELECT a.attname FROM pg_attribute a \
      WHERE a.attrelid = r.source AND a.attnum = r.time_column_number), r.time_column), r.last_aggregated_id, r.last_aggregated_time, \
     r.definition::oid, r.target::oid, (SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid = r.target), r.command, r.schedule, \
     r.batch_size, r.paused, r.owner::oid, r.search_path, r.time_zone, r.sequence_file, \
     lower(r.passed_over), upper(r.passed_over) - 1, r.start_id, r.start_time";

fn read(row: &Row) -> Rollup {
    Rollup {
        name: row.text(1).unwrap_or_default(),
        source: row.oid(2).unwrap_or(Oid::INVALID),
        source_name: row.text(3).unwrap_or_default(),
        id_sequence: row.oid(4),
        id_column: row.text(5),
        time_column: row.text(6),
        last_aggregated_id: row.int8(7).unwrap_or(0),
        last_aggregated_time: row.timestamptz(8),
        kind: match (row.oid(9), row.oid(10), row.text(12)) {
            (Some(definition), Some(target), _) => {
                Kind::Declarative { definition, target, target_name: row.text(11).unwrap_or_default() }
            }
            (_, _, Some(command)) => Kind::Command(command),
            _ => Kind::WindowOnly,
        },
        schedule: row.text(13),
        batch_size: row.int8(14),
        paused: row.boolean(15),
        owner: row.oid(16).unwrap_or(Oid::INVALID),
        search_path: row.text(17).unwrap_or_default(),
        time_zone: row.text(18).unwrap_or_default(),
        sequence_file: row.oid(19),
        passed_over: row.int8(20).zip(row.int8(21)),
        start: row.int8(22).map(Bound::Id).or(row.timestamptz(23).map(Bound::Time)),
    }
}

impl Rollup {
    /// Where the next window starts: just behind what is aggregated.
    pub fn position(&self) -> Bound {
        match self.time_column {
            None => Bound::Id(self.last_aggregated_id),
            // Before the first run of a time window everything is new.
            Some(_) => Bound::Time(self.last_aggregated_time.unwrap_or(i64::MIN)),
        }
    }

    /// Up to here all is aggregated, and nothing was passed over.
    pub fn settled(&self) -> Bound {
        match self.passed_over {
            Some((first, _)) => Bound::Id(first - 1),
            None => self.position(),
        }
    }

    /// Whether nothing was aggregated yet.
    pub fn is_at_beginning(&self) -> bool {
        match self.time_column {
            None => self.last_aggregated_id <= 0,
            Some(_) => self.last_aggregated_time.is_none(),
        }
    }

    /// The target of a declarative rollup as SQL, qualified; empty once it was dropped, and for other kinds.
    pub fn target_name(&self) -> &str {
        match &self.kind {
            Kind::Declarative { target_name, .. } => target_name,
            _ => "",
        }
    }

    /// An error when the target of a declarative rollup was dropped.
    pub fn check_target(&self) -> Result<()> {
        match &self.kind {
            Kind::Declarative { target_name, .. } if target_name.is_empty() => Err(Error::new(
                ERRCODE_UNDEFINED_TABLE,
                format!("the target of rollup \"{}\" does not exist any more", self.name),
            )
            .hint(format!("SELECT drop_rollup('{}'); removes the rollup; register it again.", self.name))),
            _ => Ok(()),
        }
    }

    /// An error unless the current role owns the rollup.
    pub fn check_owner(&self) -> Result<()> {
        if session::may_act_as(self.owner) {
            return Ok(());
        }
        Err(Error::new(ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of rollup \"{}\"", self.name)))
    }
}

/// The schema of the extension, quoted. Called under [`internally`].
fn schema() -> String {
    spi::query_one(
        "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
         WHERE e.extname = 'rollup_ext'",
        &[],
        |row| row.text(1),
    )
    .flatten()
    .unwrap_or_else(|| {
        Error::new(ERRCODE_UNDEFINED_OBJECT, "extension \"rollup_ext\" is not installed in this database")
            .hint("CREATE EXTENSION rollup_ext;")
            .raise()
    })
}

/// Puts the extension's schema in place of `@extschema@`, as CREATE EXTENSION does. Called under [`internally`].
pub fn sql(template: &str) -> String {
    template.replace("@extschema@", &schema())
}

/// Runs `work` as the owner of the catalogs, where names mean what the extension means by them.
pub fn internally<T>(work: impl FnOnce() -> T) -> T {
    let _role = AsRole::internal();
    let _settings = session::WithSettings::new(&[("search_path", "pg_catalog, pg_temp")]);
    let _plans = spi::KeepPlans::new();
    work()
}

fn find(name: &str, locking: &str) -> Option<Rollup> {
    internally(|| {
        spi::query_one(
            &sql(&format!("SELECT {COLUMNS} FROM @extschema@.rollups r WHERE r.name = $1 {locking}")),
            &[spi::text(Some(name))],
            read,
        )
    })
}

/// The rollup of this name.
pub fn get(name: &str) -> Result<Rollup> {
    find(name, "").ok_or_else(|| unknown(name))
}

/// The rollup of this name, which the current role owns, locked against every other run until the transaction ends;
/// waits for the lock.
pub fn lock_owned(name: &str) -> Result<Rollup> {
    // Before the lock, so that nobody stands in the way of rollups of others.
    get(name)?.check_owner()?;
    let rollup = find(name, "FOR NO KEY UPDATE").ok_or_else(|| unknown(name))?;
    rollup.check_owner()?;
    Ok(rollup)
}

/// The rollup of this name, locked in the same way but without waiting: `None` while somebody else runs it.
pub fn try_lock(name: &str) -> Option<Rollup> {
    find(name, "FOR NO KEY UPDATE SKIP LOCKED")
}

/// What the worker has to look after: the rollups with a schedule that are not paused.
pub fn scheduled() -> Result<Vec<Rollup>> {
    Ok(internally(|| {
        let query = format!(
            "SELECT {COLUMNS} FROM @extschema@.rollups r WHERE r.schedule IS NOT NULL AND NOT r.paused \
             ORDER BY r.name"
        );
        spi::query(&sql(&query), &[], read)
    }))
}

fn unknown(name: &str) -> Error {
    let error = Error::new(ERRCODE_UNDEFINED_OBJECT, format!("rollup \"{name}\" does not exist"));
    match internally(citus::is_coordinator) {
        true => error
            .hint("SELECT rollup_name FROM rollup_status; lists the rollups, register_rollup creates one."),
        false => error
            .detail("This node is a worker of a Citus cluster; it holds no positions.")
            .hint("Connect to the coordinator."),
    }
}

/// Moves the position of a locked rollup to the end of a window.
pub fn advance(rollup: &Rollup, part: &NodeWindow) -> Result<()> {
    let moved = match part.window.end {
        Bound::Id(id) if part.group == 0 => move_to(&rollup.name, "last_aggregated_id", spi::int8(Some(id))),
        Bound::Id(id) => set_node_position(&rollup.name, part.group, id),
        Bound::Time(time) => move_to(&rollup.name, "last_aggregated_time", spi::timestamptz(Some(time))),
    };
    // SKIP LOCKED and a concurrent drop are the only ways to lose the row, and the lock excludes both.
    if moved == 1 {
        return Ok(());
    }
    Err(Error::new(ERRCODE_LOCK_NOT_AVAILABLE, format!("rollup \"{}\" is gone", rollup.name)))
}

fn move_to(name: &str, column: &str, position: spi::Arg) -> u64 {
    internally(|| {
        let query = format!(
            "UPDATE @extschema@.rollups SET {column} = $2, position_snapshot = pg_current_snapshot() WHERE name = $1"
        );
        spi::execute(&sql(&query), &[spi::text(Some(name)), position])
    })
}

/// Writes down what the time column is called by now: a dump finds it by its name.
pub fn note_time_column(rollup: &Rollup) {
    let Some(column) = &rollup.time_column else { return };
    internally(|| {
        let query = "UPDATE @extschema@.rollups SET time_column = $2 WHERE name = $1 AND time_column <> $2";
        spi::execute(&sql(query), &[spi::text(Some(&rollup.name)), spi::text(Some(column))])
    });
}

/// Takes the sequence of a rollup as it is now, and all ids up to the position for aggregated.
pub fn accept_sequence(name: &str) {
    internally(|| {
        let query = "UPDATE @extschema@.rollups SET sequence_file = pg_relation_filenode(id_sequence), \
             position_snapshot = pg_current_snapshot() WHERE name = $1";
        spi::execute(&sql(query), &[spi::text(Some(name))])
    });
}

/// Writes down how far a rollup has come with the events of another node; returns the rows that changed, one.
pub fn set_node_position(name: &str, group: i32, id: i64) -> u64 {
    internally(|| {
        spi::execute(
            &sql(
                "INSERT INTO @extschema@.rollup_node_positions VALUES ($1, $2, $3) ON CONFLICT (rollup_name, group_id) \
                 DO UPDATE SET last_aggregated_id = excluded.last_aggregated_id",
            ),
            &[spi::text(Some(name)), spi::int8(Some(group.into())), spi::int8(Some(id))],
        )
    })
}

/// How far a rollup has come with the events of other nodes: group and id.
pub fn node_positions(name: &str) -> Vec<(i32, i64)> {
    internally(|| {
        spi::query(
            &sql("SELECT group_id, last_aggregated_id FROM @extschema@.rollup_node_positions \
                 WHERE rollup_name = $1 ORDER BY group_id"),
            &[spi::text(Some(name))],
            |row| (row.int4(1).unwrap_or(0), row.int8(2).unwrap_or(0)),
        )
    })
}

/// The live view of a rollup; `None` when it has none. It may have been dropped since.
pub fn live_view(name: &str) -> Option<Oid> {
    internally(|| {
        let query = "SELECT live_view::oid FROM @extschema@.rollups WHERE name = $1";
        spi::query_one(&sql(query), &[spi::text(Some(name))], |row| row.oid(1)).flatten()
    })
}

/// The ids up to the position of a rollup that are not aggregated.
pub fn passed_over(rollup: &Rollup) -> Ids {
    if rollup.passed_over.is_none() {
        return Ids::default();
    }
    let text = internally(|| {
        let query = "SELECT passed_over::text FROM @extschema@.rollups WHERE name = $1";
        spi::query_one(&sql(query), &[spi::text(Some(&rollup.name))], |row| row.text(1)).flatten()
    });
    text.as_deref().and_then(Ids::parse).unwrap_or_else(|| {
        Error::new(
            ERRCODE_DATA_CORRUPTED,
            format!("passed_over of rollup \"{}\" cannot be read", rollup.name),
        )
        .detail("It has to be a multirange of ids that has a beginning and an end.")
        .raise()
    })
}

/// Writes down which ids up to its position are not aggregated.
pub fn set_passed_over(name: &str, ids: &Ids) {
    internally(|| {
        let query = "UPDATE @extschema@.rollups SET passed_over = $2::int8multirange WHERE name = $1";
        spi::execute(&sql(query), &[spi::text(Some(name)), spi::text(Some(&ids.to_string()))])
    });
}

/// Writes down that a partition leaves with events that a rollup holds. Its row may be locked by a run.
pub fn add_partition_left(name: &str, partition: &str) {
    internally(|| {
        let insert = "INSERT INTO @extschema@.rollup_partitions_left VALUES ($1, $2) ON CONFLICT DO NOTHING";
        spi::execute(&sql(insert), &[spi::text(Some(name)), spi::text(Some(partition))])
    });
}

/// A partition of this name is back; without a name: the rollup has nothing of any partition that left.
pub fn forget_partitions_left(name: &str, partition: Option<&str>) {
    internally(|| {
        let delete = "DELETE FROM @extschema@.rollup_partitions_left \
             WHERE rollup_name = $1 AND ($2 IS NULL OR partition = $2)";
        spi::execute(&sql(delete), &[spi::text(Some(name)), spi::text(partition)])
    });
}

/// The last by name of the partitions that left with events that a rollup holds.
pub fn partition_left(name: &str) -> Option<String> {
    internally(|| {
        let query = "SELECT max(partition) FROM @extschema@.rollup_partitions_left WHERE rollup_name = $1";
        spi::query_one(&sql(query), &[spi::text(Some(name))], |row| row.text(1)).flatten()
    })
}

/// Sets one column of one rollup; returns how many rows that changed.
pub fn update(name: &str, column: &str, value: spi::Arg) -> u64 {
    internally(|| {
        spi::execute(
            &sql(&format!("UPDATE @extschema@.rollups SET {column} = $2 WHERE name = $1")),
            &[spi::text(Some(name)), value],
        )
    })
}
