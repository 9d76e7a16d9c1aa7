//! Random numbers from a seed: the same seed and name give the same numbers on every machine.

use std::time::Duration;

/// A stream of random numbers (a 64-bit counter, well mixed).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of this name under this seed.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut rng = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for byte in name.bytes() {
            rng.0 = rng.next().wrapping_add(u64::from(byte));
        }
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u32, high: u32) -> u32 {
        low + (self.next() % (u64::from(high - low) + 1)) as u32
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.range(0, 99) < percent
    }

    /// A duration up to so many milliseconds.
    pub fn millis(&mut self, low: u32, high: u32) -> Duration {
        Duration::from_micros(u64::from(self.range(low * 1000, high * 1000)))
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.range(0, choices.len() as u32 - 1) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_seeds_tell_streams_apart_and_nothing_else_does() {
        let numbers = |seed, name| {
            let mut rng = Rng::new(seed, name);
            (0..8).map(|_| rng.range(0, 1_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1, "a"), numbers(1, "a"));
        assert_ne!(numbers(1, "a"), numbers(2, "a"));
        assert_ne!(numbers(1, "a"), numbers(1, "b"));
    }

    #[test]
    fn ranges_hold_and_are_used_whole() {
        let mut rng = Rng::new(7, "");
        let numbers: Vec<u32> = (0..1000).map(|_| rng.range(3, 6)).collect();
        assert!((3..=6).all(|number| numbers.contains(&number)));
        assert!(numbers.iter().all(|number| (3..=6).contains(number)));
    }
}
