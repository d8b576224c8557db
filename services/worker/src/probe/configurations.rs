//! Which training steps are measured, small to large, and when to stop growing.

/// Samples without which no cost model can be fitted.
pub const NEEDED: usize = 3;

/// Bytes that a trainable parameter takes while it is trained, each copy 4 bytes: its weight, its
/// gradient and two moments.
const PARAMETER_BYTES: f64 = 16.0;

/// Bytes that a further parameter takes at most at any moment of a round: the four copies, the start
/// that was read, the result, and the result's file.
const PARAMETER_BYTES_AT_MOST: f64 = 28.0;

/// One configuration to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configuration {
    /// Records per step.
    pub batch: u16,
    /// Rank of every target.
    pub rank: u16,
    /// Rows have a part of the job's sequence length: one so many-th.
    pub part: usize,
}

/// What a measured round needed beyond the loaded model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Need {
    /// Tokens of its largest step.
    pub tokens: f64,
    /// Trainable parameters.
    pub parameters: f64,
    /// Bytes beyond the loaded model.
    pub bytes: f64,
}

/// Small to large; both batch and rank vary, so that each one's cost can be told apart. The first has
/// short rows, so that nothing large is tried before something small was measured.
#[must_use]
pub fn configurations(rank_max: u16) -> Vec<Configuration> {
    let low = (rank_max / 4).max(1);
    let choices = [
        (1, low, 4),
        (1, low, 1),
        (1, rank_max, 1),
        (2, low, 1),
        (2, rank_max, 1),
        (4, rank_max, 1),
    ];
    let mut all: Vec<Configuration> = Vec::new();
    for (batch, rank, part) in choices {
        let next = Configuration { batch, rank, part };
        if !all.contains(&next) {
            all.push(next);
        }
    }
    all
}

/// Bytes that a larger round will need at most, from what a smaller one needed: what its parameters do
/// not take grows no faster than its tokens.
#[must_use]
pub fn predicted(before: Need, tokens: f64, parameters: f64) -> f64 {
    let growth = (tokens / before.tokens.max(1.0)).max(1.0);
    let own = (PARAMETER_BYTES * before.parameters).min(before.bytes);
    let more = PARAMETER_BYTES_AT_MOST * (parameters - before.parameters).max(0.0);
    (before.bytes - own) * growth + own + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_grow_and_none_comes_twice() {
        assert_eq!(configurations(16).len(), 6);
        assert_eq!(configurations(1).len(), 4);
        for rank_max in [1, 2, 3, 16, 256] {
            let all = configurations(rank_max);
            assert!(all.len() >= NEEDED);
            assert!(all.iter().all(|c| (1..=rank_max).contains(&c.rank)));
        }
    }

    #[test]
    fn a_prediction_grows_with_tokens_and_adds_what_parameters_take() {
        let before = Need {
            tokens: 100.0,
            parameters: 10.0,
            bytes: 1160.0,
        };
        assert_eq!(predicted(before, 200.0, 10.0), 2160.0);
        assert_eq!(predicted(before, 50.0, 40.0), 1160.0 + 30.0 * 28.0);
        assert_eq!(predicted(before, 50.0, 5.0), 1160.0);
    }
}
