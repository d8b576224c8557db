//! Generated answers beside the records' own.

use anyhow::ensure;
use domain::round::Answers;
use engine::adapter::Adapter;
use engine::control::Control;
use engine::data::Dataset;
use engine::generate::{Generator, Request, Sampling};
use engine::metrics;
use engine::model::Model;

use super::Found;
use crate::cli::offline::prompt;

/// Answers the first `count` records by the likeliest tokens, at most `tokens` each, and compares.
pub fn compare(
    (model, adapter): (&Model, Option<&Adapter>),
    dataset: &Dataset,
    (count, tokens): (usize, usize),
) -> anyhow::Result<Found> {
    let mut generator = Generator::new(model, adapter)?;
    let tokenizer = model.tokenizer();
    let stop = prompt::ends(tokenizer);
    let (mut found, mut answers) = (Found::default(), Answers::default());
    for number in 0..count {
        let asked = prompt::of_record(tokenizer, &dataset.record(number)?)?;
        let Some((asked, wanted)) = asked.and_then(|asked| Some((asked.prompt, asked.wanted?)))
        else {
            found.refused += 1;
            continue;
        };
        let request = Request {
            prompt: &asked,
            limit: tokens,
            stop: &stop,
        };
        let made = generator.generate(request, Sampling::default(), &Control::new(), |_| ())?;
        answers.merge(&metrics::compare(&tokenizer.decode_plain(&made)?, &wanted));
        found.records += 1;
    }
    ensure!(
        answers.records > 0,
        "no record has an answer to compare with: use records of prompt and completion, or conversations that end with the assistant"
    );
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
