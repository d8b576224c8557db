//! What a choice costs at one worker, by the cost model of its mode.

use domain::adapter::{Projection, RankTable, WeightShape};
use domain::job::spec::{Optimizer, Spec};
use domain::plan::{Prediction, WorkerPlan, scored_together};
use domain::profile::{Measurement, ModeProfile};

use super::program::Affine;

/// Least share of time kept free, however well the fit explains its samples: they are few, and a fit
/// with as many coefficients as samples has no error to show.
const LEAST_TIME_MARGIN: f64 = 0.05;

/// Least share of memory kept free, for the same reason. What counts against a limit changes by whole
/// stacks of threads that come and go, which no sample may have met.
const LEAST_MEMORY_MARGIN: f64 = 0.02;

/// Bytes that a tensor's entry takes in the header of its file, about.
const HEADER_ENTRY_BYTES: u64 = 160;

/// Bytes of one parameter in the file of an adapter.
const PARAMETER_BYTES: u64 = 4;

/// Bytes of the file of an adapter with these ranks: 4 per parameter, and the header.
#[must_use]
pub fn adapter_bytes(ranks: &RankTable, weights: &[WeightShape]) -> u64 {
    let tensors = 2 * ranks.trained().count() as u64;
    PARAMETER_BYTES * ranks.parameters(weights) + HEADER_ENTRY_BYTES * tensors
}

/// Bytes of a message beside the scalars in it, about.
const MESSAGE_BYTES: u64 = 1024;

/// Bytes that a site sends of a round that it trains so: its adapter, or its scalars.
fn upload_bytes(
    spec: &Spec,
    (own, steps): (Optimizer, u32),
    ranks: &RankTable,
    weights: &[WeightShape],
) -> u64 {
    if spec.training.sends_scalars(own) {
        scalar_bytes(spec, steps)
    } else {
        adapter_bytes(ranks, weights)
    }
}

/// Bytes that a site fetches for a round: the merged adapter, or the scalars that it replays.
fn download_bytes(spec: &Spec, global: &RankTable, weights: &[WeightShape]) -> u64 {
    if spec.training.shares_directions() {
        // Steps are then the same at every site.
        scalar_bytes(spec, spec.training.most_steps())
    } else {
        adapter_bytes(global, weights)
    }
}

fn scalar_bytes(spec: &Spec, steps: u32) -> u64 {
    4 * spec.training.mezo.scalars(steps) + MESSAGE_BYTES
}

/// How much of it a site trains in a round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Records of a batch.
    pub batch: u16,
    /// Steps of the round.
    pub steps: u32,
    /// Passes that are computed as one.
    pub abreast: u16,
}

impl Size {
    /// That of a plan.
    pub(super) const fn of(worker: &WorkerPlan) -> Self {
        Self {
            batch: worker.batch,
            steps: worker.local_steps,
            abreast: worker.abreast,
        }
    }
}

/// What is the same for every choice of a worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions<'a> {
    pub measured: &'a Measurement,
    pub spec: &'a Spec,
    /// Bytes fetched for a round: the merged adapter at its largest, or the scalars that a site replays.
    pub download_bytes: u64,
    /// Bytes of the side term at its largest, which every site applies and none trains.
    pub side_bytes: u64,
}

impl<'a> Conditions<'a> {
    /// Of one site of a job with so many, whose merged adapter has the live slices `global`.
    pub(super) fn new(
        measured: &'a Measurement,
        spec: &'a Spec,
        global: &RankTable,
        sites: usize,
    ) -> Self {
        let side_bytes = side_bytes(spec, global, &measured.weights, sites);
        Self {
            measured,
            spec,
            download_bytes: download_bytes(spec, global, &measured.weights) + side_bytes,
            side_bytes,
        }
    }
}

/// Bytes of the side term after the job's last round, if every site trains the highest rank that the job
/// allows: `strategy` stack and residual; 0 for the others.
fn side_bytes(spec: &Spec, global: &RankTable, weights: &[WeightShape], sites: usize) -> u64 {
    let highest = *spec.adapter.rank.fixed().unwrap_or(&spec.adapter.rank_max);
    let ranks = sites.saturating_mul(usize::from(highest));
    let rounds = usize::try_from(spec.rounds.count).unwrap_or(usize::MAX);
    let of = |weight: &WeightShape| {
        let kept = usize::from(global.rank(weight.name));
        if kept == 0 {
            return 0;
        }
        let shape = (weight.out, weight.inp);
        let strategy = spec.aggregation.strategy;
        let slices = strategy.side_slices(shape, rounds, ranks, kept);
        PARAMETER_BYTES * (slices * (weight.out + weight.inp)) as u64
    };
    weights.iter().map(of).sum()
}

impl Conditions<'_> {
    /// The cost of training `ranks` in steps of this size, and of scoring if the job asks for it. Time
    /// goes by the mean record; memory goes by the longest batch possible, whose records all have the
    /// job's sequence length, and by the larger of training and scoring. A transfer whose rate was not
    /// measured counts as no time. Passes that are computed as one need the buffers of so many batches; that it is
    /// faster was not measured and is not counted.
    pub(super) fn predict(&self, mode: &ModeProfile, ranks: &RankTable, size: Size) -> Prediction {
        let Size {
            batch,
            steps,
            abreast,
        } = size;
        let parameters = ranks.parameters(&self.measured.weights);
        let own = mode.mode.optimizer;
        let upload_bytes = upload_bytes(self.spec, (own, steps), ranks, &self.measured.weights);
        let step_seconds = self.step_seconds(mode, batch, parameters);
        let tokens = f64::from(abreast) * self.most_tokens(batch);
        let training = mode.cost.peak_memory_bytes(tokens, parameters)
            + self.side_bytes as f64
            + self.copies_bytes() * parameters as f64;
        let peak = training.max(self.scoring_bytes(mode, batch));
        Prediction {
            step_seconds,
            round_seconds: f64::from(steps) * step_seconds
                + self.upload_seconds(upload_bytes as f64)
                + self.other_seconds(),
            peak_memory_bytes: peak.ceil() as u64,
            upload_bytes,
        }
    }

    /// Seconds of a round of so many steps with `batch` records each, as they grow with the adapter. The header counts
    /// for `weights` trained weights, the most there can be.
    pub(super) fn seconds(
        &self,
        mode: &ModeProfile,
        (batch, steps): (u16, u32),
        weights: usize,
    ) -> Affine {
        // Scalars do not grow with the adapter.
        let (fixed, each) = if self.spec.training.sends_scalars(mode.mode.optimizer) {
            (scalar_bytes(self.spec, steps), 0)
        } else {
            (2 * HEADER_ENTRY_BYTES * weights as u64, PARAMETER_BYTES)
        };
        let steps = f64::from(steps);
        let batches = steps * f64::from(self.spec.training.accumulate);
        let tokens = f64::from(batch) * self.mean_tokens();
        Affine {
            fixed: steps * self.step_seconds(mode, batch, 0)
                + self.upload_seconds(fixed as f64)
                + self.other_seconds(),
            per_parameter: batches * tokens * mode.cost.seconds_per_token_parameter
                + self.upload_seconds(each as f64),
        }
    }

    /// Bytes that training needs with `batch` records a step, the margin included.
    pub(super) fn training_bytes(&self, mode: &ModeProfile, batch: u16) -> Affine {
        let free = 1.0 + memory_margin(mode);
        let tokens = self.most_tokens(batch);
        // One byte more, because a prediction is rounded up to whole bytes.
        let fixed = 1.0 + mode.cost.peak_memory_bytes(tokens, 0) + self.side_bytes as f64;
        Affine {
            fixed: fixed * free,
            per_parameter: (mode.cost.memory_per_parameter + self.copies_bytes()) * free,
        }
    }

    /// Bytes per parameter of the copies that no probe holds: what `FedProx` pulls back to, and the sum of several
    /// batches' gradients.
    fn copies_bytes(&self) -> f64 {
        (PARAMETER_BYTES * self.spec.training.copies()) as f64
    }

    /// Tokens of the largest batch possible.
    fn most_tokens(&self, batch: u16) -> f64 {
        self.spec.training.batch_tokens_at_most(batch) as f64
    }

    /// Bytes of scoring, without the margin; 0 if the job does not score. Answers are generated one at a time, after the
    /// passes with the loss: a prompt's pass, and the keys and values of what was seen so far.
    pub(super) fn scoring_bytes(&self, mode: &ModeProfile, batch: u16) -> f64 {
        self.spec.evaluation.as_ref().map_or(0.0, |evaluation| {
            let rows = self.spec.scored_rows();
            let rows = (scored_together(batch, rows) * rows) as f64;
            let passes = mode.cost.scoring_memory_bytes(rows * self.longest());
            let generating = evaluation.answers.map_or(0.0, |_| {
                mode.cost.scoring_memory_bytes(self.longest()) + self.cache_bytes()
            });
            passes.max(generating) + self.side_bytes as f64
        })
    }

    /// Bytes of the keys and values of a sequence, of every block.
    fn cache_bytes(&self) -> f64 {
        let weights = self.measured.weights.iter();
        let kept = weights
            .filter(|weight| matches!(weight.name.projection(), Projection::K | Projection::V));
        let widths: f64 = kept.map(|weight| weight.out as f64).sum();
        4.0 * widths * self.longest()
    }

    /// Of all batches of a step.
    fn step_seconds(&self, mode: &ModeProfile, batch: u16, parameters: u64) -> f64 {
        let batches = f64::from(self.spec.training.accumulate);
        let batch = f64::from(batch);
        let squares = self
            .measured
            .mean_squares()
            .min(self.longest() * self.longest());
        batches
            * mode
                .cost
                .step_seconds(batch * self.mean_tokens(), batch * squares, parameters)
    }

    fn longest(&self) -> f64 {
        f64::from(self.spec.training.sequence_length)
    }

    fn mean_tokens(&self) -> f64 {
        self.measured.mean_tokens.min(self.longest())
    }

    fn upload_seconds(&self, bytes: f64) -> f64 {
        transfer(bytes, self.measured.upload_bytes_per_second)
    }

    /// Download and round trips.
    fn other_seconds(&self) -> f64 {
        let download = self.download_bytes as f64;
        transfer(download, self.measured.download_bytes_per_second)
            + 2.0 * self.measured.round_trip_ms.max(0.0) / 1000.0
    }
}

fn transfer(bytes: f64, rate: f64) -> f64 {
    if rate > 0.0 { bytes / rate } else { 0.0 }
}

/// Share of memory kept free: how far a measured peak was above what the other measurements predict
/// of it, at least 2 %.
pub(super) const fn memory_margin(mode: &ModeProfile) -> f64 {
    mode.memory_error.max(LEAST_MEMORY_MARGIN)
}

/// Share of time kept free before a deadline: the fit's own error, at least 5 %.
pub(super) const fn time_margin(mode: &ModeProfile) -> f64 {
    mode.fit_error.max(LEAST_TIME_MARGIN)
}

/// Bytes that a worker must have for a predicted peak.
pub(super) fn needed_bytes(prediction: &Prediction, margin: f64) -> f64 {
    prediction.peak_memory_bytes as f64 * (1.0 + margin)
}

/// The longest round that the job allows: its round's deadline, if fixed, and an equal part of the
/// time that the whole job has.
pub(super) fn most_seconds(spec: &Spec) -> f64 {
    let part = spec.deadline_seconds as f64 / f64::from(spec.rounds.count.max(1));
    match spec.rounds.deadline.fixed() {
        Some(seconds) => part.min(f64::from(*seconds)),
        None => part,
    }
}
