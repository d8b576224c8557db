//! One examination, on the compute thread: which kernel is fastest here, then every mode that is worth it.
//!
//! A mode is a base, the kernel, and a way of training. With the base that is measured first: gradients over
//! the whole range of sizes, then with recomputed activations and without gradients over fewer, as far as
//! the job leaves them open. Then other bases (`bases` has the rule), each with gradients, and the other ways
//! only where memory is tight, since they are what one turns to there. All steps within one budget (`budget`), and what
//! weights are worth within as much again (`importance`).
//! What is not measured is not told, so nobody plans it.

use std::sync::Arc;

use contract::message::task::Probe;
use domain::adapter::{Encoder, Projection, WeightShape};
use domain::cause::Trouble;
use domain::fleet::Stage;
use domain::job::spec::{Base, Optimizer};
use domain::profile::{GradientNoise, Importance, Mode, ModeMeasurement, Sample};
use engine::kernel::{self, Kernel};
use engine::model::Model;

use super::bases;
use super::budget::Spent;
use super::configurations::Configuration;
use super::head;
use super::kernels;
use super::noise::Norms;
use super::peaks::{self, Peak};
use super::room::{Measured, Room};
use super::start;
use super::stepper::Way;
use crate::compute::{Bench, Key, ModelFiles, loading_bytes};
use crate::data::Opened;
use crate::failure::Failure;
use crate::policy::SMALLEST_COUNT;
use crate::running::Running;
use crate::train::{self, Lengths};

/// Everything the measurement needs.
#[derive(Debug)]
pub struct Examination {
    /// What is asked.
    pub task: Probe,
    /// Which model, how; its base and kernel are the first that are tried.
    pub key: Key,
    /// Its files.
    pub files: ModelFiles,
    /// The data.
    pub data: Arc<Opened>,
    /// Seconds that it may compute, about.
    pub seconds: f64,
}

/// What the compute thread measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// Adaptable weights of the model.
    pub weights: Vec<WeightShape>,
    /// Family of the model, where it is an encoder.
    pub encoder: Encoder,
    /// Blocks of the model.
    pub layers: u16,
    /// Rounds of training and passes of scoring, by mode.
    pub modes: Vec<ModeMeasurement>,
    /// How noisy the gradient is.
    pub noise: Option<GradientNoise>,
    /// What each weight is worth.
    pub importance: Option<Importance>,
    /// Forward passes alone.
    pub forward_tokens_per_second: f64,
    /// How long records are.
    pub lengths: Lengths,
}

/// What was measured with one loaded model.
struct Visit {
    modes: Vec<ModeMeasurement>,
    /// The first thing that a way lacked.
    lacking: Option<Failure>,
    /// Whether the largest step that the job allows does not fit.
    tight: bool,
    importance: Option<Importance>,
    forward_tokens_per_second: f64,
    weights: Vec<WeightShape>,
    encoder: Encoder,
    layers: u16,
    lengths: Lengths,
    norms: Norms,
    loss_records: Option<u64>,
}

impl Examination {
    /// Loads the model and measures.
    ///
    /// # Errors
    /// What keeps the site from it; out of memory if not even three small rounds fit in any mode.
    pub fn examine(&self, bench: &mut Bench, running: &Running) -> Result<Examined, Failure> {
        let limit = running.site.memory_limit_bytes;
        let bytes = self.bytes();
        let mut ways = Way::open(self.task.training.optimizer);
        // An encoder trains by gradients alone.
        let classifies = self.task.training.classifies();
        ways.retain(|way| !classifies || way.optimizer != Optimizer::Mezo);
        let mut spent = Spent::nothing_of(self.seconds);
        let (key, mut visit) = self.first(&ways, &bytes, &mut spent, bench, running)?;
        for base in bases::further(self.task.base, key.base, visit.tight, limit, &bytes) {
            // The ways that save memory are what a tight site turns to.
            let ways = if visit.tight {
                ways.as_slice()
            } else {
                ways.get(..1).unwrap_or_default()
            };
            let other = Key {
                base,
                ..key.clone()
            };
            if !spent.allows(0.0) {
                break;
            }
            let more = self.visit(
                &other,
                ways,
                &mut spent,
                visit.loss_records,
                (&mut *bench, running),
            );
            match more {
                Ok(more) => visit.modes.extend(more.modes),
                Err(failure) if is_of_the_base(&failure) => {
                    tracing::info!(?base, %failure, "this base is not measured");
                }
                Err(failure) => return Err(failure),
            }
        }
        let consent = running.site.config.policy.share_small_counts;
        let smallest = if consent { 1 } else { SMALLEST_COUNT };
        Ok(Examined {
            noise: visit.norms.estimate(smallest),
            importance: visit.importance,
            weights: visit.weights,
            encoder: visit.encoder,
            layers: visit.layers,
            modes: visit.modes,
            forward_tokens_per_second: visit.forward_tokens_per_second,
            lengths: visit.lengths,
        })
    }

    /// One round of this size in this mode, made and told as the probe makes and tells its own: for comparing with what
    /// is predicted of it.
    ///
    /// # Errors
    /// As [`Examination::examine`], and if this machine lacks the mode's kernel.
    pub fn round(
        &self,
        mode: &Mode,
        (batch, rank): (u16, u16),
        bench: &mut Bench,
        running: &Running,
    ) -> Result<Sample, Failure> {
        let kernel = Kernel::named(&mode.kernel);
        let key = Key {
            base: mode.base,
            kernel: kernel.map_err(|error| Failure::of(Trouble::PlanUnsupported, &error))?,
            ..self.key.clone()
        };
        let way = Way {
            optimizer: mode.optimizer,
            checkpoint: mode.checkpoint,
        };
        let mut room = self.room(&key, bench, running)?;
        let part = 1;
        let measured = room.round(way, Configuration { batch, rank, part })?;
        let beside = peaks::beside([measured.peak, Peak::now()].into_iter());
        Ok(measured.told(beside))
    }

    /// Bytes that the model takes loaded in a base; none are known of files that cannot be read, which
    /// the loading complains of.
    fn bytes(&self) -> impl Fn(Base) -> u64 + use<> {
        let inspected = Model::inspect(self.files.path()).ok();
        move |base| {
            inspected
                .as_ref()
                .map_or(0, |model| loading_bytes(model, base))
        }
    }

    /// The first base on which anything can be measured.
    fn first(
        &self,
        ways: &[Way],
        bytes: &impl Fn(Base) -> u64,
        spent: &mut Spent,
        bench: &mut Bench,
        running: &Running,
    ) -> Result<(Key, Visit), Failure> {
        let mut lacking = None;
        for base in bases::first(self.task.base, bytes) {
            let measured = self.fastest(base, ways, bench, running).and_then(|key| {
                let visit = self.visit(&key, ways, spent, None, (&mut *bench, running))?;
                Ok((key, visit))
            });
            match measured {
                Ok((key, visit)) if !visit.modes.is_empty() => return Ok((key, visit)),
                Ok((_, visit)) => lacking = lacking.or(visit.lacking),
                Err(failure) if is_of_the_base(&failure) => {
                    lacking.get_or_insert(failure);
                }
                Err(failure) => return Err(failure),
            }
        }
        let nothing = || Failure::new(Trouble::Internal, "no step could be measured");
        Err(lacking.unwrap_or_else(nothing))
    }

    /// Measures every way on one base: zeroth-order steps in f32, whatever gradients are computed with, for a slope is
    /// a small difference of two losses.
    fn visit(
        &self,
        key: &Key,
        ways: &[Way],
        spent: &mut Spent,
        loss_records: Option<u64>,
        (bench, running): (&mut Bench, &Running),
    ) -> Result<Visit, Failure> {
        let is_apart = |way: &&Way| {
            way.optimizer == Optimizer::Mezo && key.kernel.compute() != kernel::Compute::F32
        };
        let apart: Vec<Way> = ways.iter().filter(is_apart).copied().collect();
        if apart.is_empty() {
            let room = self.room(key, bench, running)?;
            return room.visit(key, ways, spent, loss_records);
        }
        let own: Vec<Way> = ways.iter().filter(|way| !is_apart(way)).copied().collect();
        let room = self.room(key, bench, running)?;
        let mut visit = room.visit(key, &own, spent, loss_records)?;
        if !visit.modes.is_empty() && !spent.allows(0.0) {
            return Ok(visit);
        }
        let exact = Key {
            kernel: Kernel::best(kernel::Compute::F32),
            ..key.clone()
        };
        let room = self.room(&exact, bench, running)?;
        let more = room.visit(&exact, &apart, spent, visit.loss_records.or(loss_records))?;
        if visit.modes.is_empty() {
            let tight = true;
            return Ok(Visit { tight, ..more });
        }
        visit.modes.extend(more.modes);
        Ok(visit)
    }

    /// The model with the kernel that trains fastest here, of those that the job leaves open.
    fn fastest(
        &self,
        base: Base,
        ways: &[Way],
        bench: &mut Bench,
        running: &Running,
    ) -> Result<Key, Failure> {
        let training = &self.task.training;
        let keys = kernels::candidates(self.task.compute, training.is_zeroth_order()).into_iter();
        let keys: Vec<Key> = keys
            .map(|kernel| Key {
                kernel,
                base,
                ..self.key.clone()
            })
            .collect();
        let way = ways.first().copied().unwrap_or(Way::PLAIN);
        let mut fastest: Option<(Key, f64)> = None;
        if keys.len() > 1 {
            for key in &keys {
                let seconds = self.room(key, bench, running)?.trial(way)?;
                tracing::info!(kernel = %key.kernel, seconds_per_token = seconds, "kernel tried");
                if fastest.as_ref().is_none_or(|(_, least)| seconds < *least) {
                    fastest = Some((key.clone(), seconds));
                }
            }
        }
        let only = || keys.first().cloned();
        let chosen = fastest.map(|(key, _)| key).or_else(only);
        Ok(chosen.unwrap_or_else(|| self.key.clone()))
    }

    fn room<'a>(
        &'a self,
        key: &Key,
        bench: &'a mut Bench,
        running: &'a Running,
    ) -> Result<Room<'a>, Failure> {
        if !bench.holds(key) {
            running.stage(Stage::Loading, 0);
            bench.make_room(key, &self.files, running.site.memory_limit_bytes)?;
        }
        let loaded = bench.model(key, &self.files)?;
        running.stage(Stage::Probing, 0);
        let training = &self.task.training;
        let head = head::fresh(loaded.model(), training)?;
        if let Some(head) = &head {
            loaded.set_head(head.clone())?;
        }
        let model = loaded.model();
        let weights = model.weights();
        let encoder = self.data.encoder(
            model.tokenizer(),
            training.sequence_length,
            (&training.labels, &training.choices),
        )?;
        let lengths = train::lengths(&self.data, &encoder, running)?;
        let global = running.site.work_dir().join("probe.safetensors");
        // A job that leaves them open names those of every family.
        let has = |target: &Projection| {
            let mut names = weights.iter().map(|weight| weight.name.projection());
            names.any(|own| own == *target)
        };
        let targets: Vec<Projection> = self.task.targets.iter().copied().filter(has).collect();
        let rank_max = self.task.rank_max;
        start::write(
            &global,
            &weights,
            (&targets, rank_max),
            head.as_ref(),
            training.seed,
        )?;
        Ok(Room {
            running,
            task: &self.task,
            data: &self.data,
            model,
            global,
            weights,
            targets,
            layers: u16::try_from(model.config().layers).unwrap_or(u16::MAX),
            encoder,
            lengths,
            base_memory_bytes: loaded.base_memory_bytes(),
            steps: 0,
            row_seconds: 0.0,
            norms: Norms::default(),
        })
    }
}

/// Whether another base may do better.
const fn is_of_the_base(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Site {
            trouble: Trouble::OutOfMemory,
            ..
        }
    )
}

impl Room<'_> {
    /// Measures every way with the model that is loaded.
    fn visit(
        self,
        key: &Key,
        ways: &[Way],
        spent: &mut Spent,
        loss_records: Option<u64>,
    ) -> Result<Visit, Failure> {
        let mut room = self;
        let (mut trained, mut lacking): (Vec<(Way, Vec<Measured>)>, _) = (Vec::new(), None);
        let mut tight = false;
        for way in ways {
            match room.rounds(*way, spent) {
                Ok(rounds) => {
                    tight |= trained.is_empty() && room.is_tight(&rounds);
                    if !rounds.is_empty() {
                        trained.push((*way, rounds));
                    }
                }
                Err(failure) if is_of_the_base(&failure) => {
                    tight = true;
                    lacking.get_or_insert(failure);
                }
                Err(failure) => return Err(failure),
            }
        }
        let rounds = trained.iter().flat_map(|(_, rounds)| rounds);
        let steps: Vec<Sample> = rounds.map(|round| round.sample.clone()).collect();
        let scored = match room.scored(&steps) {
            Ok(scored) => scored,
            Err(failure) if is_of_the_base(&failure) => {
                lacking.get_or_insert(failure);
                trained.clear();
                Vec::new()
            }
            Err(failure) => return Err(failure),
        };
        if let (Some(training), Some(forward)) = (largest_of(&trained), scored.last()) {
            let speedup = training.real_seconds_per_token / forward.real_seconds_per_token;
            room.running.site.set_forward_speedup(speedup);
        }
        let loss = if trained.is_empty() {
            None
        } else {
            room.loss(loss_records)?
        };
        // Once is enough: what a weight is worth is the model's and the data's, not the base's.
        let importance = match beside(&room, &trained).filter(|_| loss_records.is_none()) {
            Some(bytes) => room.importance(bytes)?,
            None => None,
        };
        let rounds = trained.iter().flat_map(|(_, rounds)| rounds);
        let seen = rounds.chain(&scored).map(|one| one.peak);
        let beside = peaks::beside(seen.chain([Peak::now()]));
        let samples = |all: &[Measured]| all.iter().map(|one| one.told(beside)).collect();
        let modes = trained.iter().map(|(way, rounds)| ModeMeasurement {
            mode: Mode {
                base: key.base,
                kernel: key.kernel.to_string(),
                checkpoint: way.checkpoint,
                optimizer: way.optimizer,
            },
            base_memory_bytes: room.base_memory_bytes,
            samples: samples(rounds),
            scoring: samples(&scored),
            loss: loss.map(|(mean, _)| mean),
        });
        let modes = modes.collect();
        let family = room.model.config().architecture.encoder();
        let forward_tokens_per_second = if trained.is_empty() {
            0.0
        } else {
            room.forward_tokens_per_second(&scored)?
        };
        Ok(Visit {
            modes,
            lacking,
            tight,
            importance,
            forward_tokens_per_second,
            weights: room.weights,
            encoder: family.unwrap_or_default(),
            layers: room.layers,
            lengths: room.lengths,
            norms: room.norms,
            loss_records: loss.map(|(_, records)| records),
        })
    }
}

/// Bytes beyond the base that a step with gradients over one of the longest rows needs, where one was made.
fn beside(room: &Room<'_>, trained: &[(Way, Vec<Measured>)]) -> Option<f64> {
    let ways = trained
        .iter()
        .filter(|(way, _)| way.optimizer != Optimizer::Mezo);
    let rounds = ways.flat_map(|(_, rounds)| rounds);
    let single = rounds.filter(|round| round.sample.batch == 1);
    let longest = single.max_by_key(|round| round.sample.longest_tokens);
    longest.map(|round| room.beyond_base(&round.sample))
}

/// The largest round with gradients, activations kept.
fn largest_of(trained: &[(Way, Vec<Measured>)]) -> Option<&Measured> {
    let is_plain = |way: &Way| way.optimizer != Optimizer::Mezo && !way.checkpoint;
    let plain = trained.iter().find(|(way, _)| is_plain(way));
    plain.and_then(|(_, rounds)| rounds.last())
}
