//! Answers in the model's own words beside those of the site's held-out records.
//!
//! Bounded by the task in records and in tokens of an answer, and by the plan's sequence: prompt and answer together are
//! never longer. By the likeliest tokens, so that the same adapter gives the same answers.

use chassis::clock::Stopwatch;
use domain::cause::Trouble;
use domain::job::spec::Answers as Asked;
use domain::round::Answers;
use engine::data::{Dataset, Encoder};
use engine::generate::{Generator, Request, Sampling};
use engine::metrics;
use engine::model::Model;
use tokio::runtime::Handle;

use super::Scoring;
use crate::adapter_file;
use crate::failure::Failure;
use crate::running::Running;

/// Answers these records; gives the counts, and seconds at the site's pace.
pub(super) fn compare(
    scoring: &Scoring,
    (model, encoder): (&Model, &Encoder),
    (held_out, numbers): (&Dataset, &[usize]),
    asked: Asked,
    (runtime, running): (&Handle, &Running),
) -> Result<(Answers, f64), Failure> {
    let policy = &running.site.config.policy;
    let admit = |records: u64| {
        let admitted = policy.admit_count("the figures of answers", records);
        admitted.map_err(|refusal| Failure::of(Trouble::PolicyRefused, &refusal))
    };
    admit(numbers.len() as u64)?;
    let adapter = adapter_file::whole(&scoring.global, &model.weights(), scoring.task.scale)?;
    let mut generator = Generator::new(model, Some(&adapter))?;
    drop(adapter);
    let tokenizer = model.tokenizer();
    let (stop, most) = (tokenizer.ends(), usize::from(asked.tokens));
    let length = scoring.task.plan.sequence_length as usize;
    let (mut answers, mut seconds) = (Answers::default(), 0.0);
    let pace = running.site.forward_pace();
    for number in numbers {
        let record = held_out.record(*number);
        let record = record.map_err(|error| scoring.data.trouble(&error))?;
        let question = match encoder.question(&record, most) {
            Ok(question) => question,
            Err(refusal) if refusal.is_of_this_record() => continue,
            Err(refusal) => return Err(scoring.data.trouble(&refusal.into())),
        };
        let watch = Stopwatch::start();
        let request = Request {
            prompt: &question.prompt,
            limit: most.min(length.saturating_sub(question.prompt.len())),
            stop: &stop,
        };
        let (sampling, control) = (Sampling::default(), running.stop.control());
        let made = generator.generate(request, sampling, control, |_| running.advance())?;
        let text = tokenizer.decode_plain(&made);
        let text = text.map_err(|error| Failure::of(Trouble::Internal, &error))?;
        answers.merge(&metrics::compare(&text, &question.wanted));
        let (tokens, really) = (question.prompt.len() + made.len(), watch.seconds());
        pace.wait(runtime, &running.stop, tokens, really, || running.advance())?;
        seconds += pace.seconds(tokens, really);
        running.site.status.update(|progress| progress.done += 1);
    }
    // Records that ask nothing are left out; too few may be left.
    admit(answers.records)?;
    Ok((answers, seconds))
}
