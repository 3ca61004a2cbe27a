//! TopN: lists of counters as jsonb, serialized transition states, and a model of exact counters.

use std::sync::OnceLock;

use sketches::hll::murmur;
use sketches::topn::jsonb::{List, NotCounters, encode, encoded_len};
use sketches::topn::{self, Block, Counter, Error, ListError, MAX_COUNT, list};

/// A state that never asks for much more memory than its input accounts for.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl Bounded {
    fn new(input: usize) -> Self {
        Bounded { bytes: Vec::new(), most: (64 * input).max(1 << 17) }
    }
}

impl Block for Bounded {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn replace(&mut self, size: usize, fill: impl FnOnce(&[u8], &mut [u8])) {
        assert!(size <= self.most, "{size} bytes");
        self.bytes.replace(size, fill)
    }
}

const LIMITS: [usize; 3] = [1, 7, 1000];

/// Which of [`LIMITS`] an input is tried with, and in which state.
fn choice(input: &[u8]) -> usize {
    murmur::hash(input, 0) as usize % LIMITS.len()
}

/// The bytes of a jsonb value, as every function that takes a list gets them. After PostgreSQL's own input they are well
/// formed; a corrupt table's need not be.
pub fn jsonb(input: &[u8]) {
    let Ok(list) = List::parse(input) else { return };
    let Ok(counters) = list.iter().collect::<Result<Vec<Counter>, NotCounters>>() else {
        // Whoever reads all of it finds the error, after adding what comes before.
        assert!(
            list::total(&list).is_err() && list::top(&list, 3).is_err() && list::add(&list, b"a", 9).is_err()
        );
        let mut state = Bounded::new(input.len());
        assert!(matches!(topn::add_list(&mut state, 7, &list), Err(ListError::NotCounters(_))));
        finish(&mut state, 7);
        return;
    };
    assert_eq!(counters.len(), list.len());
    let total = counters.iter().fold(0u64, |sum, counter| (sum + counter.count).min(MAX_COUNT));
    assert_eq!(list::total(&list), Ok(total));

    // Encoding gives the shortest form, which reads as the same list and stays as it is.
    let encoded = encode_all(&counters);
    let again = List::parse(&encoded).unwrap();
    assert!(again.iter().map(Result::unwrap).eq(counters.iter().copied()));

    let top = list::top(&list, 3).unwrap();
    assert_eq!(top.len(), counters.len().min(3));
    assert!(top.windows(2).all(|w| w[0].count >= w[1].count));
    let doubled = list::union(&list, &again, 1000).unwrap();
    let longer = list::add(&list, b"item", 1000).unwrap();
    assert!((counters.len()..=counters.len() + 1).contains(&longer.len()));
    encode_all(&longer);
    let ordered = counters.windows(2).all(|w| (w[0].item.len(), w[0].item) < (w[1].item.len(), w[1].item));
    let limit = LIMITS[choice(input)];
    let mut state = Bounded::new(input.len());
    topn::add_list(&mut state, limit, &list).unwrap();
    if ordered {
        // PostgreSQL wrote it: nothing is pruned below an input, and twice the list is its double.
        let kept = topn::counters(&state.bytes, topn::limit(&state.bytes, limit).max(counters.len()));
        assert!(kept.iter().eq(&counters));
        assert_eq!(topn::error_bound(&state.bytes, counters.len()), 0);
        let twice = counters.iter().map(|c| Counter { count: (2 * c.count).min(MAX_COUNT), ..*c });
        assert!(doubled.iter().copied().eq(twice));
    }
    topn::add_list(&mut state, limit, &again).unwrap();
    finish(&mut state, limit);
}

/// A serialized transition state: what merges into any state ends in one that finishes and serializes.
pub fn wire(input: &[u8]) {
    let limit = LIMITS[choice(input)];
    let mut state = Bounded::new(input.len());
    if merge(&mut state, limit, input).is_err() {
        return;
    }
    finish(&mut state, limit);
    // Once more, and onto a state that is there already.
    merge(&mut state, limit, input).unwrap();
    finish(&mut state, limit);
    state.bytes.clone_from(&started()[choice(input)]);
    merge(&mut state, limit, input).unwrap();
    finish(&mut state, limit);
}

/// States to merge into, one for each of [`LIMITS`]: a small one, one that has pruned, a large one.
fn started() -> &'static [Vec<u8>; 3] {
    static STARTED: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    let state = |limit, n: usize| {
        let mut state = Vec::new();
        items()[..n].iter().for_each(|item| topn::add(&mut state, limit, item, 1).unwrap());
        state
    };
    STARTED.get_or_init(|| [state(LIMITS[0], 3), state(LIMITS[1], 300), state(LIMITS[2], 200)])
}

fn merge(state: &mut Bounded, limit: usize, wire: &[u8]) -> Result<(), Error> {
    let merged = topn::merge(state, limit, wire);
    assert!(matches!(merged, Ok(()) | Err(Error::Malformed)), "{merged:?}");
    merged
}

/// Finishes a state, also by way of another process, which changes nothing.
fn finish(state: &mut Bounded, limit: usize) {
    let limit = topn::limit(&state.bytes, limit);
    let counters = topn::counters(&state.bytes, limit);
    assert!(counters.len() <= limit);
    assert!(counters.windows(2).all(|w| (w[0].item.len(), w[0].item) < (w[1].item.len(), w[1].item)));
    assert!(counters.iter().all(|counter| counter.count <= MAX_COUNT));
    encode_all(&counters);
    let mut moved = Bounded { bytes: Vec::new(), most: usize::MAX };
    topn::merge(&mut moved, limit, &topn::serialize(&state.bytes)).unwrap();
    assert_eq!(topn::counters(&moved.bytes, limit), counters);
    assert_eq!(topn::error_bound(&moved.bytes, limit), topn::error_bound(&state.bytes, limit));
}

fn encode_all(counters: &[Counter]) -> Vec<u8> {
    let mut bytes = vec![0; encoded_len(counters).unwrap()];
    encode(counters, &mut bytes);
    bytes
}

const KEYS: usize = 1024;

/// The items of the model by their number; some are long.
fn items() -> &'static [Vec<u8>] {
    static ITEMS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let item =
        |key: usize| format!("{key}{}", if key.is_multiple_of(97) { " ".repeat(300) } else { String::new() });
    ITEMS.get_or_init(|| (0..KEYS).map(|key| item(key).into_bytes()).collect())
}

fn key(item: &[u8]) -> usize {
    std::str::from_utf8(item).unwrap().trim_end().parse().unwrap()
}

/// A program for two states, against exact counters: adds, runs of adds, merges, finished lists.
pub fn model(input: &[u8]) {
    let mut input = input.iter().copied();
    let mut byte = || input.next();
    let Some(limit) = byte().map(|b| 1 + b as usize % 40) else { return };
    let mut states = [Bounded::new(1 << 16), Bounded::new(1 << 16)];
    let mut exact = [[0u64; KEYS]; 2];
    let mut adds = 0;
    while let Some(op) = byte()
        && adds < 1500
    {
        let which = (op & 1) as usize;
        match op >> 1 & 3 {
            kind @ (0 | 1) => {
                let (Some(low), Some(high), Some(weight)) = (byte(), byte(), byte()) else { break };
                // Weights from nothing to the largest; most are small.
                let weight =
                    if weight < 0xe0 { u64::from(weight & 7) } else { MAX_COUNT >> (2 * (weight & 0x1f)) };
                let run = if kind == 0 { 1 } else { 8 * (usize::from(op >> 3) + 1) };
                for i in 0..run {
                    let key = (usize::from(u16::from_le_bytes([low, high])) + i) % KEYS;
                    topn::add(&mut states[which], limit, &items()[key], weight).unwrap();
                    exact[which][key] = (exact[which][key] + weight).min(MAX_COUNT);
                }
                adds += run;
            }
            kind => {
                let other = &states[1 - which].bytes;
                let other_limit = topn::limit(other, limit);
                if kind == 2 {
                    let wire = topn::serialize(other);
                    topn::merge(&mut states[which], limit, &wire).unwrap();
                } else if topn::error_bound(other, other_limit) == 0 {
                    let list = encode_all(&topn::counters(other, other_limit));
                    topn::add_list(&mut states[which], limit, &List::parse(&list).unwrap()).unwrap();
                } else {
                    // A finished list knows nothing of its error: only one without is comparable.
                    continue;
                }
                states[1 - which].bytes.clear();
                let moved = std::mem::replace(&mut exact[1 - which], [0; KEYS]);
                exact[which].iter_mut().zip(moved).for_each(|(sum, n)| *sum = (*sum + n).min(MAX_COUNT));
            }
        }
    }
    for (state, exact) in states.iter_mut().zip(&exact) {
        let limit = topn::limit(&state.bytes, limit);
        let bound = topn::error_bound(&state.bytes, limit);
        let mut found = [0u64; KEYS];
        for counter in topn::counters(&state.bytes, limit) {
            found[key(counter.item)] = counter.count;
        }
        for (&count, &truth) in found.iter().zip(exact) {
            assert!(count <= truth && truth <= count.saturating_add(bound), "{count} {truth} {bound}");
        }
        finish(state, limit);
    }
}

fn counters_of(items: u64, limit: usize, weight: fn(u64) -> u64) -> Vec<u8> {
    let mut state = Vec::new();
    for i in 0..items {
        topn::add(&mut state, limit, &i.to_string().into_bytes(), weight(i)).unwrap();
    }
    state
}

pub fn jsonb_seeds() -> Vec<Vec<u8>> {
    let weights: [fn(u64) -> u64; 3] = [|i| i, |i| (1 << 62) >> i, |i| 12_340_000 * (i + 1)];
    let lists = [(0, 0), (1, 0), (4, 1), (9, 2), (40, 1), (70, 2)].map(|(items, weight)| {
        let state = counters_of(items, 100, weights[weight]);
        encode_all(&topn::counters(&state, 100))
    });
    let mut seeds = lists.to_vec();
    // A value of 1234567.00 in the long form of numeric, and one of true.
    let long = [0x2000_0001u32, 0x8000_0001, 0x9000_0014].map(u32::to_ne_bytes).concat();
    let numeric = [17 << 2, 0x0001_0002, 0x11d7_007b, 0].map(u32::to_ne_bytes).concat();
    seeds.push([&long[..], b"a\0\0\0", &numeric].concat());
    let boolean = [0x2000_0001u32, 0x8000_0001, 0xb000_0001].map(u32::to_ne_bytes).concat();
    seeds.push([&boolean[..], b"a"].concat());
    seeds
}

pub fn wire_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [(0, 9), (1, 9), (5, 9), (40, 9)]
        .map(|(n, limit)| topn::serialize(&counters_of(n, limit, |i| i * i)))
        .to_vec();
    // Pruned, so with a floor and errors.
    seeds.push(topn::serialize(&counters_of(300, 2, |_| 1)));
    seeds.push(topn::serialize(&counters_of(300, 3, |i| u64::MAX >> (i % 60 + 1))));
    seeds
}

pub fn model_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![1, 0, 7, 0, 1, 1, 7, 0, 1, 4],
        vec![2, 0xfa, 0, 0, 1, 0xfa, 0, 1, 2, 0xfb, 0x80, 0, 1, 0xfb, 0x80, 3, 0xff, 4, 0xfa, 9, 9, 3, 5],
        vec![3, 0x32, 0, 0, 3, 0x33, 9, 0, 0xe9, 6, 0x33, 97, 0, 0xff, 7, 4],
    ]
}
