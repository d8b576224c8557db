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
    let low = low(rank_max);
    distinct([
        (1, low, 4),
        (1, low, 2),
        (1, low, 1),
        (1, rank_max, 1),
        (2, low, 1),
        (2, rank_max, 1),
        (4, rank_max, 1),
        (8, low, 1),
        (16, rank_max, 1),
        (32, low, 1),
    ])
}

/// Those of a mode after the first: as few as tell rows, tokens and rank apart, and as large as may be planned. Short
/// rows take longer by the token than what they would be taken for.
#[must_use]
pub fn fewer(rank_max: u16) -> Vec<Configuration> {
    let low = low(rank_max);
    distinct([
        (1, low, 4),
        (1, rank_max, 1),
        (2, low, 1),
        (4, rank_max, 1),
        (8, low, 1),
        (32, low, 1),
    ])
}

/// Steps of parts of a row, small to large, for where memory ends before a whole one.
pub fn shorter() -> impl Iterator<Item = Configuration> {
    let part = |part| Configuration {
        batch: 1,
        rank: 1,
        part,
    };
    (1..=2 * NEEDED).rev().map(part)
}

const fn low(rank_max: u16) -> u16 {
    if rank_max < 8 { 1 } else { rank_max / 4 }
}

fn distinct(choices: impl IntoIterator<Item = (u16, u16, usize)>) -> Vec<Configuration> {
    let mut all: Vec<Configuration> = Vec::new();
    for (batch, rank, part) in choices {
        let next = Configuration { batch, rank, part };
        if !all.contains(&next) {
            all.push(next);
        }
    }
    all
}

/// Bytes that a further round will need at most, from what earlier ones needed. What its parameters do
/// not take grows no faster than its tokens, and where two sizes are known, by the line through the least
/// and the largest.
#[must_use]
pub fn predicted(earlier: &[Need], tokens: f64, parameters: f64) -> f64 {
    let by_tokens = |a: &&Need, b: &&Need| a.tokens.total_cmp(&b.tokens);
    let (least, largest) = (
        earlier.iter().min_by(by_tokens),
        earlier.iter().max_by(by_tokens),
    );
    let (Some(first), Some(last)) = (least, largest) else {
        return 0.0;
    };
    let own = |need: &Need| (PARAMETER_BYTES * need.parameters).min(need.bytes);
    let rest = last.bytes - own(last);
    let growth = (tokens / last.tokens.max(1.0)).max(1.0);
    let mut grown = rest * growth;
    if last.tokens > first.tokens {
        let slope = (rest - (first.bytes - own(first))) / (last.tokens - first.tokens);
        let more = slope.max(0.0) * (tokens - last.tokens).max(0.0);
        grown = grown.min(rest + more);
    }
    let further = PARAMETER_BYTES_AT_MOST * (parameters - last.parameters).max(0.0);
    grown + own(last) + further
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_grow_and_none_comes_twice() {
        assert_eq!(configurations(16).len(), 10);
        assert_eq!(configurations(1).len(), 8);
        for rank_max in [1, 2, 3, 16, 256] {
            for all in [configurations(rank_max), fewer(rank_max)] {
                assert!(all.len() > NEEDED);
                assert!(all.iter().all(|c| (1..=rank_max).contains(&c.rank)));
            }
        }
    }

    #[test]
    fn a_prediction_grows_with_tokens_and_adds_what_parameters_take() {
        let before = Need {
            tokens: 100.0,
            parameters: 10.0,
            bytes: 1160.0,
        };
        let predicted = |tokens, parameters| predicted(&[before], tokens, parameters);
        assert_eq!(predicted(200.0, 10.0), 2160.0);
        assert_eq!(predicted(50.0, 40.0), 1160.0 + 30.0 * 28.0);
        assert_eq!(predicted(50.0, 5.0), 1160.0);
    }

    #[test]
    fn shorter_rows_grow_up_to_a_whole_one() {
        let parts: Vec<usize> = shorter().map(|next| next.part).collect();
        assert_eq!(parts, [6, 5, 4, 3, 2, 1]);
        assert!(shorter().all(|next| (next.batch, next.rank) == (1, 1)));
    }

    #[test]
    fn the_largest_size_tells_most_in_whatever_order_it_was_measured() {
        let need = |tokens, bytes| Need {
            tokens,
            parameters: 0.0,
            bytes,
        };
        let (small, large) = (need(21.0, 121.0), need(32.0, 132.0));
        for earlier in [[small, large], [large, small]] {
            assert_eq!(predicted(&earlier, 128.0, 0.0), 228.0);
        }
    }

    #[test]
    fn two_sizes_make_a_line_that_does_not_scale_what_is_fixed() {
        let need = |tokens, bytes| Need {
            tokens,
            parameters: 10.0,
            bytes: bytes + 160.0,
        };
        let earlier = [need(50.0, 1500.0), need(100.0, 2000.0)];
        assert_eq!(predicted(&earlier, 200.0, 10.0), 3160.0);
        assert_eq!(predicted(&earlier[..1], 200.0, 10.0), 6160.0);
    }
}
