//! TopN against exact counting: what is guaranteed, for any stream, weights, growth and order of merges.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use sketches::topn::jsonb::{self, List, NotCounters};
use sketches::topn::{self, Counter, Cursor, list};

type Exact = HashMap<Vec<u8>, u64>;

/// A stream of (item, weight) over a universe of `items` skewed keys of mixed lengths.
fn stream(items: u64, len: usize) -> impl Strategy<Value = Vec<(Vec<u8>, u64)>> {
    let event = (0.0..1.0f64, 1..4u64).prop_map(move |(x, weight)| {
        let key = (x * x * x * items as f64) as u64;
        let mut item = key.to_string().into_bytes();
        if key.is_multiple_of(7) {
            item.resize(item.len() + (key % 400) as usize, b'~');
        }
        (item, weight)
    });
    vec(event, 0..len)
}

fn count(events: &[(Vec<u8>, u64)], limit: usize) -> Vec<u8> {
    let mut state = Vec::new();
    for (item, weight) in events {
        topn::add(&mut state, limit, item, *weight).unwrap();
    }
    state
}

/// The same with the cursor, as the aggregate does it, and the number of events that went by it.
fn count_by_cursor(events: &[(Vec<u8>, u64)], limit: usize) -> (Vec<u8>, usize) {
    let (mut state, mut put) = (Vec::new(), 0);
    let (mut cursor, mut open) = topn::cursor(&state);
    for (item, weight) in events {
        if let Some(next) = cursor.put(&mut state[..open], item, *weight) {
            cursor = Cursor::from_bits(next.to_bits());
            put += 1;
            continue;
        }
        topn::settle(&mut state, cursor);
        if !topn::count(&mut state, item, *weight) {
            topn::insert(&mut state, limit, item, *weight).unwrap();
        }
        (cursor, open) = topn::cursor(&state);
    }
    topn::settle(&mut state, cursor);
    (state, put)
}

#[test]
fn most_new_items_are_put_where_the_cursor_says() {
    for (items, n) in [(100, 100), (100, 200), (250, 240)] {
        let events: Vec<_> = (0..n).map(|i| ((i % items).to_string().into_bytes(), 1)).collect();
        let (state, put) = count_by_cursor(&events, 1000);
        assert_eq!(found(&topn::counters(&state, 1000)), exact(&events));
        assert!(put > n * 3 / 4, "{put} of {n}");
    }
    // Few items are looked for: their counts grow in place.
    let events: Vec<_> = (0..70_000).map(|i| (vec![b'a' + i as u8 % 5], 1)).collect();
    let (state, put) = count_by_cursor(&events, 1000);
    assert_eq!(found(&topn::counters(&state, 1000)), exact(&events));
    assert!(put < 100 && state.len() < 64, "{put}, {} bytes", state.len());
}

fn exact(events: &[(Vec<u8>, u64)]) -> Exact {
    let mut exact = Exact::new();
    for (item, weight) in events {
        *exact.entry(item.clone()).or_default() += weight;
    }
    exact
}

fn found(counters: &[Counter]) -> Exact {
    let found: Exact = counters.iter().map(|c| (c.item.to_vec(), c.count)).collect();
    assert_eq!(found.len(), counters.len(), "an item occurs twice");
    found
}

/// count <= truth <= count + bound for every item, 0 standing for those not listed.
fn check_bound(exact: &Exact, found: &Exact, bound: u64) -> Result<(), TestCaseError> {
    for (item, &truth) in exact {
        let count = found.get(item).copied().unwrap_or(0);
        prop_assert!(count <= truth && truth <= count + bound, "{count} {truth} {bound}");
    }
    prop_assert!(found.keys().all(|item| exact.contains_key(item)));
    Ok(())
}

fn encode(counters: &[Counter]) -> Vec<u8> {
    let mut out = vec![0; jsonb::encoded_len(counters).unwrap()];
    jsonb::encode(counters, &mut out);
    out
}

fn decode(bytes: &[u8]) -> Result<Vec<(Vec<u8>, u64)>, NotCounters<'_>> {
    List::parse(bytes)?.iter().map(|c| c.map(|c| (c.item.to_vec(), c.count))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn exact_until_the_limit(events in stream(300, 2000)) {
        let state = count(&events, 1000);
        let exact = exact(&events);
        prop_assert_eq!(&found(&topn::counters(&state, 1000)), &exact);
        prop_assert_eq!(topn::error_bound(&state, 1000), 0);
    }

    #[test]
    fn the_cursor_makes_no_difference(events in stream(300, 3000), few in 1..40usize, large in 0..40u32) {
        let fewer: Vec<_> = events.iter().map(|(item, weight)| {
            let item = vec![b'x'; item.iter().map(|&byte| byte as usize).sum::<usize>() % few];
            (item, weight << (weight * 7919 % 41).min(large as u64))
        }).collect();
        for events in [events, fewer] {
            let (state, _) = count_by_cursor(&events, 1000);
            prop_assert_eq!(&found(&topn::counters(&state, 1000)), &exact(&events));
            let wire = topn::serialize(&state);
            let mut other = Vec::new();
            topn::merge(&mut other, 1000, &wire).unwrap();
            prop_assert_eq!(&found(&topn::counters(&other, 1000)), &exact(&events));
        }
    }

    #[test]
    fn the_bound_holds(events in stream(20_000, 12_000), limit in 1..60usize) {
        let state = count(&events, limit);
        let counters = topn::counters(&state, limit);
        prop_assert!(counters.len() <= limit);
        check_bound(&exact(&events), &found(&counters), topn::error_bound(&state, limit))?;
        let total: u64 = events.iter().map(|(_, weight)| weight).sum();
        // Asked for everything it has, the state shows the floor alone.
        prop_assert!(topn::error_bound(&state, usize::MAX) <= total / limit as u64);
    }

    #[test]
    fn the_bound_holds_for_merges(
        parts in vec(stream(20_000, 3000), 1..8),
        limits in vec(1..40usize, 8),
        fold_left in any::<bool>(),
    ) {
        let events: Vec<_> = parts.concat();
        let mut states: Vec<Vec<u8>> =
            parts.iter().zip(&limits).map(|(part, &limit)| count(part, limit)).collect();
        while states.len() > 1 {
            let last = states.pop().unwrap();
            let at = if fold_left { 0 } else { states.len() - 1 };
            topn::merge(&mut states[at], limits[0], &topn::serialize(&last)).unwrap();
        }
        let state = &states[0];
        let limit = topn::limit(state, limits[0]);
        check_bound(&exact(&events), &found(&topn::counters(state, limit)), topn::error_bound(state, limit))?;
        let total: u64 = events.iter().map(|(_, weight)| weight).sum();
        let smallest = *limits.iter().min().unwrap() as u64;
        prop_assert!(topn::error_bound(state, usize::MAX) <= total / smallest);
    }

    #[test]
    fn unpruned_merges_do_not_depend_on_order(parts in vec(stream(400, 300), 1..6)) {
        let exact = exact(&parts.concat());
        for order in [false, true] {
            let mut state = Vec::new();
            let mut lists = Vec::new();
            for i in 0..parts.len() {
                let part = &parts[if order { i } else { parts.len() - 1 - i }];
                let part = count(part, 1000);
                topn::merge(&mut state, 1000, &topn::serialize(&part)).unwrap();
                topn::add_list(&mut lists, 1000, &List::parse(&encode(&topn::counters(&part, 1000))).unwrap()).unwrap();
            }
            prop_assert_eq!(&found(&topn::counters(&state, 1000)), &exact);
            prop_assert_eq!(&found(&topn::counters(&lists, 1000)), &exact);
        }
    }

    #[test]
    fn lists_come_back_as_they_were(events in stream(2000, 600), big in vec(any::<u64>(), 600)) {
        let events: Vec<_> = events.into_iter().zip(big).map(|((item, _), w)| (item, w >> (w % 64).max(1))).collect();
        let state = count(&events, 10_000);
        let counters = topn::counters(&state, 10_000);
        let bytes = encode(&counters);
        let expected: Vec<_> = counters.iter().map(|c| (c.item.to_vec(), c.count)).collect();
        prop_assert_eq!(decode(&bytes).unwrap(), expected);
    }

    #[test]
    fn union_adds_up(a in stream(500, 300), b in stream(500, 300), limit in 1..400usize) {
        let (one, two) = (count(&a, 1000), count(&b, 1000));
        let (one, two) = (encode(&topn::counters(&one, 1000)), encode(&topn::counters(&two, 1000)));
        let (one, two) = (List::parse(&one).unwrap(), List::parse(&two).unwrap());
        let union = list::union(&one, &two, limit).unwrap();
        let sums = exact(&[a, b].concat());
        let mut ranked: Vec<_> = sums.iter().map(|(item, &count)| Counter { item, count }).collect();
        list::keep(&mut ranked, limit.max(one.len()).max(two.len()));
        list::sort(&mut ranked);
        prop_assert_eq!(&union, &ranked);
        prop_assert_eq!(union, list::union(&two, &one, limit).unwrap());
    }

    #[test]
    fn top_is_ranked(events in stream(500, 500), n in 0..50usize) {
        let state = count(&events, 1000);
        let bytes = encode(&topn::counters(&state, 1000));
        let top = list::top(&List::parse(&bytes).unwrap(), n).unwrap();
        let mut all: Vec<_> = exact(&events).into_iter().collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(n);
        let top: Vec<_> = top.iter().map(|c| (c.item.to_vec(), c.count)).collect();
        prop_assert_eq!(top, all);
    }

    #[test]
    fn any_bytes_decode_or_fail(mut bytes in vec(any::<u8>(), 0..200), n in 0..12u32) {
        let _ = decode(&bytes).map(|_| ());
        if bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&(0x2000_0000 | n).to_ne_bytes());
            let _ = decode(&bytes).map(|_| ());
        }
        let mut state = Vec::new();
        let _ = topn::merge(&mut state, 10, &bytes);
        bytes.insert(0, 1);
        let _ = topn::merge(&mut state, 10, &bytes);
    }
}

/// Deterministic corruption of valid lists and states: nothing panics, nothing grows out of hand.
#[test]
fn damaged_bytes_decode_or_fail() {
    let mut seed = 0x1234_5678_9abc_def1u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let events: Vec<_> =
        (0..300u64).map(|i| (i.pow(3).to_string().into_bytes(), 1 + i.pow(5) % 100_003)).collect();
    let mut table = count(&events, 3);
    for i in 0..2000u64 {
        topn::add(&mut table, 3, &i.to_ne_bytes(), 1).unwrap();
    }
    for (valid, is_list) in [
        (encode(&topn::counters(&count(&events, 1000), 1000)), true),
        (encode(&topn::counters(&count(&events[..3], 1000), 1000)), true),
        (topn::serialize(&count(&events[..20], 1000)), false),
        (topn::serialize(&table), false),
    ] {
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = valid.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            if random() % 8 == 0 {
                bytes.truncate(random() as usize % (bytes.len() + 1));
            }
            let ok = if is_list {
                let mut state = Vec::new();
                List::parse(&bytes).is_ok_and(|list| {
                    let union = list::union(&list, &list, 5).is_ok();
                    let added = topn::add_list(&mut state, 5, &list).is_ok();
                    assert_eq!(union, added);
                    union
                })
            } else {
                let mut state = Vec::new();
                let ok = topn::merge(&mut state, 5, &bytes).is_ok();
                assert!(state.len() < 1 << 20);
                topn::counters(&state, 5);
                ok
            };
            *if ok { &mut good } else { &mut bad } += 1;
        }
        assert!(good > 0 && bad > 0, "{good} {bad}");
    }
}

#[test]
fn counts_saturate() {
    let mut state = Vec::new();
    for _ in 0..3 {
        topn::add(&mut state, 10, b"a", topn::MAX_COUNT).unwrap();
    }
    let other = state.clone();
    topn::merge(&mut state, 10, &topn::serialize(&other)).unwrap();
    assert_eq!(topn::counters(&state, 10), [Counter { item: b"a", count: topn::MAX_COUNT }]);
    let bytes = encode(&topn::counters(&state, 10));
    let list = List::parse(&bytes).unwrap();
    assert_eq!(list::add(&list, b"a", 10).unwrap()[0].count, topn::MAX_COUNT);
    assert_eq!(list::union(&list, &list, 10).unwrap()[0].count, topn::MAX_COUNT);
}

#[test]
fn items_beyond_jsonb_are_refused() {
    let long = vec![b'x'; topn::MAX_ITEM + 1];
    let mut state = Vec::new();
    let refused = Err(topn::Error::ItemTooLong(long.len()));
    assert_eq!(topn::add(&mut state, 10, &long, 1), refused);
    topn::add(&mut state, 10, b"a", 1).unwrap();
    assert_eq!(topn::add(&mut state, 10, &long, 1), refused);
    for i in 0..200 {
        topn::add(&mut state, 10, &[i], 1).unwrap();
    }
    assert_eq!(topn::add(&mut state, 10, &long, 1), refused);
}

/// What the design promises of memory: a small group takes tens of bytes, and a large one is bounded.
#[test]
fn states_are_small_and_bounded() {
    let mut state = Vec::new();
    topn::add(&mut state, 1000, b"87654321", 1).unwrap();
    assert_eq!(state.len() + topn::BLOCK_HEADER, 32);
    for i in 0..50 {
        topn::add(&mut state, 1000, format!("{i:05}").as_bytes(), 1).unwrap();
    }
    assert_eq!(state.len() + topn::BLOCK_HEADER, 512);
    for i in 0..1_000_000 {
        topn::add(&mut state, 1000, format!("{i:07}").as_bytes(), 1).unwrap();
    }
    assert!(state.len() < 1 << 20, "{}", state.len());
    let long = |i: u32| format!("{i:0>1000}");
    for i in 0..100_000 {
        topn::add(&mut state, 1000, long(i).as_bytes(), 1).unwrap();
    }
    assert!(state.len() < 8 << 20, "{}", state.len());
}
