//! Relative error of the HLL sketches, against the crate `hyperloglogplus` on the same hashes.
//!
//! `cargo run --release -p sketches --example hll_accuracy [sets [largest count]]`: for each precision and
//! count the root mean square error and the bias, in units of 1.04 / sqrt(registers), and the share of sets
//! that are counted exactly.

use std::hash::{BuildHasher, Hasher};

use hyperloglogplus::{HyperLogLog, HyperLogLogPlus};
use sketches::hll::{Body, Params, Sketch, Stored, cardinality, murmur};

#[derive(Default)]
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

#[derive(Clone, Default)]
struct Errors {
    squares: f64,
    sum: f64,
    exact: u32,
}

impl Errors {
    fn add(&mut self, estimate: f64, n: u64) {
        let error = estimate / n as f64 - 1.0;
        self.squares += error * error;
        self.sum += error;
        self.exact += (estimate == n as f64) as u32;
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().expect("a number"));
    let sets = arguments.next().unwrap_or(50);
    let largest = arguments.next().unwrap_or(10_000_000);
    // 1, 2, 3, 5, 7 in each power of ten, and closer around the change from sparse to dense.
    let mut counts: Vec<u64> = (0..8).flat_map(|e| [1, 2, 3, 5, 7].map(|n| n * 10u64.pow(e))).collect();
    counts.extend((1..40).map(|i| (550.0 * 1.08f64.powi(i)) as u64));
    counts.extend([501, 576, 577, 580, 600, 1000, 1098, 1099, 1100, 3500, 4028, 4030, 4032, 4100]);
    counts.retain(|&n| n <= largest);
    counts.sort();
    counts.dedup();

    for log2m in [11, 12, 14] {
        let unit = 1.04 / 2f64.powi(log2m as i32).sqrt();
        println!("\nlog2m {log2m}: {sets} sets, 1.04 / sqrt(m) = {:.3} %", 100.0 * unit);
        println!(
            "{:>9} {:>7} {:>8} {:>8} {:>8} | crate {:>8} {:>8}",
            "n", "form", "exact", "rmse", "bias", "rmse", "bias"
        );
        let mut ours = vec![Errors::default(); counts.len()];
        let mut crates = ours.clone();
        let mut form = vec![""; counts.len()];
        for set in 0..sets {
            let mut sketch = Sketch::new(Params { log2m, ..Params::default() });
            let mut oracle: HyperLogLogPlus<u64, _> =
                HyperLogLogPlus::new(log2m, Identity::default()).unwrap();
            let mut next = 0;
            for i in 1..=*counts.last().expect("a count") {
                let hash = murmur::hash_integer(set << 32 | i, 8, 0);
                sketch.add(hash);
                oracle.insert(&hash.reverse_bits());
                if i == counts[next] {
                    let bytes = sketch.to_bytes();
                    let stored = Stored::parse(&bytes).unwrap();
                    form[next] = if matches!(stored.body, Body::Dense(_)) { "dense" } else { "sparse" };
                    ours[next].add(cardinality(&stored).unwrap(), i);
                    crates[next].add(oracle.count(), i);
                    next += 1;
                }
            }
        }
        let mut worst = (0.0f64, 0.0f64);
        for (at, &n) in counts.iter().enumerate() {
            let rmse = |e: &Errors| (e.squares / sets as f64).sqrt() / unit;
            let bias = |e: &Errors| e.sum / sets as f64 / unit;
            let (o, c) = (&ours[at], &crates[at]);
            worst = (worst.0.max(rmse(o)), worst.1.max(bias(o).abs()));
            println!(
                "{n:>9} {:>7} {:>7.2}% {:>8.3} {:>8.3} | {:>14.3} {:>8.3}",
                form[at],
                100.0 * o.exact as f64 / sets as f64,
                rmse(o),
                bias(o),
                rmse(c),
                bias(c)
            );
        }
        println!("worst: rmse {:.3}, bias {:.3}", worst.0, worst.1);
    }
}
