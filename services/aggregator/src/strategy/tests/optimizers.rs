//! Server optimizers, compared with their formulas in plain `f64`.

use domain::job::aggregation::ServerKind;

use super::*;

/// m and v after a step, and by how much the parameter moves.
fn formula(kind: ServerKind, m: f64, v: f64, change: f64) -> (f64, f64, f64) {
    let (beta1, beta2, tau, rate) = (0.9, 0.99, 1e-3, 1e-3);
    let first = beta1 * m + (1.0 - beta1) * change;
    let square = change * change;
    match kind {
        ServerKind::Fedavg => (0.0, 0.0, change),
        ServerKind::Fedavgm => {
            let m = beta1 * m + change;
            (m, 0.0, m)
        }
        ServerKind::Fedadagrad => {
            let v = v + square;
            (first, v, rate * first / (v.sqrt() + tau))
        }
        ServerKind::Fedyogi => {
            let v = v - (1.0 - beta2) * square * (v - square).signum();
            (first, v, rate * first / (v.sqrt() + tau))
        }
        ServerKind::Fedadam => {
            let v = beta2 * v + (1.0 - beta2) * square;
            (first, v, rate * first / (v.sqrt() + tau))
        }
    }
}

#[test]
fn three_rounds_of_each_optimizer_are_the_formula_under_each_rule_that_may_have_one() {
    let rules = Strategy::ALL
        .into_iter()
        .filter(|rule| rule.keeps_coordinates());
    for (rule, kind) in rules.flat_map(|rule| ServerKind::ALL.map(|kind| (rule, kind))) {
        let optimizer = ServerOptimizer {
            kind,
            ..ServerOptimizer::default()
        };
        let ranks = uniform(8);
        let mut now = random(&ranks, 400);
        let mut state: Option<Memory> = None;
        // One entry of B, followed by hand.
        let key = WeightName::new(1, Projection::Up).peft_b();
        let at = 37;
        let (mut value, mut m) = (f64::from(now.get(&key).expect("B").1[at]), 0.0);
        let mut v = 1e-6;
        for round in 1..=3 {
            let updates: Vec<_> = [(0.25, 0), (0.75, 1)]
                .map(|(share, index)| {
                    let update = random(&ranks, 410 + index + 10 * u64::from(round));
                    (share, ranks.clone(), sent(rule, &update))
                })
                .into();
            let mean: f64 = updates
                .iter()
                .map(|(share, _, update)| share * f64::from(update.get(&key).expect("B").1[at]))
                .sum();
            let with = kind.has_state().then_some((&optimizer, state.as_ref()));
            let case = Case {
                round,
                optimizer: with,
                ..Case::new(rule, &now, &ranks, &updates)
            };
            let (merged, _, moments) = case.merge().expect("merges");
            let step;
            (m, v, step) = formula(kind, m, v, mean - value);
            value += step;
            let found = f64::from(merged.get(&key).expect("B").1[at]);
            let name = (rule.name(), kind.name());
            assert!(
                (found - value).abs() < 1e-5 * value.abs().max(1.0),
                "{name:?}: {found} {value}"
            );
            assert_eq!(moments.keys().is_empty(), !kind.has_state());
            if rule == Strategy::Ffa {
                let a = WeightName::new(1, Projection::Up).peft_a();
                assert_eq!(merged.get(&a), now.get(&a), "A moved");
                assert!(moments.keys().iter().all(|key| !key.contains("lora_A")));
            }
            // A killed aggregator that does it again has the same bytes.
            assert_eq!(case.merge().expect("merges").2, moments);
            now = merged;
            state = Some(moments);
        }
    }
}

#[test]
fn moments_of_another_adapter_and_rules_that_turn_are_refused() {
    let (ranks, optimizer) = (
        uniform(8),
        ServerOptimizer {
            kind: ServerKind::Fedadam,
            ..ServerOptimizer::default()
        },
    );
    let global = random(&ranks, 420);
    let updates = vec![(1.0, ranks.clone(), random(&ranks, 421))];
    let other = Memory::default();
    let case = Case {
        optimizer: Some((&optimizer, Some(&other))),
        ..Case::new(Strategy::Fedit, &global, &ranks, &updates)
    };
    let error = case.merge().expect_err("no moments");
    assert!(matches!(error, Error::State { .. }), "{error}");
    for rule in [Strategy::Product, Strategy::Stack, Strategy::Residual] {
        let case = Case {
            optimizer: Some((&optimizer, None)),
            ..Case::new(rule, &global, &ranks, &updates)
        };
        let error = case.merge().expect_err("its coordinates turn");
        assert!(matches!(error, Error::Server { .. }), "{error}");
    }
}
