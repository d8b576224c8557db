//! `fedpipe train --optimizer mezo --parameters all`: the model's own parameters are trained, by forward passes alone, and
//! the run ends with a model.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use chassis::clock::Stopwatch;
use domain::adapter::RankTable;
use domain::artifact::Digest;
use domain::zeroth::{Scalars, Steps};
use engine::control::Control;
use engine::data::{Dataset, Encoder, Loader, Refusals};
use engine::export::{beside_trained, check_trained, export_trained};
use engine::memory;
use engine::model::{Inspected, Model};
use engine::train::WholeTrainer;
use serde_json::{Value, json};

use super::batches::Batches;
use super::held_out::{Course, Scored};
use super::kept::{self, Kept};
use super::told::Told;
use super::{Args, Step};
use crate::cli::offline::Work;
use crate::output;

/// Between two notes on steps that are done again.
const NOTE_SECONDS: f64 = 10.0;

/// A run, and how far it came.
struct Run<'a> {
    trainer: WholeTrainer,
    course: Course<'a>,
    kept: Kept,
    batches: Batches<'a>,
    told: Told,
    /// Steps that were made.
    made: u64,
    tokens: usize,
    skipped: u64,
    /// The loss of the last step that had one.
    loss: Option<f64>,
}

impl Args {
    /// Trains all parameters.
    pub(super) fn run_whole(mut self) -> anyhow::Result<()> {
        ensure!(
            self.init_adapter.is_none() && self.data.labels.is_empty(),
            "--parameters all trains the model itself, which has neither an adapter nor a new head: leave out \
             --init-adapter and --label"
        );
        self.model.hold_for_training()?;
        free(&self.out)?;
        let scores = self.held_out.most_scores(self.steps);
        kept::check((self.steps, self.mezo.perturbations), scores)?;
        let dataset = self.data.open()?;
        let inspected = self.model.inspect()?;
        self.check_whole(&inspected)?;
        let mut trainer = self.trainer()?;
        let encoder = self.data.encoder(trainer.model(), (&[], &self.choices))?;
        let split = self.held_out.split(&dataset)?;
        let selection = split.as_ref().map(|split| split.training.as_slice());
        let sampler = self.sampler(&dataset, selection)?;
        let held_out = split.map(|split| split.held_out);
        let loader = Loader::new(&dataset, &encoder, &sampler);
        let records = self.held_out.records(held_out, self.data.format)?;
        let mut course = Course::new(&self.held_out, records, &self.out);
        let asked = self.asked_whole(&dataset, trainer.model())?;
        let kept = Kept::new(&self.out, self.save_every, self.mezo.perturbations, asked);
        let made = if self.resume {
            let resume = |scalars: &Scalars, steps| again(&mut trainer, scalars, steps);
            kept.begin(resume, &mut course)?
        } else {
            0
        };
        let mut run = Run {
            trainer,
            course,
            kept,
            batches: Batches::new(loader, self.batch_tokens, 1, made)?,
            told: Told::new(self.metrics.as_deref(), (made, self.steps), self.json)?,
            made,
            tokens: 0,
            skipped: 0,
            loss: None,
        };
        let watch = Stopwatch::start();
        self.walk_on(&mut run, (&dataset, &encoder))?;
        self.end(run, &watch)
    }

    /// The steps that are left.
    fn walk_on(&self, run: &mut Run<'_>, with: (&Dataset, &Encoder)) -> anyhow::Result<()> {
        run.score(self.steps, with)?;
        while run.made < self.steps {
            // A run that is gone on with may have lost it before.
            if run.course.is_out_of_patience() {
                run.told.note(&format!(
                    "stopped after step {}: the held-out loss does not improve any more",
                    run.made
                ));
                break;
            }
            let watch = Stopwatch::start();
            let drawn = run.batches.step().with_context(|| self.unlearnable())?;
            let [batch] = drawn.as_slice() else {
                bail!("it takes one batch a step");
            };
            let step = Step::from(run.trainer.step(batch, &Control::new())?);
            run.told.step(run.made, &step, watch.seconds())?;
            run.made += 1;
            run.tokens += step.tokens;
            run.skipped += u64::from(step.loss.is_none());
            run.loss = step.loss.or(run.loss);
            run.score(self.steps, with)?;
            let scalars = || run.trainer.scalars();
            run.kept.step(run.made, scalars, run.course.scores())?;
        }
        Ok(())
    }

    /// Leaves the model, of the last step or the best.
    fn end(&self, run: Run<'_>, watch: &Stopwatch) -> anyhow::Result<()> {
        let Run {
            trainer,
            course,
            kept,
            batches,
            told,
            made,
            tokens,
            skipped,
            loss,
        } = run;
        told.done();
        note(batches.refused(), course.refused());
        let seconds = watch.seconds();
        // Whatever becomes of the model, it follows from these.
        let saved = kept.save(&trainer.scalars(), course.scores());
        let best = course.best_score();
        let earlier = best.map(|best| best.steps).filter(|steps| *steps < made);
        let parameters = Model::parameters_of(trainer.model().config());
        let left = self.leave(trainer, earlier);
        let digest = left.with_context(|| kept.left(&saved))?;
        kept.done();
        let sha256 = crate::client::archive::digest(&self.out.join("model.safetensors"))?;
        if self.json {
            return output::json(&json!({
                "model": self.out, "sha256": sha256, "parameters": parameters, "parameters_sha256": digest,
                "steps": self.steps, "skipped_steps": skipped, "loss": loss, "seconds": seconds,
                "tokens_per_second": tokens as f64 / seconds, "ended_after": made, "held_out": course.scores(),
                "kept": best, "refused": batches.refused().counts().collect::<BTreeMap<_, _>>(),
                "peak_memory_bytes": chassis::memory::peak_bytes(),
            }));
        }
        let of = best.map_or_else(String::new, |Scored { steps, loss, .. }| {
            format!(" of step {steps}, held-out loss {loss:.4}")
        });
        output::line(format!(
            "{}: model {sha256}{of}, {parameters} parameters trained",
            self.out.display()
        ))
    }

    /// Writes the model after so many steps, if not after all; gives the digest of its parameters.
    fn leave(&self, mut trainer: WholeTrainer, earlier: Option<u64>) -> anyhow::Result<Digest> {
        if let Some(steps) = earlier {
            let scalars = trainer.scalars();
            // One model at a time.
            drop(trainer);
            trainer = self.after(&scalars, steps)?;
        }
        let digest = trainer.digest();
        let from = self.model.model.path()?;
        export_trained(from, trainer.into_model(), &self.out, &Control::new())?;
        Ok(digest)
    }

    /// The model after the first of these steps, which are done again from its files.
    fn after(&self, scalars: &Scalars, steps: u64) -> anyhow::Result<WholeTrainer> {
        let mut trainer = self.trainer()?;
        let count = steps as usize * usize::from(self.mezo.perturbations);
        let first = scalars.values().get(..count).unwrap_or_default();
        output::note(format!(
            "the best model is that of step {steps}: doing its steps again"
        ));
        let done = again(&mut trainer, &Scalars::new(first.to_vec()), steps as usize);
        ensure!(done, "the run has fewer scalars than steps");
        Ok(trainer)
    }

    /// Before any step.
    fn trainer(&self) -> anyhow::Result<WholeTrainer> {
        let (how, limit) = (self.whole_walk(), self.mezo.most_parameters);
        Ok(WholeTrainer::new(self.model.load()?, how, 0, limit)?)
    }

    /// How steps are made.
    fn whole_walk(&self) -> Steps {
        Steps {
            rate: self.learning_rate().into(),
            ..self.walk()
        }
    }

    /// Refuses, before the model is loaded, one that is too large, for the limit or for the memory, and one that could not be
    /// written in the end.
    fn check_whole(&self, model: &Inspected) -> anyhow::Result<()> {
        let (parameters, limit) = (
            Model::parameters_of(&model.config),
            self.mezo.most_parameters,
        );
        ensure!(
            parameters <= limit,
            "the model has {parameters} parameters, and all of them are trained where there are {limit} at most \
             (--most-parameters): train an adapter"
        );
        let none = RankTable::default();
        let work = Work {
            ranks: &none,
            optimizer: memory::Optimizer::None,
            checkpoint: false,
            batch: self.rows(),
            sequence: self.data.sequence_length,
            labelled: self.data.sequence_length,
            // Whichever is more: the steps, or writing the model in the end.
            beside: memory::whole(&model.config).max(beside_trained(&model.config)),
        };
        self.model.check(model, work, self.memory)?;
        check_trained(self.model.model.path()?, &self.out)
            .context("the trained model could not be written in the end")
    }

    /// Everything that the model's bytes depend on.
    fn asked_whole(&self, dataset: &Dataset, model: &Model) -> anyhow::Result<Value> {
        let mut asked = self.asked(dataset, model)?;
        // Numbers as text, so that none is another when it is read.
        let walk = format!("{:?}", self.whole_walk());
        if let Some(fields) = asked.as_object_mut() {
            fields.insert("parameters".to_owned(), "all".into());
            fields.insert("walk".to_owned(), walk.into());
        }
        Ok(asked)
    }
}

impl Run<'_> {
    /// Scores the held-out records, if it is time to, after the steps that were made of `all`.
    fn score(&mut self, all: u64, with: (&Dataset, &Encoder)) -> anyhow::Result<()> {
        if !self.course.is_due(self.made, all) {
            return Ok(());
        }
        let scored = self
            .course
            .score_model(self.made, self.trainer.model(), with)?;
        self.told.score(scored)
    }
}

/// Does so many steps again, which found these; says every so often how far that is.
fn again(trainer: &mut WholeTrainer, scalars: &Scalars, steps: usize) -> bool {
    let (watch, mut last) = (Stopwatch::start(), 0.0);
    trainer.resume_telling(scalars, steps, |made| {
        let now = watch.seconds();
        if now - last > NOTE_SECONDS {
            output::note(format!("{made} of {steps} steps are done again"));
            last = now;
        }
    })
}

/// Refuses a folder that holds something, before hours are spent.
fn free(out: &Path) -> anyhow::Result<()> {
    let taken = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(
        !taken && !out.is_file(),
        "{} is there already: name a folder to make",
        out.display()
    );
    Ok(())
}

/// Says which records were not learned, and which not scored.
fn note(refused: &Refusals, unscored: &Refusals) {
    if refused.total() > 0 {
        output::note(format!("not learned, others took their place: {refused}"));
    }
    if unscored.total() > 0 {
        output::note(format!("held out and not scored: {unscored}"));
    }
}
