//! `fedpipe bench plan`: how long the planner takes and how much memory, by the size of the fleet.
//!
//! The fleets are not measured ones: their profiles follow from a seed (`planner::allocate::synthetic`), so
//! that sizes can be planned which no machine here could play.

use anyhow::{Context, bail};
use chassis::clock::Stopwatch;
use chassis::memory;
use clap::{Args as Arguments, ValueEnum};
use domain::id::JobId;
use domain::job::Spec;
use domain::job::planner::Solver;
use domain::plan::Plan;
use planner::allocate::{Request, allocate, synthetic};
use serde::Serialize;
use serde_json::json;

use super::bench_validate::Validation;
use super::source::Source;
use crate::output;

/// The largest fleet that is tried.
const WORKERS: usize = 100_000;

/// Flags of `fedpipe bench plan`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe bench plan --workers 10,100,1000,10000 --json
  fedpipe bench plan --workers 4 --solver exact
  fedpipe bench plan --validate --model model.gguf --json

The fleets are drawn from a seed, 210 weights as SmolLM2-135M has them, eight modes and up to sixteen batches for
each worker. Seconds are of one plan, linted and explained. Peak memory is heap: the profiles, which are there
before, and what planning adds. The last line plans one worker exactly as well, and compares.

With --validate nothing is planned: 17 configurations (bases, recomputed activations, zeroth-order, ranks 4 to 32, 1
to 8 rows) are predicted from a probe, measured, and compared. Beside each, the largest probed step is made again:
its seconds now over what the model says of it are the machine's pace, and far from 1 on a machine that is not quiet.
It fails where a step's time is off by more than 15 %, or a peak by more than 10 %, or where the probes reached fewer
than 12 of the configurations. Leave the machine alone meanwhile.")]
pub struct Args {
    /// Sizes of the fleets
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "10,100,1000"
    )]
    workers: Vec<usize>,
    /// What solves the programs
    #[arg(long, value_enum, default_value = "auto")]
    solver: SolverName,
    /// Seed of the fleets
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Highest rank of a weight
    #[arg(long, value_name = "R", default_value_t = 32)]
    rank_max: u16,
    /// Instead: probe and fit this machine, then measure configurations of --model beside what is predicted
    #[arg(long, requires = "model")]
    validate: bool,
    /// GGUF file or Hugging Face folder, for --validate
    #[arg(long, value_name = "DIR|FILE", requires = "validate")]
    model: Option<Source>,
    /// Tokens of the longest rows that are validated; the others have a half and a quarter of them
    #[arg(long, value_name = "L", default_value_t = 512, requires = "validate")]
    longest: u32,
    /// Compute threads, for --validate; 0: all
    #[arg(long, value_name = "N", default_value_t = 0, requires = "validate")]
    threads: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Solvers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SolverName {
    /// Exact for small programs, fast for all others
    Auto,
    /// Branch and bound
    Exact,
    /// By marginal gain per parameter
    Fast,
}

/// What planning a fleet took.
#[derive(Debug, Serialize)]
struct Row {
    workers: usize,
    planned: usize,
    seconds: f64,
    peak_mib: f64,
    profiles_mib: f64,
    round_seconds: f64,
    solver: Option<Solver>,
}

impl Args {
    /// Measures.
    pub fn run(self) -> anyhow::Result<()> {
        if let Some(model) = self.model.clone().filter(|_| self.validate) {
            return Validation {
                model,
                longest: self.longest,
                threads: self.threads,
                json: self.json,
            }
            .run();
        }
        if self.workers.is_empty() || self.workers.len() > 16 {
            bail!("--workers takes 1 to 16 sizes");
        }
        if let Some(size) = self
            .workers
            .iter()
            .find(|size| !(1..=WORKERS).contains(*size))
        {
            bail!("--workers: {size} is not a size from 1 to {WORKERS}");
        }
        let solver = match self.solver {
            SolverName::Auto => Solver::Auto,
            SolverName::Exact => Solver::Exact,
            SolverName::Fast => Solver::Fast,
        };
        let sizes = self.workers.iter().map(|size| self.row(*size, solver));
        let rows: Vec<Row> = sizes.collect::<anyhow::Result<_>>()?;
        let [exact, fast] = [Solver::Exact, Solver::Fast].map(|solver| self.plan(1, solver));
        let (exact, fast) = (exact?, fast?);
        let worth = |made: &Made| {
            made.plan
                .basis
                .as_ref()
                .map_or(0.0, |b| b.expected_decrease)
        };
        let share = worth(&fast) / worth(&exact);
        let proven = exact.plan.basis.as_ref().is_some_and(|basis| basis.proven);
        if self.json {
            return output::json(&json!({
                "what": "plan",
                "seed": self.seed,
                "rank_max": self.rank_max,
                "sizes": rows,
                "one_worker": {
                    "exact_seconds": exact.seconds,
                    "exact_proven": proven,
                    "fast_seconds": fast.seconds,
                    "fast_share_of_exact": share,
                },
            }));
        }
        output::line(table(&rows))?;
        output::line(format!(
            "one worker: exact {:.3} s ({}), fast {:.4} s, worth {:.4} of it",
            exact.seconds,
            if proven { "proven" } else { "not proven" },
            fast.seconds,
            share,
        ))
    }

    fn row(&self, workers: usize, solver: Solver) -> anyhow::Result<Row> {
        let made = self.plan(workers, solver)?;
        Ok(Row {
            workers,
            planned: made.plan.workers.len(),
            seconds: made.seconds,
            peak_mib: made.peak_mib,
            profiles_mib: made.profiles_mib,
            round_seconds: made.plan.round_seconds,
            solver: made.plan.basis.map(|basis| basis.solver),
        })
    }

    fn plan(&self, workers: usize, solver: Solver) -> anyhow::Result<Made> {
        let spec: Spec = serde_json::from_value(json!({
            "name": "bench",
            "model": { "source": "file:///synthetic" },
            "data": { "dataset": "synthetic" },
            "adapter": { "rank_max": self.rank_max },
            "planner": { "solver": solver },
        }))?;
        if let Err(refusals) = spec.check() {
            let first = refusals.first().context("refused without a reason")?;
            bail!("{first}");
        }
        let profiles = synthetic::fleet(workers, self.rank_max, self.seed);
        let job = JobId::from_bits(self.seed);
        let request = Request {
            job: &job,
            spec: &spec,
            profiles: &profiles,
            parent: None,
            least_sites: 1,
        };
        let profiles_mib = mib(memory::current_bytes());
        memory::reset_peak();
        let clock = Stopwatch::start();
        let plan = allocate(&request);
        let seconds = clock.seconds();
        let peak_mib = mib(memory::peak_bytes());
        let plan = plan.map_err(|cause| anyhow::anyhow!(cause.message))?;
        Ok(Made {
            plan,
            seconds,
            peak_mib,
            profiles_mib,
        })
    }
}

struct Made {
    plan: Plan,
    seconds: f64,
    peak_mib: f64,
    profiles_mib: f64,
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn table(rows: &[Row]) -> String {
    let heading = [
        "workers",
        "planned",
        "seconds",
        "peak MiB",
        "profiles MiB",
        "solver",
    ];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| {
        vec![
            row.workers.to_string(),
            row.planned.to_string(),
            format!("{:.3}", row.seconds),
            format!("{:.0}", row.peak_mib),
            format!("{:.0}", row.profiles_mib),
            match row.solver {
                Some(Solver::Exact) => "exact".to_owned(),
                _ => "fast".to_owned(),
            },
        ]
    }));
    output::table(&cells)
}
