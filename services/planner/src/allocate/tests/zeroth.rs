use super::*;

/// A site that measured first-order and zeroth-order training, with room for the second alone.
fn tiny(memory: u64) -> (WorkerName, Profile) {
    let (name, mut profile) = site("a", 1.0, memory);
    let (mut measured, mut fitted) = (
        profile.measurement.modes[0].clone(),
        profile.modes[0].clone(),
    );
    measured.mode.optimizer = Optimizer::Mezo;
    fitted.mode.optimizer = Optimizer::Mezo;
    fitted.cost.memory_fixed = 0.2 * GIB as f64;
    fitted.cost.memory_per_token = 10_000.0;
    profile.measurement.modes.push(measured);
    profile.modes.push(fitted);
    (name, profile)
}

#[test]
fn a_site_without_room_for_backpropagation_is_told_what_zeroth_order_would_have_taken() {
    let sites = [tiny(GIB / 4), site("b", 1.0, 8 * GIB)];
    let plan = plan(&spec(), &sites, 1).expect("possible");
    assert!(!plan.workers.contains_key(&sites[0].0));
    let [excluded] = plan.excluded.as_slice() else {
        panic!("{:?}", plan.excluded)
    };
    assert_eq!(excluded.trouble, Trouble::OutOfMemory);
    for words in [
        "may use 256.0 MiB",
        "are missing; zeroth-order training would take 21",
        "of memory, which it has, and ",
        "but this version does not execute it, so the site cannot take part",
    ] {
        assert!(
            excluded.detail.contains(words),
            "{words}: {}",
            excluded.detail
        );
    }
}

#[test]
fn a_site_without_room_for_either_is_told_so() {
    let cause = plan(&spec(), &[tiny(GIB / 8)], 1).expect_err("impossible");
    let detail = &cause.sites[0].detail;
    assert!(detail.contains(" more than it may use, and "), "{detail}");
}

#[test]
fn zeroth_order_is_never_planned_and_the_explanation_names_it() {
    let plan = plan(&spec(), &[tiny(8 * GIB)], 1).expect("possible");
    let worker = of(&plan, "a");
    assert_eq!(worker.optimizer, Optimizer::Adamw);
    let rejected = &worker.why.rejected;
    let other = rejected
        .iter()
        .find(|other| other.change == Some(Change::Optimizer));
    let because = &other.expect("it was measured").because;
    assert!(because.contains("lowers the loss by"), "{because}");
    assert!(
        because.contains("does not execute zeroth-order"),
        "{because}"
    );
}

#[test]
fn a_job_of_first_order_training_hears_nothing_of_zeroth_order() {
    let mut spec = spec();
    spec.training.optimizer = Optimizer::Adamw;
    let cause = plan(&spec, &[tiny(GIB / 4)], 1).expect_err("impossible");
    assert!(!cause.message.contains("zeroth"), "{}", cause.message);
}
