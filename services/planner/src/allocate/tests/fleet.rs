//! Fleets of the real shape, 210 weights, from a seed.

use domain::job::planner::Solver;

use super::*;

fn made(workers: usize, seed: u64, solver: Solver) -> Plan {
    let mut spec = spec();
    spec.planner.solver = solver;
    let profiles = synthetic::fleet(workers, spec.adapter.rank_max, seed);
    let job = JobId::from_bits(1);
    let request = Request {
        job: &job,
        spec: &spec,
        profiles: &profiles,
        parent: None,
        least_sites: 1,
    };
    // `allocate` lints.
    allocate(&request).expect("possible")
}

#[test]
fn a_fleet_of_the_real_shape_is_planned_fast_by_its_size_and_the_same_every_time() {
    let plan = made(60, 3, Solver::Auto);
    let basis = plan.basis.as_ref().expect("it was planned");
    assert_eq!(
        (basis.solver, basis.ranks),
        (Solver::Fast, RankBasis::Measured)
    );
    assert!(plan.workers.len() > 40, "{} of 60", plan.workers.len());
    let bytes = |plan: &Plan| serde_json::to_vec(plan).expect("serializes");
    assert_eq!(bytes(&plan), bytes(&made(60, 3, Solver::Auto)));
    assert_ne!(bytes(&plan), bytes(&made(60, 4, Solver::Auto)));
    let explained = plan.workers.values().map(|worker| &worker.why);
    for why in explained {
        assert_eq!(why.ranks.len(), 7);
        assert!(why.rejected.len() >= 2, "{}", why.text);
    }
    let several = |of: &dyn Fn(&WorkerPlan) -> String| {
        let kinds: BTreeSet<String> = plan.workers.values().map(of).collect();
        kinds.len() > 1
    };
    assert!(several(&|worker| worker.batch.to_string()));
    assert!(several(&|worker| format!("{:?}", worker.base)));
    assert!(several(&|worker| worker.checkpoint.to_string()));
}

#[test]
fn exact_and_fast_agree_on_the_real_shape() {
    let (exact, fast) = (made(2, 5, Solver::Exact), made(2, 5, Solver::Fast));
    let worth = |plan: &Plan| {
        plan.basis
            .as_ref()
            .expect("it was planned")
            .expected_decrease
    };
    assert!(exact.basis.as_ref().expect("it was planned").proven);
    assert!(worth(&fast) <= worth(&exact) + 1e-9);
    assert!(worth(&fast) >= 0.99 * worth(&exact));
}

#[test]
fn a_choice_that_is_not_looked_at_could_not_have_been_the_best() {
    let spec = spec();
    let profiles = synthetic::fleet(12, spec.adapter.rank_max, 9);
    let request = Request {
        job: &JobId::from_bits(1),
        spec: &spec,
        profiles: &profiles,
        parent: None,
        least_sites: 1,
    };
    let usable = Usable::of(&profiles, &spec);
    let worth = Worth::of(&spec, &profiles);
    let space = space(&request, &usable).expect("weights");
    let admitted = usable.admit(&spec, &space, &worth);
    let mut found = 0;
    for site in &admitted.sites {
        for within in (0..40).map(|step| 0.5 * 1.3f64.powi(step)) {
            let all = site.open.choices.iter().filter_map(|choice| {
                let room = choice.room(site.memory(), within)?;
                let (parameters, gain) = site.source.space.frontier.reached(room)?;
                Some((choice.value(gain), choice.seconds.of(parameters)))
            });
            let best = all.max_by(|left, right| {
                let order = left.0.total_cmp(&right.0);
                order.then(right.1.total_cmp(&left.1))
            });
            assert_eq!(finish::reach(site, within), best);
            found += usize::from(best.is_some());
        }
    }
    assert!(found > 100, "{found}");
}
