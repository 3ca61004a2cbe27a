//! What a declarative rollup computes, derived from the analysed tree of its query: the event table, the group key,
//! the measures and how each of them merges.

use pgrx::PgSqlErrorCode::*;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;

use crate::error::{Error, Result};
use crate::pg::query::{Aggregate, Column, ColumnKind, End, Limit, Relation, Select, Shape};
use crate::pg::spi;
use crate::rollup::{catalog, source};

pub struct Definition {
    select: Select,
    pub source: Relation,
    pub keys: Vec<Key>,
    pub measures: Vec<Measure>,
    /// Whether a key or a filter depends on settings of the session, such as TimeZone.
    pub is_mutable: bool,
    /// Output columns in order: names.
    columns: Vec<String>,
}

/// A column of the group key.
pub struct Key {
    pub name: String,
    pub type_name: String,
    pub type_oid: Oid,
    /// Whether its value depends on settings such as TimeZone.
    pub mutable: bool,
    /// The column of the event table that it is, if it is one as it stands.
    pub source_column: Option<String>,
}

impl Key {
    /// The name of a date or timestamp type in `pg_catalog`, without typmod.
    pub fn time_type(&self) -> &'static str {
        match self.type_oid {
            pgrx::pg_sys::DATEOID => "date",
            pgrx::pg_sys::TIMESTAMPOID => "timestamp",
            _ => "timestamptz",
        }
    }
}

/// A column that holds an aggregate.
pub struct Measure {
    pub name: String,
    pub type_name: String,
    pub type_oid: Oid,
    /// Whether it is a list of top items, exact only while it drops none.
    pub is_topn: bool,
    /// SQL over `$1`, the stored value, and `$2`, the new one; NULL when either is.
    merge: String,
}

impl Definition {
    /// Judges a query: what cannot be kept up to date from new events alone is refused, with the way that can.
    pub fn new(select: Select, source: Option<Oid>, time_column: Option<&str>) -> Result<Self> {
        let shape = select.shape();
        check_clauses(&shape)?;
        let source = find_source(&shape, source, time_column)?;
        let (mut keys, mut measures) = (Vec::new(), Vec::new());
        for column in &shape.columns {
            let (name, type_name, type_oid) =
                (column.name.clone(), column.type_name.clone(), column.type_oid);
            match &column.kind {
                ColumnKind::Key { mutable, plain } => {
                    let source_column =
                        plain.clone().filter(|(index, _)| *index == source.index).map(|(_, c)| c);
                    keys.push(Key { name, type_name, type_oid, mutable: *mutable, source_column })
                }
                ColumnKind::Aggregate(call) => {
                    let (merge, is_topn) = (merge_rule(column, call)?, call.name.starts_with("topn_"));
                    measures.push(Measure { name, type_name, type_oid, is_topn, merge })
                }
                ColumnKind::Other { aggregates } => return Err(not_mergeable_expression(column, aggregates)),
            }
        }
        Ok(Definition {
            is_mutable: shape.is_mutable,
            columns: shape.columns.into_iter().map(|c| c.name).collect(),
            select,
            source,
            keys,
            measures,
        })
    }

    /// The definition that a registered view holds.
    pub fn of_view(view: Oid, source: Oid) -> Result<Self> {
        let select = Select::of_view(view).ok_or_else(|| {
            Error::new(ERRCODE_UNDEFINED_OBJECT, "the view that defines the rollup does not exist any more")
                .hint("SELECT drop_rollup(...) removes the rollup; register it again.")
        })?;
        Self::new(select, Some(source), None)
    }

    /// Narrows the events to those whose `column` keeps within all limits of one of the ranges and is none of the ids
    /// `except`.
    pub fn restrict(&mut self, column: &str, ranges: &[Vec<Limit>], except: Option<&End>) -> Result<()> {
        self.select.restrict(&self.source, column, ranges, except)
    }

    /// The SELECT, restricted as it is by now.
    pub fn select_sql(&self) -> Result<String> {
        self.select.to_sql()
    }

    /// The statement that aggregates the events and merges them into `target`.
    pub fn merge_sql(&self, target: &str) -> Result<String> {
        let merges: Vec<_> = self
            .measures
            .iter()
            .map(|measure| {
                let name = quote_identifier(&measure.name);
                let merged = measure.merged(&format!("stored.{name}"), &format!("excluded.{name}"));
                format!("{name} = {merged}")
            })
            .collect();
        let action = if merges.is_empty() {
            "DO NOTHING".into()
        } else {
            format!("DO UPDATE SET\n    {}", merges.join(",\n    "))
        };
        let key = if self.keys.is_empty() { "(true)".into() } else { self.key_list() };
        Ok(format!("{}\nON CONFLICT ({key}) {action}", self.fill_sql(target)?))
    }

    /// The statement that aggregates the events into `target`, which has none of their groups. The rows come in the
    /// order of the unique index: a merge into neighbouring pages takes half the time of one all over the table.
    pub fn fill_sql(&self, target: &str) -> Result<String> {
        let select = self.select_sql()?;
        let order: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| self.keys.iter().any(|key| key.name == **column))
            .map(|(i, _)| (i + 1).to_string())
            .collect();
        let order = if order.is_empty() { String::new() } else { format!("\nORDER BY {}", order.join(", ")) };
        Ok(format!("INSERT INTO {target} AS stored ({})\n{select}{order}", self.column_list()))
    }

    /// As [`Self::fill_sql`], of the groups that `filter` (a WHERE clause or nothing) lets through.
    pub fn refill_sql(&self, target: &str, filter: &str) -> Result<String> {
        let columns = self.column_list();
        Ok(format!(
            "INSERT INTO {target} ({columns})\nSELECT {columns} FROM (\n{}\n) AS fresh{filter}",
            self.select_sql()?
        ))
    }

    /// The query over the target and the new events, merged: of each group there is at most one row of either side.
    /// Names that begin with a question mark cannot be those of columns.
    pub fn live_sql(&self, target: &str, schema: &str) -> Result<String> {
        let columns: Vec<_> = self
            .columns
            .iter()
            .map(|column| {
                let name = quote_identifier(column);
                let Some(measure) = self.measures.iter().find(|measure| measure.name == *column) else {
                    return name;
                };
                let side = |filter| format!("{schema}.single_value({name}) FILTER (WHERE {filter})");
                let merged = measure.merged(&side("\"?stored\""), &side("NOT \"?stored\""));
                format!("({merged})::{} AS {name}", measure.type_name)
            })
            .collect();
        let key = if self.keys.is_empty() { "()".into() } else { self.key_list() };
        let list = self.column_list();
        Ok(format!(
            "SELECT {}\nFROM (SELECT {list}, true AS \"?stored\" FROM {target}\nUNION ALL\nSELECT {list}, false FROM (\n{}\n) AS new\n) \
             AS both_sides\nGROUP BY {key}",
            columns.join(", "),
            self.select_sql()?
        ))
    }

    /// The columns of the group key, as a list of SQL.
    pub fn key_list(&self) -> String {
        self.keys.iter().map(|key| quote_identifier(&key.name)).collect::<Vec<_>>().join(", ")
    }

    fn column_list(&self) -> String {
        self.columns.iter().map(quote_identifier).collect::<Vec<_>>().join(", ")
    }

    /// The key column that tells the time of a group: the first one of a date or timestamp type.
    pub fn bucket(&self) -> Option<&Key> {
        use pgrx::pg_sys::{DATEOID, TIMESTAMPOID, TIMESTAMPTZOID};
        self.keys.iter().find(|key| [DATEOID, TIMESTAMPOID, TIMESTAMPTZOID].contains(&key.type_oid))
    }
}

impl Measure {
    /// SQL that merges a stored value with a new one. NULL is "nothing yet": a merge with it keeps the other side.
    fn merged(&self, stored: &str, new: &str) -> String {
        format!("COALESCE({}, {stored}, {new})", fill_in(&self.merge, stored, new))
    }
}

/// A merge rule with names in place of its `$1` and `$2`; names may hold such signs themselves.
fn fill_in(rule: &str, stored: &str, new: &str) -> String {
    let parts: Vec<_> = rule.split("$1").map(|part| part.replace("$2", new)).collect();
    parts.join(stored)
}

fn refuse(message: String) -> Error {
    Error::new(ERRCODE_FEATURE_NOT_SUPPORTED, message)
}

fn check_clauses(shape: &Shape) -> Result<()> {
    if let Some(clause) = shape.unsupported.first() {
        return Err(refuse(format!("a rollup cannot be kept up to date through {clause}"))
            .detail("New events are aggregated alone and merged into the rows of their groups.")
            .hint("Leave it out of the definition and apply it when reading the rollup."));
    }
    if let Some(key) = shape.hidden_keys.first() {
        return Err(refuse(format!("expression {key} of GROUP BY is not in the SELECT list"))
            .detail("The rows of the target are found again by the whole group key.")
            .hint("Select every expression that is grouped by."));
    }
    if shape.is_volatile {
        return Err(refuse("the query of a rollup calls a volatile function".into())
            .detail("Its result could not be computed again, so that nothing could be verified or refreshed.")
            .hint("Compute the value when the event is inserted and store it in a column."));
    }
    if shape.reads_clock {
        return Err(refuse("the query of a rollup depends on the current time".into())
            .detail("The same event would count or not count depending on when it is aggregated.")
            .hint("Filter by now() when reading the rollup."));
    }
    if shape.columns.is_empty() {
        return Err(refuse("the query of a rollup returns no columns".into())
            .hint("Select the group key and count(*)."));
    }
    let mut names: Vec<_> = shape.columns.iter().map(|c| &c.name).collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::new(
            ERRCODE_DUPLICATE_COLUMN,
            format!("column \"{}\" appears more than once in the query", pair[0]),
        )
        .hint("Give each column a name of its own: ... AS another_name."));
    }
    if let Some(column) = shape.columns.iter().find(|c| c.name == "?column?") {
        return Err(Error::new(
            ERRCODE_INVALID_COLUMN_DEFINITION,
            format!("a column of type {} has no name", column.type_name),
        )
        .hint("Name it: ... AS name."));
    }
    let has_aggregates = shape.columns.iter().any(|c| match &c.kind {
        ColumnKind::Aggregate(_) => true,
        ColumnKind::Other { aggregates } => !aggregates.is_empty(),
        ColumnKind::Key { .. } => false,
    });
    if !shape.has_group_by && !has_aggregates {
        return Err(refuse("the query neither groups nor aggregates".into())
            .detail("A rollup keeps one row for each group of events.")
            .hint("For example: SELECT day, count(*) FROM events GROUP BY day."));
    }
    Ok(())
}

/// The event table among the relations of the FROM clause.
fn find_source(shape: &Shape, wanted: Option<Oid>, time_column: Option<&str>) -> Result<Relation> {
    let candidates: Vec<&Relation> = match wanted {
        Some(oid) => shape.relations.iter().filter(|r| r.oid == oid).collect(),
        None if shape.relations.len() == 1 => shape.relations.iter().collect(),
        None => shape
            .relations
            .iter()
            .filter(|r| match time_column {
                Some(column) => source::time_order(r.oid, column).is_ok(),
                None => source::id_order(r.oid, None).is_ok(),
            })
            .collect(),
    };
    let name = |oid: Oid| catalog::internally(|| source::relation_name(oid));
    let relation = match candidates[..] {
        [relation] => relation.clone(),
        [] => {
            return Err(match wanted {
                Some(oid) => Error::new(
                    ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("\"{}\" is not in the FROM clause of the query", name(oid)),
                )
                .hint("source names the table of the query that the events are in."),
                None if shape.relations.is_empty() => {
                    refuse("the query reads no table".into()).hint("Select from the event table itself, not from a subquery.")
                }
                None => Error::new(
                    ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "no table of the query has ids from a sequence or a clocked time column",
                )
                .hint(
                    "ALTER TABLE ... ADD COLUMN event_id bigint GENERATED ALWAYS AS IDENTITY; or name a time column: \
                     time_column => '...'.",
                ),
            });
        }
        _ => {
            let names: Vec<_> = candidates.iter().map(|r| name(r.oid)).collect();
            let only = candidates.iter().all(|r| r.oid == candidates[0].oid).then_some(candidates[0].oid);
            return Err(match only {
                Some(oid) => refuse(format!("\"{}\" stands more than once in the query", name(oid)))
                    .detail("A new event would have to meet all old ones.")
                    .hint("Join the events only with tables that describe them."),
                None => Error::new(
                    ERRCODE_AMBIGUOUS_PARAMETER,
                    "the query reads more than one table that could hold the events",
                )
                .detail(format!("They are: {}.", names.join(", ")))
                .hint("Say which: source => '...'."),
            });
        }
    };
    source::check_kind(relation.oid)?;
    if shape.nested_relations.contains(&relation.oid) {
        return Err(refuse(format!("\"{}\" is also read in a subquery", name(relation.oid)))
            .detail("A new event would change the result for old ones.")
            .hint("Read the event table once, in the FROM clause."));
    }
    let others: Vec<_> = shape
        .relations
        .iter()
        .map(|r| r.oid)
        .filter(|oid| *oid != relation.oid)
        .chain(shape.nested_relations.clone())
        .collect();
    if let Some(reader) = source::reads_again(relation.oid, &others) {
        return Err(refuse(format!("\"{}\" is also read through \"{reader}\"", name(relation.oid)))
            .detail("A new event would change the result for old ones.")
            .hint("Read the event table once, in the FROM clause."));
    }
    if relation.optional {
        return Err(refuse(format!("\"{}\" is on the optional side of an outer join", name(relation.oid)))
            .detail("Rows without an event would be written again with every run.")
            .hint("Put the event table on the preserved side: FROM events LEFT JOIN dimension ..."));
    }
    if relation.sampled {
        return Err(refuse("TABLESAMPLE picks other events each time".into()).hint("Leave TABLESAMPLE out."));
    }
    Ok(relation)
}

/// The rule from `rollup_merge_rules` for an aggregate.
fn merge_rule(column: &Column, call: &Aggregate) -> Result<String> {
    if call.name == "count" && call.schema == "pg_catalog" && call.distinct {
        return Err(not_mergeable(column, "count(DISTINCT ...)"));
    }
    let rule = catalog::internally(|| {
        spi::query_one(
            &catalog::sql(
                "SELECT merge, ignores_duplicates FROM @extschema@.rollup_merge_rules \
                 WHERE aggregate_schema = $1 AND aggregate_name = $2",
            ),
            &[spi::text(Some(&call.schema)), spi::text(Some(&call.name))],
            |row| (row.text(1).unwrap_or_default(), row.boolean(2)),
        )
    });
    match rule {
        Some((merge, _)) if !call.distinct && !call.ordered_set => Ok(merge),
        Some((merge, true)) if call.distinct => Ok(merge),
        Some(_) => Err(not_mergeable(column, &format!("{}(DISTINCT ...)", call.name))),
        None => Err(not_mergeable(column, &call.name)),
    }
}

fn not_mergeable(column: &Column, aggregate: &str) -> Error {
    refuse(format!("column \"{}\" holds {aggregate}, which cannot be merged", column.name))
        .detail("The stored value and the value of new events do not determine the value of both together.")
        .hint(mergeable_way(aggregate))
}

/// What to store in place of an aggregate that does not merge.
fn mergeable_way(aggregate: &str) -> String {
    let way = match aggregate {
        "avg" => "Store sum(x) and count(x), and divide when reading.",
        "count(DISTINCT ...)" => {
            "Store hll_add_agg(hll_hash_any(x)) and read it with hll_cardinality(), or group by x."
        }
        "var_pop" | "var_samp" | "variance" | "stddev" | "stddev_pop" | "stddev_samp" => {
            "Store count(x), sum(x) and sum(x * x), and compute it from them when reading."
        }
        "mode" => "Store topn_add_agg(x::text) and read it with topn().",
        "percentile_cont" | "percentile_disc" => {
            "Store counts by classes of the value, or a sketch with a row in rollup_merge_rules (tdigest, say)."
        }
        "array_agg" | "string_agg" | "json_agg" | "jsonb_agg" | "json_object_agg" | "jsonb_object_agg"
        | "xmlagg" => "Group by the value itself, and collect when reading.",
        _ if aggregate.ends_with("(DISTINCT ...)") => "Leave DISTINCT out, or group by the value.",
        _ => {
            "If the aggregate can be merged, say how: INSERT INTO rollup_merge_rules (aggregate_schema, \
             aggregate_name, merge) VALUES (..., 'merge_function($1, $2)');"
        }
    };
    way.to_owned()
}

fn not_mergeable_expression(column: &Column, aggregates: &[String]) -> Error {
    let error = refuse(format!("column \"{}\" is neither in GROUP BY nor a single aggregate", column.name));
    match aggregates {
        [] => error
            .detail("Its value would have to be the same for all events of a group.")
            .hint("Add it to GROUP BY."),
        [only] => error
            .detail(format!("It computes something from {only}(), and the result cannot be merged."))
            .hint(match only.as_str() {
                "avg" => mergeable_way("avg"),
                _ => format!("Store {only}() alone, and compute from it when reading."),
            }),
        several => error
            .detail(format!("It combines {}.", several.join("() and ") + "()"))
            .hint("Store each aggregate in a column of its own, and combine them when reading."),
    }
}
