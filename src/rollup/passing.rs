//! Going past open writers: taking what others committed meanwhile, and the rows of a writer when it commits.
//!
//! A run may take ids that are not known to be complete. It looks which of them have no event yet, aggregates the
//! others, moves the position past all of them and leaves the missing ones in `rollups.passed_over`, in the same
//! transaction. So what a rollup holds is always exactly the events up to its position whose ids are not passed over:
//! an event that is committed between the look and the aggregation is one of them, and nothing depends on who wrote
//! it. A later run looks at them again; those that nobody can write any more are given up.

use pgrx::PgSqlErrorCode::*;
use pgrx::spi::quote_identifier;

use crate::error::{Error, Result};
use crate::pg::spi;
use crate::rollup::catalog::{self, Kind, Rollup};
use crate::rollup::citus::{self, Placement};
use crate::rollup::ids::{Ids, Seen};
use crate::rollup::run::AsRollup;
use crate::rollup::window::{Bound, Next, Window};

/// How many ranges of ids may be passed over. Beyond it a run goes only as far as they allow.
const MOST_RANGES: usize = 10_000;
/// How many stretches of the event table a run reads at most, to find ids here and there.
const STRETCHES: usize = 32;

/// What a run takes of the events that were inserted through this node.
pub struct Share {
    /// How the position moves.
    pub window: Window,
    /// Where the events are ...
    pub stretches: Vec<Window>,
    /// ... and which ids among them are not to be taken.
    pub except: Ids,
    /// The ids that are passed over from now on, if they change.
    pub passed_over: Option<Ids>,
}

impl Share {
    /// All events of a window.
    pub fn whole(window: Window) -> Share {
        Share { window, stretches: vec![window], except: Ids::default(), passed_over: None }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.window.is_empty() && self.passed_over.is_none()
    }

    /// From where to where it goes.
    pub fn span(&self) -> Window {
        match (self.window.is_empty(), self.stretches.first(), self.stretches.last()) {
            (true, Some(first), Some(last)) => Window { start: first.start, end: last.end },
            _ => self.window,
        }
    }
}

/// Whether the worker may go past the writers of a rollup: windows of commands and of the caller's functions are
/// contiguous, times have no gaps that could be seen, and where ids are ten apart everything is one. On Citus, ids
/// come from several nodes.
pub fn is_possible(rollup: &Rollup) -> bool {
    const STEP: &str = "SELECT seqincrement = 1 FROM pg_sequence WHERE seqrelid = $1";
    let is_local = || matches!(citus::placement(rollup.source), Placement::Local);
    let counts_by_one = |sequence| {
        catalog::internally(|| spi::query_one(STEP, &[spi::oid(Some(sequence))], |row| row.boolean(1)))
    };
    matches!(rollup.kind, Kind::Declarative { .. })
        && rollup.id_sequence.and_then(counts_by_one) == Some(true)
        && is_local()
}

/// Refuses to go past writers where that is not possible.
pub fn check(rollup: &Rollup) -> Result<()> {
    if is_possible(rollup) {
        return Ok(());
    }
    Err(Error::new(
        ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("rollup \"{}\" cannot go past open writers", rollup.name),
    )
    .detail("That takes a query over a local table whose ids come from a sequence that counts by one.")
    .hint(format!("SELECT run_rollup('{}'); waits for them, as long as lock_timeout allows.", rollup.name)))
}

/// What the next run takes of this node's events: of the window those that are there, and what has become of the
/// ids that were passed over.
pub fn share(rollup: &Rollup, next: &Next) -> Result<Share> {
    let window = next.parts[0].window;
    let (Bound::Id(position), Bound::Id(end), Bound::Id(complete), Bound::Id(limit)) =
        (window.start, window.end, next.complete, next.limit)
    else {
        return Ok(Share::whole(window));
    };
    let before = catalog::passed_over(rollup);
    if before.is_empty() && end <= complete {
        return Ok(Share::whole(window));
    }
    let settled = complete.min(limit);
    let uncertain =
        before.up_to(limit).after(complete.max(next.again)).union(&Ids::between(position.max(complete), end));
    let found = uncertain.minus(&missing(rollup, &uncertain));

    let (mut end, mut all) = (end, before.union(&Ids::between(position, end)));
    let mut passed_over = all.after(settled).minus(&found);
    if let Some((first, _)) = passed_over.ranges().get(MOST_RANGES) {
        if *first > position {
            end = first - 1;
            all = all.up_to(end);
            passed_over = passed_over.up_to(end);
        } else {
            end = end.min(complete.max(position));
            all = before.union(&Ids::between(position, end));
            passed_over = before.after(settled);
        }
    }
    let taken = all.minus(&passed_over);
    let cover = taken.cover(STRETCHES);
    let stretch = |(first, last): &(i64, i64)| Window { start: Bound::Id(first - 1), end: Bound::Id(*last) };
    Ok(Share {
        window: Window { start: window.start, end: Bound::Id(end) },
        stretches: cover.ranges().iter().map(stretch).collect(),
        except: cover.minus(&taken),
        passed_over: (passed_over != before).then_some(passed_over),
    })
}

/// Those of some ids that no committed event has now. What cannot be said in as many ranges as may be passed over
/// counts as missing.
fn missing(rollup: &Rollup, ids: &Ids) -> Ids {
    if ids.is_empty() {
        return Ids::default();
    }
    let column = quote_identifier(rollup.id_column.as_deref().unwrap_or_default());
    let stretches: Vec<_> = ids
        .cover(STRETCHES)
        .ranges()
        .iter()
        .map(|(first, last)| {
            format!("{column} OPERATOR(pg_catalog.>=) {first} AND {column} OPERATOR(pg_catalog.<=) {last}")
        })
        .collect();
    // In whatever order they lie there: a bit for each is less than a sort.
    let query = format!(
        "SELECT {column}::pg_catalog.int8 FROM {source} WHERE {stretches}",
        source = rollup.source_name,
        stretches = stretches.join(" OR "),
    );
    let mut seen = Seen::default();
    let _session = AsRollup::new(rollup);
    spi::stream(&query, |row| row.int8(1).into_iter().for_each(|id| seen.add(id)));
    ids.minus(&seen.first_ranges(MOST_RANGES + 1))
}

/// SQL for the condition that an id is none of some others; empty when there are none. Turned round, it is one that an
/// index finds.
pub fn and_not_among(column: &str, ids: &Ids) -> String {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return String::new() };
    format!(
        " AND NOT ({column} OPERATOR(pg_catalog.>=) {first} AND {column} OPERATOR(pg_catalog.<=) {last} \
           AND {column}::pg_catalog.int8 OPERATOR(pg_catalog.<@) '{ids}'::pg_catalog.int8multirange)"
    )
}
