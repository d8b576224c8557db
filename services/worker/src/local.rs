//! A site in the caller's own process: measured, trained and scored by the very code of a worker, without
//! bus, object storage, journal or waiting.
//!
//! For simulations, which play site after site on one machine. The site's pace is counted and not kept,
//! its memory limit is what it measures itself against and is not enforced, and whose jobs it admits at
//! which hours is not asked. What may leave it is: figures of too few records are refused as in a fleet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use contract::message::task::{Evaluate, Probe, Train};
use domain::id::WorkerName;
use domain::job::mezo::Wire;
use domain::profile::{Measurement, Mode, Sample};
use domain::round::{Score, UpdateMetrics};
use engine::model::Cache;
use tokio_util::sync::CancellationToken;

use crate::compute::{Bench, ModelFiles, Tempo};
use crate::evaluate::{self, Scoring};
use crate::failure::Failure;
use crate::handlers::honour;
use crate::machine::Machine;
use crate::probe::{self, Examination, Link};
use crate::running::Running;
use crate::stop::Stop;
use crate::train::{self, Lesson, Outcome, Taught};
use crate::{Config, Error};

/// Where sites compute in turn: it holds one model at a time, as each of them would.
#[derive(Debug)]
pub struct Workbench {
    bench: Bench,
    // The bench waits on it where a pace is kept; here nothing is.
    _runtime: tokio::runtime::Runtime,
}

impl Workbench {
    /// An empty one. `quantized` is where models made for a base in fewer bits are kept.
    ///
    /// # Errors
    /// [`Error::Thread`] if the system refuses.
    pub fn new(quantized: Option<Cache>) -> Result<Self, Error> {
        // As a worker's process begins: what is freed must not count against the next site.
        chassis::memory::give_back_large_blocks();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(Error::Thread)?;
        Ok(Self {
            bench: Bench::new(quantized, runtime.handle().clone()),
            _runtime: runtime,
        })
    }
}

/// Bytes of a message around its scalars, at most.
const ENVELOPE_BYTES: u64 = 512;

/// A trained round.
#[derive(Debug)]
pub struct Trained {
    /// A safetensors file with PEFT's keys; where all sites walk along the same directions their scalars.
    pub update: Vec<u8>,
    /// Bytes that would have been sent.
    pub sent_bytes: u64,
    /// Its figures; nothing was transferred.
    pub metrics: UpdateMetrics,
    /// How often its batches went through the model, those of steps by gradients once.
    pub passes: u64,
}

/// A site in this process.
#[derive(Debug)]
pub struct Local {
    machine: Arc<Machine>,
    model: ModelFiles,
}

impl Local {
    /// A site with this configuration and model; a model's file or folder, whatever jobs call it.
    ///
    /// # Errors
    /// If the configuration cannot be used.
    pub fn open(config: Config, model: PathBuf) -> Result<Self, Error> {
        let name = config.check()?;
        let memory_limit_bytes = match config.memory_limit {
            Some(limit) => limit.0,
            None => chassis::memory::limit_bytes(Path::new("/"))?,
        };
        let machine = Machine::new(name, config, memory_limit_bytes, Tempo::Counted);
        Ok(Self {
            machine: Arc::new(machine),
            model: ModelFiles::own(model),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &WorkerName {
        &self.machine.name
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.machine.config
    }

    /// Bytes that it may use.
    #[must_use]
    pub fn memory_limit_bytes(&self) -> u64 {
        self.machine.memory_limit_bytes
    }

    /// Compute threads.
    #[must_use]
    pub fn threads(&self) -> u16 {
        self.machine.threads
    }

    /// Measures the site, all but its link, as if it had just been started.
    ///
    /// # Errors
    /// What keeps the site from it.
    pub fn measure(
        &self,
        bench: &mut Workbench,
        task: &Probe,
        link: Link,
    ) -> Result<Measurement, Failure> {
        // A model that another site computed with holds that site's buffers.
        bench.bench.unload();
        let examination = self.examination(task)?;
        let summary = examination.data.summary();
        let examined = examination.examine(&mut bench.bench, &self.running())?;
        Ok(examined.measurement(&self.machine, task, &summary, link))
    }

    /// Makes one round of so many records a step and such a rank in this mode, as a probe makes its own.
    ///
    /// # Errors
    /// What keeps the site from it.
    pub fn round(
        &self,
        bench: &mut Workbench,
        task: &Probe,
        mode: &Mode,
        size: (u16, u16),
    ) -> Result<Sample, Failure> {
        let examination = self.examination(task)?;
        examination.round(mode, size, &mut bench.bench, &self.running())
    }

    fn examination(&self, task: &Probe) -> Result<Examination, Failure> {
        Ok(Examination {
            task: task.clone(),
            key: probe::key(self.machine.threads, task),
            files: self.model.clone(),
            data: self.machine.data.get(&task.head.dataset)?,
            seconds: f64::from(self.config().probe_seconds),
        })
    }

    /// Trains one round from the merged adapter in this file, with a mask by the one in the other. A zeroth-order round along directions of the site's own
    /// leaves tensors, which its scalars would lead to.
    ///
    /// # Errors
    /// What keeps the site from it.
    pub fn train(
        &self,
        bench: &mut Workbench,
        task: &Train,
        (global, mask): (&Path, Option<&Path>),
    ) -> Result<Trained, Failure> {
        let key = honour(&self.machine, &task.head.model, &task.plan)?;
        let data = self.machine.data.get(&task.head.dataset)?;
        train::admit(&self.machine, &task.plan, &data)?;
        let mut lesson = Lesson {
            task: task.clone(),
            key,
            files: self.model.clone(),
            global: global.to_owned(),
            mask: mask.map(Path::to_owned),
            data,
            kept: None,
        };
        if !task.training.shares_directions() {
            lesson.task.training.mezo.wire = Wire::Tensors;
        }
        let Taught {
            update,
            metrics,
            passes,
        } = lesson.train(&mut bench.bench, &self.running())?;
        let update = match update {
            Outcome::Tensors(file) => file,
            Outcome::Scalars(scalars, _) => scalars.to_bytes(),
        };
        let sent_bytes = if task.training.sends_scalars(task.plan.optimizer) {
            4 * task.training.mezo.scalars(task.plan.local_steps) + ENVELOPE_BYTES
        } else {
            update.len() as u64
        };
        Ok(Trained {
            passes,
            update,
            sent_bytes,
            metrics,
        })
    }

    /// Scores the merged adapter in this file.
    ///
    /// # Errors
    /// What keeps the site from it.
    pub fn score(
        &self,
        bench: &mut Workbench,
        task: &Evaluate,
        global: &Path,
    ) -> Result<Score, Failure> {
        let key = honour(&self.machine, &task.head.model, &task.plan)?;
        let data = self.machine.data.get(&task.head.dataset)?;
        evaluate::admit(&self.machine, evaluate::scored(&data, task))?;
        let scoring = Scoring {
            task: task.clone(),
            key,
            files: self.model.clone(),
            global: global.to_owned(),
            data,
        };
        let score = scoring.score(&mut bench.bench, &self.running())?;
        evaluate::admit(&self.machine, score.records)?;
        Ok(score)
    }

    fn running(&self) -> Running {
        Running {
            site: Arc::clone(&self.machine),
            stop: Stop::below(&CancellationToken::new()),
            progress: Arc::default(),
        }
    }
}
