use domain::plan::Shrunk;

use super::importance::narrow;
use super::*;

fn again(parent: &Plan, sites: &[(WorkerName, Profile)]) -> Replanned {
    let profiles = sites.iter().cloned().collect();
    let request = Request {
        job: &parent.job,
        spec: &spec(),
        profiles: &profiles,
        parent: Some(parent),
        least_sites: 1,
    };
    replan(&request).expect("possible")
}

fn replaced(parent: &Plan, sites: &[(WorkerName, Profile)]) -> Plan {
    match again(parent, sites) {
        Replanned::Replaced(plan) => *plan,
        Replanned::Kept(why) => panic!("kept: {why}"),
    }
}

/// What worker `a` trains.
fn trained(plan: &Plan) -> (&RankTable, u16) {
    (&of(plan, "a").ranks, of(plan, "a").batch)
}

fn slower(profile: &mut Profile, factor: f64) {
    let cost = &mut profile.modes[0].cost;
    cost.seconds_fixed *= factor;
    cost.seconds_per_token *= factor;
    cost.seconds_per_token_parameter *= factor;
}

#[test]
fn a_plan_stays_while_another_would_gain_little() {
    let mut sites = [site("a", 1.0, 8 * GIB), site("b", 2.0, 8 * GIB)];
    let parent = plan(&spec(), &sites, 2).expect("possible");
    for factor in [1.0, 1.02] {
        slower(&mut sites[1].1, factor);
        let kept = again(&parent, &sites);
        let Replanned::Kept(why) = kept else {
            panic!("{kept:?}")
        };
        assert!(
            why.contains("not more than 7 %") || why.contains("the same"),
            "{why}"
        );
    }
}

#[test]
fn a_site_that_became_much_slower_gets_another_plan_and_the_others_keep_theirs() {
    let mut sites = [
        site("a", 1.0, 8 * GIB),
        site("b", 1.0, 8 * GIB),
        site("c", 1.0, 8 * GIB),
    ];
    let parent = plan(&spec(), &sites, 3).expect("possible");
    slower(&mut sites[2].1, 4.0);
    let next = replaced(&parent, &sites);
    assert_eq!(
        (next.version, next.parent),
        (PlanVersion(2), Some(PlanVersion(1)))
    );
    assert!(
        next.replaces[0].contains("less time"),
        "{:?}",
        next.replaces
    );
    assert!(of(&next, "c").batch < of(&parent, "c").batch);
    let slowest = of(&next, "c").predicted.round_seconds;
    let before = 4.0 * of(&parent, "c").predicted.round_seconds;
    assert!(slowest < 0.8 * before, "{slowest} of {before}");
}

/// Site b has a hundredth of the records: what it learns more changes little, what it waits changes as much as anybody's.
#[test]
fn a_plan_whose_sites_came_to_finish_far_apart_is_judged_by_the_waiting_too() {
    let mut sites = [site("a", 1.0, 8 * GIB), site("b", 1.0, 8 * GIB)];
    (
        sites[0].1.measurement.records,
        sites[1].1.measurement.records,
    ) = (5000, 50);
    let parent = plan(&spec(), &sites, 2).expect("possible");
    let waits = |plan: &Plan, of_b: f64| 1.0 - of_b / plan.round_seconds;
    slower(&mut sites[1].1, 0.5);
    let next = replaced(&parent, &sites);
    assert!(next.replaces[0].contains("waits"), "{:?}", next.replaces);
    let before = of(&parent, "b").predicted.round_seconds / 2.0;
    let after = of(&next, "b").predicted.round_seconds;
    let (before, after) = (waits(&parent, before), waits(&next, after));
    assert!(before > 0.4 && after < 0.1, "{before}, then {after}");
    assert_eq!(trained(&next), trained(&parent), "a keeps what it has");
}

#[test]
fn a_site_that_came_or_went_is_a_reason_and_the_others_keep_what_they_have() {
    let all = [site("a", 1.0, 8 * GIB), site("b", 1.0, 8 * GIB)];
    let both = plan(&spec(), &all, 2).expect("possible");
    let one = replaced(&both, &all[..1]);
    assert_eq!(one.replaces, ["b can no longer take part"]);
    assert_eq!(trained(&one), trained(&both));
    let text = &of(&one, "a").why.text;
    assert!(
        text.contains("This is kept from plan 1, with its figures"),
        "{text}"
    );
    let grown = replaced(&one, &all);
    assert_eq!(grown.replaces, ["b takes part"]);
    assert_eq!(grown.version, PlanVersion(3));
    assert_eq!(trained(&grown), trained(&one));
}

#[test]
fn ranks_that_no_longer_fit_shrink_and_are_listed() {
    let (name, mut profile) = narrow("a", Some(0.9));
    let parent = plan(&spec(), &[(name.clone(), profile.clone())], 1).expect("possible");
    assert!(parent.shrunk.is_empty());
    profile.measurement.memory_limit_bytes = of(&parent, "a").predicted.peak_memory_bytes * 9 / 10;
    let next = replaced(&parent, &[(name.clone(), profile)]);
    assert!(
        next.replaces[0].starts_with("what a trains needs "),
        "{:?}",
        next.replaces
    );
    assert!(!next.shrunk.is_empty());
    for Shrunk {
        worker,
        weight,
        from,
        to,
    } in &next.shrunk
    {
        assert_eq!(*worker, name);
        assert_eq!(
            (
                of(&parent, "a").ranks.rank(*weight),
                of(&next, "a").ranks.rank(*weight)
            ),
            (*from, *to)
        );
        assert!(to < from);
    }
}

#[test]
fn a_plan_without_a_parent_is_a_first_one() {
    let sites = [site("a", 1.0, 8 * GIB)];
    let profiles = sites.iter().cloned().collect();
    let job = JobId::from_bits(1);
    let request = Request {
        job: &job,
        spec: &spec(),
        profiles: &profiles,
        parent: None,
        least_sites: 1,
    };
    let Ok(Replanned::Replaced(plan)) = replan(&request) else {
        panic!("there is nothing to keep")
    };
    assert_eq!(*plan, allocate(&request).expect("possible"));
}

#[test]
fn a_weight_that_became_worth_more_gets_the_rank_of_one_that_became_worth_less() {
    let (name, mut profile) = narrow("a", Some(0.9));
    let parent = plan(&spec(), &[(name.clone(), profile.clone())], 1).expect("possible");
    let importance = profile.measurement.importance.as_mut().expect("measured");
    let mut energies: Vec<Vec<f32>> = Vec::new();
    energies.extend(
        importance
            .weights
            .iter()
            .map(|weight| weight.energies.clone()),
    );
    let turned = importance
        .weights
        .iter_mut()
        .zip(energies.into_iter().rev());
    turned.for_each(|(weight, energies)| weight.energies = energies);
    let next = replaced(&parent, &[(name, profile)]);
    let rank = |plan: &Plan, layer| {
        let name = WeightName::new(layer, Projection::Q);
        of(plan, "a").ranks.rank(name)
    };
    assert!(rank(&parent, 0) > rank(&parent, LAYERS - 1));
    assert!(rank(&next, 0) < rank(&next, LAYERS - 1));
    assert!(
        next.replaces[0].contains("less time"),
        "{:?}",
        next.replaces
    );
}
