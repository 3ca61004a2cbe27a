//! Random choices that can be made again.

/// A generator of random numbers (xorshift64*): the same seed makes the same choices.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The seed of this run, printed: `ROLLUP_EXT_SEED`, or another one each time.
    pub fn from_environment() -> Random {
        let seed = setting("ROLLUP_EXT_SEED", || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.expect("a clock after 1970").as_nanos() as u64 & 0xffff_ffff
        });
        println!("ROLLUP_EXT_SEED={seed}");
        Random::new(seed)
    }

    pub fn new(seed: u64) -> Random {
        // Neighbouring seeds start far apart, and zero would stay zero.
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    /// True in `percent` of all cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Another generator, whose choices do not depend on when it is used.
    pub fn fork(&mut self) -> Random {
        Random::new(self.next())
    }
}

/// A number from the environment.
pub fn setting(name: &str, default: impl FnOnce() -> u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")),
        Err(_) => default(),
    }
}
