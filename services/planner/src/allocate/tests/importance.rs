use super::*;

/// Importance in which the weights of block 0 hold 100 times the energy of the others.
pub(super) fn importance(agreement: f64) -> Importance {
    let weight = |shape: &WeightShape| {
        let energy = if shape.name.layer() == 0 { 1.0 } else { 0.01 };
        let energies = (1..=32).map(|j| energy / j as f32);
        WeightImportance {
            name: shape.name,
            energies: energies.collect(),
        }
    };
    let (_, profile) = site("x", 1.0, GIB);
    Importance {
        method: ImportanceMethod::Sketch,
        weights: profile.measurement.weights.iter().map(weight).collect(),
        agreement,
        records: 32,
    }
}

/// A site whose memory has room for some of the ranks only.
pub(super) fn narrow(name: &str, agreement: Option<f64>) -> (WorkerName, Profile) {
    let (name, mut profile) = site(name, 1.0, 8 * GIB);
    profile.modes[0].cost.memory_per_parameter = 8_000.0;
    profile.measurement.importance = agreement.map(importance);
    (name, profile)
}

#[test]
fn each_weight_has_the_rank_that_its_importance_deserves() {
    let plan = plan(&spec(), &[narrow("a", Some(0.9))], 1).expect("possible");
    let worker = of(&plan, "a");
    let rank = |layer| worker.ranks.rank(WeightName::new(layer, Projection::Q));
    assert!(rank(0) > rank(1), "{:?}", worker.ranks);
    assert_eq!(
        plan.global,
        RankTable::uniform(&Projection::ALL, LAYERS, 32)
    );
    let basis = plan.basis.as_ref().expect("it was planned");
    assert_eq!(basis.ranks, RankBasis::Measured);
    assert_eq!(worker.why.ranks.len(), 7);
    let text = &worker.why.text;
    assert!(text.contains("two seeds agree to 0.90"), "{text}");
    assert!(text.contains("each at its own rank (q_proj "), "{text}");
    let next = worker
        .why
        .rejected
        .iter()
        .find(|other| other.change == Some(Change::Rank));
    assert!(next.expect("more rank").gain.expect("known") > 0.0);
}

#[test]
fn importance_on_which_two_seeds_do_not_agree_makes_one_rank_and_the_plan_says_so() {
    let plan = plan(&spec(), &[narrow("a", Some(0.49))], 1).expect("possible");
    let worker = of(&plan, "a");
    let rank = worker.ranks.max();
    assert_eq!(
        worker.ranks,
        RankTable::uniform(&Projection::ALL, LAYERS, rank)
    );
    assert_eq!(
        plan.basis.as_ref().expect("it was planned").ranks,
        RankBasis::Disagreeing
    );
    assert!(
        worker.why.text.contains("to 0.49 only, less than 0.5"),
        "{}",
        worker.why.text
    );
}

#[test]
fn without_importance_a_ranks_worth_is_an_assumption_and_the_plan_says_so() {
    let plan = plan(&spec(), &[narrow("a", None)], 1).expect("possible");
    let worker = of(&plan, "a");
    let rank = worker.ranks.max();
    assert_eq!(
        worker.ranks,
        RankTable::uniform(&Projection::ALL, LAYERS, rank)
    );
    assert_eq!(
        plan.basis.as_ref().expect("it was planned").ranks,
        RankBasis::Assumed
    );
    let text = &worker.why.text;
    assert!(
        text.contains("assumed to add about 1/j of the first, because no site measured"),
        "{text}"
    );
}

#[test]
fn a_site_that_could_not_measure_importance_takes_the_fleets() {
    let sites = [narrow("a", Some(0.8)), narrow("b", None)];
    let plan = plan(&spec(), &sites, 2).expect("possible");
    assert_eq!(of(&plan, "a").ranks, of(&plan, "b").ranks);
    let basis = plan.basis.as_ref().expect("it was planned");
    assert_eq!(
        (basis.ranks, basis.agreement),
        (RankBasis::Measured, Some(0.8))
    );
}

#[test]
fn importance_counts_by_the_records_of_its_site() {
    let opposite = |mut importance: Importance| {
        for weight in &mut importance.weights {
            let energy = if weight.name.layer() == 2 { 100.0 } else { 1.0 };
            for (j, own) in (1..).zip(&mut weight.energies) {
                *own = energy * 0.01 / j as f32;
            }
        }
        importance
    };
    let best = |records: [u64; 2]| {
        let (mut a, mut b) = (narrow("a", Some(0.9)), narrow("b", Some(0.9)));
        b.1.measurement.importance = Some(opposite(importance(0.9)));
        for (_, profile) in [&mut a, &mut b] {
            profile.modes[0].cost.memory_per_parameter = 20_000.0;
        }
        (a.1.measurement.records, b.1.measurement.records) = (records[0], records[1]);
        let plan = plan(&spec(), &[a, b], 2).expect("possible");
        let rank = |layer| {
            of(&plan, "a")
                .ranks
                .rank(WeightName::new(layer, Projection::Q))
        };
        rank(0).cmp(&rank(2))
    };
    assert_eq!(best([900, 100]), std::cmp::Ordering::Greater);
    assert_eq!(best([100, 900]), std::cmp::Ordering::Less);
}

#[test]
fn importance_that_lacks_a_weight_or_is_no_number_is_left_out() {
    for spoil in [
        |importance: &mut Importance| drop(importance.weights.pop()),
        |importance: &mut Importance| importance.weights[3].energies[1] = f32::NAN,
    ] {
        let (name, mut profile) = narrow("a", Some(0.9));
        spoil(profile.measurement.importance.as_mut().expect("measured"));
        let plan = plan(&spec(), &[(name, profile)], 1).expect("possible");
        assert_eq!(
            plan.basis.as_ref().expect("it was planned").ranks,
            RankBasis::Assumed
        );
    }
}

#[test]
fn targets_that_the_job_names_train_everywhere_if_only_a_little() {
    let mut spec = spec();
    let targets = vec![Projection::Q, Projection::V];
    spec.adapter.targets = Choice::Fixed(targets.clone());
    let (name, mut profile) = narrow("a", Some(0.9));
    profile.modes[0].cost.memory_per_parameter = 80_000.0;
    let plan = plan(&spec, &[(name, profile)], 1).expect("possible");
    let worker = of(&plan, "a");
    assert!(
        targets
            .iter()
            .all(|target| !worker.ranks.row(*target).contains(&0))
    );
    assert!(
        worker.ranks.rank(WeightName::new(0, Projection::Q)) > 1,
        "{:?}",
        worker.ranks
    );
    assert_eq!(worker.ranks.targets().collect::<Vec<_>>(), targets);
}

#[test]
fn the_rank_that_the_job_fixes_stays_whatever_importance_says() {
    let mut spec = spec();
    spec.adapter.rank = Choice::Fixed(3);
    let plan = plan(&spec, &[narrow("a", Some(0.9))], 1).expect("possible");
    assert_eq!(
        of(&plan, "a").ranks,
        RankTable::uniform(&Projection::ALL, LAYERS, 3)
    );
    assert_eq!(
        plan.basis.as_ref().expect("it was planned").ranks,
        RankBasis::Fixed
    );
}

#[test]
fn exact_and_fast_plans_are_worth_the_same_and_say_what_made_them() {
    use domain::job::planner::Solver;
    let plan = |solver| {
        let mut spec = spec();
        spec.planner.solver = solver;
        plan(&spec, &[narrow("a", Some(0.9)), narrow("b", Some(0.9))], 2).expect("possible")
    };
    let [exact, fast, auto] = [Solver::Exact, Solver::Fast, Solver::Auto].map(plan);
    let of = |plan: &Plan| plan.basis.clone().expect("it was planned");
    assert_eq!(
        (of(&exact).solver, of(&exact).proven),
        (Solver::Exact, true)
    );
    assert_eq!((of(&fast).solver, of(&fast).proven), (Solver::Fast, false));
    assert_eq!(of(&exact).gap, Some(0.0), "what is proven has no gap");
    let gap = of(&fast).gap.expect("it was solved");
    assert!((0.0..0.1).contains(&gap), "{gap}");
    assert_eq!(of(&auto).solver, Solver::Exact);
    let worth = |plan: &Plan| of(plan).expected_decrease;
    assert!(worth(&fast) <= worth(&exact) + 1e-9);
    assert!(worth(&fast) >= 0.99 * worth(&exact));
}

#[test]
fn a_rank_follows_the_size_of_a_gradient_and_not_how_few_directions_hold_it() {
    let planned = |energies: fn(f32) -> Vec<f32>| {
        let (name, mut profile) = narrow("a", Some(0.9));
        let importance = profile.measurement.importance.as_mut().expect("measured");
        for weight in &mut importance.weights {
            weight.energies = energies(weight.energies.iter().sum());
        }
        let plan = plan(&spec(), &[(name, profile)], 1).expect("possible");
        of(&plan, "a").ranks.clone()
    };
    let narrow = planned(|energy| vec![energy]);
    let wide = planned(|energy| vec![energy / 32.0; 32]);
    assert_eq!(narrow, wide);
    let rank = |layer| narrow.rank(WeightName::new(layer, Projection::Q));
    assert!(rank(0) > rank(1) && rank(1) > 0, "{narrow:?}");
}

/// What each row of each weight adds, by a profile whose weights have the same energies and these shapes.
fn worths(
    shapes: &[(usize, usize)],
    rank_max: u16,
    method: ImportanceMethod,
    optimizer: Optimizer,
    energies: &[f32],
) -> Vec<Vec<f64>> {
    let (_, mut profile) = narrow("a", Some(0.9));
    let measured = &mut profile.measurement;
    let importance = measured.importance.as_mut().expect("measured");
    importance.method = method;
    importance.weights.truncate(shapes.len());
    measured.weights.truncate(shapes.len());
    for (weight, (out, inp)) in measured.weights.iter_mut().zip(shapes) {
        (weight.out, weight.inp) = (*out, *inp);
    }
    for weight in &mut importance.weights {
        weight.energies = energies.to_vec();
    }
    let weights = measured.weights.clone();
    let profiles = [&profile].into_iter();
    let found = super::super::importance::Importance::of(profiles, &weights, rank_max, optimizer);
    found.expect("measured").worths
}

#[test]
fn a_gradient_counts_as_the_optimizer_makes_use_of_it_and_by_the_weights_shape() {
    let shapes = [(100, 100), (400, 100), (100, 400)];
    let of_the_first = |optimizer| -> Vec<f64> {
        let found = worths(&shapes, 8, ImportanceMethod::Sketch, optimizer, &[3.0, 1.0]);
        let whole = |weight: &Vec<f64>| weight.iter().sum::<f64>();
        let first = whole(&found[0]);
        found.iter().map(|weight| whole(weight) / first).collect()
    };
    let near = |found: Vec<f64>, expected: [f64; 3]| {
        let mut pairs = found.iter().zip(expected);
        assert!(pairs.all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}");
    };
    for optimizer in [Optimizer::Adamw, Optimizer::Auto] {
        near(of_the_first(optimizer), [1.0, 2.0, 0.5]);
    }
    for optimizer in [Optimizer::Sgd, Optimizer::Mezo] {
        near(of_the_first(optimizer), [1.0, 1.0, 0.25]);
    }
}

#[test]
fn rows_beyond_the_rank_of_a_weight_are_worth_nothing() {
    let shapes = [(4, 100), (100, 100)];
    let found = worths(&shapes, 8, ImportanceMethod::Sketch, Optimizer::Sgd, &[1.0]);
    assert!(found[0][..4].iter().all(|worth| *worth > 0.0));
    assert_eq!(found[0][4..], [0.0; 4]);
    assert!(found[1].iter().all(|worth| *worth > 0.0));
}

#[test]
fn scores_of_a_trained_adapter_are_taken_as_they_are() {
    let (method, shapes) = (ImportanceMethod::Adalora, [(100, 100), (400, 100)]);
    let found = worths(&shapes, 8, method, Optimizer::Adamw, &[3.0, 1.0]);
    assert_eq!(found, [[0.375, 0.125], [0.375, 0.125]]);
}

#[test]
fn a_hundred_times_the_energy_is_worth_ten_times_the_rank_to_adamw_and_a_hundred_times_to_sgd() {
    let ratio = |optimizer| {
        let (_, profile) = narrow("a", Some(0.9));
        let weights: Vec<WeightShape> = profile.measurement.weights.clone();
        let found = super::super::importance::Importance::of(
            [&profile].into_iter(),
            &weights,
            32,
            optimizer,
        );
        let worth = |layer| {
            let at = weights
                .iter()
                .position(|weight| weight.name == WeightName::new(layer, Projection::Q));
            let found = &found.as_ref().expect("measured").worths;
            found[at.expect("a weight")].iter().sum::<f64>()
        };
        worth(0) / worth(1)
    };
    let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-4;
    assert!(near(ratio(Optimizer::Adamw), 10.0));
    assert!(near(ratio(Optimizer::Auto), 10.0));
    assert!(near(ratio(Optimizer::Sgd), 100.0));
}
