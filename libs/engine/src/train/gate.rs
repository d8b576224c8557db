//! Whether a zeroth-order slope in a faster arithmetic means what it means in f32.
//!
//! A slope is a small difference of two losses, and rounding may be larger than it. So before a mode is
//! offered for zeroth-order training its slopes are compared with those of f32, for many pairs of seed
//! and batch at the perturbation that the job uses.
//!
//! Does not: compute slopes; [`super::ZerothTrainer::slope`] does.

/// The slopes of two arithmetics, compared pair by pair.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Gate {
    pairs: usize,
    agreeing: usize,
    /// `Σ (fast − exact)²`
    squared_difference: f64,
    /// `Σ exact²`
    squared: f64,
}

impl Gate {
    /// Pairs that must be compared.
    pub const PAIRS: usize = 64;
    /// The least share of pairs whose signs agree.
    pub const SIGNS: f64 = 0.95;
    /// The largest relative root mean square of the differences.
    pub const DIFFERENCE: f64 = 0.10;

    /// Takes in one pair: the slope in f32 and that of the faster arithmetic, of the same seed and batch.
    pub fn add(&mut self, exact: f64, fast: f64) {
        self.pairs += 1;
        self.agreeing += usize::from((exact > 0.0) == (fast > 0.0) && fast.is_finite());
        self.squared_difference += (fast - exact).powi(2);
        self.squared += exact.powi(2);
    }

    /// The share of pairs whose signs agree, from 0 to 1; 0 without pairs.
    #[must_use]
    pub fn signs(&self) -> f64 {
        self.agreeing as f64 / self.pairs.max(1) as f64
    }

    /// The root mean square of the differences, relative to that of the slopes in f32; not a number where
    /// there is nothing to compare.
    #[must_use]
    pub fn difference(&self) -> f64 {
        (self.squared_difference / self.squared).sqrt()
    }

    /// Whether the faster arithmetic may be offered for zeroth-order training.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.pairs >= Self::PAIRS
            && self.signs() >= Self::SIGNS
            && self.difference() <= Self::DIFFERENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slopes of either sign; `fast` makes one of the faster arithmetic of each.
    fn gate(pairs: usize, fast: impl Fn(usize, f64) -> f64) -> Gate {
        let mut gate = Gate::default();
        for pair in 0..pairs {
            let exact = if pair % 2 == 0 { 2.0 } else { -2.0 };
            gate.add(exact, fast(pair, exact));
        }
        gate
    }

    #[test]
    fn slopes_that_are_near_pass() {
        let near = gate(64, |_, exact| exact * 1.09);
        assert!(near.passes(), "{near:?}");
        assert_eq!(near.signs(), 1.0);
        assert!((near.difference() - 0.09).abs() < 1e-12);
    }

    #[test]
    fn what_is_too_far_off_or_turned_round_too_often_does_not() {
        assert!(!gate(64, |_, exact| exact * 1.11).passes());
        // Small slopes with the wrong sign, beside large ones that are exact: the size alone would pass.
        let mut turned = gate(60, |_, exact| exact);
        (0..4).for_each(|_| turned.add(0.01, -0.01));
        assert!(turned.difference() < 0.01 && turned.signs() < 0.95);
        assert!(!turned.passes(), "{turned:?}");
    }

    #[test]
    fn too_few_pairs_nothing_and_what_is_no_number_do_not_pass() {
        assert!(!gate(63, |_, exact| exact).passes());
        assert!(!gate(64, |pair, exact| if pair == 5 { f64::NAN } else { exact }).passes());
        assert!(!Gate::default().passes());
    }
}
