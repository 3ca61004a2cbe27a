//! Recall and count error of TopN on skewed and uniform streams, whole and merged from parts, beside a
//! model of the published algorithm (keep up to three times the counters, then drop the lower half).
//!
//! `cargo run --release --example topn_accuracy [-- [--items N] [--keys N] [--counters N] [--seed N] [--seeds N]
//! [--stream NAME] [--dump DIR]]`: with several seeds, the means over them.
//!
//! Recall of the true top k: how many of the k items with the highest reported counts belong there; an item as
//! frequent as the k-th counts as belonging. Count error: the mean of |reported - true| / true over the
//! true top 500 (a missing item reports 0), and over the reported top 500.
//! `--dump` writes each stream as a file for COPY, one item a line, to compare in a server.

use std::collections::HashMap;
use std::io::{BufWriter, Write};

use sketches::topn::jsonb::{self, List};
use sketches::topn::{self, Counter};

const PARTS: usize = 100;
const RANKS: [usize; 3] = [10, 100, 500];

struct Settings {
    items: usize,
    keys: usize,
    counters: usize,
    seed: u64,
    seeds: u64,
    stream: String,
    dump: Option<String>,
}

fn settings() -> Settings {
    let mut settings = Settings {
        items: 10_000_000,
        keys: 1_000_000,
        counters: 1000,
        seed: 1,
        seeds: 1,
        stream: String::new(),
        dump: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_else(|| panic!("{name} needs a value"));
        let number = || value.parse().unwrap_or_else(|_| panic!("{name}: {value} is not a number"));
        match name.as_str() {
            "--items" => settings.items = number(),
            "--keys" => settings.keys = number(),
            "--counters" => settings.counters = number(),
            "--seed" => settings.seed = number() as u64,
            "--seeds" => settings.seeds = number() as u64,
            "--stream" => settings.stream = value,
            "--dump" => settings.dump = Some(value),
            _ => panic!("unknown option {name}"),
        }
    }
    settings
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Keys by rank, drawn with probability proportional to rank^-exponent; 0 is uniform. Which key has which
/// rank is shuffled, so that the order of the keys says nothing.
fn stream(settings: &Settings, seed: u64, exponent: f64) -> Vec<u32> {
    let mut random = Random(seed);
    let mut names: Vec<u32> = (0..settings.keys as u32).collect();
    for i in (1..names.len()).rev() {
        names.swap(i, (random.next() % (i as u64 + 1)) as usize);
    }
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=settings.keys)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    (0..settings.items)
        .map(|_| {
            let x = random.unit() * sum;
            names[cumulative.partition_point(|&c| c <= x).min(settings.keys - 1)]
        })
        .collect()
}

type Reported = Vec<(u32, u64)>;

fn sorted(mut reported: Reported) -> Reported {
    reported.sort_by_key(|&(key, count)| (std::cmp::Reverse(count), key.to_string()));
    reported
}

fn list(state: &[u8], counters: usize) -> Vec<u8> {
    let counters = topn::counters(state, topn::limit(state, counters));
    let mut out = vec![0; jsonb::encoded_len(&counters).expect("a small list")];
    jsonb::encode(&counters, &mut out);
    out
}

fn count(keys: &[u32], counters: usize) -> Vec<u8> {
    let mut state = Vec::new();
    for key in keys {
        topn::add(&mut state, counters, key.to_string().as_bytes(), 1).expect("short items");
    }
    state
}

fn ours(keys: &[u32], parts: usize, counters: usize) -> (Reported, u64) {
    let mut state = Vec::new();
    let mut bound = 0;
    if parts == 1 {
        state = count(keys, counters);
    } else {
        for part in keys.chunks(keys.len().div_ceil(parts)) {
            let part = count(part, counters);
            bound += topn::error_bound(&part, counters);
            let list = list(&part, counters);
            topn::add_list(&mut state, counters, &List::parse(&list).expect("our own")).expect("our own");
        }
    }
    bound += topn::error_bound(&state, counters);
    let number = |item: &[u8]| std::str::from_utf8(item).unwrap().parse().unwrap();
    let reported = topn::counters(&state, counters)
        .iter()
        .map(|Counter { item, count }| (number(item), *count))
        .collect();
    (sorted(reported), bound)
}

/// The published algorithm, as a model: equal counts leave in an arbitrary order there, here by a hash.
struct Published(HashMap<u32, u64>);

impl Published {
    fn add(&mut self, key: u32, count: u64, counters: usize) {
        *self.0.entry(key).or_default() += count;
        if self.0.len() > 3 * counters {
            self.keep(self.0.len() / 2);
        }
    }

    fn keep(&mut self, n: usize) {
        if self.0.len() > n {
            let mut all: Vec<_> = self.0.drain().collect();
            let order = |key: u32| Random(u64::from(key)).next();
            all.sort_by_key(|&(key, count)| (std::cmp::Reverse(count), order(key)));
            self.0.extend(all.into_iter().take(n));
        }
    }
}

fn published(keys: &[u32], parts: usize, counters: usize) -> Reported {
    let mut whole = Published(HashMap::new());
    if parts == 1 {
        keys.iter().for_each(|&key| whole.add(key, 1, counters));
    } else {
        for part in keys.chunks(keys.len().div_ceil(parts)) {
            let mut state = Published(HashMap::new());
            part.iter().for_each(|&key| state.add(key, 1, counters));
            state.keep(counters);
            let mut list: Vec<_> = state.0.into_iter().collect();
            list.sort_by_key(|&(key, _)| (key.to_string().len(), key));
            list.iter().for_each(|&(key, count)| whole.add(key, count, counters));
        }
    }
    whole.keep(counters);
    sorted(whole.0.into_iter().collect())
}

/// Recall at each rank, count errors of the true and of the reported top 500, and where there is a bound, how much a
/// count falls short at most, and the bound.
fn measure(exact: &[u64], truth: &Reported, reported: &Reported, bound: Option<u64>) -> Vec<f64> {
    let recall = RANKS.map(|k| {
        let enough = truth[k - 1].1;
        let hits = reported.iter().take(k).filter(|(key, _)| exact[*key as usize] >= enough);
        hits.count() as f64 / k as f64
    });
    let estimates: HashMap<u32, u64> = reported.iter().copied().collect();
    let error = |key: u32, estimate: u64| {
        let truth = exact[key as usize] as f64;
        (estimate as f64 - truth).abs() / truth
    };
    let mean = |errors: Vec<f64>| errors.iter().sum::<f64>() / errors.len() as f64;
    let of_truth = truth.iter().take(500).map(|&(key, _)| error(key, *estimates.get(&key).unwrap_or(&0)));
    let of_reported = reported.iter().take(500).map(|&(key, estimate)| error(key, estimate));
    let mut cells = recall.to_vec();
    cells.extend([mean(of_truth.collect()), mean(of_reported.collect())]);
    if let Some(bound) = bound {
        let short = truth.iter().map(|(key, count)| count - estimates.get(key).unwrap_or(&0));
        cells.extend([short.max().unwrap_or(0) as f64, bound as f64]);
    }
    cells
}

fn main() {
    let settings = settings();
    println!(
        "{} items, {} keys, {} counters, {} seeds from {}",
        settings.items, settings.keys, settings.counters, settings.seeds, settings.seed
    );
    println!(
        "{:<24} {:>9} {:>9} {:>9} {:>10} {:>10} {:>9} {:>9}",
        "", "recall@10", "@100", "@500", "err true", "err rep.", "max short", "bound"
    );
    for (name, exponent) in [("zipf-0.8", 0.8), ("zipf-1.0", 1.0), ("zipf-1.2", 1.2), ("uniform", 0.0)] {
        if !name.contains(&settings.stream) {
            continue;
        }
        println!("{name}");
        let mut sums: Vec<(String, Vec<f64>)> = Vec::new();
        for seed in settings.seed..settings.seed + settings.seeds {
            for (at, (label, cells)) in of_stream(&settings, seed, name, exponent).into_iter().enumerate() {
                match sums.get_mut(at) {
                    None => sums.push((label, cells)),
                    Some((_, sums)) => sums.iter_mut().zip(cells).for_each(|(sum, cell)| *sum += cell),
                }
            }
        }
        for (label, sums) in sums {
            print!("  {label:<22}");
            for (i, sum) in sums.iter().enumerate() {
                let mean = sum / settings.seeds as f64;
                match i {
                    0..3 => print!(" {mean:>9.4}"),
                    3..5 => print!(" {mean:>10.5}"),
                    _ => print!(" {mean:>9.0}"),
                }
            }
            println!();
        }
    }
}

/// Whole and merged from parts, ours and the published algorithm, over one stream.
fn of_stream(settings: &Settings, seed: u64, name: &str, exponent: f64) -> Vec<(String, Vec<f64>)> {
    let keys = stream(settings, seed, exponent);
    if let Some(dir) = &settings.dump {
        let file = std::fs::File::create(format!("{dir}/{name}.{seed}.txt")).expect("a writable directory");
        let mut out = BufWriter::new(file);
        keys.iter().for_each(|key| writeln!(out, "{key}").expect("disk space"));
    }
    let mut exact = vec![0u64; settings.keys];
    keys.iter().for_each(|&key| exact[key as usize] += 1);
    let counted = (0u32..).zip(exact.iter().copied()).filter(|&(_, count)| count > 0);
    let truth = sorted(counted.collect());
    let mut rows = Vec::new();
    for parts in [1, PARTS] {
        let label = if parts == 1 { "whole" } else { "100 parts" };
        let (reported, bound) = ours(&keys, parts, settings.counters);
        rows.push((format!("{label}, ours"), measure(&exact, &truth, &reported, Some(bound))));
        let reported = published(&keys, parts, settings.counters);
        rows.push((format!("{label}, published"), measure(&exact, &truth, &reported, None)));
    }
    rows
}
