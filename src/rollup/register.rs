//! Registering a rollup: from its query, its command, or its event table alone.

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::{self, Oid};
use pgrx::spi::quote_identifier;
use pgrx::{PgLogLevel, PgSqlErrorCode};

use crate::error::{Error, Result};
use crate::pg::query::Select;
use crate::pg::session;
use crate::pg::spi;
use crate::rollup::catalog;
use crate::rollup::citus;
use crate::rollup::definition::Definition;
use crate::rollup::nodes;
use crate::rollup::schedule::Schedule;
use crate::rollup::source::{self, Order};
use crate::rollup::target;
use crate::rollup::trust;

/// The arguments of `register_rollup`, as they were given.
#[derive(Default)]
pub struct Request {
    pub name: Option<String>,
    pub query: Option<String>,
    pub source: Option<Oid>,
    pub target: Option<String>,
    pub id_sequence: Option<Oid>,
    pub time_column: Option<String>,
    /// An interval, passed on as it came.
    pub lag: Option<pg_sys::Datum>,
    pub schedule: Option<String>,
    pub batch_size: Option<i64>,
    pub start_from: Option<String>,
    pub command: Option<String>,
}

/// What [`resolve`] finds out about a source.
pub struct Resolved {
    pub source: Oid,
    pub id_sequence: Option<Oid>,
    pub id_column: Option<String>,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ERRCODE_INVALID_PARAMETER_VALUE, message)
}

pub fn check_name(name: Option<&str>) -> Result<String> {
    match name {
        Some(name) if !name.trim().is_empty() => Ok(name.to_owned()),
        given => Err(Error::new(
            if given.is_none() { ERRCODE_NULL_VALUE_NOT_ALLOWED } else { ERRCODE_INVALID_PARAMETER_VALUE },
            "the name of a rollup must not be empty or NULL",
        )
        .hint("SELECT register_rollup('daily_views', $$ SELECT ... $$);")),
    }
}

/// Checks what is the same for every kind of registration: name, source, order and schedule.
pub fn resolve(
    name: &str,
    source: Oid,
    id_sequence: Option<Oid>,
    time_column: Option<&str>,
    schedule: Option<&str>,
) -> Result<Resolved> {
    check_name(Some(name))?;
    citus::check_coordinator()?;
    source::check_kind(source)?;
    source::check_readable(source)?;
    if let Some(schedule) = schedule {
        Schedule::parse(schedule)?;
    }
    let order = match time_column {
        None => source::id_order(source, id_sequence)?,
        Some(_) if id_sequence.is_some() => {
            return Err(invalid("a rollup follows either a sequence or a time column, not both")
                .hint("Leave out id_sequence or time_column."));
        }
        Some(column) => source::time_order(source, column)?,
    };
    Ok(match order {
        Order::Id { sequence, column } => {
            catalog::internally(|| {
                source::check_sequence(sequence)?;
                trust::check_origin(source, &column, Some(sequence))
            })?;
            Resolved { source, id_sequence: Some(sequence), id_column: Some(column) }
        }
        Order::Time { column } => {
            catalog::internally(|| trust::check_origin(source, &column, None))?;
            Resolved { source, id_sequence: None, id_column: None }
        }
    })
}

/// Registers a rollup; returns its name.
pub fn register(request: Request) -> Result<String> {
    let name = check_name(request.name.as_deref())?;
    check_combination(&request)?;
    if catalog::get(&name).is_ok() {
        return Err(Error::new(ERRCODE_DUPLICATE_OBJECT, format!("rollup \"{name}\" already exists"))
            .hint(format!("SELECT drop_rollup('{name}'); or choose another name.")));
    }
    match &request.query {
        Some(query) => register_query(&name, query, &request)?,
        None => {
            let Some(source) = request.source else {
                return Err(invalid("a rollup without a query needs its event table")
                    .hint("Name it: source => 'events'; or give a query."));
            };
            insert(&name, &request, source, None)?;
        }
    }
    announce_schedule(&name, request.schedule.as_deref());
    Ok(name)
}

/// Refuses a lag below zero, which would take in events that are yet to come.
pub fn check_lag(lag: Option<pg_sys::Datum>) -> Result<()> {
    let shown = catalog::internally(|| {
        let negative = "SELECT $1::text WHERE $1 < interval '0'";
        spi::query_one(negative, &[spi::datum(pg_sys::INTERVALOID, lag)], |row| row.text(1))
    });
    match shown.flatten() {
        None => Ok(()),
        Some(lag) => Err(invalid(format!("lag must not be negative, but is {lag}"))
            .hint("It is how far behind the writers a window ends: lag => '1 minute'.")),
    }
}

fn check_combination(request: &Request) -> Result<()> {
    for (argument, value) in [
        ("query", &request.query),
        ("target", &request.target),
        ("schedule", &request.schedule),
        ("start_from", &request.start_from),
        ("command", &request.command),
    ] {
        if value.as_ref().is_some_and(|v| v.trim().is_empty()) {
            return Err(invalid(format!("{argument} must not be empty"))
                .hint(format!("Leave {argument} out, or give it a value.")));
        }
    }
    if request.query.is_some() && request.command.is_some() {
        return Err(invalid("a rollup has either a query or a command, not both").hint(
            "A query is merged into its target by the extension; a command does all the work itself, with $1 and $2 \
             as the bounds.",
        ));
    }
    if request.query.is_none() && request.target.is_some() {
        return Err(invalid("target goes with query").hint("A command names the table it writes to itself."));
    }
    if request.query.is_none() && request.command.is_none() && request.schedule.is_some() {
        return Err(invalid("a rollup without query and command has nothing to run on a schedule")
            .hint("Give a query or a command, or schedule your own function with pg_cron."));
    }
    if request.batch_size.is_some_and(|size| size <= 0) {
        return Err(invalid(format!("batch_size must be positive, not {}", request.batch_size.unwrap_or(0)))
            .hint("It is the number of events that one run takes at most."));
    }
    check_lag(request.lag)?;
    if request.lag.is_some() && request.time_column.is_none() {
        return Err(invalid("lag goes with time_column")
            .detail("Windows of ids wait for open writers, so they are complete without a lag.")
            .hint("Leave lag out."));
    }
    Ok(())
}

fn register_query(name: &str, query: &str, request: &Request) -> Result<()> {
    let (select, text) = Select::parse(query)?;
    let definition = Definition::new(select, request.source, request.time_column.as_deref())?;
    let source = definition.source.oid;
    let order = resolve(
        name,
        source,
        request.id_sequence,
        request.time_column.as_deref(),
        request.schedule.as_deref(),
    )?;
    warn_of_settings(&definition);

    let wanted = request.target.clone().unwrap_or_else(|| quote_identifier(name));
    let existing = target::find(&wanted);
    let (schema, table) = split_name(&wanted, existing)?;
    let target_name = format!("{schema}.{table}");
    if schema.starts_with("pg_temp") {
        return Err(invalid(format!("target \"{table}\" would be a temporary table"))
            .detail("A rollup outlives the session that registers it.")
            .hint("Name the schema: target => 'schema.table'."));
    }
    if existing == Some(source) {
        return Err(invalid(format!("target \"{target_name}\" is the event table itself"))
            .hint("Name another one: target => '...'; it is created when it does not exist."));
    }
    if let Some(existing) = existing {
        target::check(existing, &target_name, &definition)?;
        if request.start_from.is_none() && target::has_rows(&target_name) {
            return Err(Error::new(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("target \"{target_name}\" already has rows"),
            )
            .detail("The events in them would be counted twice if the rollup started from the beginning.")
            .hint(format!(
                "TRUNCATE {target_name}; and the rollup fills it, or say from where the events are missing: \
                 start_from => 'now', an id or a time."
            )));
        }
    }
    let distribute = match existing {
        Some(_) => None,
        None => citus::distribute_sql(&definition, &target_name)?,
    };
    let view = format!("{schema}.{}", definition_name(name));
    if target::find(&view).is_some() {
        return Err(Error::new(ERRCODE_DUPLICATE_TABLE, format!("relation {view} already exists"))
            .detail("It is the name of the view that would hold the definition.")
            .hint("Drop it if it is left over from an earlier rollup, or choose another name."));
    }
    spi::execute(&format!("CREATE VIEW {view} AS {text}"), &[]);
    spi::execute(
        &format!(
            "COMMENT ON VIEW {view} IS {}",
            pgrx::spi::quote_literal(format!("definition of rollup \"{name}\""))
        ),
        &[],
    );
    let target = match existing {
        Some(oid) => oid,
        None => target::create(&target_name, &view, &definition, name)?,
    };
    if let Some(distribute) = distribute {
        spi::execute(&distribute, &[]);
    }
    let Some(view) = target::find(&view) else {
        return Err(Error::new(ERRCODE_INTERNAL_ERROR, format!("view {view} was not created")));
    };
    insert(name, request, order.source, Some((view, target)))
}

/// The name of the view that defines a rollup, quoted.
pub fn definition_name(rollup: &str) -> String {
    name_with_suffix(rollup, "_definition")
}

/// A name and a suffix, the name cut to the length of an identifier where characters end; quoted.
pub fn name_with_suffix(name: &str, suffix: &str) -> String {
    let mut end = name.len().min(pg_sys::NAMEDATALEN as usize - 1 - suffix.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    quote_identifier(format!("{}{suffix}", &name[..end]))
}

/// Schema and name of the target, each quoted: of the table that exists, or where it would be created.
fn split_name(name: &str, existing: Option<Oid>) -> Result<(String, String)> {
    let found = match existing {
        Some(oid) => spi::query_one(
            "SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.quote_ident(c.relname) FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
             WHERE c.oid OPERATOR(pg_catalog.=) $1",
            &[spi::oid(Some(oid))],
            |row| (row.text(1), row.text(2)),
        ),
        None => spi::query_one(
            "SELECT pg_catalog.quote_ident(CASE WHEN pg_catalog.cardinality(p) OPERATOR(pg_catalog.>) 1 THEN p[1] \
                    ELSE pg_catalog.current_schema()::text END), \
                    pg_catalog.quote_ident(p[pg_catalog.cardinality(p)]) \
             FROM pg_catalog.parse_ident($1) AS p WHERE pg_catalog.cardinality(p) OPERATOR(pg_catalog.<=) 2",
            &[spi::text(Some(name))],
            |row| (row.text(1), row.text(2)),
        ),
    };
    match found {
        Some((Some(schema), Some(table))) => Ok((schema, table)),
        Some((None, _)) => Err(Error::new(
            ERRCODE_INVALID_SCHEMA_NAME,
            "no schema has been selected to create the target in",
        )
        .hint("Name it: target => 'schema.table'; or SET search_path.")),
        _ => Err(invalid(format!("\"{name}\" is not the name of a table")).hint("target => 'schema.table'")),
    }
}

/// Tells of keys whose value depends on settings: the rollup goes on with those of its registration.
fn warn_of_settings(definition: &Definition) {
    for key in definition.keys.iter().filter(|key| key.mutable) {
        Error::new(
            ERRCODE_SUCCESSFUL_COMPLETION,
            format!("group key \"{}\" depends on settings of the session such as TimeZone", key.name),
        )
        .detail(format!("The rollup always runs with the present time zone, {}.", session::setting("TimeZone")))
        .hint(
            "Buckets by date_bin('1 hour', t, '2000-01-01 00:00+00') or (t AT TIME ZONE 'UTC')::date are the same in \
             every session.",
        )
        .report(PgLogLevel::NOTICE);
    }
}

/// Writes the row; the trigger on `rollups` would check the same again, so it only fills in what is missing.
fn insert(name: &str, request: &Request, source: Oid, declared: Option<(Oid, Oid)>) -> Result<()> {
    let order = resolve(
        name,
        source,
        request.id_sequence,
        request.time_column.as_deref(),
        request.schedule.as_deref(),
    )?;
    let (id, time) = start(request, &order)?;
    // A target that has rows is said to hold the events before.
    let is_empty = match declared {
        Some((_, target)) => {
            let name = catalog::internally(|| source::relation_name(target));
            !target::has_rows(&name)
        }
        None => false,
    };
    let starts_later = is_empty && !matches!(request.start_from.as_deref(), None | Some("beginning"));
    if let Some(command) = &request.command {
        let bound = match request.time_column {
            Some(_) => pg_sys::TIMESTAMPTZOID,
            None => pg_sys::INT8OID,
        };
        spi::check(command, &[bound, bound]);
    }
    let (source_name, owner) =
        (catalog::internally(|| source::relation_name(source)), session::current_user());
    if let Some(column) = &request.time_column {
        source::warn_of_zone(source, column);
    }
    if let Some(column) = order.id_column.as_deref().or(request.time_column.as_deref()) {
        target::index_source(source, &source_name, column);
    }
    let (search_path, time_zone) = (session::setting("search_path"), session::setting("TimeZone"));
    catalog::internally(|| {
        let sequence_name = order.id_sequence.map(source::relation_name);
        spi::execute(
            &catalog::sql(
                "INSERT INTO @extschema@.rollups (name, event_table_name, event_id_sequence_name, \
                 last_aggregated_id, last_aggregated_time, source, id_sequence, id_column, time_column, lag, \
                 definition, target, command, schedule, batch_size, owner, search_path, time_zone, start_id, start_time) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, COALESCE($10, interval '0'), $11, $12, $13, $14, $15, \
                 $16, $17, $18, $19, $20)",
            ),
            &[
                spi::text(Some(name)),
                spi::text(Some(&source_name)),
                spi::text(sequence_name.as_deref()),
                spi::int8(Some(id)),
                spi::timestamptz(time),
                spi::oid(Some(source)),
                spi::oid(order.id_sequence),
                spi::text(order.id_column.as_deref()),
                spi::text(request.time_column.as_deref()),
                spi::datum(pg_sys::INTERVALOID, request.lag),
                spi::oid(declared.map(|d| d.0)),
                spi::oid(declared.map(|d| d.1)),
                spi::text(request.command.as_deref()),
                spi::text(request.schedule.as_deref()),
                spi::int8(request.batch_size),
                spi::oid(Some(owner)),
                spi::text(Some(&search_path)),
                spi::text(Some(&time_zone)),
                spi::int8(order.id_sequence.and(starts_later.then_some(id))),
                spi::timestamptz(time.filter(|_| starts_later)),
            ],
        );
    });
    match request.start_from.as_deref().map(str::trim) {
        Some("now") => nodes::start_now(&catalog::get(name)?),
        _ => Ok(()),
    }
}

/// The position that `start_from` asks for.
fn start(request: &Request, order: &Resolved) -> Result<(i64, Option<i64>)> {
    let wanted = request.start_from.as_deref().unwrap_or("beginning").trim();
    let unreadable = |what: &str| {
        invalid(format!("start_from \"{wanted}\" is not {what}"))
            .hint("start_from takes 'beginning' (the default), 'now', or the first value that is not in the target yet.")
    };
    match (wanted, order.id_sequence) {
        ("beginning", Some(sequence)) => Ok((catalog::internally(|| source::beginning(sequence)), None)),
        ("beginning", None) => Ok((0, None)),
        ("now", Some(sequence)) => {
            Ok((catalog::internally(|| source::last_value(sequence)).unwrap_or(0), None))
        }
        ("now", None) => {
            Ok((0, spi::query_one("SELECT pg_catalog.now()", &[], |row| row.timestamptz(1)).flatten()))
        }
        (id, Some(sequence)) => {
            let id: i64 = id.parse().map_err(|_| unreadable("an id"))?;
            let head = catalog::internally(|| source::last_value(sequence)).unwrap_or(0);
            if id > head.saturating_add(1) || id == i64::MIN {
                return Err(invalid(format!("start_from {id} is beyond the last id, {head}"))
                    .hint("start_from => 'now' starts behind the last id."));
            }
            Ok((id - 1, None))
        }
        // The cast raises for what is no time, with the position in the text.
        (time, None) => Ok((
            0,
            spi::query_one("SELECT $1::pg_catalog.timestamptz", &[spi::text(Some(time))], |row| {
                row.timestamptz(1)
            })
            .flatten(),
        )),
    }
}

/// Says what the schedule needs when the worker is not there.
fn announce_schedule(name: &str, schedule: Option<&str>) {
    if schedule.is_some() && !crate::worker::is_preloaded() {
        Error::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("rollup \"{name}\" has a schedule, but no worker runs it: rollup_ext is not preloaded"),
        )
        .hint(format!(
            "Set shared_preload_libraries = 'rollup_ext' and restart, or use pg_cron: \
             SELECT cron.schedule('* * * * *', $$SELECT run_rollup('{name}')$$);"
        ))
        .report(PgLogLevel::NOTICE);
    }
}
