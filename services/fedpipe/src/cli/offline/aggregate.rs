//! `fedpipe bench aggregate`: every merging rule on updates that are made up: its error against the dense
//! formula, its speed and its memory.
//!
//! Each rule merges in a process of its own, so that its peak is its own.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

use aggregator::strategy::{Member, Round, Share, compare};
use anyhow::{Context, bail};
use chassis::clock::Stopwatch;
use clap::Args as Arguments;
use domain::adapter::{Projection, RankTable, WeightName, WeightShape};
use domain::job::aggregation::Trains;
use domain::job::{Aggregation, Strategy};
use engine::model::Model;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::made::Made;
use crate::cli::source::Source;
use crate::output;

/// Flags of `fedpipe bench aggregate`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe bench aggregate --workers 8 --ranks 4,8,16 --model model.gguf --json
  fedpipe bench aggregate --workers 512 --ranks 16 --model model.gguf --rules product,slice

Workers take the ranks in turn; rules that cannot merge uneven ranks get the largest. An update is what its
worker loaded plus a part that all share and a part of its own. error is ‖ΔW_agg − ΔW*‖/‖ΔW*‖ over the
weights of --blocks blocks, bytes_per_second those of the updates read, peak_mib the resident memory of
the process that merged.")]
pub struct Args {
    /// GGUF file, Hugging Face folder, or hf://… whose weights are merged; its own values are not read
    #[arg(long, value_name = "DIR|FILE|hf://…")]
    model: Source,
    /// Updates
    #[arg(long, value_name = "N", default_value_t = 8)]
    workers: usize,
    /// Ranks that the workers take in turn
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "4,8,16"
    )]
    ranks: Vec<u16>,
    /// Rules; otherwise all
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = rule)]
    rules: Vec<Strategy>,
    /// Threads that merge
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroUsize,
    /// Files that differ; updates beyond share them, so that it is not the disk that is measured
    #[arg(long, value_name = "N", default_value_t = 32)]
    distinct: usize,
    /// Blocks whose weights the error is taken over
    #[arg(long, value_name = "N", default_value_t = 2)]
    blocks: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Merge by this rule in this folder and print what it took
    #[arg(long, value_name = "RULE", hide = true, value_parser = rule, requires = "folder")]
    child: Option<Strategy>,
    /// Where the files are
    #[arg(long, value_name = "DIR", hide = true)]
    folder: Option<PathBuf>,
}

fn rule(text: &str) -> Result<Strategy, String> {
    let found = Strategy::ALL.into_iter().find(|rule| rule.name() == text);
    found.ok_or_else(|| {
        let names = Strategy::ALL.map(Strategy::name).join(", ");
        format!("use one of {names}")
    })
}

/// What a child says of its merge.
#[derive(Debug, Serialize, Deserialize)]
struct Took {
    seconds: f64,
    bytes: u64,
    peak_bytes: Option<u64>,
    dropped_energy: f64,
    side_slices: u16,
}

/// The job's scale in the benchmark.
const SCALE: f64 = 2.0;

impl Args {
    /// Measures.
    pub fn run(self) -> anyhow::Result<()> {
        if self.workers == 0 || self.distinct == 0 || !self.ranks.iter().all(|rank| *rank > 0) {
            bail!("--workers, --distinct and --ranks start at 1");
        }
        let weights = self.weights()?;
        if let (Some(rule), Some(folder)) = (self.child, &self.folder) {
            let took = self.merge(rule, &weights, folder)?;
            return output::json(&took);
        }
        let folder = tempfile::tempdir()?;
        let rules = if self.rules.is_empty() {
            Strategy::ALL.to_vec()
        } else {
            self.rules.clone()
        };
        let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
        let mut found = Vec::new();
        for rule in rules {
            self.make(rule, &weights, folder.path())?;
            let took = self.measure(rule, folder.path())?;
            let round = self.round(rule, &weights, folder.path())?;
            let named: Vec<WeightName> = self.compared(&weights);
            let error = compare::error(&round, &named)?;
            let rate = took.bytes as f64 / took.seconds.max(1e-9);
            let peak_mib = took.peak_bytes.map(|bytes| bytes as f64 / 1_048_576.0);
            rows.push(vec![
                rule.name().to_owned(),
                format!("{error:.2e}"),
                format!("{:.2}", took.seconds),
                format!("{:.0}", rate / 1e6),
                peak_mib.map_or_else(|| "?".to_owned(), |peak| format!("{peak:.0}")),
                took.side_slices.to_string(),
            ]);
            found.push(json!({
                "rule": rule.name(),
                "ranks": self.ranks_of(rule),
                "error": error,
                "seconds": took.seconds,
                "bytes": took.bytes,
                "bytes_per_second": rate,
                "peak_mib": peak_mib,
                "dropped_energy": took.dropped_energy,
                "side_slices": took.side_slices,
            }));
        }
        if !self.json {
            return output::line(output::table(&rows));
        }
        output::json(&json!({
            "workers": self.workers,
            "threads": self.threads,
            "distinct": self.distinct.min(self.workers),
            "error_weights": self.compared(&weights).len(),
            "rules": found,
        }))
    }

    fn weights(&self) -> anyhow::Result<Vec<WeightShape>> {
        let inspected = Model::inspect(self.model.path()?);
        let inspected =
            inspected.with_context(|| format!("cannot use the model {}", self.model))?;
        Ok(inspected.config.weights())
    }

    /// The ranks that a rule's workers take in turn.
    fn ranks_of(&self, rule: Strategy) -> Vec<u16> {
        if rule.takes_uneven_ranks() {
            self.ranks.clone()
        } else {
            vec![self.keep()]
        }
    }

    fn keep(&self) -> u16 {
        self.ranks.iter().copied().max().unwrap_or(1)
    }

    /// Weights of the first block, the last, and as many between as were asked for.
    fn compared(&self, weights: &[WeightShape]) -> Vec<WeightName> {
        let layers = layers(weights);
        let wanted = usize::from(self.blocks.clamp(1, layers));
        let step = (usize::from(layers) - 1).max(1).div_ceil(wanted.max(2) - 1);
        let named = weights.iter().map(|weight| weight.name);
        named
            .filter(|name| usize::from(name.layer()).is_multiple_of(step))
            .collect()
    }

    /// Which file an update lies in: those of one rank and one number are the same.
    fn update(&self, rule: Strategy, worker: usize, folder: &Path) -> (u16, PathBuf) {
        let ranks = self.ranks_of(rule);
        let rank = ranks.get(worker % ranks.len()).copied().unwrap_or(1);
        let number = worker % self.distinct;
        let kind = match rule.trains() {
            Trains::Both => "both",
            Trains::B => "b",
        };
        (rank, folder.join(format!("update-{kind}-{rank}-{number}")))
    }

    /// Writes what the rule needs and is not there yet.
    fn make(&self, rule: Strategy, weights: &[WeightShape], folder: &Path) -> anyhow::Result<()> {
        let (ranks, start) = (table(weights, self.keep()), folder.join("start"));
        if !start.exists() {
            Made::start(self.keep()).write(&start, &ranks, weights, Trains::Both)?;
        }
        for worker in 0..self.workers {
            let (rank, path) = self.update(rule, worker, folder);
            if !path.exists() {
                let made =
                    Made::update(self.keep(), (worker % self.distinct) as u64, rule.trains());
                made.write(&path, &table(weights, rank), weights, rule.trains())?;
            }
        }
        Ok(())
    }

    fn round(
        &self,
        rule: Strategy,
        weights: &[WeightShape],
        folder: &Path,
    ) -> anyhow::Result<Round> {
        let mut members = Vec::with_capacity(self.workers);
        for worker in 0..self.workers {
            let (rank, update) = self.update(rule, worker, folder);
            members.push(Member {
                worker: format!("w{worker}").parse()?,
                ranks: table(weights, rank),
                share: Share {
                    weight: 1.0 / self.workers as f64,
                    stretch: 1.0,
                    added: false,
                },
                update,
                started: None,
            });
        }
        Ok(Round {
            aggregation: Aggregation {
                strategy: rule,
                ..Aggregation::default()
            },
            round: 1,
            start: folder.join("start"),
            state: None,
            members,
            weights: weights.to_vec(),
            ranks: table(weights, self.keep()),
            tables: self
                .ranks
                .iter()
                .map(|rank| table(weights, *rank))
                .collect(),
            scale: SCALE,
            seed: 0,
            out: folder.join(format!("merged-{}", rule.name())),
            state_out: folder.join("moments"),
            threads: self.threads,
        })
    }

    /// Merges in this process.
    fn merge(
        &self,
        rule: Strategy,
        weights: &[WeightShape],
        folder: &Path,
    ) -> anyhow::Result<Took> {
        let round = self.round(rule, weights, folder)?;
        let mut bytes = 0;
        for member in &round.members {
            bytes += std::fs::metadata(&member.update)?.len();
        }
        // As the aggregator does when it starts.
        chassis::memory::give_back_large_blocks();
        let watch = Stopwatch::start();
        let folded = round.merge()?;
        Ok(Took {
            seconds: watch.seconds(),
            bytes,
            peak_bytes: peak_bytes(),
            dropped_energy: folded.dropped_energy,
            side_slices: folded.side.max(),
        })
    }

    /// Merges in a process of its own.
    fn measure(&self, rule: Strategy, folder: &Path) -> anyhow::Result<Took> {
        let ranks: Vec<String> = self.ranks.iter().map(u16::to_string).collect();
        let done = Command::new(std::env::current_exe()?)
            .args(["bench", "aggregate", "--child", rule.name(), "--folder"])
            .arg(folder)
            .arg("--model")
            .arg(self.model.path()?)
            .args(["--workers", &self.workers.to_string()])
            .args(["--threads", &self.threads.to_string()])
            .args(["--distinct", &self.distinct.to_string()])
            .args(["--ranks", &ranks.join(",")])
            .output()?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            bail!("merging by {} failed: {}", rule.name(), said.trim());
        }
        Ok(serde_json::from_slice(&done.stdout)?)
    }
}

const HEAD: [&str; 6] = [
    "rule",
    "error",
    "seconds",
    "MB/s",
    "peak MiB",
    "side slices",
];

fn layers(weights: &[WeightShape]) -> u16 {
    let last = weights.iter().map(|weight| weight.name.layer()).max();
    last.map_or(1, |last| last + 1)
}

fn table(weights: &[WeightShape], rank: u16) -> RankTable {
    RankTable::uniform(&Projection::ALL, layers(weights), rank)
}

/// The most that was resident, as the system counted it.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
