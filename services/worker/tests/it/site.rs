//! A site for the test: a server, storage, a pushed model, a merged adapter, files with records.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use artifacts::{Store, Transfer};
use bus::{Bus, Connect};
use contract::Message;
use contract::message::report::Probed;
use contract::message::task::{Head, ModelRef};
use contract::permission::Role;
use domain::adapter::{Projection, RankTable, WeightShape};
use domain::artifact::{ArtifactRef, Digest};
use domain::id::{Epoch, JobId, WorkerName};
use domain::job::spec::{Base, Optimizer};
use domain::plan::{Binding, Explanation, Prediction, WorkerPlan};
use domain::time::UnixMillis;
use engine::adapter::Adapter;
use engine::model::{LoadOptions, Model};
use tempfile::TempDir;
use testkit::nats::NatsServer;

use crate::model;

pub const TARGETS: [Projection; 2] = [Projection::Q, Projection::Down];
pub const RANK_MAX: u16 = 4;
pub const SCALE: f64 = 2.0;

/// Far beyond what a report takes.
const REPORTED_WITHIN: Duration = Duration::from_secs(60);

/// Everything the test needs, alive as long as this value.
pub struct Site {
    pub worker: WorkerName,
    pub bus: Bus,
    pub global: ArtifactRef,
    server: NatsServer,
    folder: TempDir,
    store: Store,
    model: Digest,
    shapes: Vec<WeightShape>,
}

impl Site {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let worker: WorkerName = "site".parse().unwrap();
        let server = NatsServer::start(&testkit::nats::roles(&["site"]));
        let role = Role::Aggregator;
        let login = server.login(&role);
        let connect = Connect {
            url: server.url(),
            user: Some(login.user),
            password: Some(login.password.into()),
            ..Connect::default()
        };
        let bus = Bus::connect(&connect, &role).await.unwrap();
        bus.ensure_topology().await.unwrap();
        bus.ensure_worker(&worker, Duration::from_secs(30))
            .await
            .unwrap();

        let store = Store::open(&storage(&folder)).unwrap();
        let files = folder.path().join("model");
        model::write(&files);
        let model = store
            .push_model(&files, &Transfer::default())
            .await
            .unwrap()
            .digest;
        let shapes = Model::load(&files, &LoadOptions::default())
            .unwrap()
            .weights();
        let ranks = RankTable::uniform(&TARGETS, 2, RANK_MAX);
        let global = Adapter::initialize(&shapes, &ranks, SCALE as f32, 7).unwrap();
        let bytes = global.to_safetensors().unwrap();
        let global = store
            .put_bytes("jobs/one/global", bytes, &Transfer::default())
            .await
            .unwrap();
        std::fs::write(
            folder.path().join("train.jsonl"),
            records(40) + "not a record\n",
        )
        .unwrap();
        std::fs::write(folder.path().join("held.jsonl"), records(16)).unwrap();
        Self {
            worker,
            bus,
            global,
            server,
            folder,
            store,
            model,
            shapes,
        }
    }

    /// The worker's `site.toml`, read as production reads it.
    pub fn config(&self) -> worker::Config {
        let login = self.server.login(&Role::Worker(self.worker.clone()));
        let at = |path: &str| self.folder.path().join(path).display().to_string();
        let text = format!(
            "name = \"site\"\nstate_dir = \"{}\"\nthreads = 1\nthrottle_tokens_per_second = 2000\n\
             [nats]\nurl = \"{}\"\nuser = \"{}\"\npassword = \"{}\"\n\
             [storage]\nurl = \"{}\"\n\
             [datasets.mail]\ntrain = \"{}\"\nheld_out = \"{}\"\n\
             [policy]\nallow_submitters = [\"alice\"]\n",
            at("state"),
            self.server.url(),
            login.user,
            login.password,
            storage(&self.folder).url,
            at("train.jsonl"),
            at("held.jsonl"),
        );
        let path = self.folder.path().join("site.toml");
        std::fs::write(&path, text).unwrap();
        chassis::config::load_from(Some(&path), [], &()).unwrap()
    }

    pub fn head(&self, job: u64, epoch: u64) -> Head {
        Head {
            worker: self.worker.clone(),
            job: JobId::from_bits(job),
            epoch: Epoch(epoch),
            submitter: "alice".parse().unwrap(),
            model: ModelRef::Digest(self.model.clone()),
            dataset: "mail".parse().unwrap(),
            expires_at: UnixMillis(u64::MAX),
        }
    }

    /// How many models the worker keeps in a base of fewer bits.
    pub fn quantized_models(&self) -> usize {
        let folder = self.folder.path().join("state/quantized");
        let names = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        names
            .filter(|path| path.extension().is_some_and(|end| end == "quantized"))
            .count()
    }

    /// The files of merged adapters that the worker keeps.
    pub fn merged_adapters(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("state/global");
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|entry| entry.unwrap().path()).collect()
    }

    /// Gives the task and waits for this kind of report on it.
    pub async fn ask<T: Message, R: Message>(&self, task: &T, job: u64, epoch: Epoch) -> R {
        self.bus.publish(task, None).await.unwrap();
        let what = format!("{} is answered with {}", T::KIND, R::KIND);
        let job = JobId::from_bits(job);
        testkit::wait::some(&what, REPORTED_WITHIN, async || {
            let report = self.bus.report::<R>(&self.worker, &job, epoch).await;
            report.unwrap().read()
        })
        .await
    }

    /// Stores a merged adapter.
    pub async fn store(&self, adapter: &Adapter) -> ArtifactRef {
        let bytes = adapter.to_safetensors().unwrap();
        let (prefix, transfer) = ("jobs/one/global", Transfer::default());
        let sent = self.store.put_bytes(prefix, bytes, &transfer);
        sent.await.unwrap()
    }

    /// A stored adapter of exactly these ranks.
    pub async fn adapter(&self, artifact: &ArtifactRef, ranks: &RankTable) -> Adapter {
        let bytes = self
            .store
            .get_bytes(artifact, 1 << 20, &Transfer::default())
            .await
            .unwrap();
        Adapter::from_safetensors(&bytes, &self.shapes, ranks, SCALE as f32).unwrap()
    }
}

fn storage(folder: &TempDir) -> artifacts::Config {
    let url = format!("file://{}", folder.path().join("objects").display());
    std::fs::create_dir_all(folder.path().join("objects")).unwrap();
    artifacts::Config {
        url,
        ..artifacts::Config::default()
    }
}

fn records(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let answer = if number % 2 == 0 { " yes" } else { " no" };
        let line =
            serde_json::json!({"prompt": format!("mail {number}: spam?"), "completion": answer});
        writeln!(text, "{line}").unwrap();
    }
    text
}

/// A plan for 3 steps of 4 records, as measured.
pub fn plan(measured: &Probed, ranks: RankTable) -> WorkerPlan {
    WorkerPlan {
        ranks,
        base: Base::Source,
        kernel: measured.measurement.modes[0].mode.kernel.clone(),
        threads: measured.measurement.threads,
        batch: 4,
        accumulate: 1,
        local_steps: 3,
        sequence_length: 32,
        checkpoint: false,
        abreast: 1,
        optimizer: Optimizer::Adamw,
        predicted: Prediction {
            step_seconds: 1.0,
            round_seconds: 1.0,
            peak_memory_bytes: 1,
            upload_bytes: 1,
        },
        why: Explanation {
            text: String::new(),
            binding: Binding::Job,
            rejected: Vec::new(),
            ranks: Vec::new(),
        },
    }
}

pub fn no_digest() -> Digest {
    Digest::from_bytes(&[9; 32])
}
