//! How fast tokens are written, one after another.

use std::time::Duration;

use super::{Error, median};
use crate::control::Control;
use crate::generate::{Generator, Request, Sampling};

/// What one generator came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Median time until the first token is there: that of the prompt.
    pub prompt: Duration,
    /// Median time of each token behind it.
    pub token: Duration,
    /// The likeliest tokens, the same in every repeat.
    pub tokens: Vec<u32>,
}

/// Has each generator continue the prompt by so many tokens, `repeats` times in turn, after one time that is not measured.
/// `now` is a monotonic clock.
///
/// # Errors
/// The prompt does not fit a model, or a model is an encoder.
pub fn writing(
    generators: &mut [Generator<'_>],
    (prompt, count): (&[u32], usize),
    repeats: usize,
    now: impl Fn() -> Duration + Sync,
) -> Result<Vec<Written>, Error> {
    let control = Control::new();
    let request = Request {
        prompt,
        limit: count,
        stop: &[],
    };
    let mut found = vec![(Vec::new(), Vec::new(), Vec::new()); generators.len()];
    for repeat in 0..=repeats.max(1) {
        for (generator, (prompts, behind, tokens)) in generators.iter_mut().zip(&mut found) {
            let (start, mut first) = (now(), None);
            *tokens = generator.generate(request, Sampling::default(), &control, |_| {
                first.get_or_insert_with(&now);
            })?;
            let end = now();
            let first = first.unwrap_or(end);
            if repeat > 0 {
                let others = u32::try_from(tokens.len().saturating_sub(1)).unwrap_or(u32::MAX);
                prompts.push(first.saturating_sub(start));
                behind.push(end.saturating_sub(first) / others.max(1));
            }
        }
    }
    let written = |(prompts, behind, tokens)| Written {
        prompt: median(prompts),
        token: median(behind),
        tokens,
    };
    Ok(found.into_iter().map(written).collect())
}
