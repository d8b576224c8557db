//! The `training` section of a job file: how every site trains between two merges.

mod rates;

use serde::{Deserialize, Serialize};

use super::choice::Choice;
use super::mezo::{Mezo, Seeds, Wire};
use crate::schedule::Shape;

/// Steps of a round at most, where they are the planner's choice.
pub const AUTO_STEPS_LIMIT: u32 = 64;

/// How a site trains.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// The planner chooses per site.
    #[default]
    Auto,
    /// Backpropagation with AdamW.
    Adamw,
    /// Backpropagation, straight down the gradient or with momentum.
    Sgd,
    /// Zeroth-order, forward passes only.
    Mezo,
}

/// The order in which a site's records are visited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Shuffled anew each pass, from the job's seed.
    #[default]
    Shuffle,
    /// As `shuffle`, each batch with equal shares of the distinct completions.
    Balanced,
    /// As they stand in the file.
    File,
}

/// Local training between two merges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// First- or zeroth-order.
    pub optimizer: Optimizer,
    /// Optimizer steps per round, or the planner's choice per site: their updates are then normalized (`FedNova`).
    pub local_steps: Choice<u32>,
    /// Records of a batch, or the planner's choice per site.
    pub batch: Choice<u16>,
    /// A batch takes records until their tokens would be more than this; absent: as many as `batch` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<u32>,
    /// Batches of a step, whose gradients are added up.
    #[serde(skip_serializing_if = "is_one")]
    pub accumulate: u16,
    /// Tokens of a record at most.
    pub sequence_length: u32,
    /// Learning rate, at its full height; absent: what [`Training::learning_rate()`] says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// How it changes after warming up, over all rounds of the job.
    #[serde(skip_serializing_if = "is_constant")]
    pub schedule: Shape,
    /// The share of the job's steps in which it rises to its full height.
    #[serde(skip_serializing_if = "is_zero")]
    pub warmup_ratio: f64,
    /// How much of the last step's direction SGD keeps.
    #[serde(skip_serializing_if = "is_zero")]
    pub momentum: f64,
    /// Weight decay: AdamW's apart from the gradient, SGD's as part of it.
    pub weight_decay: f64,
    /// Largest norm of the gradient; 0 turns clipping off.
    pub clip_norm: f64,
    /// Share of the adapter's inputs that a step leaves out (LoRA dropout); 0 turns it off.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropout: f64,
    /// `FedProx`'s μ: what pulls a site back to the merged adapter that it started from; 0 turns it off.
    #[serde(skip_serializing_if = "is_zero")]
    pub proximal: f64,
    /// Order of the records.
    pub order: Order,
    /// Seed of every random stream of the job.
    pub seed: u64,
    /// The classes of a head that is trained beside the adapter (sequence classification); empty: words are learned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The answers that the loss is among, each a token of the model's, as `MeZO` trains classification; empty: among all
    /// words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// How zeroth-order sites train.
    #[serde(skip_serializing_if = "Mezo::is_default")]
    pub mezo: Mezo,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            optimizer: Optimizer::Auto,
            local_steps: Choice::Fixed(8),
            batch: Choice::Auto,
            batch_tokens: None,
            accumulate: 1,
            sequence_length: 128,
            learning_rate: None,
            schedule: Shape::Constant,
            warmup_ratio: 0.0,
            momentum: 0.0,
            weight_decay: 0.0,
            clip_norm: 1.0,
            dropout: 0.0,
            proximal: 0.0,
            order: Order::Shuffle,
            seed: 0,
            labels: Vec::new(),
            choices: Vec::new(),
            mezo: Mezo::default(),
        }
    }
}

impl Training {
    /// Whether every site trains zeroth-order.
    #[must_use]
    pub fn is_zeroth_order(&self) -> bool {
        self.optimizer == Optimizer::Mezo
    }

    /// Whether a site may make so many steps in a round.
    #[must_use]
    pub fn allows_steps(&self, steps: u32) -> bool {
        match self.local_steps {
            Choice::Fixed(fixed) => steps == fixed,
            Choice::Auto => (1..=AUTO_STEPS_LIMIT).contains(&steps),
        }
    }

    /// Steps of a round at most: where the job fixes them and replays no other's plans, those of every site.
    #[must_use]
    pub const fn most_steps(&self) -> u32 {
        match self.local_steps {
            Choice::Fixed(fixed) => fixed,
            Choice::Auto => AUTO_STEPS_LIMIT,
        }
    }

    /// The settings as a site is told them that makes so many steps: nothing is left to it, and a worker of an
    /// earlier version reads a number.
    #[must_use]
    pub fn told(&self, steps: u32) -> Self {
        let fixed = self.local_steps.fixed().copied().unwrap_or(steps);
        Self {
            local_steps: Choice::Fixed(fixed),
            learning_rate: Some(self.learning_rate()),
            ..self.clone()
        }
    }

    /// Whether the update of a site that trains so is its scalars, inside its report.
    #[must_use]
    pub fn sends_scalars(&self, own: Optimizer) -> bool {
        own == Optimizer::Mezo && self.mezo.wire == Wire::Scalars
    }

    /// Whether a step of a site that trains so may take fewer directions than the P that a plan counts for it. How many
    /// a round took is not among its figures.
    #[must_use]
    pub fn may_spare_directions(&self, own: Optimizer) -> bool {
        own == Optimizer::Mezo && self.mezo.variance > 0.0
    }

    /// Whether all sites walk along the same directions, and may replay rounds.
    #[must_use]
    pub fn shares_directions(&self) -> bool {
        let scalars = self.mezo.wire == Wire::Scalars && self.mezo.seeds == Seeds::Shared;
        self.is_zeroth_order() && scalars
    }

    /// Tokens of a batch of so many records at most.
    #[must_use]
    pub fn batch_tokens_at_most(&self, batch: u16) -> u64 {
        let records = || u64::from(batch) * u64::from(self.sequence_length);
        self.batch_tokens.map_or_else(records, u64::from)
    }

    /// Records of a batch at most, where a plan says `batch`: of those that fill tokens each has two at least.
    #[must_use]
    pub fn batch_records_at_most(&self, batch: u16) -> u64 {
        let filled = self.batch_tokens.map(|tokens| u64::from(tokens / 2).max(1));
        filled.unwrap_or_else(|| u64::from(batch))
    }

    /// Numbers that a first-order site holds for each of its adapter's beside what its optimizer does: the start that
    /// `FedProx` pulls back to, and the sum of several batches' gradients.
    #[must_use]
    pub fn copies(&self) -> u64 {
        u64::from(self.proximal > 0.0) + u64::from(self.accumulate > 1)
    }

    /// The fields that are set of those that only steps by gradients have, and without which they would be others.
    pub fn of_gradients_alone(&self) -> impl Iterator<Item = &'static str> {
        let settings = [
            ("schedule", self.schedule != Shape::Constant),
            ("warmup_ratio", self.warmup_ratio != 0.0),
            ("accumulate", self.accumulate != 1),
            ("batch_tokens", self.batch_tokens.is_some()),
            ("dropout", self.dropout != 0.0),
            ("momentum", self.momentum != 0.0),
        ];
        let set = settings.into_iter().filter(|(_, set)| *set);
        set.map(|(name, _)| name)
    }

    /// Refuses what cannot be meant.
    pub(super) fn check(&self, refuse: &mut impl FnMut(&str, String)) {
        if let Choice::Fixed(steps) = self.local_steps
            && !(1..=100_000).contains(&steps)
        {
            refuse(
                "training.local_steps",
                "use 1 to 100000, or auto".to_owned(),
            );
        }
        if !(2..=131_072).contains(&self.sequence_length) {
            let problem = "use 2 to 131072 tokens".to_owned();
            refuse("training.sequence_length", problem);
        }
        let rate = self.learning_rate();
        if !(rate.is_finite() && (0.0..=10.0).contains(&rate)) {
            refuse("training.learning_rate", "use 0 to 10".to_owned());
        }
        self.check_batch(refuse);
        let from_0 = |value: f64| value.is_finite() && value >= 0.0;
        let share = |value: f64| (0.0..1.0).contains(&value);
        let numbers = [
            (
                "weight_decay",
                from_0(self.weight_decay),
                "use a number from 0",
            ),
            (
                "clip_norm",
                from_0(self.clip_norm),
                "use a number from 0; 0 turns clipping off",
            ),
            (
                "proximal",
                from_0(self.proximal),
                "use a number from 0; 0 turns FedProx off",
            ),
            (
                "warmup_ratio",
                share(self.warmup_ratio),
                "use a share of the job's steps, from 0 to below 1",
            ),
            (
                "dropout",
                share(self.dropout),
                "use a share from 0 to below 1; 0 turns it off",
            ),
            (
                "momentum",
                share(self.momentum),
                "use a number from 0 to below 1",
            ),
        ];
        for (field, sound, problem) in numbers {
            if !sound {
                refuse(&format!("training.{field}"), problem.to_owned());
            }
        }
        if self.momentum != 0.0 && self.optimizer != Optimizer::Sgd {
            let problem = "it is sgd's: adamw has moments of its own, mezo has none".to_owned();
            refuse("training.momentum", problem);
        }
        if self.is_zeroth_order() {
            let problem =
                "zeroth-order steps have one rate and one batch of whole records: leave it out";
            // Momentum was refused above.
            for field in self.of_gradients_alone().filter(|one| *one != "momentum") {
                refuse(&format!("training.{field}"), problem.to_owned());
            }
        }
    }

    fn check_batch(&self, refuse: &mut impl FnMut(&str, String)) {
        if let Choice::Fixed(batch) = self.batch
            && !(1..=1024).contains(&batch)
        {
            refuse("training.batch", "use 1 to 1024, or auto".to_owned());
        }
        if !(1..=1024).contains(&self.accumulate) {
            refuse("training.accumulate", "use 1 to 1024 batches".to_owned());
        }
        let Some(tokens) = self.batch_tokens else {
            return;
        };
        if !(self.sequence_length..=BATCH_TOKENS_LIMIT).contains(&tokens) {
            let least = self.sequence_length;
            let problem =
                format!("use {least} (a record may have so many) to {BATCH_TOKENS_LIMIT} tokens");
            refuse("training.batch_tokens", problem);
        }
        if self.batch.fixed().is_some() {
            let problem = "a batch is filled by tokens or has a number of records: leave batch out";
            refuse("training.batch_tokens", problem.to_owned());
        }
    }
}

/// Tokens of a batch at most.
const BATCH_TOKENS_LIMIT: u32 = 1 << 20;

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
const fn is_one(value: &u16) -> bool {
    *value == 1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
fn is_constant(shape: &Shape) -> bool {
    *shape == Shape::Constant
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training(json: &str) -> Training {
        serde_json::from_str(json).expect(json)
    }

    fn check(json: &str, expected: &[&str]) {
        let mut fields = Vec::new();
        training(json).check(&mut |field, problem| {
            assert!(!problem.is_empty());
            fields.push(field.trim_start_matches("training.").to_owned());
        });
        assert_eq!(fields, expected, "{json}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_named() {
        check(
            r#"{"schedule":"cosine","warmup_ratio":0.1,"accumulate":4,"dropout":0.05}"#,
            &[],
        );
        check(r#"{"optimizer":"sgd","momentum":0.9}"#, &[]);
        check(r#"{"momentum":0.9}"#, &["momentum"]);
        check(r#"{"optimizer":"sgd","momentum":1}"#, &["momentum"]);
        check(r#"{"warmup_ratio":1}"#, &["warmup_ratio"]);
        check(r#"{"dropout":-0.1}"#, &["dropout"]);
        check(r#"{"accumulate":0}"#, &["accumulate"]);
        check(r#"{"local_steps":0}"#, &["local_steps"]);
        check(r#"{"local_steps":100001}"#, &["local_steps"]);
        check(r#"{"local_steps":"auto"}"#, &[]);
        check(r#"{"learning_rate":11}"#, &["learning_rate"]);
        check(r#"{"batch_tokens":512}"#, &[]);
        check(r#"{"batch_tokens":100}"#, &["batch_tokens"]);
        check(r#"{"batch_tokens":512,"batch":4}"#, &["batch_tokens"]);
        for (field, value) in [
            ("schedule", "\"linear\""),
            ("warmup_ratio", "0.5"),
            ("accumulate", "2"),
            ("batch_tokens", "512"),
            ("dropout", "0.1"),
        ] {
            check(
                &format!(r#"{{"optimizer":"mezo","{field}":{value}}}"#),
                &[field],
            );
        }
        let several =
            r#"{"optimizer":"mezo","schedule":"cosine","warmup_ratio":0.1,"momentum":0.9}"#;
        check(several, &["momentum", "schedule", "warmup_ratio"]);
    }

    #[test]
    fn steps_are_a_number_or_the_planners_choice() {
        let (number, open) = (
            training(r#"{"local_steps":100}"#),
            training(r#"{"local_steps":"auto"}"#),
        );
        let text = serde_json::to_string(&number).expect("JSON");
        assert!(text.contains(r#""local_steps":100,"#), "{text}");
        let text = serde_json::to_string(&open).expect("JSON");
        assert!(text.contains(r#""local_steps":"auto","#), "{text}");
        assert_eq!(Training::default().local_steps, Choice::Fixed(8));

        let allowed = |of: &Training| [0, 1, 64, 65, 100].map(|steps| of.allows_steps(steps));
        assert_eq!(allowed(&number), [false, false, false, false, true]);
        assert_eq!(allowed(&open), [false, true, true, false, false]);
        assert_eq!((number.most_steps(), open.most_steps()), (100, 64));
        assert_eq!(number.told(12).local_steps, Choice::Fixed(100));
        assert_eq!(open.told(12).local_steps, Choice::Fixed(12));
        let many = serde_json::from_str::<Training>(r#"{"local_steps":"many"}"#);
        many.expect_err("neither");
    }

    #[test]
    fn what_was_not_said_is_not_written() {
        let text = serde_json::to_string(&Training::default()).expect("JSON");
        for field in [
            "schedule",
            "warmup",
            "accumulate",
            "batch_tokens",
            "learning_rate",
            "dropout",
            "momentum",
        ] {
            assert!(!text.contains(field), "{field} in {text}");
        }
    }
}
