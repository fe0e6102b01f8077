//! The channel against itself, against models of AWS's programs, and over bad links.

mod agent;
mod basics;
mod hostile;
mod lossy;
mod model;
mod ours;
mod pace;
mod plugin;
mod traps;
mod world;

/// Milliseconds since 1970 at the start of every test.
const NOON: u64 = 1_700_000_000_000;

/// A cheap generator whose seed names a run.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..4 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
