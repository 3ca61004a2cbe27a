//! Looks at a rollup's head that are not known to be safe yet.

use pgrx::pg_sys;

use crate::pg::locks::Writer;
use crate::rollup::window::{Bound, Observation};

/// A head that was seen, and who could still add rows below it when it was.
#[derive(Debug)]
struct Look {
    head: Bound,
    open: Vec<Writer>,
    since: i64,
}

/// The looks of one rollup, oldest first, and the largest head that is safe: nobody who could add rows below it is
/// still open.
#[derive(Debug, Default)]
pub struct Pending {
    looks: Vec<Look>,
    safe: Option<Bound>,
    /// The file of the sequence that all of it is about.
    sequence_file: pg_sys::Oid,
}

impl Pending {
    /// Adds a look taken at `now` at a rollup that has come to `position`.
    pub fn add(&mut self, seen: Observation, position: Bound, now: i64) {
        let highest = self.looks.last().map(|look| look.head).max(self.safe);
        if highest.is_some_and(|highest| seen.head < highest) || seen.sequence_file != self.sequence_file {
            // The source was reset: what was seen before is about other events.
            *self = Pending { sequence_file: seen.sequence_file, ..Default::default() };
        }
        let highest = self.looks.last().map(|look| look.head).max(self.safe);
        // The same head again can only have more writers to wait for, none of them below it.
        if seen.head > position && highest.is_none_or(|highest| seen.head != highest) {
            self.looks.push(Look { head: seen.head, open: seen.writers, since: now });
        }
    }

    /// Looks again: `still_open` returns those of some writers that have not ended.
    pub fn settle(&mut self, still_open: impl Fn(&[Writer]) -> Vec<Writer>) {
        for look in &mut self.looks {
            look.open = still_open(&look.open);
            if look.open.is_empty() {
                self.safe = self.safe.max(Some(look.head));
            }
        }
        self.looks.retain(|look| Some(look.head) > self.safe);
        // A later look that waits for nobody else makes the earlier one superfluous, so that there are never more
        // looks than open writers.
        let mut kept: Vec<Look> = Vec::with_capacity(self.looks.len());
        for mut look in self.looks.drain(..) {
            while let Some(earlier) =
                kept.pop_if(|earlier| look.open.iter().all(|w| earlier.open.contains(w)))
            {
                look.since = look.since.min(earlier.since);
            }
            kept.push(look);
        }
        self.looks = kept;
    }

    /// The largest head known to be safe.
    pub fn safe(&self) -> Option<Bound> {
        self.safe
    }

    /// The file of the sequence that [`Self::safe`] is about.
    pub fn sequence_file(&self) -> pg_sys::Oid {
        self.sequence_file
    }

    /// Whether anything waits for a writer.
    pub fn is_waiting(&self) -> bool {
        !self.looks.is_empty()
    }

    /// What has waited longest: since when, and for which processes.
    pub fn oldest(&self) -> Option<(i64, Vec<i32>)> {
        let look = self.looks.first()?;
        let mut pids: Vec<i32> = look.open.iter().map(|writer| writer.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        Some((look.since, pids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writers(pids: &[i32]) -> Vec<Writer> {
        pids.iter().map(|pid| Writer::for_test(*pid)).collect()
    }

    /// Adds a look, then settles with these writers still open.
    fn look(pending: &mut Pending, head: i64, open: &[i32], now: i64) {
        let seen = Observation {
            head: Bound::Id(head),
            writers: writers(open),
            sequence_file: pg_sys::Oid::from(1),
        };
        pending.add(seen, Bound::Id(0), now);
    }

    fn settle(pending: &mut Pending, open: &[i32]) {
        pending.settle(|some| some.iter().filter(|w| open.contains(&w.pid)).cloned().collect());
    }

    fn safe(pending: &Pending) -> Option<i64> {
        pending.safe().map(|bound| match bound {
            Bound::Id(id) => id,
            Bound::Time(time) => time,
        })
    }

    #[test]
    fn a_head_without_writers_is_safe() {
        let mut pending = Pending::default();
        look(&mut pending, 10, &[], 1);
        settle(&mut pending, &[]);
        assert_eq!(safe(&pending), Some(10));
        assert!(!pending.is_waiting());
    }

    #[test]
    fn nothing_new_is_nothing_to_wait_for() {
        let mut pending = Pending::default();
        look(&mut pending, 0, &[1], 1);
        settle(&mut pending, &[1]);
        assert!(!pending.is_waiting());
        assert_eq!(safe(&pending), None);
    }

    #[test]
    fn a_long_writer_holds_back_what_came_after_it_alone() {
        let mut pending = Pending::default();
        look(&mut pending, 10, &[], 1);
        settle(&mut pending, &[7]);
        for now in 2..100 {
            look(&mut pending, 10 * now, &[7, 1000 + now as i32], now);
            settle(&mut pending, &[7]);
            assert_eq!(safe(&pending), Some(10));
        }
        assert_eq!(pending.oldest(), Some((2, vec![7])));
        assert_eq!(pending.looks.len(), 1, "looks at the same writer do not pile up");
        settle(&mut pending, &[]);
        assert_eq!(safe(&pending), Some(990));
        assert_eq!(pending.oldest(), None);
    }

    #[test]
    fn overlapping_writers_let_the_window_follow() {
        let mut pending = Pending::default();
        look(&mut pending, 10, &[1], 1);
        look(&mut pending, 20, &[1, 2], 2);
        look(&mut pending, 30, &[2, 3], 3);
        settle(&mut pending, &[1, 2, 3]);
        assert_eq!((safe(&pending), pending.looks.len()), (None, 3));
        settle(&mut pending, &[2, 3]);
        assert_eq!(safe(&pending), Some(10));
        settle(&mut pending, &[3]);
        assert_eq!(safe(&pending), Some(20));
        settle(&mut pending, &[]);
        assert_eq!(safe(&pending), Some(30));
    }

    #[test]
    fn the_same_head_waits_for_those_who_were_there_first() {
        let mut pending = Pending::default();
        look(&mut pending, 10, &[1], 1);
        look(&mut pending, 10, &[1, 2], 2);
        settle(&mut pending, &[2]);
        assert_eq!(safe(&pending), Some(10));
        assert!(!pending.is_waiting());
    }

    #[test]
    fn a_source_that_starts_over_makes_all_of_it_void() {
        let mut pending = Pending::default();
        look(&mut pending, 1000, &[], 1);
        settle(&mut pending, &[]);
        look(&mut pending, 2000, &[1], 2);
        look(&mut pending, 0, &[1], 3);
        settle(&mut pending, &[]);
        assert_eq!(safe(&pending), None);
        look(&mut pending, 5, &[], 4);
        settle(&mut pending, &[]);
        assert_eq!(safe(&pending), Some(5));
    }
    #[test]
    fn a_restarted_sequence_that_ran_ahead_makes_all_of_it_void() {
        let mut pending = Pending::default();
        look(&mut pending, 1000, &[], 1);
        settle(&mut pending, &[]);
        let seen = Observation {
            head: Bound::Id(2000),
            writers: writers(&[1]),
            sequence_file: pg_sys::Oid::from(2),
        };
        pending.add(seen, Bound::Id(0), 2);
        settle(&mut pending, &[1]);
        assert_eq!(safe(&pending), None);
        settle(&mut pending, &[]);
        assert_eq!(safe(&pending), Some(2000));
    }
}
