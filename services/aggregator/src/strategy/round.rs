//! One round's merge from files to files: what the service, the simulation and the benchmark do alike.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use artifacts::tensors::TensorFile;
use domain::adapter::{RankTable, WeightShape};
use domain::id::WorkerName;
use domain::job::Aggregation;
use domain::plan::Plan;

use super::files::{self, Closed, Later};
use super::head;
use super::merge::{Folded, Input, Merge, Server};
use super::share::Share;
use super::source::{Below, Sink};
use crate::Error;

/// One update that counts.
#[derive(Debug, Clone)]
pub struct Member {
    /// Whose.
    pub worker: WorkerName,
    /// What its plan had it train.
    pub ranks: RankTable,
    /// What it weighs.
    pub share: Share,
    /// The update's file, checked before.
    pub update: PathBuf,
    /// The merged adapter that it started from, if that is an earlier one than the others'.
    pub started: Option<PathBuf>,
}

/// One round's merge.
#[derive(Debug, Clone)]
pub struct Round {
    /// The rule and the server's optimizer.
    pub aggregation: Aggregation,
    /// Counted from 1.
    pub round: u32,
    /// The merged adapter that the workers started from.
    pub start: PathBuf,
    /// The optimizer's moments after the round before, if there are any.
    pub state: Option<PathBuf>,
    /// The updates, in the order that was decided.
    pub members: Vec<Member>,
    /// The model's weights.
    pub weights: Vec<WeightShape>,
    /// Live slices of the merged adapter.
    pub ranks: RankTable,
    /// What the plan's sites train, in this round or not, each table once (see [`tables`]).
    pub tables: Vec<RankTable>,
    /// The job's one scale.
    pub scale: f64,
    /// The job's seed.
    pub seed: u64,
    /// Where the merged adapter goes.
    pub out: PathBuf,
    /// Where the optimizer's moments go, if it has any.
    pub state_out: PathBuf,
    /// Threads that merge at most.
    pub threads: NonZeroUsize,
}

/// As many threads as this process may use.
#[must_use]
pub fn all_threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// The tables of a plan's sites, each once, in the order of the sites.
#[must_use]
pub fn tables(plan: &Plan) -> Vec<RankTable> {
    let mut found: Vec<RankTable> = Vec::new();
    for own in plan.workers.values() {
        if !found.contains(&own.ranks) {
            found.push(own.ranks.clone());
        }
    }
    found
}

impl Round {
    /// Whether the merge leaves moments in `state_out`.
    #[must_use]
    pub const fn has_state(&self) -> bool {
        self.aggregation.optimizer.kind.has_state()
    }

    /// Merges.
    ///
    /// # Errors
    /// If a file cannot be read or written, or the merge is refused.
    pub fn merge(&self) -> Result<Folded, Error> {
        let global = TensorFile::open(&self.start)?;
        let mut updates: Vec<Closed> = Vec::with_capacity(self.members.len());
        for member in &self.members {
            // Sites of the same ranks have the same header, wherever they stand in the order.
            let alike = |(other, _): &(&Member, &Closed)| other.ranks == member.ranks;
            let like = self.members.iter().zip(&updates).find(alike);
            let update = Closed::open(&member.update, like.map(|(_, file)| file))?;
            updates.push(update);
        }
        let started = self.members.iter().map(|member| {
            let path = member.started.as_deref();
            path.map(TensorFile::open).transpose()
        });
        let started: Vec<Option<TensorFile>> = started.collect::<Result<_, _>>()?;
        let parts = self.members.iter().zip(&updates).zip(&started);
        let inputs: Vec<Input<'_>> = parts
            .map(|((member, update), started)| Input {
                worker: &member.worker,
                weight: member.share.weight,
                stretch: member.share.stretch,
                added: member.share.added,
                ranks: &member.ranks,
                update,
                start: started.as_ref().map(|file| file as &dyn super::Source),
            })
            .collect();
        let state = self.state.as_deref().map(TensorFile::open).transpose()?;
        let optimizer = &self.aggregation.optimizer;
        let server = self.has_state().then(|| Server {
            optimizer,
            state: state.as_ref().map(|state| state as &dyn super::Source),
        });
        let merge = Merge {
            rule: self.aggregation.strategy,
            inputs: &inputs,
            global: &global,
            ranks: &self.ranks,
            tables: &self.tables,
            scale: self.scale,
            seed: self.seed,
            round: self.round,
            server,
            threads: self.threads,
        };
        self.write(&merge)
    }

    fn write(&self, merge: &Merge<'_>) -> Result<Folded, Error> {
        let refused = |source| Error::Merge {
            round: self.round,
            source,
        };
        let mut state = None;
        if self.has_state() {
            state = Some(files::create_state(
                &self.state_out,
                &self.ranks,
                &self.weights,
                merge.rule,
                self.aggregation.optimizer.kind,
            )?);
        }
        let moments = state.as_mut().map(|state| state as &mut dyn Sink);
        let folded = if merge.rule.has_side_term() {
            let mut out = Later::create(&self.out).map_err(|e| self.unwritten(e))?;
            let folded = merge.fold(&mut out, moments).map_err(refused)?;
            out.finish().map_err(|e| self.unwritten(e))?;
            folded
        } else {
            let head = head::shape(merge.global);
            let mut out = files::create_with_head(&self.out, &self.ranks, &self.weights, head)?;
            let folded = merge.fold(&mut out, moments).map_err(refused)?;
            out.finish()?;
            folded
        };
        if let Some(state) = state {
            state.finish()?;
        }
        Ok(folded)
    }

    fn unwritten(&self, source: Below) -> Error {
        Error::Unwritten {
            path: self.out.display().to_string(),
            source,
        }
    }
}
