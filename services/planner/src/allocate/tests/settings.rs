//! Settings of a job that change what a step costs.

use domain::job::spec::{Answers, Evaluation};

use super::*;

/// A job of one choice: rank 8 on q and v, four records a batch.
fn fixed() -> Spec {
    let mut spec = spec();
    spec.adapter.rank = Choice::Fixed(8);
    spec.adapter.rank_max = 8;
    spec.adapter.targets = Choice::Fixed(vec![Projection::Q, Projection::V]);
    spec.training.batch = Choice::Fixed(4);
    spec
}

fn planned(spec: &Spec) -> WorkerPlan {
    let plan = plan(spec, &[site("a", 1.0, 8 * GIB)], 1).expect("possible");
    of(&plan, "a").clone()
}

#[test]
fn a_step_of_several_batches_takes_as_often_as_long_in_the_memory_of_one_and_their_sum() {
    let one = planned(&fixed());
    let mut spec = fixed();
    spec.training.accumulate = 4;
    let four = planned(&spec);
    assert_eq!((four.batch, four.accumulate, four.batches()), (4, 4, 32));
    let ratio = four.predicted.step_seconds / one.predicted.step_seconds;
    assert!((ratio - 4.0).abs() < 1e-9, "{ratio}");
    let transfers = one.predicted.round_seconds - 8.0 * one.predicted.step_seconds;
    let round = transfers + 8.0 * four.predicted.step_seconds;
    assert!((four.predicted.round_seconds - round).abs() < 1e-9);
    let sum = 6 * 8 * 2 * 576 * 4;
    let more = four.predicted.peak_memory_bytes - one.predicted.peak_memory_bytes;
    assert_eq!(more, sum);
    assert!(
        four.why
            .text
            .contains("4 records a batch and 4 batches a step"),
        "{}",
        four.why.text
    );
}

#[test]
fn a_budget_of_tokens_is_the_memory_of_a_batch_and_the_mean_record_its_size() {
    let mut spec = fixed();
    spec.training.batch = Choice::Auto;
    spec.training.batch_tokens = Some(1024);
    let filled = planned(&spec);
    // Records have 100 tokens on average.
    assert_eq!(filled.batch, 10);
    let mut fixed = fixed();
    fixed.training.batch = Choice::Fixed(8);
    // As many as eight records of the longest.
    assert_eq!(
        filled.predicted.peak_memory_bytes,
        planned(&fixed).predicted.peak_memory_bytes
    );
    fixed.training.batch = Choice::Fixed(10);
    let as_many = planned(&fixed);
    assert!((filled.predicted.step_seconds - as_many.predicted.step_seconds).abs() < 1e-9);
    assert!(filled.predicted.peak_memory_bytes < as_many.predicted.peak_memory_bytes);
    let text = &filled.why.text;
    assert!(
        text.contains("batches of at most 1024 tokens, about 10 records"),
        "{text}"
    );
}

#[test]
fn generated_answers_need_a_prompts_pass_and_what_is_kept_of_it() {
    let mut spec = fixed();
    spec.training.batch = Choice::Fixed(1);
    let answers = |answers| {
        Some(Evaluation {
            every: 1,
            sample: None,
            choices: Vec::new(),
            answers,
            measure: None,
        })
    };
    let (name, mut profile) = site("a", 1.0, 8 * GIB);
    profile.modes[0].cost.scoring_memory_fixed = 2.0 * GIB as f64;
    // A pass over the one row of scoring needs less than the keys and values of one.
    profile.modes[0].cost.scoring_memory_per_token = 1.0;
    let sites = [(name, profile)];
    let peak = |spec: &Spec| {
        let plan = plan(spec, &sites, 1).expect("possible");
        of(&plan, "a").predicted.peak_memory_bytes
    };
    spec.evaluation = answers(None);
    assert_eq!(peak(&spec), 2 * GIB + 128);
    spec.evaluation = answers(Some(Answers::default()));
    // Of three blocks, k and v of 576 numbers for 128 tokens.
    assert_eq!(peak(&spec), 2 * GIB + 128 + 3 * 2 * 576 * 128 * 4);
}

#[test]
fn what_only_gradients_have_keeps_every_site_at_gradients() {
    let mut spec = fixed();
    spec.training.optimizer = Optimizer::Auto;
    spec.adapter.rank = Choice::Auto;
    assert!(spec.takes_zeroth_order());
    spec.training.schedule = domain::schedule::Shape::Cosine;
    assert!(!spec.takes_zeroth_order());
}
