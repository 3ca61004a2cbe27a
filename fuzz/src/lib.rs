//! What the fuzz targets feed their input to, and what must hold whatever it is. `cargo test -p sketches` includes this
//! file and replays the seeds and some mutations of them.

pub mod hll;
pub mod topn;

/// A target of the fuzzer.
pub struct Target {
    pub name: &'static str,
    /// Panics when something that must hold does not.
    pub check: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const TARGETS: [Target; 7] = [
    Target { name: "hll_text", check: hll::text, seeds: hll::text_seeds },
    Target { name: "hll_stored", check: hll::stored, seeds: hll::stored_seeds },
    Target { name: "hll_union", check: hll::union, seeds: hll::union_seeds },
    Target { name: "hll_wire", check: hll::wire, seeds: hll::stored_seeds },
    Target { name: "topn_jsonb", check: topn::jsonb, seeds: topn::jsonb_seeds },
    Target { name: "topn_wire", check: topn::wire, seeds: topn::wire_seeds },
    Target { name: "topn_model", check: topn::model, seeds: topn::model_seeds },
];

/// Checks one input.
pub fn run(target: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|t| t.name == target).expect("a target of this name");
    (target.check)(input)
}
