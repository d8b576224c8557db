//! Generated answers beside the records' own.

use domain::round::Answers;
use engine::adapter::Adapter;
use engine::control::Control;
use engine::data::{Dataset, Encoder};
use engine::generate::{Generator, Request, Sampling};
use engine::metrics;
use engine::model::Model;

use super::Found;
use crate::cli::offline::prompt;

/// Answers the first `count` records by the likeliest tokens, at most `tokens` each, and compares. Prompt and answer
/// together are at most as long as the encoder's sequences.
pub fn compare(
    (model, adapter): (&Model, Option<&Adapter>),
    (dataset, encoder): (&Dataset, &Encoder),
    (count, tokens, length): (usize, usize, usize),
) -> anyhow::Result<Found> {
    let mut generator = Generator::new(model, adapter)?;
    let tokenizer = model.tokenizer();
    let stop = prompt::ends(tokenizer);
    let (mut found, mut answers) = (Found::default(), Answers::default());
    for number in 0..count {
        let question = match encoder.question(&dataset.record(number)?, tokens) {
            Ok(question) => question,
            Err(refusal) => {
                found.refuse(number, refusal)?;
                continue;
            }
        };
        let request = Request {
            prompt: &question.prompt,
            limit: tokens.min(length.saturating_sub(question.prompt.len())),
            stop: &stop,
        };
        let made = generator.generate(request, Sampling::default(), &Control::new(), |_| ())?;
        answers.merge(&metrics::compare(
            &tokenizer.decode_plain(&made)?,
            &question.wanted,
        ));
        found.records += 1;
    }
    for (name, figure) in [
        ("exact_match", answers.exact_match()),
        ("f1", answers.f1()),
        ("rouge_l", answers.rouge_l()),
        ("bleu", answers.bleu()),
    ] {
        found.figures.insert(name.to_owned(), figure.into());
    }
    Ok(found)
}
