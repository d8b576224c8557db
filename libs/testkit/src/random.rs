//! A small stream of random numbers from a seed (SplitMix64): the same on every machine.

/// The stream.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Evenly from 0 up to 1, 1 excluded.
    pub(crate) fn share(&mut self) -> f64 {
        // Invariant: 53 bits are exact in f64.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of the texts.
    pub(crate) fn choose<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        let index = (self.share() * texts.len() as f64) as usize;
        texts.get(index).copied().unwrap_or_default()
    }

    /// Roughly normal, mean 0, deviation 1: twelve even ones added up.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum: f64 = (0..12).map(|_| self.share()).sum();
        (sum - 6.0) as f32
    }
}
