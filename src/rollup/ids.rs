//! Sets of ids, as ranges.

use std::collections::BTreeMap;
use std::fmt;

/// A set of ids: sorted ranges, both ends included, that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids(Vec<(i64, i64)>);

impl Ids {
    /// The ids after `start` up to `end`.
    pub fn between(start: i64, end: i64) -> Ids {
        if start < end { Ids(vec![(start + 1, end)]) } else { Ids::default() }
    }

    /// The ids of some ranges, in any order.
    pub fn of(ranges: impl IntoIterator<Item = (i64, i64)>) -> Ids {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        sorted.sort_unstable();
        let mut ids = Ids::default();
        for (first, last) in sorted {
            match ids.0.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => ids.0.push((first, last)),
            }
        }
        ids
    }

    pub fn ranges(&self) -> &[(i64, i64)] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn first(&self) -> Option<i64> {
        self.0.first().map(|range| range.0)
    }

    pub fn last(&self) -> Option<i64> {
        self.0.last().map(|range| range.1)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last.abs_diff(*first).saturating_add(1)).sum()
    }

    pub fn union(&self, other: &Ids) -> Ids {
        Ids::of(self.0.iter().chain(&other.0).copied())
    }

    pub fn minus(&self, other: &Ids) -> Ids {
        let (mut left, mut others) = (Vec::new(), other.0.iter().peekable());
        for &(first, last) in &self.0 {
            let mut next = Some(first);
            while let Some(from) = next {
                match others.peek() {
                    Some(gap) if gap.1 < from => drop(others.next()),
                    Some(gap) if gap.0 <= last => {
                        if from < gap.0 {
                            left.push((from, gap.0 - 1));
                        }
                        // The gap may reach into the next range.
                        next = if gap.1 < last { Some(gap.1 + 1) } else { None };
                    }
                    _ => {
                        left.push((from, last));
                        next = None;
                    }
                }
            }
        }
        Ids(left)
    }

    /// Those up to `last`.
    pub fn up_to(&self, last: i64) -> Ids {
        Ids(self.0.iter().filter(|range| range.0 <= last).map(|range| (range.0, range.1.min(last))).collect())
    }

    /// Those after `start`.
    pub fn after(&self, start: i64) -> Ids {
        Ids(self.0.iter().filter(|range| range.1 > start).map(|r| (r.0.max(start + 1), r.1)).collect())
    }

    /// A set with fewer ranges that holds this one: holes that are small beside all of it are filled, and then the
    /// smallest, until there are at most `most` ranges.
    pub fn cover(&self, most: usize) -> Ids {
        let holes = self.0.windows(2).map(|pair| pair[1].0.abs_diff(pair[0].1));
        let mut smallest: Vec<u64> = holes.collect();
        smallest.sort_unstable();
        let too_many = self.0.len().saturating_sub(most);
        let limit = (self.count() / 8).max(too_many.checked_sub(1).map_or(0, |i| smallest[i]));
        let mut cover = Ids::default();
        for &(first, last) in &self.0 {
            match cover.0.last_mut() {
                Some(before) if first.abs_diff(before.1) <= limit => before.1 = last,
                _ => cover.0.push((first, last)),
            }
        }
        cover
    }

    /// Reads an `int8multirange` in its canonical form, `{[1,5),[7,8)}`.
    pub fn parse(text: &str) -> Option<Ids> {
        let ranges = text.strip_prefix('{')?.strip_suffix('}')?;
        let range = |range: &str| {
            let (first, end) = range.strip_prefix('[')?.split_once(',')?;
            Some((first.parse().ok()?, end.parse::<i64>().ok()? - 1))
        };
        let ranges: Option<Vec<_>> =
            ranges.split_terminator(')').map(|r| range(r.trim_start_matches(','))).collect();
        Some(Ids(ranges?))
    }
}

/// As an `int8multirange`.
impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let end = |last: i64| last.checked_add(1).map_or(String::new(), |end| end.to_string());
        let ranges: Vec<_> = self.0.iter().map(|(first, last)| format!("[{first},{})", end(*last))).collect();
        write!(f, "{{{}}}", ranges.join(","))
    }
}

/// Ids that come one by one, in any order and more than once: a bit for each, in pages; a page that is complete takes
/// no room.
#[derive(Default)]
pub struct Seen {
    pages: BTreeMap<i64, Page>,
    /// The page of the last id, taken out, and its number: the next id is likely to be there too.
    current: Option<(i64, Page)>,
}

/// Whether each of [`Page::IDS`] ids was seen.
enum Page {
    Complete,
    Some { seen: Box<[u64; Page::IDS as usize / 64]>, missing: u32 },
}

impl Page {
    const IDS: i64 = 1 << 16;

    fn new() -> Page {
        Page::Some { seen: Box::new([0; Page::IDS as usize / 64]), missing: Page::IDS as u32 }
    }

    fn add(&mut self, offset: usize) {
        let Page::Some { seen, missing } = self else { return };
        let (word, bit) = (&mut seen[offset / 64], 1 << (offset % 64));
        *missing -= u32::from(*word & bit == 0);
        *word |= bit;
        if *missing == 0 {
            *self = Page::Complete;
        }
    }

    /// The stretches that were seen, by their first offset and the one behind the last.
    fn stretches(&self) -> impl Iterator<Item = (i64, i64)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = self.next(at, true).filter(|first| *first < Page::IDS)?;
            at = self.next(first, false).unwrap_or(Page::IDS);
            Some((first, at))
        })
    }

    /// The first offset from this one on that was seen, or was not.
    fn next(&self, from: i64, is_seen: bool) -> Option<i64> {
        let Page::Some { seen, .. } = self else { return is_seen.then_some(from) };
        let mut at = from;
        while at < Page::IDS {
            let word = seen[at as usize / 64];
            let wanted = if is_seen { word } else { !word } >> (at % 64);
            if wanted != 0 {
                return Some(at + i64::from(wanted.trailing_zeros()));
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }
}

impl Seen {
    pub fn add(&mut self, id: i64) {
        let number = id.div_euclid(Page::IDS);
        if self.current.as_ref().is_none_or(|(current, _)| *current != number) {
            self.put_back();
            self.current = Some((number, self.pages.remove(&number).unwrap_or_else(Page::new)));
        }
        if let Some((_, page)) = &mut self.current {
            page.add(id.rem_euclid(Page::IDS) as usize);
        }
    }

    fn put_back(&mut self) {
        self.pages.extend(self.current.take());
    }

    /// Those that were seen, as far as about so many ranges hold them.
    pub fn first_ranges(mut self, most: usize) -> Ids {
        self.put_back();
        let mut ids = Ids::default();
        for (number, page) in self.pages {
            let start = number * Page::IDS;
            for (first, behind) in page.stretches() {
                let (first, last) = (start + first, start + (behind - 1));
                match ids.0.last_mut() {
                    Some(before) if before.1 + 1 == first => before.1 = last,
                    _ => ids.0.push((first, last)),
                }
            }
            if ids.0.len() > most {
                break;
            }
        }
        ids.0.truncate(most);
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn plain(ids: &Ids) -> BTreeSet<i64> {
        ids.0.iter().flat_map(|(first, last)| *first..=*last).collect()
    }

    /// A thousand sets below 60, from a fixed seed.
    fn samples() -> impl Iterator<Item = Ids> {
        let mut state = 88172645463325252u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below) as i64
        };
        (0..1000).map(move |_| {
            Ids::of(
                (0..random(7))
                    .map(|_| (random(60), random(9)))
                    .map(|(at, n)| (at, at + n - 1))
                    .collect::<Vec<_>>(),
            )
        })
    }

    fn assert_normal(ids: &Ids) {
        assert!(ids.0.iter().all(|(first, last)| first <= last), "{ids}");
        assert!(ids.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{ids}");
    }

    #[test]
    fn sets_behave_like_sets() {
        let (some, others): (Vec<_>, Vec<_>) =
            (samples().collect(), samples().skip(500).chain(samples()).collect());
        for (a, b) in some.iter().zip(&others) {
            let (x, y) = (plain(a), plain(b));
            for (ids, expected) in [
                (a.union(b), &x | &y),
                (a.minus(b), &x - &y),
                (a.up_to(30), x.iter().copied().filter(|id| *id <= 30).collect()),
                (a.after(30), x.iter().copied().filter(|id| *id > 30).collect()),
            ] {
                assert_normal(&ids);
                assert_eq!(plain(&ids), expected, "{a} {b}");
            }
            assert_eq!(a.count() as usize, x.len());
            assert_eq!((a.first(), a.last()), (x.first().copied(), x.last().copied()));
        }
    }

    #[test]
    fn a_cover_holds_all_of_it_in_few_ranges() {
        for ids in samples() {
            for most in 1..5 {
                let cover = ids.cover(most);
                assert_normal(&cover);
                assert!(cover.0.len() <= most && ids.minus(&cover).is_empty(), "{ids}: {cover}");
            }
        }
        // A window with small holes is one range, a few ids far behind it are not part of it.
        let ids = Ids::of([(3, 3), (100, 100), (10_000, 12_000), (12_002, 20_000)]);
        assert_eq!(ids.cover(32), Ids::of([(3, 100), (10_000, 20_000)]));
        assert_eq!(Ids::of([(1, 1), (50, 50), (99, 99)]).cover(32).0.len(), 3);
    }

    #[test]
    fn what_was_seen_one_by_one_is_the_set_of_it() {
        let seen = |ids: &mut dyn Iterator<Item = i64>| {
            let mut seen = Seen::default();
            ids.for_each(|id| seen.add(id));
            seen
        };
        for (some, others) in samples().zip(samples().skip(7)) {
            // Across the border of two pages, one of them below zero, and some of them twice.
            for base in [0, -30, Page::IDS - 30, -Page::IDS - 30] {
                let shift = |ids: &Ids| Ids::of(ids.0.iter().map(|r| (r.0 + base, r.1 + base)));
                let (some, others) = (shift(&some), shift(&others));
                let mut both = plain(&some).into_iter().rev().chain(plain(&others));
                assert_eq!(seen(&mut both).first_ranges(100), some.union(&others));
            }
        }
        let complete = seen(&mut (-1..3 * Page::IDS).rev().filter(|id| *id != Page::IDS + 63));
        assert_eq!(complete.pages.values().filter(|page| matches!(page, Page::Complete)).count(), 2);
        let ranges = Ids::of([(-1, Page::IDS + 62), (Page::IDS + 64, 3 * Page::IDS - 1)]);
        assert_eq!(complete.first_ranges(2), ranges);
        let sparse = seen(&mut (0..1000).map(|i| i * 1000));
        assert_eq!(sparse.first_ranges(3), Ids::of([(0, 0), (1000, 1000), (2000, 2000)]));
        let ends = seen(&mut [i64::MAX, i64::MIN, i64::MAX - 1].into_iter());
        assert_eq!(ends.first_ranges(9), Ids::of([(i64::MIN, i64::MIN), (i64::MAX - 1, i64::MAX)]));
    }

    #[test]
    fn they_travel_as_multiranges() {
        for ids in samples() {
            assert_eq!(Ids::parse(&ids.to_string()), Some(ids));
        }
        assert_eq!(Ids::of([(-5, -5), (7, 9)]).to_string(), "{[-5,-4),[7,10)}");
        assert_eq!(Ids::between(5, i64::MAX).to_string(), "{[6,)}");
        assert_eq!(Ids::parse("{}"), Some(Ids::default()));
        assert_eq!(Ids::parse("{(,5)}"), None);
    }
}
