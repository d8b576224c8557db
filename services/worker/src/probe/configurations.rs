//! Which training steps are measured, small to large, and when to stop growing.

/// Samples without which no cost model can be fitted.
pub const NEEDED: usize = 3;

/// One configuration to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configuration {
    /// Records per step.
    pub batch: u16,
    /// Rank of every target.
    pub rank: u16,
}

/// What a measured step needed beyond the loaded model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Need {
    /// Tokens of the step.
    pub tokens: f64,
    /// Trainable parameters.
    pub parameters: f64,
    /// Heap beyond the loaded model, in bytes.
    pub bytes: f64,
}

/// Small to large; both batch and rank vary, so that each one's cost can be told apart. Records of
/// different lengths make more points where memory ends early.
#[must_use]
pub fn configurations(rank_max: u16) -> Vec<Configuration> {
    let low = (rank_max / 4).max(1);
    let pairs = [
        (1, low),
        (1, rank_max),
        (2, low),
        (2, rank_max),
        (4, rank_max),
    ];
    let mut all: Vec<Configuration> = Vec::new();
    for (batch, rank) in pairs {
        let next = Configuration { batch, rank };
        if !all.contains(&next) {
            all.push(next);
        }
    }
    all
}

/// Heap that a larger step will need at most, from what a smaller one needed: it grows no faster
/// than tokens and parameters together.
#[must_use]
pub fn predicted(before: Need, tokens: f64, parameters: f64) -> f64 {
    let growth = |now: f64, then: f64| {
        if then > 0.0 {
            (now / then).max(1.0)
        } else {
            1.0
        }
    };
    let growth = growth(tokens, before.tokens).max(growth(parameters, before.parameters));
    before.bytes * growth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_grow_and_none_comes_twice() {
        assert_eq!(configurations(16).len(), 5);
        assert_eq!(configurations(1).len(), 3);
        for rank_max in [1, 2, 3, 16, 256] {
            let all = configurations(rank_max);
            assert!(all.len() >= NEEDED);
            assert!(all.iter().all(|c| (1..=rank_max).contains(&c.rank)));
        }
    }

    #[test]
    fn a_prediction_grows_with_the_larger_of_tokens_and_parameters() {
        let before = Need {
            tokens: 100.0,
            parameters: 10.0,
            bytes: 1000.0,
        };
        assert_eq!(predicted(before, 200.0, 10.0), 2000.0);
        assert_eq!(predicted(before, 50.0, 40.0), 4000.0);
        assert_eq!(predicted(before, 50.0, 5.0), 1000.0);
    }
}
