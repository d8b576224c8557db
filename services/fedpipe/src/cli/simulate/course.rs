//! The rounds: every site trains in turn, the updates are merged, the merged adapter is scored, the plan is
//! looked at again; the clock goes on by what the slowest site would have taken.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use aggregator::{ask, follow, peft_config, tasks};
use anyhow::{Context, ensure};
use chassis::clock::Stopwatch;
use domain::adapter::RankTable;
use domain::artifact::{ArtifactRef, Digest};
use domain::drift;
use domain::energy::EnergyTable;
use domain::id::WorkerName;
use domain::job::Job;
use domain::job::course::{Figure, Scored as Compared};
use domain::plan::WorkerPlan;
use domain::round::{Score, Summary, WorkerRound};
use domain::time::UnixMillis;
use worker::Trained;

use super::again::{self, Look, Looked};
use super::clock::Together;
use super::job::{NEVER, Simulated};
use super::merge::{self, Delivered, Files, Merged};
use super::report::{Adapter, Round, Run, Scored, SiteRound};
use super::sites::{self, Sites};
use super::walked::{self, Past};
use crate::cli::offline::labels;
use crate::client::archive;
use crate::output;

/// Rounds at most, however short they are.
const ROUNDS: u32 = 100_000;

/// When the course ends, and where its result goes.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// Virtual seconds; absent: the job's rounds.
    pub until: Option<f64>,
    /// Folder for the adapter.
    pub out: Option<&'a Path>,
    /// Whether the plan is looked at again between rounds.
    pub looks: bool,
}

/// A simulation under way.
pub struct Course<'a> {
    simulated: &'a mut Simulated,
    sites: &'a mut Sites,
    folder: &'a Path,
    limits: Limits<'a>,
    /// The job with its last round, once that is known.
    job: Job,
    /// Virtual seconds of rounds.
    clock: f64,
    /// Virtual seconds of scoring.
    scoring: f64,
    /// The best scored adapter so far, if the job ends with it.
    best: Option<Global>,
    /// The server optimizer's moments.
    moments: Option<PathBuf>,
    /// The last rounds, as the services keep them: as many as a look at the plan knows.
    recent: VecDeque<Summary>,
    /// What zeroth-order rounds leave for the next.
    past: Past,
}

/// A merged adapter.
#[derive(Clone)]
struct Global {
    round: u32,
    path: PathBuf,
    /// Slices of a side term behind the live ones.
    side: RankTable,
    sha256: Digest,
    bytes: u64,
}

impl<'a> Course<'a> {
    /// At the start.
    pub fn new(
        simulated: &'a mut Simulated,
        sites: &'a mut Sites,
        folder: &'a Path,
        limits: Limits<'a>,
    ) -> Self {
        let mut job = simulated.job.clone();
        if limits.until.is_some() {
            job.spec.rounds.count = ROUNDS;
        }
        Self {
            simulated,
            sites,
            folder,
            limits,
            job,
            clock: 0.0,
            scoring: 0.0,
            best: None,
            moments: None,
            recent: VecDeque::new(),
            past: Past::default(),
        }
    }

    /// Goes through all rounds.
    pub fn run(mut self) -> anyhow::Result<Run> {
        let real = Stopwatch::start();
        let path = self.file("round-0");
        merge::fresh(self.simulated, &path)?;
        let mut global = Global::of(0, path, RankTable::default())?;
        let expected = self.simulated.plan().round_seconds;
        ensure!(
            self.has_time_for(expected),
            "the first round is expected to take {expected:.1} s, which is more than --until allows"
        );
        let (mut rounds, mut looks): (Vec<Round>, Vec<Look>) = (Vec::new(), Vec::new());
        let start = self.score(&global)?;
        let mask = self.file("mask");
        self.past.mask(&self.job, global.named(), mask.clone())?;
        for number in 1..=self.job.spec.rounds.count {
            let (next, round) = self.round(number, &global)?;
            self.replace(&mut global, next)?;
            self.past.mask(&self.job, global.named(), mask.clone())?;
            let looked = self.look(number);
            // What the next plan predicts, or where there is none what was seen.
            let other = looked.as_ref().and_then(|looked| looked.look.plan.as_ref());
            let seen = round.together.slowest_seconds;
            if !self.has_time_for(other.map_or(seen, |plan| plan.round_seconds)) {
                self.job.spec.rounds.count = number;
            }
            let score = self.score(&global)?;
            let round = Round { score, ..round };
            output::note(round.text());
            rounds.push(round);
            let patience = self.job.course.is_out_of_patience(&self.job.spec.rounds);
            if number >= self.job.spec.rounds.count || patience {
                break;
            }
            looks.extend(looked.map(|looked| self.go_on(looked)));
        }
        let (reference, kept) =
            self.job
                .course
                .conclude(global.round, &global.reference(), &self.job.spec.rounds);
        let best = self.best.take();
        let ended = match best.filter(|best| best.sha256 == reference.sha256) {
            Some(best) => best,
            None => global,
        };
        Ok(Run {
            start,
            rounds,
            looks,
            adapter: self.finish(&ended)?,
            kept,
            seconds: self.clock,
            scoring_seconds: self.scoring,
            real_seconds: real.seconds(),
        })
    }

    /// The next adapter in the place of the last, whose file goes unless it is the best.
    fn replace(&self, global: &mut Global, next: Global) -> anyhow::Result<()> {
        let old = std::mem::replace(global, next);
        let is_best = self.best.as_ref().map(|best| &best.path) == Some(&old.path);
        if !is_best {
            fs::remove_file(&old.path).context("an adapter's file cannot be removed")?;
        }
        Ok(())
    }

    /// The plan, looked at before the round after this one.
    fn look(&mut self, number: u32) -> Option<Looked> {
        if !self.limits.looks {
            return None;
        }
        let rounds = self.recent.make_contiguous();
        again::look(self.simulated, &self.job, rounds, number)
    }

    /// Takes what a look at the plan came to.
    fn go_on(&mut self, looked: Looked) -> Look {
        let Looked {
            look,
            profiles,
            looks,
        } = looked;
        output::note(look.text());
        self.job.looks = looks;
        if let Some(plan) = &look.plan {
            // Whom it uses takes part again, whom it does not is left out.
            self.job
                .lost
                .retain(|lost| !profiles.contains_key(&lost.worker));
            self.job.lost.extend(plan.excluded.iter().cloned());
        }
        self.simulated.go_on(profiles, look.plan.clone());
        look
    }

    /// Whether a round of this length would end in time.
    fn has_time_for(&self, seconds: f64) -> bool {
        let until = self.limits.until.unwrap_or(f64::INFINITY);
        self.clock + seconds <= until
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.safetensors"))
    }

    fn round(&mut self, number: u32, global: &Global) -> anyhow::Result<(Global, Round)> {
        let began_at = self.clock;
        let (mut delivered, mut workers) = (Vec::new(), Vec::new());
        let asked = ask::drawn(&self.job, self.simulated.plan(), number);
        let asked = ask::whom(&self.job, self.simulated.plan(), &asked);
        let Sites {
            all,
            bench,
            round_trip,
        } = &mut *self.sites;
        for site in all.iter().filter(|site| asked.contains(site.name())) {
            let plan = self.simulated.worker(site.name())?;
            let both = (plan, &self.simulated.plan().global);
            let reference = global.reference();
            let past = self.recent.make_contiguous();
            let training = &self.job.spec.training;
            let factor = aggregator::rate_factor(training, number, site.name(), past);
            let own = (site.name(), plan.optimizer);
            let walk = walked::walk(&self.job, own, (number, factor));
            let walk = walk.map(|walk| self.past.told(&self.job, walk));
            let task = tasks::train(
                &self.job,
                site.name(),
                both,
                (number, &reference),
                walk,
                NEVER,
            );
            let mask = self.past.masked();
            let trained = site.train(bench, &task, (&global.path, mask));
            let trained = trained.with_context(|| format!("worker {}", site.name()))?;
            let update = self.folder.join(format!("{}.safetensors", site.name()));
            let mut update = keep(trained, update, site.name(), factor)?;
            let own = (site.name(), number);
            update.slopes = merge::check(self.simulated, own, &update.path)?;
            let link = sites::link(site, *round_trip);
            // Who walks along the same directions as all makes the merged adapter itself, once it has one.
            let replays = training.shares_directions() && number > 1;
            let down = if replays { update.bytes } else { global.bytes };
            let spent = link.spent(update.metrics.compute_seconds, down, update.bytes);
            workers.push(SiteRound::new(site.name(), plan, &update, spent));
            delivered.push(update);
        }
        let together = Together::of(
            workers
                .iter()
                .map(|site| (&site.worker, site.spent.seconds)),
        );
        for site in &mut workers {
            site.wait_seconds = together.slowest_seconds - site.spent.seconds;
        }
        let merging = Stopwatch::start();
        let out = self.file(&format!("round-{number}"));
        let state_out = self.file(&format!("moments-{number}"));
        let files = Files {
            start: global.path.clone(),
            out: out.clone(),
            state: self.moments.take(),
            state_out: state_out.clone(),
        };
        let emphasis = self.past.emphasis(&self.job)?;
        let mut merged = merge::merge((self.simulated, emphasis), number, &delivered, files)?;
        let started = (number, global.reference());
        self.past.keep(&self.job, started, merged.scalars.take());
        self.moments = merged.has_moments.then_some(state_out);
        let merge_seconds = merging.seconds();
        self.clock += together.slowest_seconds + merge_seconds;
        let next = Global::of(number, out, merged.folded.side.clone())?;
        self.remember(&next, &delivered, &merged, began_at)?;
        let round = Round {
            round: number,
            began_at,
            ends_at: self.clock,
            together,
            merge_seconds,
            dropped_energy: merged.folded.dropped_energy,
            shrunk: merged.shrunk,
            global: next.sha256.clone(),
            workers,
            score: None,
        };
        Ok((next, round))
    }

    /// Keeps a merged round as the services would: it is what profiles learn from.
    fn remember(
        &mut self,
        global: &Global,
        delivered: &[Delivered],
        merged: &Merged,
        began_at: f64,
    ) -> anyhow::Result<()> {
        let mut workers = Vec::new();
        for (at, (update, weight)) in delivered.iter().zip(&merged.weights).enumerate() {
            let plan = self.simulated.worker(&update.worker)?;
            workers.push(WorkerRound {
                rate: walked::own_rate(&self.job, update.rate_factor),
                withheld_energy: merged.folded.withheld_energy.get(at).copied(),
                difference: merged.apart.get(at).copied().flatten(),
                ..worker_round(update, *weight, plan)
            });
        }
        let computing = workers.iter().map(|own| own.metrics.compute_seconds);
        let seconds = self.clock - began_at;
        let summary = Summary {
            round: global.round,
            global: global.reference(),
            side: global.side.clone(),
            scalars: None,
            optimizer: None,
            opened_at: at(began_at),
            committed_at: at(self.clock),
            seconds,
            overhead_seconds: seconds - computing.fold(0.0, f64::max),
            dropped_energy: merged.folded.dropped_energy,
            energies: EnergyTable::default(),
            asked: Vec::new(),
            shrunk: merged.shrunk.clone(),
            workers,
            missing: Vec::new(),
        };
        let trained = &self.simulated.plan().global;
        self.recent.push_back(summary.with_mean_energies(trained));
        if self.recent.len() > drift::RECENT as usize {
            self.recent.pop_front();
        }
        Ok(())
    }

    /// The fleet's score of a merged adapter, if the job asks for it after this round.
    fn score(&mut self, global: &Global) -> anyhow::Result<Option<Scored>> {
        let round = global.round;
        if !follow::is_scored(&self.job, round) {
            return Ok(None);
        }
        let (mut sum, mut slowest) = (Score::default(), 0.0f64);
        let Sites { all, bench, .. } = &mut *self.sites;
        for site in all.iter() {
            let Some(plan) = self.simulated.plan().workers.get(site.name()) else {
                continue;
            };
            let reference = global.reference();
            let task = tasks::evaluate(
                &self.job,
                site.name(),
                plan,
                (round, &reference),
                None,
                NEVER,
            );
            let score = site.score(bench, &task, &global.path);
            let score = score.with_context(|| format!("worker {}", site.name()))?;
            slowest = slowest.max(score.seconds);
            sum.add(&score);
        }
        self.scoring += slowest;
        self.compare(&sum, global);
        Ok(Some(Scored {
            complete: follow::is_complete(&self.job, round),
            records: sum.records,
            loss: sum.loss(),
            balanced_accuracy: sum.balanced_accuracy(),
            figure: (self.job.spec.measure())
                .and_then(|measure| Figure::of(&sum, measure))
                .filter(|figure| !figure.measure.is_told_apart()),
            seconds: slowest,
        }))
    }

    /// Notes a score in the job's course, as the aggregator does, and keeps the best adapter.
    fn compare(&mut self, score: &Score, global: &Global) {
        let measure = self.job.spec.measure();
        let Some(figure) = measure.and_then(|measure| Figure::of(score, measure)) else {
            return;
        };
        let scored = Compared {
            round: global.round,
            global: global.reference(),
            figure,
            sites: self.job.active().cloned().collect(),
        };
        self.job.course = self.job.course.after(scored, &self.job.spec.rounds);
        let best = self.job.course.best.as_ref().map(|best| best.round);
        if best == Some(global.round) {
            let old = self.best.replace(global.clone());
            if let Some(old) = old
                && let Err(error) = fs::remove_file(&old.path)
            {
                tracing::warn!(%error, "an adapter's file remains");
            }
        }
    }

    /// The result, in the folder that was asked for.
    fn finish(&self, global: &Global) -> anyhow::Result<Adapter> {
        let (path, encoder) = merge::published(&self.job, &global.path, self.file("adapter"))?;
        let global = Global::of(global.round, path, global.side.clone())?;
        if let Some(out) = self.limits.out {
            let write = || -> anyhow::Result<()> {
                fs::create_dir_all(out)?;
                fs::copy(&global.path, out.join("adapter_model.safetensors"))?;
                let config = peft_config(&self.job, self.simulated.plan(), &global.side, encoder);
                let text = serde_json::to_string_pretty(&config)?;
                fs::write(out.join("adapter_config.json"), text + "\n")?;
                labels::keep(out, &self.job.spec.training.labels)
            };
            write().with_context(|| format!("cannot write into {}", out.display()))?;
        }
        Ok(Adapter {
            sha256: global.sha256,
            bytes: global.bytes,
        })
    }
}

impl Global {
    fn of(round: u32, path: PathBuf, side: RankTable) -> anyhow::Result<Self> {
        let (sha256, bytes) = (archive::digest(&path)?, fs::metadata(&path)?.len());
        Ok(Self {
            round,
            path,
            side,
            sha256,
            bytes,
        })
    }

    /// With its round and its file.
    fn named(&self) -> (u32, ArtifactRef, &Path) {
        (self.round, self.reference(), &self.path)
    }

    /// As tasks name it; nobody fetches it.
    fn reference(&self) -> ArtifactRef {
        ArtifactRef {
            key: String::new(),
            sha256: self.sha256.clone(),
            bytes: self.bytes,
        }
    }
}

/// A site's part in a round's summary.
fn worker_round(update: &Delivered, weight: f64, plan: &WorkerPlan) -> WorkerRound {
    WorkerRound {
        worker: update.worker.clone(),
        rank: plan.ranks.max(),
        batch: plan.batch,
        weight,
        withheld_energy: None,
        trained_in: None,
        rate: None,
        difference: None,
        update: update.reference(),
        metrics: again::own(&update.metrics, plan),
    }
}

/// A time of the virtual clock; it begins with the first round.
fn at(seconds: f64) -> UnixMillis {
    // Saturates beyond 500 million years.
    UnixMillis((1000.0 * seconds) as u64)
}

/// An update as a file, as the aggregator would have it.
fn keep(
    trained: Trained,
    path: PathBuf,
    worker: &WorkerName,
    rate_factor: f64,
) -> anyhow::Result<Delivered> {
    fs::write(&path, &trained.update).context("an update cannot be written")?;
    Ok(Delivered {
        worker: worker.clone(),
        sha256: archive::digest(&path)?,
        bytes: trained.sent_bytes,
        metrics: trained.metrics,
        passes: trained.passes,
        slopes: None,
        path,
        rate_factor,
    })
}
