//! A whole worker on a real bus and real storage, spoken to as the control services speak to it.
//!
//! One test: a process has one frame (telemetry, signals), so one worker.

// Clippy then knows that helper modules are tests, too.
#![cfg(test)]

mod catch_up;
mod model;
mod settings;
mod site;

use std::time::Duration;

use contract::message::report::{Evaluated, Failed, Probed, Updated, Walked};
use contract::message::task::{Evaluate, Probe, Train};
use domain::adapter::{Projection, RankTable};
use domain::cause::Trouble;
use domain::fleet::Stage;
use domain::id::Epoch;
use domain::job::spec::{Base, Compute, Importance, Optimizer, Training};
use domain::job::{Mezo, Seeds, Strategy};
use domain::profile::ModeMeasurement;
use domain::zeroth::{GENERATOR, Scalars, Steps, Walk};
use engine::adapter::{Adapter, Factors};
use engine::train::Replay;
use futures::StreamExt;
use rustix::process::{Signal, getpid, kill_process};
use site::{RANK_MAX, SCALE, Site, TARGETS};

// As in the binary: heap is counted.
#[global_allocator]
static HEAP: chassis::memory::Allocator = chassis::memory::Allocator;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_measures_trains_scores_and_refuses_and_stops_in_order() {
    let site = Site::start().await;
    let mut beats = site.bus.beats().await.unwrap();
    let worker = tokio::spawn(worker::run(site.config()));

    let measured = probe(&site).await;
    train(&site, &measured).await;
    train_in_fewer_bits(&site, &measured).await;
    walk(&site, &measured).await;
    catch_up::replay(&site, &measured).await;
    catch_up::fetch(&site, &measured).await;
    catch_up::damage(&site, &measured).await;
    evaluate(&site, &measured).await;
    settings::train(&site, &measured).await;
    settings::answer(&site, &measured).await;
    refuse(&site, &measured).await;

    let mut stages = Vec::new();
    kill_process(getpid(), Signal::TERM).unwrap();
    let ended = testkit::wait::in_time("the worker stops", Duration::from_secs(20), worker);
    ended.await.unwrap().unwrap();
    while stages.last() != Some(&Stage::Stopping) {
        let beat = testkit::wait::in_time("a last beat", Duration::from_secs(10), beats.next());
        let beat = beat.await.unwrap();
        assert!(beat.worker == site.worker && beat.memory_bytes > 0);
        stages.push(beat.stage);
    }
    for stage in [Stage::Probing, Stage::Training, Stage::Evaluating] {
        assert!(
            stages.contains(&stage),
            "{stage:?} was never said: {stages:?}"
        );
    }
}

async fn probe(site: &Site) -> Probed {
    let task = Probe {
        head: site.head(1, 1),
        targets: TARGETS.to_vec(),
        rank_max: RANK_MAX,
        training: Training::default(),
        base: Base::Auto,
        compute: Compute::Auto,
        importance: Importance::Uniform,
        choices: Vec::new(),
        prefix: "jobs/one/probes/site".to_owned(),
    };
    let probed: Probed = site.ask(&task, 1, Epoch(1)).await;
    let measured = &probed.measurement;
    assert_eq!((measured.layers, measured.weights.len()), (2, 14));
    assert_eq!(
        (measured.records, measured.held_out, measured.skipped),
        (40, 16, 1)
    );
    // Left open: gradients, with activations recomputed, and without gradients. Nothing is tight here, and
    // the model came in the widest base there is.
    let modes: Vec<_> = measured.modes.iter().map(|one| &one.mode).collect();
    let ways: Vec<_> = modes
        .iter()
        .map(|mode| (mode.base, mode.optimizer, mode.checkpoint))
        .collect();
    let expected = [
        (Base::Source, Optimizer::Adamw, false),
        (Base::Source, Optimizer::Adamw, true),
        (Base::Source, Optimizer::Mezo, false),
    ];
    assert_eq!(ways, expected);
    for mode in &measured.modes {
        check_mode(mode);
    }
    assert!(measured.upload_bytes_per_second > 0.0 && measured.download_bytes_per_second > 0.0);
    assert!(measured.round_trip_ms > 0.0, "{measured:?}");
    assert!(measured.forward_tokens_per_second > 0.0 && measured.mean_tokens > 2.0);
    assert!(measured.mean_squares >= measured.mean_tokens * measured.mean_tokens);
    probed
}

fn check_mode(mode: &ModeMeasurement) {
    assert!(mode.samples.len() > 3, "{:?}", mode.samples);
    for sample in &mode.samples {
        assert!(sample.step_seconds > 0.0 && sample.tokens > 1 && sample.parameters > 0);
        // The site plays a machine of 2000 tokens a second of training. A forward pass of it is faster by
        // what was measured, but never by more than a step without gradients has of them.
        let speed = f64::from(sample.tokens) / sample.step_seconds;
        let most = if mode.mode.optimizer == Optimizer::Mezo {
            4.0
        } else {
            1.0
        };
        assert!(speed < most * 2000.1, "{sample:?}");
        assert!(
            // All private memory counts, also what no step of a tiny model adds to.
            sample.peak_memory_bytes + (8 << 20) > mode.base_memory_bytes,
            "{mode:?}"
        );
    }
    // The short row before them is the worker's own.
    let rows = mode.scoring.iter().map(|pass| pass.batch);
    assert!(rows.eq([1, 2, 4]), "{mode:?}");
    assert!(mode.samples.iter().any(|s| s.longest_tokens > s.tokens));
    assert!(mode.loss.is_some_and(|loss| loss > 0.0), "{mode:?}");
}

async fn train(site: &Site, measured: &Probed) {
    let ranks = RankTable::uniform(&TARGETS, 2, 2);
    let task = |job| Train {
        head: site.head(job, 2),
        round: 1,
        rounds: 0,
        global: site.global.clone(),
        scale: SCALE,
        plan: site::plan(measured, ranks.clone()),
        training: Training::default(),
        strategy: Strategy::default(),
        live: RankTable::default(),
        walk: None,
        prefix: format!("jobs/{job}/updates/site"),
    };
    let first: Updated = site.ask(&task(1), 1, Epoch(2)).await;
    let update = site.adapter(&first.update.adapter, &ranks).await;
    let start = site
        .adapter(&site.global, &RankTable::uniform(&TARGETS, 2, RANK_MAX))
        .await;
    let start = start.leading(&ranks).unwrap();
    assert_eq!(update.parameters(), start.parameters());
    assert!(update.is_finite() && update != start);
    let metrics = &first.update.metrics;
    assert_eq!((metrics.steps, metrics.records), (3, 12));
    assert!(
        metrics.loss > 0.0 && metrics.illegal().is_none(),
        "{metrics:?}"
    );
    assert!(metrics.tokens_per_second < 2000.1, "{metrics:?}");
    assert!(metrics.bytes_up >= first.update.adapter.bytes && metrics.bytes_down > 0);
    assert!(metrics.control_bytes_up > 0);

    // Neither the job's name nor the clock goes into the result.
    let second: Updated = site.ask(&task(2), 2, Epoch(2)).await;
    assert_eq!(second.update.adapter.sha256, first.update.adapter.sha256);
    assert_eq!(second.update.metrics.loss, metrics.loss);
}

/// Each base gives an update of its own; what comes back from the site's folder of quantized models
/// gives the same bytes as what was made of the model.
async fn train_in_fewer_bits(site: &Site, measured: &Probed) {
    let ranks = RankTable::uniform(&TARGETS, 2, 2);
    let mut digests = Vec::new();
    for (job, base) in (3..).zip([Base::Bf16, Base::Int8, Base::Nf4, Base::Int8, Base::Nf4]) {
        let mut plan = site::plan(measured, ranks.clone());
        plan.base = base;
        let task = Train {
            head: site.head(job, 2),
            round: 1,
            rounds: 0,
            global: site.global.clone(),
            scale: SCALE,
            plan,
            training: Training::default(),
            strategy: Strategy::default(),
            live: RankTable::default(),
            walk: None,
            prefix: format!("jobs/{job}/updates/site"),
        };
        let updated: Updated = site.ask(&task, job, Epoch(2)).await;
        assert!(updated.update.metrics.illegal().is_none());
        digests.push(updated.update.adapter.sha256);
    }
    assert_eq!(site.quantized_models(), 2, "int8 and nf4");
    assert_eq!(digests[1..3], digests[3..5]);
    digests.truncate(3);
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 3, "three bases, three updates");
}

/// A zeroth-order round along the site's own directions: its scalars lead from the adapter it was given to the
/// one that it names.
async fn walk(site: &Site, measured: &Probed) {
    let ranks = RankTable::uniform(&TARGETS, 2, RANK_MAX);
    let training = Training {
        optimizer: Optimizer::Mezo,
        learning_rate: Some(1e-3),
        mezo: Mezo {
            perturbations: 2,
            seeds: Seeds::PerWorker,
            ..Mezo::default()
        },
        ..Training::default()
    };
    let task = |epoch, generator| {
        let mut plan = site::plan(measured, ranks.clone());
        (plan.optimizer, plan.batch) = (Optimizer::Mezo, 8);
        let steps = Steps {
            generator,
            ..Steps::of(&training, 5)
        };
        let log = Vec::new();
        Train {
            head: site.head(1, epoch),
            round: 2,
            rounds: 0,
            global: site.global.clone(),
            scale: SCALE,
            plan,
            training: training.clone(),
            strategy: Strategy::Sum,
            live: RankTable::default(),
            walk: Some(Walk {
                log,
                ..Walk::new(steps)
            }),
            prefix: "jobs/one/updates/site".to_owned(),
        }
    };
    let asked = task(20, GENERATOR);
    let walked: Walked = site.ask(&asked, 1, Epoch(20)).await;
    assert_eq!((walked.generator, walked.round), (GENERATOR, 2));
    assert_eq!(walked.start, site.global.sha256);
    let how = Steps::of(&training, 5);
    assert_eq!(walked.scalars.skipped(3, &how), Ok(0));
    // Steps are counted through all rounds, and each round has three.
    let replay = Replay::new().then(&how, 3, &walked.scalars);
    let moved = moved(&site.adapter(&site.global, &ranks).await, &replay);
    assert_eq!(walked.reached, Some(moved.file_digest().unwrap()));
    let again: Walked = site.ask(&task(21, GENERATOR), 1, Epoch(21)).await;
    assert_eq!(again.scalars, walked.scalars);

    let other: Failed = site.ask(&task(22, GENERATOR + 1), 1, Epoch(22)).await;
    // Its release may be taken back.
    assert!(!other.trouble.is_lasting(), "{:?}", other.trouble);
    assert!(other.detail.contains("of generator 2"), "{}", other.detail);
    let mut silent = task(23, GENERATOR);
    silent.walk = None;
    let silent: Failed = site.ask(&silent, 1, Epoch(23)).await;
    assert_eq!(silent.trouble, Trouble::PlanUnsupported);
    let mut few = task(24, GENERATOR);
    few.plan.batch = 4;
    let few: Failed = site.ask(&few, 1, Epoch(24)).await;
    assert_eq!(few.trouble, Trouble::PolicyRefused);

    let mut wild = task(25, GENERATOR);
    if let Some(walk) = &mut wild.walk {
        // Moved so far, no loss is a number.
        walk.steps.perturbation = f64::from(f32::MAX);
    }
    let wild: Failed = site.ask(&wild, 1, Epoch(25)).await;
    assert_eq!(wild.trouble, Trouble::NotFinite, "{}", wild.detail);
    let todo = "lower training.learning_rate";
    assert!(wild.detail.contains(todo), "{}", wild.detail);

    // The only step of a round is skipped and counted like any other.
    let mut single = task(26, GENERATOR);
    single.plan.local_steps = 1;
    if let Some(walk) = &mut single.walk {
        walk.steps.perturbation = f64::from(f32::MAX);
    }
    let single: Walked = site.ask(&single, 1, Epoch(26)).await;
    assert_eq!(single.scalars, Scalars::new(vec![Scalars::SKIPPED; 2]));
    let metrics = &single.metrics;
    assert_eq!((metrics.steps, metrics.skipped_steps), (1, 1));
    assert_eq!((metrics.loss(), metrics.illegal()), (None, None));
    let start = site.adapter(&site.global, &ranks).await;
    let stayed = Some(start.file_digest().unwrap());
    assert_eq!(single.reached, stayed, "nothing was moved");
}

fn moved(start: &Adapter, replay: &Replay) -> Adapter {
    let moved = start.factors().map(|own| {
        let (mut a, mut b) = (own.a().to_vec(), own.b().to_vec());
        assert!(replay.apply(&own.shape().name.peft_a(), &mut a));
        assert!(replay.apply(&own.shape().name.peft_b(), &mut b));
        Factors::new(own.shape(), own.rank(), a, b).unwrap()
    });
    Adapter::new(start.scale(), moved).unwrap()
}

async fn evaluate(site: &Site, measured: &Probed) {
    let task = |epoch, sample, choices: &[&str]| Evaluate {
        head: site.head(1, epoch),
        round: 1,
        global: site.global.clone(),
        scale: SCALE,
        sample,
        choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
        among: false,
        answers: None,
        labels: Vec::new(),
        plan: site::plan(measured, RankTable::uniform(&TARGETS, 2, 2)),
        walk: None,
    };
    let all = task(3, None, &[" yes", " no"]);
    let Evaluated { score, .. } = site.ask(&all, 1, Epoch(3)).await;
    assert_eq!(
        (score.records, score.confusion.iter().flatten().sum::<u64>()),
        (16, 16)
    );
    assert_eq!(score.labelled_tokens, 8 * 4 + 8 * 3);
    assert!(score.loss().is_some_and(|loss| loss > 0.0));
    let among = Evaluate {
        head: site.head(9, 1),
        among: true,
        ..all
    };
    // Of this model's tokenizer a word is as many tokens as it has bytes.
    let several: Failed = site.ask(&among, 9, Epoch(1)).await;
    assert_eq!(several.trouble, Trouble::PlanUnsupported);
    assert!(
        several
            .detail
            .contains("\" yes\" is 4 tokens of the model's"),
        "{several:?}"
    );
    let sample = task(4, Some(9), &[]);
    let Evaluated { score, .. } = site.ask(&sample, 1, Epoch(4)).await;
    assert_eq!((score.records, score.confusion.len()), (9, 0));
    let few: Failed = site.ask(&task(5, Some(7), &[]), 1, Epoch(5)).await;
    assert_eq!(few.trouble, Trouble::PolicyRefused);
}

async fn refuse(site: &Site, measured: &Probed) {
    let task = |epoch| Train {
        head: site.head(1, epoch),
        round: 1,
        rounds: 0,
        global: site.global.clone(),
        scale: SCALE,
        plan: site::plan(
            measured,
            RankTable::uniform(&[Projection::Q], 2, RANK_MAX + 1),
        ),
        training: Training::default(),
        strategy: Strategy::default(),
        live: RankTable::default(),
        walk: None,
        prefix: "jobs/one/updates/site".to_owned(),
    };
    let failed = async |task: &Train| -> Failed { site.ask(task, 1, task.head.epoch).await };
    let rank = failed(&task(6)).await;
    assert_eq!(rank.trouble, Trouble::PlanUnsupported);
    assert!(rank.detail.contains("q_proj"), "{}", rank.detail);

    let mut stranger = task(7);
    stranger.head.submitter = "mallory".parse().unwrap();
    assert_eq!(failed(&stranger).await.trouble, Trouble::PolicyRefused);

    let mut kernel = task(8);
    kernel.plan.kernel = "another".to_owned();
    assert_eq!(failed(&kernel).await.trouble, Trouble::PlanUnsupported);

    let mut dataset = task(9);
    dataset.head.dataset = "unknown".parse().unwrap();
    assert_eq!(failed(&dataset).await.trouble, Trouble::DataUnusable);

    let mut model = task(10);
    model.head.model = contract::message::task::ModelRef::Digest(site::no_digest());
    let missing = failed(&model).await;
    assert_eq!(
        missing.trouble,
        Trouble::ModelUnusable,
        "{}",
        missing.detail
    );
}
