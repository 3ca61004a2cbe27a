//! Whatever reads a sketch, on any input: the fuzz targets on their seeds, on what the fuzzer found worth keeping, and on
//! some thousand mutations of both, the same each time.

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;

/// Inputs of a target: its seeds, and the files that are kept for it.
fn inputs(target: &fuzz::Target) -> Vec<Vec<u8>> {
    let mut inputs = (target.seeds)();
    let dir = format!("{}/../fuzz/seeds/{}", env!("CARGO_MANIFEST_DIR"), target.name);
    let mut files: Vec<_> = fs::read_dir(&dir).expect(&dir).map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    inputs.extend(files.iter().map(|file| fs::read(file).unwrap()));
    inputs
}

/// Numbers that are the same each time (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

fn mutate(input: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    for _ in 0..1 + numbers.below(4) {
        let at = numbers.below(input.len() + 1);
        match numbers.below(7) {
            0 => input.truncate(at),
            1 => input.insert(at, [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)]),
            2 => input.splice(at.., other[numbers.below(other.len() + 1)..].iter().copied()).for_each(drop),
            _ if at == input.len() => {}
            3 => drop(input.remove(at)),
            4 => input[at] = numbers.below(256) as u8,
            5 => input[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
            _ => input[at] ^= 1 << numbers.below(8),
        }
    }
}

fn replay(name: &str) {
    let target = fuzz::TARGETS.iter().find(|target| target.name == name).unwrap();
    let inputs = inputs(target);
    inputs.iter().for_each(|input| (target.check)(input));
    let mut numbers = Numbers(0x5eed);
    for _ in 0..10_000 {
        let mut input = inputs[numbers.below(inputs.len())].clone();
        mutate(&mut input, &inputs[numbers.below(inputs.len())], &mut numbers);
        let checked = std::panic::catch_unwind(|| fuzz::run(name, &input));
        assert!(checked.is_ok(), "{name} fails on {input:02x?}");
    }
}

#[test]
fn hll_text() {
    replay("hll_text");
}

#[test]
fn hll_stored() {
    replay("hll_stored");
}

#[test]
fn hll_union() {
    replay("hll_union");
}

#[test]
fn hll_wire() {
    replay("hll_wire");
}

#[test]
fn topn_jsonb() {
    replay("topn_jsonb");
}

#[test]
fn topn_wire() {
    replay("topn_wire");
}

#[test]
fn topn_model() {
    replay("topn_model");
}

#[test]
fn every_target_is_replayed() {
    let source = include_str!("decoders.rs");
    assert!(fuzz::TARGETS.iter().all(|target| source.contains(&format!("replay(\"{}\")", target.name))));
}
