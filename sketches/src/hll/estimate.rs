//! From registers to a count: the improved raw estimator of Otmar Ertl, "New cardinality estimation
//! algorithms for HyperLogLog sketches" (2017), section 4. It needs no tables, has no bias at any count and
//! no joint between two formulas.

use super::params::Params;
use super::registers;
use super::stored::{Body, Stored};

/// The estimated count as a whole number; `None` for an undefined sketch.
pub fn cardinality(sketch: &Stored) -> Option<f64> {
    match sketch.body {
        Body::Undefined => None,
        Body::Empty => Some(0.0),
        Body::Sparse { count, .. } => Some(count as f64),
        Body::Dense(bytes) => {
            Some(estimate(&registers::histogram(bytes, sketch.params.log2m), sketch.params).round())
        }
    }
}

/// The relative standard error of a dense sketch's count, 1.04 / sqrt(registers); a sparse one counts exactly.
pub fn standard_error(sketch: &Stored) -> Option<f64> {
    match sketch.body {
        Body::Undefined => None,
        Body::Empty | Body::Sparse { .. } => Some(0.0),
        Body::Dense(_) => Some(1.04 / (sketch.params.registers() as f64).sqrt()),
    }
}

/// The estimate from how many registers have each value.
pub fn estimate(histogram: &[u32; 64], params: Params) -> f64 {
    let m = params.registers() as f64;
    let top = params.top_rank() as usize;
    let mut counts = *histogram;
    let mut full: u32 = counts[top..].iter().sum();
    if full as f64 == m {
        // Every register is full: the least that may be, rather than infinity.
        full -= 1;
        counts[top - 1] += 1;
    }
    let mut z = m * tau(1.0 - full as f64 / m);
    for &count in counts[1..top].iter().rev() {
        z = 0.5 * (z + count as f64);
    }
    z += m * sigma(counts[0] as f64 / m);
    // Each register that is set has seen a value of its own: the formula says less of a single register of one bit.
    let set = m - histogram[0] as f64;
    (m * m / (2.0 * std::f64::consts::LN_2 * z)).max(set)
}

/// x + sum over k >= 1 of x^(2^k) 2^(k-1): what the empty registers add.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut sum, mut weight) = (x, 1.0);
    loop {
        x *= x;
        let before = sum;
        sum += x * weight;
        if sum == before {
            return sum;
        }
        weight += weight;
    }
}

/// (1 - x - sum over k >= 1 of (1 - x^(2^-k))^2 2^-k) / 3: what the full registers add.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut sum, mut weight) = (1.0 - x, 1.0);
    loop {
        x = x.sqrt();
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * weight;
        if sum == before {
            return sum / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_count_is_infinite() {
        for log2m in 0..=Params::MAX_LOG2M {
            for regwidth in 1..=8 {
                let params = Params { log2m, regwidth, ..Params::default() };
                let mut histogram = [0; 64];
                histogram[63] = params.registers() as u32;
                let full = estimate(&histogram, params);
                assert!(full.is_finite() && full > params.registers() as f64 / 2.0, "{params:?}: {full}");
                let mut empty = [0; 64];
                empty[0] = params.registers() as u32;
                assert_eq!(estimate(&empty, params), 0.0);
            }
        }
    }
}
