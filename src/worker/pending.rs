//! What is known of the writers of a rollup: whom it has to wait for, and up to where nobody can add events any more.

use std::collections::HashSet;

use pgrx::pg_sys;

use crate::pg::locks::Writer;
use crate::rollup::window::{Bound, Observation};

/// A writer that was open when the rollup was looked at.
#[derive(Debug)]
struct Open {
    writer: Writer,
    /// The head of the look before: it had drawn nothing up to there. `None`: there was no look.
    after: Option<Bound>,
    /// Since when it holds something back.
    since: Option<i64>,
}

/// What the looks at the head of a rollup and its writers have told.
#[derive(Debug)]
pub struct Pending {
    /// The head at the last look.
    head: Option<Bound>,
    open: Vec<Open>,
    /// Some writer has ended that may have written above this.
    again: Option<i64>,
    /// The file of the sequence that all of it is about.
    sequence_file: pg_sys::Oid,
}

impl Default for Pending {
    fn default() -> Self {
        // Who may have ended before the first look is not known.
        Pending { head: None, open: Vec::new(), again: Some(i64::MIN), sequence_file: pg_sys::Oid::INVALID }
    }
}

impl Pending {
    /// Takes in a look taken at `now` at a rollup of which everything up to `settled` is aggregated.
    pub fn add(&mut self, seen: Observation, settled: Bound, now: i64) {
        if Some(seen.head) < self.head || seen.sequence_file != self.sequence_file {
            // The source was reset: what was seen before is about other events.
            *self = Pending { sequence_file: seen.sequence_file, ..Default::default() };
        }
        for writer in seen.writers {
            if !self.open.iter().any(|open| open.writer == writer) {
                self.open.push(Open { writer, after: self.head, since: None });
            }
        }
        // Whoever came and went between two looks was not seen.
        self.ended(self.head);
        self.head = Some(seen.head);
        for open in &mut self.open {
            if seen.head > settled && Some(seen.head) > open.after {
                open.since.get_or_insert(now);
            }
        }
    }

    /// Looks again: `still_open` returns those of some writers that have not ended.
    pub fn settle(&mut self, still_open: impl Fn(&[Writer]) -> Vec<Writer>) {
        let writers: Vec<_> = self.open.iter().map(|open| open.writer.clone()).collect();
        let left: HashSet<_> = still_open(&writers).into_iter().collect();
        let ended: Vec<_> = self.open.extract_if(.., |open| !left.contains(&open.writer)).collect();
        ended.iter().for_each(|open| self.ended(open.after));
    }

    /// Somebody has ended who may have written above `after`.
    fn ended(&mut self, after: Option<Bound>) {
        let after = match after {
            Some(Bound::Id(id)) => id,
            _ => i64::MIN,
        };
        self.again = Some(self.again.map_or(after, |again| again.min(after)));
    }

    /// The head at the last look.
    pub fn head(&self) -> Option<Bound> {
        self.head
    }

    /// Up to where nobody can add events any more.
    pub fn safe(&self) -> Option<Bound> {
        self.open.iter().map(|open| open.after).min().unwrap_or(self.head)
    }

    /// The file of the sequence that [`Self::safe`] is about.
    pub fn sequence_file(&self) -> pg_sys::Oid {
        self.sequence_file
    }

    /// Whether any writer holds something back.
    pub fn is_waiting(&self) -> bool {
        self.open.iter().any(|open| open.since.is_some())
    }

    /// Who holds back what comes next, by process, and since when.
    pub fn oldest(&self) -> Option<(i64, Vec<i32>)> {
        let first = self.open.iter().filter(|open| open.since.is_some()).map(|open| open.after).min()?;
        let holding = || self.open.iter().filter(|open| open.since.is_some() && open.after == first);
        let mut pids: Vec<i32> = holding().map(|open| open.writer.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        Some((holding().filter_map(|open| open.since).min()?, pids))
    }

    /// Ids above this that were passed over may have got their events since a run looked at them.
    pub fn again(&self) -> Option<i64> {
        self.again
    }

    /// A run looks at them now.
    pub fn looked_again(&mut self) {
        self.again = None;
    }

    /// A run that should have looked at them failed.
    pub fn look_at_all_again(&mut self) {
        self.again = Some(i64::MIN);
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
        assert_eq!(pending.open.len(), 1, "those who have ended do not pile up");
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
        assert_eq!(safe(&pending), None);
        assert_eq!(pending.oldest(), Some((1, vec![1])));
        settle(&mut pending, &[2, 3]);
        assert_eq!(safe(&pending), Some(10));
        assert_eq!(pending.oldest(), Some((2, vec![2])));
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
        settle(&mut pending, &[1]);
        assert_eq!(safe(&pending), None);
        settle(&mut pending, &[]);
        look(&mut pending, 5, &[], 4);
        settle(&mut pending, &[]);
        assert_eq!(safe(&pending), Some(5));
    }

    #[test]
    fn what_may_have_got_events_is_what_came_after_the_writer_that_ended() {
        let mut pending = Pending::default();
        assert_eq!(pending.again(), Some(i64::MIN), "who ended before is not known");
        look(&mut pending, 10, &[], 1);
        look(&mut pending, 20, &[1], 2);
        look(&mut pending, 30, &[1, 2], 3);
        pending.looked_again();
        look(&mut pending, 40, &[1, 2, 3], 4);
        assert_eq!(pending.again(), Some(30), "who came and went between the looks is not known");
        pending.looked_again();
        settle(&mut pending, &[1, 2, 3]);
        assert_eq!(pending.again(), None);
        settle(&mut pending, &[1, 2]);
        assert_eq!(pending.again(), Some(30));
        settle(&mut pending, &[1]);
        assert_eq!(pending.again(), Some(20));
        pending.looked_again();
        settle(&mut pending, &[]);
        assert_eq!(pending.again(), Some(10));
        pending.look_at_all_again();
        assert_eq!(pending.again(), Some(i64::MIN));
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
