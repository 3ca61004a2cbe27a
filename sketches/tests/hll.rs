//! The HLL sketches against an oracle: the crate `hyperloglogplus`, and plain sets of hashes.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};

use hyperloglogplus::{HyperLogLog, HyperLogLogPlus};
use proptest::prelude::*;
use sketches::hll::{
    self, Body, Corrupt, Cursor, Params, Sketch, State, Stored, code, murmur, params, registers, v1,
};

/// Passes a 64-bit hash on unchanged.
#[derive(Clone, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only 64-bit hashes")
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash
    }
}

impl BuildHasher for Identity {
    type Hasher = Identity;
    fn build_hasher(&self) -> Identity {
        Identity(0)
    }
}

fn wide(log2m: u8) -> Params {
    Params { log2m, regwidth: 6, ..Params::default() }
}

fn sketch_of(params: Params, hashes: impl IntoIterator<Item = u64>) -> Sketch {
    let mut sketch = Sketch::new(params);
    hashes.into_iter().for_each(|hash| sketch.add(hash));
    sketch
}

fn bytes_of(params: Params, hashes: impl IntoIterator<Item = u64>) -> Vec<u8> {
    sketch_of(params, hashes).to_bytes()
}

fn count(bytes: &[u8]) -> f64 {
    hll::cardinality(&Stored::parse(bytes).unwrap()).unwrap()
}

/// Hashes as murmur makes them, and some that it hardly ever makes: with long runs of zeros.
fn hashes(most: usize) -> impl Strategy<Value = Vec<u64>> {
    let hash = prop_oneof![
        8 => any::<u64>(),
        1 => (0u64..1 << 20).prop_map(|low| low),
        1 => (any::<u64>(), 0u32..64).prop_map(|(hash, zeros)| hash >> zeros << zeros | hash & 0xfff),
    ];
    prop::collection::vec(hash, 0..most)
}

/// The registers of a sketch, by the crate's own rule: top bits and leading zeros of the reversed hash.
fn oracle_registers(log2m: u8, hashes: &[u64]) -> Vec<u8> {
    let mut registers = vec![0u8; 1 << log2m];
    for hash in hashes {
        let reversed = hash.reverse_bits();
        let index = if log2m == 0 { 0 } else { (reversed >> (64 - log2m)) as usize };
        let index = if log2m == 0 { 0 } else { (index as u64).reverse_bits() >> (64 - log2m) } as usize;
        let rest = reversed.checked_shl(log2m as u32).unwrap_or(0);
        let rank = (rest.leading_zeros().min(64 - log2m as u32) + 1).min(63) as u8;
        registers[index] = registers[index].max(rank);
    }
    registers
}

/// Registers of a stored sketch of either kind.
fn registers_of(bytes: &[u8]) -> Vec<u8> {
    let stored = Stored::parse(bytes).unwrap();
    let log2m = stored.params.log2m;
    let mut registers = vec![0u8; 1 << log2m];
    match stored.body {
        Body::Dense(bytes) => registers = registers::iter_stored(bytes, log2m).collect(),
        _ => stored
            .entries(|entry| {
                let (index, rank) = code::register(entry, log2m);
                registers[index] = registers[index].max(rank);
            })
            .unwrap(),
    }
    registers
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn same_registers_as_the_oracle(log2m in 0u8..=18, hashes in hashes(3000)) {
        let bytes = bytes_of(wide(log2m), hashes.iter().copied());
        prop_assert_eq!(registers_of(&bytes), oracle_registers(log2m, &hashes));
    }

    #[test]
    fn same_bytes_in_any_order_and_grouping(
        log2m in 0u8..=14, hashes in hashes(2500), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6), seed: u64,
    ) {
        let whole = bytes_of(wide(log2m), hashes.iter().copied());
        let mut shuffled = hashes.clone();
        shuffled.sort_by_key(|hash| hash.wrapping_mul(seed | 1).rotate_left(29));
        prop_assert_eq!(&bytes_of(wide(log2m), shuffled.iter().copied()), &whole);

        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(shuffled.len() + 1)).collect();
        cuts.extend([0, shuffled.len()]);
        cuts.sort();
        let mut merged = Sketch::new(wide(log2m));
        let mut by_states = Sketch::new(wide(log2m));
        for cut in cuts.windows(2).rev() {
            let mut part = sketch_of(wide(log2m), shuffled[cut[0]..cut[1]].iter().copied());
            by_states.merge_sketch(&mut part);
            merged.merge(&Stored::parse(&part.to_bytes()).unwrap()).unwrap();
        }
        prop_assert_eq!(&merged.to_bytes(), &whole);
        prop_assert_eq!(&by_states.to_bytes(), &whole);
        Stored::parse(&whole).unwrap().validate().unwrap();
    }

    #[test]
    fn two_precisions_meet_at_the_smaller(a in 0u8..=18, b in 0u8..=18, left in hashes(1500), right in hashes(1500)) {
        let mut merged = Sketch::from_stored(&Stored::parse(&bytes_of(wide(a), left.iter().copied())).unwrap()).unwrap();
        let other = bytes_of(wide(b), right.iter().copied());
        let mut by_states = merged.clone();
        merged.merge(&Stored::parse(&other).unwrap()).unwrap();
        by_states.merge_sketch(&mut sketch_of(wide(b), right.iter().copied()));
        prop_assert_eq!(by_states.to_bytes(), merged.to_bytes());
        let all: Vec<u64> = left.into_iter().chain(right).collect();
        prop_assert_eq!(merged.state().params(), wide(a.min(b)));
        prop_assert_eq!(registers_of(&merged.to_bytes()), oracle_registers(a.min(b), &all));
    }

    #[test]
    fn sparse_counts_distinct_entries(log2m in 4u8..=18, hashes in hashes(3000)) {
        let bytes = bytes_of(wide(log2m), hashes.iter().copied());
        let bits = params::sparse_bits(log2m);
        let distinct: BTreeSet<u64> = hashes.iter().map(|hash| hash & ((1 << bits) - 1)).collect();
        match Stored::parse(&bytes).unwrap().body {
            Body::Empty => prop_assert!(distinct.is_empty()),
            Body::Sparse { count, .. } => prop_assert_eq!(count, distinct.len()),
            _ => prop_assert!(distinct.len() > params::max_sparse(log2m)),
        }
    }

    #[test]
    fn version_1_keeps_every_register(log2m in 0u8..=18, regwidth in 1u8..=8, sparseon: bool, max_sparse in -1i32..400, hashes in hashes(2000)) {
        let params = Params { log2m, regwidth, sparseon, ..Params::default() };
        let mut sketch = sketch_of(params, hashes.iter().copied());
        let written = v1::write(&Stored::parse(&sketch.to_bytes()).unwrap(), max_sparse).unwrap();
        prop_assert_eq!(written[0] >> 4, 1);
        let read = v1::read(&written).unwrap().to_bytes();
        Stored::parse(&read).unwrap().validate().unwrap();
        let clamped: Vec<u8> =
            oracle_registers(log2m, &hashes).iter().map(|&rank| rank.min(params.top_value())).collect();
        prop_assert_eq!(registers_of(&read), clamped);
        // Merging both again loses nothing and gains nothing.
        sketch.merge(&Stored::parse(&read).unwrap()).unwrap();
        prop_assert_eq!(registers_of(&sketch.to_bytes()), oracle_registers(log2m, &hashes));
    }

    #[test]
    fn explicit_hashes_of_version_1_are_added(log2m in 0u8..=31, hashes in hashes(1000)) {
        let mut sorted: Vec<i64> = hashes.iter().map(|&hash| hash as i64).collect();
        sorted.sort();
        sorted.dedup();
        let mut bytes = vec![0x12, 4 << 5 | log2m, 0x7f];
        sorted.iter().for_each(|hash| bytes.extend(hash.to_be_bytes()));
        let ours = if hashes.is_empty() { bytes[0] = 0x11; Vec::new() } else { hashes };
        let params = Params { log2m: log2m.min(18), ..Params::default() };
        prop_assert_eq!(&*v1::import(&bytes).unwrap(), &*bytes_of(params, ours));
    }

    #[test]
    fn corrupt_version_1_is_an_error_or_a_sketch(
        kind in 0u8..=5, shape: u8, hints: u8, body in prop::collection::vec(any::<u8>(), 0..400), full: bool,
    ) {
        let mut bytes = vec![0x10 | kind, shape, hints];
        bytes.extend(&body);
        if full {
            // The length that a full sketch of up to 4,096 registers has.
            bytes[1] = shape & 0xef & !0x0c | 0x04;
            let width = (bytes[1] >> 5) as usize + 1;
            bytes.resize(3 + (width << (bytes[1] & 31)).div_ceil(8), 0x5a);
        }
        if let Ok(read) = v1::import(&bytes) {
            Stored::parse(&read).unwrap().validate().unwrap();
        }
    }

    #[test]
    fn corrupt_bytes_are_an_error_or_another_sketch(
        log2m in 0u8..=12, hashes in hashes(1200), flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4), cut: prop::sample::Index, cutting: bool,
    ) {
        let mut bytes = bytes_of(wide(log2m), hashes);
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if cutting {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        check(&bytes);
    }

    #[test]
    fn few_entries_into_registers(log2m in 0u8..=18, hashes in hashes(8), low in any::<bool>(), flip: Option<prop::sample::Index>) {
        // Half of the sketches have indexes that need a rank.
        let hashes = hashes.iter().map(|hash| if low { hash & (u64::MAX << 44 | 1) } else { *hash });
        let mut bytes = bytes_of(wide(log2m), hashes);
        if let Some(flip) = flip {
            let bit = flip.index(8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        check_into_registers(log2m, &bytes);
    }

    #[test]
    fn random_entries_into_registers(log2m in 0u8..=18, count in 0u8..6, body in prop::collection::vec(any::<u8>(), 0..20)) {
        let [shape, hints] = Sketch::new(wide(log2m)).to_bytes()[1..] else { unreachable!("a header has three bytes") };
        check_into_registers(log2m, &[vec![0x23, shape, hints, count], body].concat());
    }

    #[test]
    fn the_cursor_makes_no_difference(log2m in 0u8..=18, hashes in hashes(1500), repeat in 1..4usize) {
        let hashes = hashes.repeat(repeat);
        prop_assert_eq!(sketch_by_cursor(wide(log2m), &hashes).0, bytes_of(wide(log2m), hashes));
    }

    #[test]
    fn random_bytes_are_an_error_or_a_sketch(kind in 0u8..=5, shape: u8, hints in 0u8..128, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = vec![0x20 | kind, shape, hints];
        bytes.extend(body);
        check(&bytes);
    }
}

#[test]
fn what_meets_an_undefined_sketch_is_undefined() {
    let mut undefined = Sketch::new(wide(11));
    undefined.make_undefined();
    for n in [0, 1, 10, 100, 5000] {
        for log2m in [4, 11, 12] {
            let other = sketch_of(wide(log2m), (0..n).map(|i| murmur::hash_integer(i, 8, 0)));
            for (mut left, mut right) in [(undefined.clone(), other.clone()), (other, undefined.clone())] {
                let mut merged = left.clone();
                merged.merge(&Stored::parse(&right.to_bytes()).unwrap()).unwrap();
                left.merge_sketch(&mut right);
                for mut sketch in [merged, left] {
                    assert!(matches!(Stored::parse(&sketch.to_bytes()).unwrap().body, Body::Undefined));
                    sketch.add(murmur::hash_integer(1, 8, 0));
                    assert!(matches!(Stored::parse(&sketch.to_bytes()).unwrap().body, Body::Undefined));
                }
            }
        }
    }
}

/// A sketch whose tail is written by its cursor, as the aggregate does it, and the number of hashes that went that way.
fn sketch_by_cursor(params: Params, hashes: &[u64]) -> (Vec<u8>, usize) {
    let mut words = vec![0; State::SMALLEST];
    let state = State::init(&mut words, params);
    let (mut cursor, mut open, mut put) = (state.cursor(), state.open(), 0);
    for &hash in hashes {
        let mut halves: Vec<u32> = words[1..]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect::<Vec<u8>>()
            .chunks(4)
            .map(|half| u32::from_ne_bytes(half.try_into().unwrap()))
            .collect();
        if let Some(next) = cursor.put(&mut halves[..open], hash) {
            for (word, halves) in words[1..].iter_mut().zip(halves.chunks(2)) {
                let bytes = [halves[0].to_ne_bytes(), halves[1].to_ne_bytes()].concat();
                *word = u64::from_ne_bytes(bytes.try_into().unwrap());
            }
            cursor = Cursor::from_bits(next.to_bits());
            put += 1;
            continue;
        }
        loop {
            let mut state = State::resume(&mut words, cursor);
            let added = state.add(hash);
            (cursor, open) = (state.cursor(), state.open());
            let Err(grow) = added else { break };
            let mut larger = vec![0; grow.words];
            cursor = state.move_to(&mut larger, grow).cursor();
            words = larger;
        }
    }
    (State::resume(&mut words, cursor).to_bytes(), put)
}

#[test]
fn most_hashes_are_put_where_the_cursor_says() {
    for log2m in [0, 4, 11, 12, 18u8] {
        let all: Vec<u64> = (0..3000).map(|i| murmur::hash_integer(i / 2, 8, 0)).collect();
        for n in [1, 2, 3, 15, 28, 29, 100, 600, 3000] {
            let (bytes, put) = sketch_by_cursor(wide(log2m), &all[..n]);
            assert_eq!(bytes, bytes_of(wide(log2m), all[..n].iter().copied()));
            assert!(log2m < 11 || !(28..=600).contains(&n) || put > n * 3 / 4, "log2m {log2m}: {put} of {n}");
        }
    }
}

/// Whatever the bytes are: no panic; and what passes for valid is canonical.
fn check(bytes: &[u8]) {
    let Ok(stored) = Stored::parse(bytes) else { return };
    let merged = Sketch::from_stored(&stored);
    let _ = hll::cardinality(&stored);
    if stored.validate().is_ok() {
        assert_eq!(merged.unwrap().to_bytes(), bytes);
    }
}

#[test]
fn one_entry_into_registers() {
    for log2m in 0..=18 {
        let [shape, hints] = Sketch::new(wide(log2m)).to_bytes()[1..] else {
            unreachable!("a header has three bytes")
        };
        for bit in 0..48 {
            for gap in [1u64 << bit, 1 << bit | 1, (1 << bit) - 1, 1 << bit | 0xffff] {
                for len in 1..8 {
                    let body = &gap.to_le_bytes()[..len];
                    check_into_registers(log2m, &[&[0x23, shape, hints, 1], body].concat());
                }
            }
        }
    }
}

/// The bytes reach registers as their entries do one by one, and only when they are valid.
fn check_into_registers(log2m: u8, bytes: &[u8]) {
    let registers = |merge: fn(&mut Sketch, &[u8]) -> Result<(), Corrupt>| {
        let mut dense = Sketch::new(wide(log2m));
        dense.make_dense();
        merge(&mut dense, bytes).map(|()| dense.to_bytes())
    };
    assert_eq!(registers(Sketch::merge_bytes), registers(|dense, bytes| dense.merge(&Stored::parse(bytes)?)));
}

#[test]
fn dense_estimates_agree_with_the_oracle() {
    // Two estimators over the same registers: they differ by far less than their standard error.
    for log2m in 4u8..=18 {
        let m = 1u64 << log2m;
        for n in [m, 3 * m, 20 * m] {
            let hashes = (0..n).map(|i| murmur::hash_integer(i, 8, 100));
            let mut oracle: HyperLogLogPlus<u64, _> =
                HyperLogLogPlus::new(log2m, Identity::default()).unwrap();
            hashes.clone().for_each(|hash| oracle.insert(&hash.reverse_bits()));
            let bytes = bytes_of(wide(log2m), hashes);
            let error = 1.04 / (m as f64).sqrt();
            let (ours, oracles) = (count(&bytes), oracle.count());
            assert!(
                (ours / oracles - 1.0).abs() < 0.8 * error,
                "log2m {log2m}, n {n}: {ours} against {oracles}"
            );
            assert!((ours / n as f64 - 1.0).abs() < 4.0 * error, "log2m {log2m}, n {n}: {ours}");
        }
    }
}

#[test]
fn sizes() {
    for seed in 0..100 {
        for (n, most) in [(1, 16), (10, 60), (100, 330), (300, 920), (100_000, 1643)] {
            let bytes = bytes_of(Params::default(), (0..n).map(|i| murmur::hash_integer(i, 8, seed)));
            assert!(bytes.len() + 4 <= most + 4 * (n > 1000) as usize, "{n}: {}", bytes.len());
        }
    }
}

#[test]
fn bits_beside_the_registers_do_not_count() {
    let mut bytes = bytes_of(Params::default(), (0..10_000).map(|i| murmur::hash_integer(i, 8, 0)));
    let before = count(&bytes);
    // 2,048 registers leave two lanes of the last word; every word leaves its two top bits.
    let end = bytes.len();
    bytes[end - 1] = 0xff;
    bytes[end - 5] |= 0xc0;
    assert_eq!(count(&bytes), before);
    assert!(Stored::parse(&bytes).unwrap().validate().is_err());
}

#[test]
fn version_1_beyond_our_registers_folds() {
    // Sparse, log2m 20, regwidth 5: entries of 25 bits. Register 2^19 + 5 with rank 3 folds into 5 of 2^18.
    let mut bytes = vec![0x13, 4 << 5 | 20, 0x7f];
    bytes.extend((((1u32 << 19 | 5) << 5 | 3) << 7).to_be_bytes());
    let read = v1::read(&bytes).unwrap().to_bytes();
    assert_eq!(Stored::parse(&read).unwrap().params.log2m, 18);
    let registers = registers_of(&read);
    assert_eq!(registers[5], 2);
    assert!(registers.iter().enumerate().all(|(i, &rank)| i == 5 || rank == 0));
}

#[test]
fn version_1_that_takes_too_long_to_read_is_refused() {
    // Full with registers of one bit: as many as are read, and twice as many.
    for (log2m, read) in [(26, true), (27, false)] {
        let mut bytes = vec![0; 3 + (1 << log2m) / 8];
        bytes[..3].copy_from_slice(&[0x14, log2m, 0x7f]);
        assert_eq!(v1::read(&bytes).is_ok(), read, "{log2m}");
    }
}

#[test]
fn narrow_registers_are_read_as_saturated() {
    // 200,000 values in 2,048 registers of 3 bits: a third of them are full.
    let params = Params { regwidth: 3, ..Params::default() };
    let hashes = |range: std::ops::Range<u64>| range.map(|i| murmur::hash_integer(i, 8, 0));
    let narrow = v1::write(&Stored::parse(&bytes_of(params, hashes(0..200_000))).unwrap(), -1).unwrap();
    let mut merged = v1::read(&narrow).unwrap();
    assert!((count(&merged.to_bytes()) / 200_000.0 - 1.0).abs() < 0.1, "{}", count(&merged.to_bytes()));
    // A union with a wide sketch counts as if both had been written with 3 bits.
    merged.merge(&Stored::parse(&bytes_of(wide(11), hashes(100_000..400_000))).unwrap()).unwrap();
    let both = v1::write(&Stored::parse(&bytes_of(params, hashes(0..400_000))).unwrap(), -1).unwrap();
    assert_eq!(count(&merged.to_bytes()), count(&v1::read(&both).unwrap().to_bytes()));
}
