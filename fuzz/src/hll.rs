//! HLL: text and stored bytes of both versions, unions, serialized transition states.

use sketches::hll::{
    Body, Corrupt, Cursor, Params, Sketch, State, Stored, cardinality, code, murmur, registers, v1,
};

/// `hll_in` with hexadecimal digits: what decodes is what a plain decoder makes of it, and is then read as stored bytes.
pub fn text(input: &[u8]) {
    let digits: Vec<u8> = input.iter().copied().filter(|digit| !b" \t\r\n".contains(digit)).collect();
    let expected = std::str::from_utf8(&digits).ok().filter(|text| text.len() % 2 == 0).and_then(|text| {
        let byte = |i| text.get(i..i + 2).filter(|pair| !pair.starts_with('+'));
        let bytes = (0..text.len()).step_by(2).map(|i| u8::from_str_radix(byte(i)?, 16).ok());
        bytes.collect::<Option<Vec<u8>>>()
    });
    match v1::from_hex(input) {
        Ok(bytes) => {
            assert_eq!(Some(&bytes), expected.as_ref());
            stored(&bytes);
        }
        // Space between the two digits of a byte is no error to the plain decoder.
        Err(_) => assert!(expected.is_none() || digits.len() < input.len()),
    }
}

/// Stored bytes of either version, as the input, receive and cast functions read them. What they take counts, prints,
/// converts to any precision and to version 1 and back, and is stored by the same bytes again.
pub fn stored(input: &[u8]) {
    if left_out(input, input) {
        return;
    }
    let Ok(bytes) = v1::import(input) else { return };
    assert!(bytes.len() <= 3 + 4 * (1usize << 18).div_ceil(5));
    assert_eq!(v1::import(&bytes).as_deref(), Ok(&*bytes));
    let sketch = valid(&bytes);
    count(&sketch);
    assert_eq!(Sketch::from_stored(&sketch).unwrap().to_bytes(), *bytes);

    let params = sketch.params;
    let choice = murmur::hash(input, 1);
    let to = [params.log2m / 2, params.log2m.saturating_sub(1)][choice as usize & 1];
    let to = Params { log2m: to, expthresh: 0, ..params };
    let mut coerced = Sketch::new(to);
    coerced.merge(&sketch.with_hints_of(to)).unwrap();
    let coerced = coerced.to_bytes();
    assert_eq!(valid(&coerced).params, to);
    count(&valid(&coerced));

    let written = v1::write(&sketch, [-1, 0, 3, i32::MAX][choice as usize >> 1 & 3]).unwrap();
    assert!(
        written.len() <= 4 + (params.registers() * (params.log2m + params.regwidth) as usize).div_ceil(8)
    );
    let mut read = v1::read(&written).unwrap();
    assert_eq!(read.state().params(), params);
    let read = read.to_bytes();
    let top = params.top_value();
    assert!(ranks(&valid(&read)).eq(ranks(&sketch).map(|rank| rank.min(top))));
}

/// Several sketches, each after a length of one byte (in units of its value): any order and grouping gives the same, to the
/// byte where they have one precision.
pub fn union(input: &[u8]) {
    let mut parts = Vec::new();
    let mut rest = input;
    while let Some((&len, tail)) = rest.split_first()
        && parts.len() < 3
    {
        // A length beyond what is there takes all of it.
        let (part, tail) = tail.split_at((len as usize * 4).min(tail.len()));
        rest = tail;
        if left_out(part, input) {
            return;
        }
        let Ok(part) = v1::import(part) else { return };
        parts.push(part.into_owned());
    }
    let [first, second, others @ ..] = &parts[..] else { return };
    let ab = merged(first, second);
    assert_eq!(merged(second, first), ab);
    assert_eq!(merged(&ab, first), ab);
    assert_eq!(merged_states(first, second), ab);
    count(&valid(&ab));
    if let [third] = others {
        let (left, right) = (merged(&ab, third), merged(first, &merged(second, third)));
        assert_eq!(valid(&left).params, valid(&right).params);
        assert!(ranks(&valid(&left)).eq(ranks(&valid(&right))));
        // Entries that become one at the smallest precision are too many for a list where they meet at a larger one first.
        let precision = |part: &Vec<u8>| valid(part).params.log2m;
        if parts.iter().all(|part| precision(part) == precision(first)) {
            assert_eq!(left, right);
        }
    }
}

/// A serialized transition state, of which only registers are validated first: whatever is taken ends in a valid sketch.
pub fn wire(input: &[u8]) {
    let Ok(sketch) = Stored::parse(input) else { return };
    if matches!(sketch.body, Body::Dense(_)) && sketch.validate().is_err() {
        return;
    }
    let Ok((mut words, cursor)) = deserialize(sketch) else { return };
    let state = State::resume(&mut words, cursor);
    let own = state.to_bytes();
    let mut back = Sketch::from_stored(&valid(&own)).unwrap();
    let mut other = Sketch::new(Params { log2m: 7, ..Params::default() });
    (0..100).for_each(|i| other.add(murmur::hash_integer(i, 8, 0)));
    back.merge_sketch(&mut other);
    count(&valid(&back.to_bytes()));
    other.merge_state(&state);
    count(&valid(&other.to_bytes()));
}

/// The words of a state and its cursor, as the deserial function makes them.
fn deserialize(sketch: Stored) -> Result<(Vec<u64>, Cursor), Corrupt> {
    let mut words = vec![0; State::words_for(&sketch)];
    let mut cursor = State::init(&mut words, sketch.params).cursor();
    loop {
        let mut state = State::resume(&mut words, cursor);
        let Some(grow) = state.merge(&sketch)? else {
            cursor = state.cursor();
            return Ok((words, cursor));
        };
        assert!(grow.words <= 2 + (1usize << 18).div_ceil(10));
        let mut larger = vec![0; grow.words];
        cursor = state.move_to(&mut larger, grow).cursor();
        words = larger;
    }
}

/// Nearly all the time would go to sketches of many registers: one in 256 of those will do.
fn left_out(sketch: &[u8], input: &[u8]) -> bool {
    sketch.get(1).is_some_and(|shape| shape & 31 > 7) && !murmur::hash(input, 0).is_multiple_of(256)
}

fn merged(left: &[u8], right: &[u8]) -> Vec<u8> {
    let mut sketch = Sketch::from_stored(&valid(left)).unwrap();
    valid(right);
    sketch.merge_bytes(right).unwrap();
    sketch.to_bytes()
}

fn merged_states(left: &[u8], right: &[u8]) -> Vec<u8> {
    let mut sketch = Sketch::from_stored(&valid(left)).unwrap();
    sketch.merge_sketch(&mut Sketch::from_stored(&valid(right)).unwrap());
    sketch.to_bytes()
}

fn valid(bytes: &[u8]) -> Stored<'_> {
    let sketch = Stored::parse(bytes).unwrap();
    sketch.validate().unwrap();
    sketch
}

/// The registers of a sketch, whichever form it has.
fn ranks(sketch: &Stored) -> impl Iterator<Item = u8> {
    let log2m = sketch.params.log2m;
    let mut ranks = vec![0; 1 << log2m];
    match sketch.body {
        Body::Dense(bytes) => ranks = registers::iter_stored(bytes, log2m).collect(),
        _ => sketch
            .entries(|entry| {
                let (index, rank) = code::register(entry, log2m);
                ranks[index] = rank.max(ranks[index]);
            })
            .unwrap(),
    }
    ranks.into_iter()
}

fn count(sketch: &Stored) {
    if let Some(count) = cardinality(sketch) {
        assert!(count.is_finite() && count >= 0.0 && count == count.trunc(), "{count}");
        assert_eq!(count == 0.0, !ranks(sketch).any(|rank| rank > 0));
    }
}

fn sketch_of(log2m: u8, n: u64) -> Sketch {
    let mut sketch = Sketch::new(Params { log2m, ..Params::default() });
    (0..n).for_each(|i| sketch.add(murmur::hash_integer(i, 8, 0)));
    sketch
}

/// Sketches of every kind in both versions.
pub fn stored_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (log2m, n) in
        [(9, 0), (9, 1), (9, 5), (9, 40), (11, 300), (4, 3), (4, 100), (6, 1000), (0, 9), (18, 3), (8, 90)]
    {
        let bytes = sketch_of(log2m, n).to_bytes();
        seeds.push(v1::write(&valid(&bytes), -1).unwrap());
        seeds.push(bytes);
    }
    // Entries with a rank of their own, undefined, and what version 1 has besides.
    let mut zeros = sketch_of(5, 0);
    [0, 1, 3, 1 << 40, 1 << 63].into_iter().for_each(|hash| zeros.add(hash));
    seeds.push(zeros.to_bytes());
    seeds.push(vec![0x20, 0x8b, 0x7f]);
    seeds.push(vec![0x10, 0x8b, 0x7f]);
    let hashes = [-7i64, 0, 1, i64::MAX].map(i64::to_be_bytes).concat();
    seeds.push([&[0x12, 0x8b, 0x7f], &hashes[..]].concat());
    seeds.push([&[0x13, 0x9f, 0x7f], &[0xff; 9][..]].concat());
    seeds.push([&[0x14, 0xe3, 0x00], &[0xff; 8][..]].concat());
    seeds
}

pub fn text_seeds() -> Vec<Vec<u8>> {
    let hex =
        |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes();
    let mut seeds: Vec<Vec<u8>> = stored_seeds().iter().filter(|seed| seed.len() < 60).map(hex).collect();
    seeds.push(b"21 8B\n7F ".to_vec());
    seeds
}

pub fn union_seeds() -> Vec<Vec<u8>> {
    let stored = stored_seeds();
    let part = |i: usize| {
        let bytes = &stored[i % stored.len()];
        // A length is told in units of four bytes, so only some sketches fit behind one another as they are.
        bytes.len().is_multiple_of(4).then(|| [&[(bytes.len() / 4) as u8], &bytes[..]].concat())
    };
    let fitting: Vec<Vec<u8>> = (0..stored.len()).filter_map(part).collect();
    let last = stored.iter().map(|bytes| [&[255], &bytes[..]].concat());
    last.enumerate().map(|(i, last)| [&fitting[i % fitting.len()], &last[..]].concat()).collect()
}
