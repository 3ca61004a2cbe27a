//! The event table: which sequence or clock orders its rows, and whether that order can be trusted.

use std::time::{Duration, Instant};

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::Oid;

use crate::error::{Error, Result};
use crate::pg::{locks, session, spi};
use crate::rollup::catalog::{self, Rollup};

/// What orders the events of a source.
#[derive(Clone, Debug)]
pub enum Order {
    /// Ids that `sequence` puts into `column`.
    Id { sequence: Oid, column: String },
    /// The time that the default of `column` puts there.
    Time { column: String },
}

/// SQL in front of a query: the table $1 and its `partitions` or inheritance children, and it and its `parents`, at any
/// depth. PostgreSQL looks for those alone that the query names.
pub const FAMILY: &str = "
    WITH RECURSIVE partitions (oid) AS (
        SELECT $1 UNION SELECT i.inhrelid FROM pg_inherits i JOIN partitions p ON i.inhparent = p.oid),
    parents (oid) AS (
        SELECT $1 UNION SELECT i.inhparent FROM pg_inherits i JOIN parents p ON i.inhrelid = p.oid)";

/// The table and all its partitions or inheritance children, at any depth. Called under `catalog::internally`.
pub fn with_partitions(source: Oid) -> Vec<Oid> {
    let partitions = format!("{FAMILY} SELECT oid FROM partitions");
    spi::query(&partitions, &[spi::oid(Some(source))], |row| row.oid(1)).into_iter().flatten().collect()
}

/// A relation that events can be read from incrementally: an ordinary or partitioned table.
pub fn check_kind(source: Oid) -> Result<()> {
    let (name, kind) = catalog::internally(|| {
        spi::query_one(
            "SELECT oid::regclass::text, CASE relpersistence WHEN 't' THEN 't' ELSE relkind::text END \
               FROM pg_class WHERE oid = $1",
            &[spi::oid(Some(source))],
            |row| (row.text(1).unwrap_or_default(), row.text(2).unwrap_or_default()),
        )
    })
    .ok_or_else(|| {
        Error::new(ERRCODE_UNDEFINED_TABLE, "the event table does not exist any more")
            .hint("SELECT drop_rollup(...) removes a rollup whose event table was dropped.")
    })?;
    let what = match kind.as_str() {
        "r" | "p" => return Ok(()),
        "v" => "a view",
        "m" => "a materialized view",
        "f" => "a foreign table",
        "t" => "a temporary table",
        "S" => "a sequence",
        "i" | "I" => "an index",
        _ => "not a table",
    };
    Err(Error::new(ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" is {what}, not an event table"))
        .detail("New events are found by the ids or times that writers put into a table of this database.")
        .hint("Register the rollup on the table that the events are inserted into."))
}

/// The first of `others` that reads rows of the source: a view on it, one of its partitions, or its parent.
pub fn reads_again(source: Oid, others: &[Oid]) -> Option<String> {
    let readers = format!(
        "{FAMILY},
        reads (reader, oid) AS (
            SELECT o::oid, o::oid FROM unnest($2) o
            UNION SELECT r.reader, d.refobjid FROM reads r
              JOIN pg_class c ON c.oid = r.oid AND c.relkind = 'v'
              JOIN pg_rewrite w ON w.ev_class = c.oid
              JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                              AND d.refclassid = 'pg_class'::regclass)
        SELECT reader::regclass::text FROM reads
         WHERE oid IN (SELECT oid FROM partitions UNION SELECT oid FROM parents) LIMIT 1"
    );
    let others = others.iter().map(|oid| oid.to_u32().to_string()).collect();
    let args = [spi::oid(Some(source)), spi::text_array(others)];
    catalog::internally(|| spi::query_one(&readers, &args, |row| row.text(1))).flatten()
}

/// An error unless the current role may read the event table.
pub fn check_readable(source: Oid) -> Result<()> {
    const READABLE: &str =
        "SELECT has_table_privilege($1, $2, 'SELECT') OR has_any_column_privilege($1, $2, 'SELECT')";
    let args = [spi::oid(Some(session::current_user())), spi::oid(Some(source))];
    let readable = catalog::internally(|| spi::query_one(READABLE, &args, |row| row.boolean(1)));
    if readable == Some(true) {
        return Ok(());
    }
    let name = catalog::internally(|| relation_name(source));
    Err(Error::new(ERRCODE_INSUFFICIENT_PRIVILEGE, format!("permission denied for table \"{name}\""))
        .detail("A rollup reads its events as the role that registers it.")
        .hint(format!("GRANT SELECT ON {name} TO ...;")))
}

/// The order of a source by ids: the sequence that was asked for, or the only one that fills a column of it.
pub fn id_order(source: Oid, sequence: Option<Oid>) -> Result<Order> {
    const SEQUENCES: &str = r"
        SELECT DISTINCT s.oid, a.attname::text, s.oid::regclass::text,
               a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype),
               EXISTS (SELECT FROM pg_attrdef def
                        WHERE def.adrelid = a.attrelid AND def.adnum = a.attnum
                          AND pg_get_expr(def.adbin, def.adrelid) !~ '^nextval\(''([^'']|'''')*''::regclass\)$')
          FROM pg_attribute a
          JOIN (SELECT d.refobjsubid AS attnum, d.objid AS sequence  -- serial, OWNED BY and identity columns
                  FROM pg_depend d
                 WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                   AND d.refobjid = $1 AND d.deptype IN ('a', 'i')
                UNION
                SELECT def.adnum, d.refobjid                         -- DEFAULT nextval('...')
                  FROM pg_attrdef def
                  JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = def.oid
                                  AND d.refclassid = 'pg_class'::regclass
                 WHERE def.adrelid = $1) fills ON fills.attnum = a.attnum
          JOIN pg_class s ON s.oid = fills.sequence AND s.relkind = 'S'
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY 2";
    let (name, found) = catalog::internally(|| {
        let found = spi::query(SEQUENCES, &[spi::oid(Some(source))], |row| {
            (
                row.oid(1).unwrap_or(Oid::INVALID),
                row.text(2).unwrap_or_default(),
                row.text(3).unwrap_or_default(),
                row.boolean(4),
                row.boolean(5),
            )
        });
        (relation_name(source), found)
    });
    let matching: Vec<_> = found.iter().filter(|(oid, ..)| sequence.is_none_or(|s| s == *oid)).collect();
    match matching[..] {
        [(_, column, sequence_name, _, true)] => Err(Error::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the default of column \"{column}\" of \"{name}\" is not just the next value of a sequence"),
        )
        .detail("Ids computed from the numbers of a sequence need not come in their order.")
        .hint(format!("ALTER TABLE {name} ALTER COLUMN {column} SET DEFAULT nextval('{sequence_name}');"))),
        [(oid, column, sequence_name, is_integer, _)] => {
            if !is_integer {
                return Err(Error::new(
                    ERRCODE_DATATYPE_MISMATCH,
                    format!("column \"{column}\" of \"{name}\" is not of an integer type"),
                )
                .detail(format!("Sequence \"{sequence_name}\" fills it, and windows of ids need whole numbers.")));
            }
            Ok(Order::Id { sequence: *oid, column: column.clone() })
        }
        [] => Err(match sequence {
            Some(sequence) => Error::new(
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!(
                    "sequence \"{}\" does not number the rows of \"{name}\"",
                    catalog::internally(|| relation_name(sequence))
                ),
            )
            .detail("It is neither owned by a column of the table nor used by a column's default.")
            .hint(match &found[..] {
                [] => format!("ALTER TABLE {name} ADD COLUMN event_id bigint GENERATED ALWAYS AS IDENTITY;"),
                [(_, _, other, ..), ..] => format!("The table's own sequence is \"{other}\"."),
            }),
            None => Error::new(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("no sequence numbers the rows of \"{name}\""),
            )
            .detail("A rollup follows ids drawn from a sequence, or a time column with DEFAULT now().")
            .hint(format!(
                "ALTER TABLE {name} ADD COLUMN event_id bigint GENERATED ALWAYS AS IDENTITY; or name a time column: \
                 time_column => '...'."
            )),
        }),
        _ => Err(Error::new(
            ERRCODE_AMBIGUOUS_PARAMETER,
            format!("more than one sequence numbers the rows of \"{name}\""),
        )
        .detail(format!(
            "They are: {}.",
            matching.iter().map(|(_, column, s, ..)| format!("{s} (column {column})")).collect::<Vec<_>>().join(", ")
        ))
        .hint("Say which: id_sequence => '...'.")),
    }
}

/// The order of a source by the time in `column`, which the column's default has to take from the clock.
pub fn time_order(source: Oid, column: &str) -> Result<Order> {
    let name = catalog::internally(|| relation_name(source));
    match clock(source, column) {
        None => Err(Error::new(
            ERRCODE_UNDEFINED_COLUMN,
            format!("column \"{column}\" of \"{name}\" does not exist or is no timestamp"),
        )
        .hint("time_column takes a column of type timestamptz or timestamp with DEFAULT now().")),
        Some(Clock::NoDefault) => Err(Error::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("column \"{column}\" of \"{name}\" does not take its value from the clock"),
        )
        .detail("Only a default of now() promises that no older row appears behind the window.")
        .hint(format!(
            "ALTER TABLE {name} ALTER COLUMN {column} SET DEFAULT now(); or follow ids: ALTER TABLE {name} ADD COLUMN \
             event_id bigint GENERATED ALWAYS AS IDENTITY;"
        ))),
        Some(_) => Ok(Order::Time { column: column.to_owned() }),
    }
}

/// How the default of a time column reads the clock.
enum Clock {
    NoDefault,
    /// `timestamptz`: the moment itself.
    Moment,
    /// `timestamp`: what the clock shows in the writer's zone, or in the one the default names.
    Reading {
        zone: Option<String>,
    },
}

fn clock(source: Oid, column: &str) -> Option<Clock> {
    // now() and its relatives, with a precision and a cast or a fixed zone around them at most.
    const DEFAULT: &str = r"
        SELECT a.atttypid = 'timestamptz'::regtype,
               d.expression ~* '^\(*(now|transaction_timestamp|statement_timestamp|clock_timestamp)\(\)(::\w[\w ]*)?\)*$'
                   OR d.expression ~* '^\(*(current_timestamp|localtimestamp)(\(\d\))?(::\w[\w ()]*)?\)*$',
               COALESCE(
                   (regexp_match(d.expression, '^timezone\(''([^'']+)''::text, (?:now|transaction_timestamp|statement_timestamp|clock_timestamp)\(\)\)$', 'i'))[1],
                   (regexp_match(d.expression, '^\((?:now\(\)|current_timestamp) AT TIME ZONE ''([^'']+)''::text\)$', 'i'))[1])
          FROM pg_attribute a
          LEFT JOIN LATERAL (SELECT pg_get_expr(def.adbin, def.adrelid) AS expression FROM pg_attrdef def
                              WHERE def.adrelid = a.attrelid AND def.adnum = a.attnum) d ON true
         WHERE a.attrelid = $1 AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped
           AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype)";
    catalog::internally(|| {
        spi::query_one(DEFAULT, &[spi::oid(Some(source)), spi::text(Some(column))], |row| {
            let (has_zone, is_clock, zone) = (row.boolean(1), row.boolean(2), row.text(3));
            match (has_zone, is_clock, zone) {
                (true, true, _) => Clock::Moment,
                (false, true, _) => Clock::Reading { zone: None },
                (false, false, Some(zone)) => Clock::Reading { zone: Some(zone) },
                _ => Clock::NoDefault,
            }
        })
    })
}

/// Tells of a default that reads the clock of whatever time zone the writer's session has.
pub fn warn_of_zone(source: Oid, column: &str) {
    if !matches!(clock(source, column), Some(Clock::Reading { zone: None })) {
        return;
    }
    let (name, zone) = (catalog::internally(|| relation_name(source)), session::setting("TimeZone"));
    Error::new(
        ERRCODE_SUCCESSFUL_COMPLETION,
        format!("column \"{column}\" of \"{name}\" takes the time in the time zone of the session that writes"),
    )
    .detail(format!(
        "The windows are those of time zone {zone}: what a session in a zone further west inserts is behind them already."
    ))
    .hint(format!(
        "ALTER TABLE {name} ALTER COLUMN {} SET DEFAULT (now() AT TIME ZONE {}); is the same in every session.",
        pgrx::spi::quote_identifier(column),
        pgrx::spi::quote_literal(zone)
    ))
    .report(pgrx::PgLogLevel::NOTICE);
}

/// The zone whose clock the writers' default reads into a `timestamp` column; `None` for `timestamptz`.
pub fn clock_zone(rollup: &Rollup) -> Result<Option<String>> {
    let column = rollup.time_column.as_deref().unwrap_or_default();
    match clock(rollup.source, column) {
        Some(Clock::Moment) => Ok(None),
        Some(Clock::Reading { zone }) => Ok(Some(zone.unwrap_or_else(|| rollup.time_zone.clone()))),
        // It was altered since registration: say so as registration would.
        _ => time_order(rollup.source, column).map(|_| None),
    }
}

/// The last id drawn from the sequence (0 when none was), after making sure that its order can be trusted. Called
/// under `catalog::internally`.
pub fn sequence_head(rollup: &Rollup, sequence: Oid) -> Result<i64> {
    // In this order: a CACHE that is set later concerns later ids only.
    let head = last_value(sequence);
    check_sequence(sequence)?;
    let position = rollup.last_aggregated_id;
    if head.map_or(position > 0, |head| head < position) {
        return Err(Error::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "sequence \"{}\" stands at {}, behind the position {position} of rollup \"{}\"",
                relation_name(sequence),
                head.map_or("its start".into(), |h| h.to_string()),
                rollup.name
            ),
        )
        .detail(
            "It was moved back (TRUNCATE .. RESTART IDENTITY, setval), or the table is a replica whose sequence does \
             not move. Events with ids up to the position would never be aggregated.",
        )
        .hint(format!(
            "SELECT setval('{}', {position}); if ids were not reused, or SELECT reset_rollup('{}'); to aggregate the \
             table again.",
            relation_name(sequence),
            rollup.name
        )));
    }
    // Where a table was distributed, other nodes numbered its rows.
    if head.is_none() && catalog::node_positions(&rollup.name).is_empty() {
        check_unnumbered(rollup, sequence)?;
    }
    Ok(head.unwrap_or(position))
}

/// A sequence that was never used while the table has rows: they came with ids of their own, and nothing announces
/// when more of them come.
fn check_unnumbered(rollup: &Rollup, sequence: Oid) -> Result<()> {
    // By its files, not by reading it: that could run code of its owner, here in the scheduler.
    const SIZE: &str = "SELECT sum(pg_relation_size(oid))::bigint FROM unnest($1::oid[]) AS relations (oid)";
    let relations: Vec<String> =
        with_partitions(rollup.source).iter().map(|oid| oid.to_u32().to_string()).collect();
    let size = spi::query_one(SIZE, &[spi::text_array(relations)], |row| row.int8(1)).flatten();
    // Whoever drew the first id just now drew it before the table grew.
    if size.unwrap_or(0) == 0 || last_value(sequence).is_some() {
        return Ok(());
    }
    Err(Error::new(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "sequence \"{}\" was never used, but \"{}\" has, or had, rows",
            relation_name(sequence),
            rollup.source_name
        ),
    )
    .detail(
        "Rows that bring their own ids, or come by logical replication, cannot be followed by a sequence.",
    )
    .hint(format!(
        "SELECT setval('{}', (SELECT max({}) FROM {})); once nobody is writing.",
        relation_name(sequence),
        pgrx::spi::quote_identifier(rollup.id_column.as_deref().unwrap_or_default()),
        rollup.source_name
    )))
}

/// Refuses a sequence whose numbers do not come up in order.
pub fn check_sequence(sequence: Oid) -> Result<()> {
    let facts = spi::query_one(
        "SELECT seqincrement, seqcache, seqcycle, seqrelid::regclass::text, relpersistence = 'u' \
           FROM pg_sequence JOIN pg_class ON oid = seqrelid WHERE seqrelid = $1",
        &[spi::oid(Some(sequence))],
        |row| {
            (
                row.int8(1).unwrap_or(1),
                row.int8(2).unwrap_or(1),
                row.boolean(3),
                row.text(4).unwrap_or_default(),
                row.boolean(5),
            )
        },
    );
    let Some((increment, cache, cycles, name, is_unlogged)) = facts else {
        return Err(Error::new(
            ERRCODE_UNDEFINED_TABLE,
            "the sequence of the event table does not exist any more",
        )
        .hint("SELECT drop_rollup(...) removes the rollup; register it again with another sequence."));
    };
    let (problem, why, cure) = if increment < 0 {
        ("descends", "New ids would be smaller than old ones.", "INCREMENT 1")
    } else if cycles {
        ("cycles", "After its last value, ids would start again below the position.", "NO CYCLE")
    } else if cache > 1 {
        (
            "caches values for each session",
            "Ids that a session drew ahead appear after larger ones were aggregated.",
            "CACHE 1",
        )
    } else if is_unlogged {
        ("is unlogged", "A crash sets it back to its start, and ids would be given out again.", "SET LOGGED")
    } else {
        return Ok(());
    };
    Err(Error::new(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("sequence \"{name}\" {problem}"))
        .detail(why)
        .hint(format!("ALTER SEQUENCE {name} {cure};")))
}

/// The last id drawn; `None` when none was, or the sequence is gone. Called under `catalog::internally`.
///
/// Read like a table: pg_sequence_last_value() would lock the sequence as its writers do, so that two runs would wait
/// for each other, and whoever looks at `rollup_status` in a long transaction would hold all rollups back.
pub fn last_value(sequence: Oid) -> Option<i64> {
    let name = existing_name(sequence)?;
    let query = format!("SELECT last_value FROM {name} WHERE is_called");
    spi::query_one(&query, &[], |row| row.int8(1)).flatten()
}

/// The position before the first id a sequence can give. Called under `catalog::internally`.
pub fn beginning(sequence: Oid) -> i64 {
    let least = "SELECT LEAST(seqmin, 1) - 1 FROM pg_sequence WHERE seqrelid = $1 AND seqmin > $2";
    spi::query_one(least, &[spi::oid(Some(sequence)), spi::int8(Some(i64::MIN))], |row| row.int8(1))
        .flatten()
        .unwrap_or(i64::MIN)
}

/// The name of a relation, qualified; `None` when it was dropped. Called under `catalog::internally`.
pub fn existing_name(relation: Oid) -> Option<String> {
    let query = "SELECT oid::regclass::text FROM pg_class WHERE oid = $1";
    spi::query_one(query, &[spi::oid(Some(relation))], |row| row.text(1)).flatten()
}

/// On a node of Citus other than the coordinator: the last id drawn there (0 when none was), once those who may have
/// drawn one up to it have ended; `None` when they have not after `patience`. Called under `catalog::internally`.
pub fn complete_head(source: Oid, sequence: Oid, patience: Duration) -> Result<Option<i64>> {
    check_sequence(sequence)?;
    let head = last_value(sequence).unwrap_or(0);
    let mut relations = with_partitions(source);
    relations.push(sequence);
    let mut open = locks::writers(&relations);
    let started = Instant::now();
    while !open.is_empty() {
        if started.elapsed() >= patience {
            return Ok(None);
        }
        session::sleep(Duration::from_millis(2));
        open = locks::still_open(&open);
    }
    Ok(Some(head))
}

/// The name of a relation, qualified. Called under `catalog::internally`.
pub fn relation_name(relation: Oid) -> String {
    spi::query_one("SELECT $1::regclass::text", &[spi::oid(Some(relation))], |row| row.text(1))
        .flatten()
        .unwrap_or_default()
}
