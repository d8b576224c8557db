use std::error::Error as _;

use domain::cause::Trouble;
use domain::job::Weighting;
use domain::job::aggregation::Normalize;
use domain::plan::PlanVersion;
use domain::round::{Contribution, Credit};

use super::super::check::{check, shapes};
use super::*;

fn refused(update: &Memory, expected: &str) {
    let error = check(update, &uniform(4), &weights(), Trains::Both).expect_err(expected);
    let text = error.to_string();
    assert!(text.contains(expected), "{text}");
}

#[test]
fn an_update_as_planned_is_accepted() {
    let update = random(&uniform(4), 1);
    check(&update, &uniform(4), &weights(), Trains::Both).expect("accepted");
    let b_alone = sent(Strategy::Ffa, &update);
    check(&b_alone, &uniform(4), &weights(), Trains::B).expect("accepted");
    let error = check(&update, &uniform(4), &weights(), Trains::B).expect_err("A is not asked for");
    assert!(error.to_string().contains("8 extra"), "{error}");
    let error = check(&b_alone, &uniform(4), &weights(), Trains::Both).expect_err("A is missing");
    assert!(error.to_string().contains("8 missing"), "{error}");
}

#[test]
fn what_differs_from_the_plan_is_refused_by_name() {
    let key = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight";
    let good = random(&uniform(4), 1);

    let mut missing = good.clone();
    missing.remove(key);
    refused(&missing, &format!("1 missing {key}"));

    let mut extra = good.clone();
    extra.put("lm_head.weight", [1, 1], vec![0.0]).expect("put");
    refused(&extra, "1 extra lm_head.weight");

    let mut wrong_rank = good.clone();
    wrong_rank.put(key, [64, 5], vec![0.0; 320]).expect("put");
    refused(&wrong_rank, "[64, 5] instead of [64, 4]");

    let mut transposed = good.clone();
    transposed.put(key, [4, 64], vec![0.0; 256]).expect("put");
    refused(&transposed, "[4, 64] instead of [64, 4]");

    for bad in [f32::NAN, f32::INFINITY] {
        let mut not_finite = good.clone();
        let mut values = vec![0.0; 256];
        values[9] = bad;
        not_finite.put(key, [64, 4], values).expect("put");
        refused(
            &not_finite,
            &format!("{key} holds a number that is not finite, at position 9"),
        );
    }

    let mut cut = good;
    cut.put(key, [64, 4], vec![0.0; 255]).expect("put");
    refused(&cut, key);

    refused(&random(&uniform(8), 1), "instead of [4, 150]");
    refused(&Memory::default(), "16 missing");
}

#[test]
fn a_key_of_any_length_does_not_make_a_long_text() {
    let mut update = random(&uniform(4), 1);
    update
        .put(&"x".repeat(1_000_000), [1, 1], vec![0.0])
        .expect("put");
    let error = check(&update, &uniform(4), &weights(), Trains::Both).expect_err("refused");
    assert!(error.to_string().len() < 500);
    assert_eq!(error.trouble(), Trouble::UpdateRefused);
}

#[test]
fn a_merge_names_the_worker_whose_update_is_wrong() {
    let ranks = uniform(4);
    let global = random(&ranks, 2);
    let mut bad = random(&ranks, 4);
    let key = WeightName::new(0, Projection::Up).peft_a();
    let mut values = vec![0.0; 320];
    values[0] = f32::NAN;
    bad.put(&key, [4, 80], values).expect("put");
    let updates = vec![
        (0.5, ranks.clone(), random(&ranks, 3)),
        (0.5, ranks.clone(), bad),
    ];
    let error = fold(&global, &ranks, &updates).expect_err("refused");
    assert_eq!(error.to_string(), "the update of w1 is refused");
    assert!(error.source().expect("a cause").to_string().contains(&key));
}

#[test]
fn shares_ranks_and_scale_that_make_no_sense_are_refused() {
    let ranks = uniform(4);
    let global = random(&ranks, 2);
    let update = random(&ranks, 3);
    for share in [0.9, 1.1, f64::NAN, -1.0] {
        let updates = vec![(share, ranks.clone(), update.clone())];
        let error = fold(&global, &ranks, &updates).expect_err("refused");
        assert!(matches!(error, Error::Shares { .. }), "{error}");
    }
    assert!(matches!(
        fold(&global, &ranks, &[]),
        Err(Error::Shares { .. })
    ));
    let updates = vec![(1.0, uniform(5), random(&uniform(5), 3))];
    let error = fold(&global, &ranks, &updates).expect_err("refused");
    assert!(
        matches!(
            error,
            Error::Rank {
                rank: 5,
                limit: 4,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_global_adapter_that_lacks_a_weight_is_refused() {
    let ranks = uniform(4);
    let mut global = random(&ranks, 2);
    let updates = vec![(1.0, ranks.clone(), random(&ranks, 3))];
    let key = WeightName::new(1, Projection::Q).peft_b();
    global.remove(&key);
    let error = fold(&global, &ranks, &updates).expect_err("refused");
    assert!(error.source().expect("a cause").to_string().contains(&key));
}

#[test]
fn the_widths_of_an_adapters_weights_are_read_from_its_shapes() {
    let mut found = shapes(&random(&uniform(4), 1)).expect("well formed");
    let mut expected = weights();
    found.sort_by_key(|weight| weight.name);
    expected.sort_by_key(|weight| weight.name);
    assert_eq!(found, expected);
}

#[test]
fn shares_go_by_samples_tokens_or_neither() {
    let both = [contribution("a", 30, 100), contribution("b", 10, 100)];
    let shares = |of: &[Contribution], weighting| -> Vec<f64> {
        let shares = super::super::share::shares(of, &[false; 2], weighting, Normalize::None);
        assert!(shares.iter().all(|share| share.stretch == 1.0));
        shares.into_iter().map(|share| share.weight).collect()
    };
    assert_eq!(shares(&both, Weighting::Samples), [0.75, 0.25]);
    assert_eq!(shares(&both, Weighting::Tokens), [0.5, 0.5]);
    assert_eq!(shares(&both, Weighting::Equal), [0.5, 0.5]);
    let idle = [contribution("a", 0, 0), contribution("b", 0, 0)];
    assert_eq!(shares(&idle, Weighting::Samples), [0.5, 0.5]);
    let mut late = both.clone();
    late[0].credit = Some(Credit {
        round: 1,
        global: late[0].update.adapter.clone(),
        plan: PlanVersion(1),
        discount: 0.5,
    });
    let found = shares(&late, Weighting::Samples);
    assert_eq!(found, [0.6, 0.4], "30 · 0.5 against 10");

    // FedNova: τ = 0.75·4 + 0.25·1 steps, so that both move by as much per step.
    let mut uneven = both;
    uneven[0].update.metrics.steps = 4;
    let found =
        super::super::share::shares(&uneven, &[false; 2], Weighting::Samples, Normalize::Fednova);
    let stretches: Vec<f64> = found.iter().map(|share| share.stretch).collect();
    assert_eq!(stretches, [3.25 / 4.0, 3.25]);
    uneven[1].update.metrics.steps = 4;
    let found =
        super::super::share::shares(&uneven, &[false; 2], Weighting::Samples, Normalize::Fednova);
    assert!(found.iter().all(|share| share.stretch == 1.0), "{found:?}");
}
