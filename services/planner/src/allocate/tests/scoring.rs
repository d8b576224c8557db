use domain::job::spec::Evaluation;

use super::*;

#[test]
fn scoring_counts_where_the_job_asks_for_it() {
    let mut spec = spec();
    spec.adapter.rank = Choice::Fixed(1);
    spec.training.batch = Choice::Fixed(1);
    let (name, mut profile) = site("a", 1.0, 8 * GIB);
    profile.modes[0].cost.scoring_memory_fixed = 2.0 * GIB as f64;
    let sites = [(name.clone(), profile.clone())];
    let peak = |spec: &Spec| {
        let plan = plan(spec, &sites, 1).expect("possible");
        of(&plan, "a").predicted.peak_memory_bytes
    };
    assert!(peak(&spec) < GIB);
    spec.evaluation = Some(Evaluation {
        every: 1,
        sample: None,
        choices: Vec::new(),
        answers: None,
        measure: None,
    });
    assert_eq!(peak(&spec), 2 * GIB + 128 * 50_000);

    profile.measurement.modes[0].scoring.clear();
    let cause = plan(&spec, &[(name, profile)], 1).expect_err("impossible");
    assert_eq!(cause.sites[0].trouble, Trouble::OutOfMemory);
    for words in [
        "merged adapter of rank 32",
        "it may use 8.00 GiB; its base alone takes 512.0 MiB",
        "; next: shorten training.sequence_length; or lower adapter.rank_max, or leave evaluation out",
    ] {
        assert!(cause.message.contains(words), "{words}: {}", cause.message);
    }
}

#[test]
fn a_record_is_scored_in_a_row_for_each_choice_or_in_one_where_the_loss_is_among_them() {
    let mut spec = spec();
    spec.adapter.rank = Choice::Fixed(1);
    spec.training.batch = Choice::Fixed(4);
    let (name, mut profile) = site("a", 1.0, 8 * GIB);
    profile.modes[0].cost.scoring_memory_fixed = 2.0 * GIB as f64;
    let sites = [(name, profile)];
    let rows = |spec: &Spec| {
        let plan = plan(spec, &sites, 1).expect("possible");
        (of(&plan, "a").predicted.peak_memory_bytes - 2 * GIB) / (128 * 50_000)
    };
    let choices: Vec<String> = (0..8).map(|n| format!(" {n}")).collect();
    spec.evaluation = Some(Evaluation {
        every: 1,
        sample: None,
        choices: choices.clone(),
        answers: None,
        measure: None,
    });
    // Never less than a record, however few rows a step has.
    assert_eq!(rows(&spec), 8);
    spec.training.choices = choices;
    assert_eq!(rows(&spec), 4);
}
