//! What a job's training settings do at a worker, seen in the updates it stores.

use contract::message::report::{Evaluated, Failed, Probed, Updated};
use contract::message::task::{Evaluate, Train};
use domain::adapter::RankTable;
use domain::cause::Trouble;
use domain::id::Epoch;
use domain::job::Strategy;
use domain::job::spec::{Answers, Optimizer, Training};
use domain::schedule::Shape;
use engine::adapter::Adapter;
use engine::kernel::{Compute, Kernel};

use crate::site::{self, RANK_MAX, SCALE, Site, TARGETS};

/// Steps straight down the gradient, so that an update is the sum of gradients times their rates.
fn straight() -> Training {
    Training {
        optimizer: Optimizer::Sgd,
        clip_norm: 0.0,
        learning_rate: Some(0.05),
        sequence_length: 32,
        ..Training::default()
    }
}

/// Asks for rounds, one epoch after another.
struct Asking<'a> {
    site: &'a Site,
    measured: &'a Probed,
    epoch: u64,
}

impl Asking<'_> {
    fn task(&mut self, training: Training, (round, rounds): (u32, u32)) -> Train {
        self.epoch += 1;
        let mut plan = site::plan(self.measured, ranks());
        // The probe chose the faster arithmetic; only in f32 is rounding as small as `check` allows.
        plan.kernel = Kernel::best(Compute::F32).to_string();
        plan.optimizer = training.optimizer;
        plan.accumulate = training.accumulate;
        Train {
            head: self.site.head(1, self.epoch),
            round,
            rounds,
            global: self.site.global.clone(),
            scale: SCALE,
            plan,
            training,
            strategy: Strategy::default(),
            live: RankTable::default(),
            walk: None,
            prefix: "jobs/one/updates/site".to_owned(),
        }
    }

    async fn update(&self, task: &Train) -> Updated {
        self.site.ask(task, 1, task.head.epoch).await
    }

    /// How far each number moved.
    async fn moved(&self, updated: &Updated) -> Vec<f64> {
        let start = self.site.adapter(&self.site.global, &whole()).await;
        let start = numbers(&start.leading(&ranks()).unwrap());
        let update = self.site.adapter(&updated.update.adapter, &ranks()).await;
        let pairs = numbers(&update).into_iter().zip(start);
        pairs.map(|(after, before)| after - before).collect()
    }
}

fn ranks() -> RankTable {
    RankTable::uniform(&TARGETS, 2, 2)
}

fn whole() -> RankTable {
    RankTable::uniform(&TARGETS, 2, RANK_MAX)
}

fn numbers(adapter: &Adapter) -> Vec<f64> {
    let factors = adapter.factors();
    let all = factors.flat_map(|own| own.a().iter().chain(own.b()));
    all.map(|number| f64::from(*number)).collect()
}

/// Two updates are the same but for rounding, `times` one another.
fn check(left: &[f64], times: f64, right: &[f64], what: &str) {
    let size = left.iter().map(|value| value * value).sum::<f64>().sqrt();
    let apart = left.iter().zip(right).map(|(l, r)| (l - times * r).powi(2));
    let apart = apart.sum::<f64>().sqrt();
    assert!(
        size > 0.0 && apart < 1e-3 * size,
        "{what}: {apart} of {size}"
    );
}

pub async fn train(site: &Site, measured: &Probed) {
    let mut asking = Asking {
        site,
        measured,
        epoch: 40,
    };
    schedule(&mut asking).await;
    accumulation(&mut asking).await;
    dropout(&mut asking).await;
    packing(&mut asking).await;
    long_answers(&mut asking).await;
}

/// The rate of a step follows from its round and the rounds of the job.
async fn schedule(asking: &mut Asking<'_>) {
    let linear = Training {
        schedule: Shape::Linear,
        ..straight()
    };
    // One step: in round 2 of 2 half of the rate is left, of 4 three quarters.
    let mut moved = Vec::new();
    for (training, rounds) in [(straight(), 4), (linear.clone(), 4), (linear.clone(), 2)] {
        let mut task = asking.task(training, (2, rounds));
        (task.plan.local_steps, task.plan.batch) = (1, 8);
        moved.push(asking.moved(&asking.update(&task).await).await);
    }
    check(&moved[1], 0.75, &moved[0], "round 2 of 4");
    check(&moved[2], 0.5, &moved[0], "round 2 of 2");
    let cosine = Training {
        schedule: Shape::Cosine,
        warmup_ratio: 0.25,
        optimizer: Optimizer::Adamw,
        ..straight()
    };
    let task = asking.task(cosine.clone(), (3, 4));
    let first = asking.update(&task).await;
    let again = asking.task(cosine, (3, 4));
    let again = asking.update(&again).await;
    assert_eq!(again.update.adapter.sha256, first.update.adapter.sha256);
}

/// Two batches of four records are one of eight.
async fn accumulation(asking: &mut Asking<'_>) {
    let gathered = Training {
        accumulate: 2,
        ..straight()
    };
    let task = asking.task(gathered, (1, 1));
    let gathered = asking.update(&task).await;
    let mut task = asking.task(straight(), (1, 1));
    task.plan.batch = 8;
    let at_once = asking.update(&task).await;
    assert_eq!(gathered.update.metrics.records, 24);
    assert_eq!(gathered.update.metrics.steps, 3);
    let (left, right) = (asking.moved(&gathered).await, asking.moved(&at_once).await);
    check(&left, 1.0, &right, "two batches and one");
}

async fn dropout(asking: &mut Asking<'_>) {
    let mut digests = Vec::new();
    for (dropout, round) in [(0.0, 1), (0.5, 1), (0.5, 1)] {
        let training = Training {
            dropout,
            ..straight()
        };
        let task = asking.task(training, (round, 3));
        digests.push(asking.update(&task).await.update.adapter.sha256);
    }
    assert_ne!(digests[0], digests[1]);
    assert_eq!(digests[1], digests[2], "a round again has the same masks");
}

/// Batches take as many records as fit.
async fn packing(asking: &mut Asking<'_>) {
    let packed = Training {
        batch_tokens: Some(160),
        ..straight()
    };
    let mut digests = Vec::new();
    for _ in 0..2 {
        let task = asking.task(packed.clone(), (2, 3));
        let updated = asking.update(&task).await;
        let metrics = &updated.update.metrics;
        assert_eq!(
            (metrics.steps, metrics.beyond(&task.plan, &packed)),
            (3, None)
        );
        // No record here has more than 32 tokens, so no batch of 160 has fewer than 5.
        assert!(
            metrics.records >= 15 && metrics.tokens > 3 * 128,
            "{metrics:?}"
        );
        digests.push(updated.update.adapter.sha256);
    }
    assert_eq!(digests[0], digests[1]);
    let mut task = asking.task(packed, (1, 3));
    // The plan expects more than there are.
    (
        task.plan.local_steps,
        task.plan.batch,
        task.training.batch_tokens,
    ) = (1, 8, Some(40));
    let few: Failed = asking.site.ask(&task, 1, task.head.epoch).await;
    assert_eq!(few.trouble, Trouble::PolicyRefused, "{}", few.detail);
}

/// An answer that does not fit is not cut: its record is left out, counted and told.
async fn long_answers(asking: &mut Asking<'_>) {
    let short = Training {
        sequence_length: 5,
        ..straight()
    };
    let mut task = asking.task(short, (1, 1));
    task.plan.sequence_length = 5;
    let metrics = asking.update(&task).await.update.metrics;
    // ` yes` and its end are five tokens, and need one before them; ` no` and its end are four.
    assert_eq!((metrics.records, metrics.tokens), (12, 60));
    assert!(metrics.refused_records > 0, "{metrics:?}");
    let whole = asking.task(straight(), (1, 1));
    assert_eq!(
        asking.update(&whole).await.update.metrics.refused_records,
        0
    );
}

/// Answers are generated for as many records as the task says, and compared.
pub async fn answer(site: &Site, measured: &Probed) {
    let task = |epoch, answers| Evaluate {
        head: site.head(1, epoch),
        round: 1,
        global: site.global.clone(),
        scale: SCALE,
        sample: None,
        choices: Vec::new(),
        among: false,
        answers: Some(answers),
        labels: Vec::new(),
        plan: site::plan(measured, ranks()),
        walk: None,
    };
    let asked = Answers {
        records: 10,
        tokens: 3,
    };
    let Evaluated { score, .. } = site.ask(&task(60, asked), 1, Epoch(60)).await;
    let answers = score.answers.unwrap();
    assert_eq!((score.records, answers.records), (16, 10));
    assert!(
        answers.is_legal() && answers.bleu.wanted == 10,
        "{answers:?}"
    );
    assert!(
        answers.bleu.answer <= 30,
        "three tokens are three words at most"
    );
    let Evaluated { score: again, .. } = site.ask(&task(61, asked), 1, Epoch(61)).await;
    assert_eq!(again.answers, Some(answers));
    let few = Answers {
        records: 7,
        tokens: 3,
    };
    let few: Failed = site.ask(&task(62, few), 1, Epoch(62)).await;
    assert_eq!(few.trouble, Trouble::PolicyRefused);
    assert!(few.detail.contains("answers"), "{}", few.detail);
}
