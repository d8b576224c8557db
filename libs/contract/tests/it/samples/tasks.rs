//! What a worker is asked.

use contract::message::task::{self, Evaluate, ModelRef, Probe, Train};
use domain::adapter::{Projection, RankTable};
use domain::job::spec::{
    Answers, Base, Compute, Importance, Optimizer, Order as Records, Training,
};
use domain::job::{Choice, Strategy};
use domain::plan::{Binding, Explanation, Prediction, Rejected, WorkerPlan};
use domain::schedule::Shape;
use domain::time::UnixMillis;

use super::zeroth::walk;
use super::{EPOCH, artifact, digest, job, worker};

fn task_head(model: ModelRef) -> task::Head {
    task::Head {
        worker: worker(),
        job: job(),
        epoch: EPOCH,
        submitter: "local".parse().unwrap(),
        model,
        dataset: "mail".parse().unwrap(),
        expires_at: UnixMillis(1_790_000_600_000),
    }
}

fn training() -> Training {
    Training {
        optimizer: Optimizer::Adamw,
        local_steps: Choice::Fixed(8),
        batch: Choice::Fixed(4),
        batch_tokens: Some(512),
        accumulate: 2,
        sequence_length: 128,
        learning_rate: Some(0.001),
        schedule: Shape::Cosine,
        warmup_ratio: 0.125,
        momentum: 0.5,
        weight_decay: 0.25,
        clip_norm: 1.0,
        dropout: 0.0625,
        proximal: 0.25,
        order: Records::Balanced,
        seed: 7,
        choices: vec![" yes".to_owned(), " no".to_owned()],
        ..Training::default()
    }
}

fn plan() -> WorkerPlan {
    WorkerPlan {
        ranks: RankTable::uniform(&[Projection::Q, Projection::Down], 2, 8),
        base: Base::Source,
        kernel: "portable-1".to_owned(),
        threads: 2,
        batch: 4,
        accumulate: 2,
        local_steps: 8,
        sequence_length: 128,
        checkpoint: true,
        abreast: 1,
        optimizer: Optimizer::Adamw,
        predicted: Prediction {
            step_seconds: 0.5,
            round_seconds: 4.5,
            peak_memory_bytes: 300_000_000,
            upload_bytes: 100_000,
        },
        why: Explanation {
            text: "memory allows no more".to_owned(),
            binding: Binding::Memory,
            rejected: vec![Rejected {
                rank: 16,
                batch: 8,
                because: "needs 400 MB".to_owned(),
                change: None,
                mode: None,
                memory_bytes: None,
                round_seconds: None,
                gain: None,
            }],
            ranks: Vec::new(),
        },
    }
}

/// Tasks that differ in what they may leave out.
pub fn probes() -> [Probe; 2] {
    let probe = |model, base, compute, importance, choices| Probe {
        head: task_head(model),
        targets: Projection::ALL.into(),
        rank_max: 32,
        training: training(),
        base,
        compute,
        importance,
        choices,
        prefix: "jobs/job_0123456789abcdef/probes/site-a".to_owned(),
    };
    let yes_no = vec![" yes".to_owned(), " no".to_owned()];
    let by_path = ModelRef::Path("/models/tiny".to_owned());
    let sketch = Importance::Sketch;
    let mut automatic = probe(by_path, Base::Auto, Compute::Auto, sketch, Vec::new());
    automatic.training = Training::default().told(8);
    [
        probe(
            ModelRef::Digest(digest(1)),
            Base::Source,
            Compute::Bf16,
            Importance::Adalora,
            yes_no,
        ),
        automatic,
    ]
}

pub fn train() -> Train {
    Train {
        head: task_head(ModelRef::Digest(digest(1))),
        round: 3,
        rounds: 20,
        global: artifact(),
        scale: 0.5,
        plan: plan(),
        training: training(),
        strategy: Strategy::Residual,
        live: RankTable::uniform(&[Projection::Q, Projection::Down], 2, 16),
        walk: Some(walk()),
        prefix: "jobs/job_0123456789abcdef/updates/3/site-a".to_owned(),
    }
}

pub fn evaluate() -> Evaluate {
    Evaluate {
        head: task_head(ModelRef::Digest(digest(1))),
        round: 3,
        global: artifact(),
        scale: 0.5,
        sample: Some(40),
        choices: vec![" yes".to_owned(), " no".to_owned()],
        among: true,
        answers: Some(Answers {
            records: 24,
            tokens: 16,
        }),
        labels: Vec::new(),
        plan: plan(),
        walk: Some(walk()),
    }
}
