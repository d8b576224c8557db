use super::*;

/// A site that measured first-order and zeroth-order training, with room for the second alone.
pub(super) fn tiny(memory: u64) -> (WorkerName, Profile) {
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
fn a_site_without_room_for_gradients_trains_zeroth_order_beside_others_and_says_so() {
    let sites = [tiny(GIB / 4), site("b", 1.0, 8 * GIB)];
    let plan = plan(&spec(), &sites, 2).expect("possible");
    let worker = of(&plan, "a");
    assert_eq!(worker.optimizer, Optimizer::Mezo);
    assert_eq!(of(&plan, "b").optimizer, Optimizer::Adamw);
    assert!(worker.predicted.peak_memory_bytes < GIB / 4);
    assert!(worker.predicted.upload_bytes < 100 * 1024, "scalars");
    let text = &worker.why.text;
    assert!(text.contains("No step by gradients fits here"), "{text}");
    let rejected = &worker.why.rejected;
    let other = rejected
        .iter()
        .find(|other| other.change == Some(Change::Optimizer));
    let because = &other.expect("it was measured").because;
    assert!(
        because.contains("more than the worker may use"),
        "{because}"
    );
}

#[test]
fn a_site_where_no_step_by_gradients_was_measured_is_not_told_that_none_fits() {
    let (name, mut profile) = tiny(GIB / 4);
    profile.modes.remove(0);
    profile.measurement.modes.remove(0);
    let plan = plan(&spec(), &[(name, profile)], 1).expect("possible");
    let worker = of(&plan, "a");
    assert_eq!(worker.optimizer, Optimizer::Mezo);
    let text = &worker.why.text;
    let words = "No step by gradients was measured here, for want of memory or time, so it trains zeroth-order";
    assert!(text.contains(words), "{text}");
    assert!(!text.contains("fits here"), "{text}");
}

#[test]
fn a_site_whose_steps_by_gradients_were_measured_too_small_is_not_told_that_none_fits() {
    let mut spec = spec();
    // A round of one step averages eight records at least, where one was measured.
    spec.training.local_steps = Choice::Fixed(1);
    let text = |(name, profile): (WorkerName, Profile)| {
        let plan = plan(&spec, &[(name, profile)], 1).expect("possible");
        let worker = of(&plan, "a");
        assert_eq!(worker.optimizer, Optimizer::Mezo);
        worker.why.text.clone()
    };
    let unknown = "No step by gradients is known to fit here (some were measured too small";
    // With room for gradients, as it seems.
    let (name, mut small) = tiny(8 * GIB);
    small.measurement.modes[0].samples.truncate(1);
    let text_of_small = text((name, small));
    assert!(text_of_small.contains(unknown), "{text_of_small}");
    // One way of training by gradients does not fit, and another may.
    let (name, mut both) = tiny(GIB / 4);
    let (mut measured, mut fitted) = (both.measurement.modes[0].clone(), both.modes[0].clone());
    measured.samples.truncate(1);
    measured.mode.checkpoint = true;
    fitted.mode.checkpoint = true;
    both.measurement.modes.push(measured);
    both.modes.push(fitted);
    let text_of_both = text((name, both));
    assert!(text_of_both.contains(unknown), "{text_of_both}");
    let text_of_none = text(tiny(GIB / 4));
    let fits = "No step by gradients fits here";
    assert!(text_of_none.contains(fits), "{text_of_none}");
}

/// The probe measures zeroth-order steps in f32 whatever the job computes gradients with.
#[test]
fn a_job_that_computes_in_bf16_leaves_zeroth_order_steps_in_f32_to_sites_without_room_for_gradients()
 {
    let mut spec = spec();
    spec.precision.compute = domain::job::spec::Compute::Bf16;
    assert_eq!(spec.check(), Ok(()));
    let worker = |memory: u64| {
        let (name, mut profile) = tiny(memory);
        for (index, kernel) in ["amx-bf16-2", "avx512-f32-2"].into_iter().enumerate() {
            profile.modes[index].mode.kernel = kernel.to_owned();
            profile.measurement.modes[index].mode.kernel = kernel.to_owned();
        }
        of(&plan(&spec, &[(name, profile)], 1).expect("possible"), "a").clone()
    };
    let (tight, roomy) = (worker(GIB / 4), worker(8 * GIB));
    let chosen = |worker: &WorkerPlan| (worker.optimizer, worker.kernel.clone());
    assert_eq!(chosen(&tight), (Optimizer::Mezo, "avx512-f32-2".to_owned()));
    assert_eq!(chosen(&roomy), (Optimizer::Adamw, "amx-bf16-2".to_owned()));
    let text = &tight.why.text;
    let words = "avx512-f32-2, zeroth-order: the arithmetic that the job names would round away";
    assert!(text.contains(words), "{text}");
    assert!(!text.contains("as the job says"), "{text}");
    let text = &roomy.why.text;
    assert!(text.contains("amx-bf16-2, as the job says"), "{text}");
}

#[test]
fn where_the_rule_trains_b_alone_such_a_site_is_told_what_zeroth_order_would_have_taken() {
    let mut spec = spec();
    spec.aggregation.strategy = domain::job::Strategy::Ffa;
    spec.adapter.rank = Choice::Fixed(8);
    let sites = [tiny(GIB / 4), site("b", 1.0, 8 * GIB)];
    let plan = plan(&spec, &sites, 1).expect("possible");
    assert!(!plan.workers.contains_key(&sites[0].0));
    let [excluded] = plan.excluded.as_slice() else {
        panic!("{:?}", plan.excluded)
    };
    assert_eq!(excluded.trouble, Trouble::OutOfMemory);
    for words in [
        "may use 256.0 MiB",
        "are missing; zeroth-order training would take 22",
        "of memory, which it has, and ",
        "but not under strategy ffa",
    ] {
        assert!(
            excluded.detail.contains(words),
            "{words}: {}",
            excluded.detail
        );
    }
    let mut spoiled = plan;
    for worker in spoiled.workers.values_mut() {
        worker.optimizer = Optimizer::Mezo;
    }
    let profiles: BTreeMap<_, _> = sites.into_iter().collect();
    let findings = lint(&spoiled, &profiles, &spec).expect_err("it does not");
    let texts: Vec<String> = findings.iter().map(Finding::to_string).collect();
    let words = "trains zeroth-order in a job that does not";
    assert!(texts.iter().any(|text| text.contains(words)), "{texts:?}");
}

#[test]
fn such_a_site_is_told_all_of_the_job_that_keeps_it_from_zeroth_order_steps() {
    let ffa = r#""adapter":{"rank":8},"aggregation":{"strategy":"ffa"}"#;
    for (more, words) in [
        (
            r#""training":{"schedule":"cosine","warmup_ratio":0.1}"#.to_owned(),
            "with training.schedule nor with training.warmup_ratio",
        ),
        (
            r#""training":{"batch_tokens":512}"#.to_owned(),
            "with training.batch_tokens",
        ),
        (
            r#""training":{"labels":["a","b"]}"#.to_owned(),
            "with training.labels",
        ),
        (
            r#""training":{"local_steps":20000}"#.to_owned(),
            "with 20000 scalars a round, where a message holds 16384",
        ),
        (ffa.to_owned(), "under strategy ffa"),
        (
            format!(r#"{ffa},"training":{{"dropout":0.1}}"#),
            "with training.dropout nor under strategy ffa",
        ),
    ] {
        let spec = with(&more);
        let cause = plan(&spec, &[tiny(GIB / 4)], 1).expect_err("impossible");
        assert_eq!(cause.sites[0].trouble, Trouble::OutOfMemory);
        let words = format!(", but not {words}, so the site cannot take part");
        let detail = &cause.sites[0].detail;
        assert!(detail.contains("of memory, which it has, and "), "{detail}");
        assert!(detail.ends_with(&words), "{words}: {detail}");
    }
}

#[test]
fn a_site_that_had_no_room_to_measure_gradients_lacks_memory() {
    let mut spec = spec();
    spec.aggregation.strategy = domain::job::Strategy::Ffa;
    spec.adapter.rank = Choice::Fixed(8);
    let (name, mut profile) = tiny(GIB / 4);
    profile.modes.remove(0);
    profile.measurement.modes.remove(0);
    let cause = plan(&spec, &[(name, profile)], 1).expect_err("impossible");
    assert_eq!(cause.sites[0].trouble, Trouble::OutOfMemory);
    let words = "it measured nothing that a plan of this job can use";
    assert!(cause.message.contains(words), "{}", cause.message);
}

#[test]
fn a_site_without_room_for_either_is_told_so() {
    let cause = plan(&spec(), &[tiny(GIB / 8)], 1).expect_err("impossible");
    let detail = &cause.sites[0].detail;
    assert!(detail.contains(" more than it may use, and "), "{detail}");
}

#[test]
fn zeroth_order_is_not_planned_beside_first_order_and_the_explanation_names_it() {
    let plan = plan(&spec(), &[tiny(8 * GIB)], 1).expect("possible");
    let worker = of(&plan, "a");
    assert_eq!(worker.optimizer, Optimizer::Adamw);
    let rejected = &worker.why.rejected;
    let other = rejected
        .iter()
        .find(|other| other.change == Some(Change::Optimizer));
    let because = &other.expect("it was measured").because;
    assert!(because.contains("lowers the loss by"), "{because}");
    let words = "for sites without room for gradients";
    assert!(because.contains(words), "{because}");
}

#[test]
fn a_job_of_first_order_training_hears_nothing_of_zeroth_order() {
    let mut spec = spec();
    spec.training.optimizer = Optimizer::Adamw;
    let cause = plan(&spec, &[tiny(GIB / 4)], 1).expect_err("impossible");
    assert!(!cause.message.contains("zeroth"), "{}", cause.message);
}

/// A legal job with more than the least.
pub(super) fn with(more: &str) -> Spec {
    let text = format!(
        r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}},{more}}}"#
    );
    let spec: Spec = serde_json::from_str(&text).expect(more);
    assert_eq!(spec.check(), Ok(()), "{more}");
    spec
}

/// A job of zeroth-order training alone, at one rank, whose scalars travel.
pub(super) fn walking(seeds: &str, wire: &str) -> Spec {
    let mut spec = spec();
    spec.adapter.rank = Choice::Fixed(spec.adapter.rank_max);
    spec.aggregation.strategy = domain::job::Strategy::Sum;
    spec.training.optimizer = Optimizer::Mezo;
    let mezo = format!(r#"{{"seeds":"{seeds}","wire":"{wire}"}}"#);
    spec.training.mezo = serde_json::from_str(&mezo).expect("legal");
    assert_eq!(spec.check(), Ok(()));
    spec
}

#[test]
fn a_job_of_zeroth_order_training_is_planned_where_nothing_else_fits() {
    let spec = walking("shared", "scalars");
    let plan = plan(&spec, &[tiny(GIB / 4)], 1).expect("possible");
    let worker = of(&plan, "a");
    assert_eq!(worker.optimizer, Optimizer::Mezo);
    assert_eq!(worker.ranks, plan.global, "one rank, the merged adapter's");
    assert!(worker.predicted.peak_memory_bytes < GIB / 4);
}

#[test]
fn passes_are_computed_as_one_where_memory_has_room_for_them() {
    let mut spec = walking("shared", "scalars");
    spec.training.mezo.perturbations = 4;
    let abreast = |spec: &Spec, memory: u64| {
        let sites = [tiny(memory)];
        let made = plan(spec, &sites, 1).expect("possible");
        let worker = of(&made, "a").clone();
        assert!(worker.predicted.peak_memory_bytes < memory);
        let mut spoiled = made;
        for worker in spoiled.workers.values_mut() {
            worker.abreast = 8;
        }
        let profiles: BTreeMap<_, _> = sites.into_iter().collect();
        let legal = lint(&spoiled, &profiles, spec).is_ok();
        assert_eq!(legal, worker.abreast == 8, "{}", worker.abreast);
        worker
    };
    assert_eq!(abreast(&spec, 8 * GIB).abreast, 1, "the job asks for none");
    spec.training.mezo.abreast = 8;
    assert_eq!(spec.check(), Ok(()));
    let (roomy, tight) = (abreast(&spec, 8 * GIB), abreast(&spec, GIB / 4));
    // A step of more than four times the tokens that were measured is not planned, whatever the memory.
    assert!((4..=8).contains(&roomy.abreast), "{}", roomy.abreast);
    assert!(tight.abreast < roomy.abreast, "{}", tight.abreast);
    let alone = |memory| {
        let mut spec = spec.clone();
        spec.training.mezo.abreast = 1;
        of(&plan(&spec, &[tiny(memory)], 1).expect("possible"), "a").clone()
    };
    let (one, eight) = (alone(8 * GIB).predicted, roomy.predicted);
    assert!(eight.peak_memory_bytes > one.peak_memory_bytes);
    assert_eq!(alone(GIB / 4).batch, tight.batch, "a batch comes first");
}

#[test]
fn what_travels_is_what_the_round_is_planned_with() {
    let bytes = |seeds, wire| {
        let plan = plan(&walking(seeds, wire), &[tiny(8 * GIB)], 1).expect("possible");
        let predicted = of(&plan, "a").predicted.clone();
        (predicted.upload_bytes, predicted.round_seconds)
    };
    let (shared, fastest) = bytes("shared", "scalars");
    let (own, faster) = bytes("per-worker", "scalars");
    let (tensors, slow) = bytes("per-worker", "tensors");
    assert_eq!(shared, own);
    assert!(
        shared < 2048 && tensors > 100 * shared,
        "{shared} {tensors}"
    );
    assert!(
        fastest < faster && faster < slow,
        "{fastest} {faster} {slow}"
    );
}

#[test]
fn a_faster_arithmetic_is_not_planned_for_zeroth_order_steps_however_fast_it_was() {
    let spec = walking("shared", "scalars");
    let named = |kernel: &str| {
        let (name, mut profile) = tiny(8 * GIB);
        for index in 0..profile.modes.len() {
            profile.modes[index].mode.kernel = kernel.to_owned();
            profile.measurement.modes[index].mode.kernel = kernel.to_owned();
        }
        (name, profile)
    };
    let exact = named("avx512-f32-2");
    let good = plan(&spec, std::slice::from_ref(&exact), 1).expect("possible");
    assert_eq!(of(&good, "a").kernel, "avx512-f32-2");
    // Beside it a mode that computes in bf16 and was measured ten times as fast.
    let (name, mut both) = exact;
    let (_, fast) = named("amx-bf16-2");
    for mut one in fast.modes {
        one.cost.seconds_per_token /= 10.0;
        both.modes.push(one);
    }
    both.measurement.modes.extend(fast.measurement.modes);
    let chosen = plan(&spec, &[(name, both.clone())], 1).expect("possible");
    assert_eq!(of(&chosen, "a").kernel, "avx512-f32-2");
    let cause = plan(&spec, &[named("amx-bf16-2")], 1).expect_err("there is nothing else");
    assert_eq!(cause.sites[0].trouble, Trouble::PlanUnsupported);
    let message = &cause.message;
    assert!(!message.contains("shorten"), "not of memory: {message}");
    for words in [
        "training.optimizer mezo, it measured ",
        "with amx-bf16-2, zeroth-order, and it may use 8.00 GiB of memory",
        "but such steps are planned in f32 arithmetic alone",
        "; next: leave training.optimizer to auto",
    ] {
        assert!(cause.message.contains(words), "{words}: {}", cause.message);
    }
    // A replayed plan that asks for it is found out.
    let mut replayed = good;
    for worker in replayed.workers.values_mut() {
        worker.kernel = "amx-bf16-2".to_owned();
    }
    let profiles = BTreeMap::from([(both.worker.clone(), both)]);
    let findings = lint(&replayed, &profiles, &spec).expect_err("it rounds");
    let texts: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(
        texts.iter().any(|text| text.contains("rounds away")),
        "{texts:?}"
    );
}

#[test]
fn a_batch_that_is_left_open_averages_enough_records_in_each_step() {
    let mut spec = walking("shared", "scalars");
    spec.training.local_steps = Choice::Fixed(30);
    let of = |optimizer, records| -> Vec<u16> {
        let sizes = sizes::sizes(&spec, optimizer, (records, 64.0)).into_iter();
        sizes.map(|(batch, _)| batch).collect()
    };
    assert_eq!(of(Optimizer::Mezo, 500).first(), Some(&8));
    assert_eq!(
        of(Optimizer::Adamw, 500).first(),
        Some(&1),
        "a round has 30"
    );
    // A site of so few records refuses, or has consented.
    assert_eq!(of(Optimizer::Mezo, 6), [1, 2, 3, 4, 5, 6]);
}
