//! `fedpipe bench plan --validate`: what cost models predict beside what is then measured.
//!
//! For each length of rows and each base a site in this process is probed and fitted exactly as for a job.
//! Then configurations that no probe made are measured, each a round as a worker makes it, and compared. Beside each the
//! largest probed step of its mode is made again: a machine whose equal steps differ says so.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use contract::message::task::{Head, ModelRef, Probe};
use domain::adapter::{Projection, RankTable};
use domain::id::{Epoch, JobId};
use domain::job::choice::Choice;
use domain::job::spec::{Base, Compute, Importance, Optimizer, Training};
use domain::profile::{ModeProfile, Profile, Sample};
use domain::time::UnixMillis;
use serde::Serialize;
use serde_json::json;
use worker::{Link, Local, Workbench};

use super::source::Source;
use crate::output;

/// How far step times and peaks may be off, as a share.
const TIME_GOAL: f64 = 0.15;
const MEMORY_GOAL: f64 = 0.10;

/// Fewer configurations than this show nothing of the cost model.
const LEAST: usize = 12;

/// Ranks go up to this one.
const RANK_MAX: u16 = 32;

/// Records of the made-up data set: more than any step draws, so that none is drawn twice.
const RECORDS: usize = 256;

/// One configuration.
#[derive(Debug, Clone, Copy)]
struct Case {
    base: Base,
    optimizer: Optimizer,
    checkpoint: bool,
    rank: u16,
    batch: u16,
    sequence: u32,
}

/// What became of it.
#[derive(Debug, Serialize)]
struct Row {
    base: Base,
    kernel: String,
    optimizer: Optimizer,
    checkpoint: bool,
    rank: u16,
    batch: u16,
    sequence_length: u32,
    /// Its tokens as a multiple of the largest step that the probe made in this mode.
    beyond_probed: f64,
    predicted_seconds: f64,
    measured_seconds: f64,
    /// `predicted / measured - 1`.
    time_error: f64,
    /// Seconds of the largest probed step of this mode, made again beside the case, over what the model says of that step:
    /// how the machine itself changed since the probe. A probed step that was disturbed is in no model, and not in this.
    pace: f64,
    predicted_mib: f64,
    measured_mib: f64,
    memory_error: f64,
}

impl Row {
    /// Whether time and peak are as near as promised; a figure that is no number is not.
    fn meets_goals(&self) -> bool {
        self.time_error.abs() <= TIME_GOAL && self.memory_error.abs() <= MEMORY_GOAL
    }
}

/// Rows of at most `longest` tokens; the other lengths are halves of it and quarters.
fn cases(longest: u32) -> Vec<Case> {
    let (half, quarter) = (longest / 2, longest / 4);
    let case = |base, (optimizer, checkpoint), (rank, batch), sequence| Case {
        base,
        optimizer,
        checkpoint,
        rank,
        batch,
        sequence,
    };
    let plain = (Optimizer::Adamw, false);
    let again = (Optimizer::Adamw, true);
    let zeroth = (Optimizer::Mezo, false);
    let source = Base::Source;
    vec![
        case(source, plain, (4, 1), quarter),
        case(source, plain, (16, 4), quarter),
        case(source, plain, (32, 8), quarter),
        case(source, again, (8, 8), quarter),
        case(source, zeroth, (16, 8), quarter),
        case(source, plain, (8, 2), half),
        case(source, plain, (32, 4), half),
        case(source, again, (16, 8), half),
        case(source, zeroth, (16, 4), half),
        case(source, plain, (16, 2), longest),
        case(source, again, (8, 4), longest),
        case(source, zeroth, (4, 1), longest),
        case(Base::F32, plain, (16, 4), quarter),
        case(Base::Bf16, plain, (8, 8), quarter),
        case(Base::Int8, again, (16, 4), quarter),
        case(Base::Nf4, plain, (16, 4), quarter),
        case(Base::Nf4, again, (32, 8), quarter),
    ]
}

/// What is validated.
pub struct Validation {
    /// The model.
    pub model: Source,
    /// Tokens of the longest rows.
    pub longest: u32,
    /// Compute threads; 0: all that this process may use.
    pub threads: u16,
    /// Print JSON.
    pub json: bool,
}

impl Validation {
    /// Probes, fits, measures, prints.
    ///
    /// # Errors
    ///
    /// Fails if a figure is further off than promised, or if too few configurations could be measured to tell.
    pub fn run(&self) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let site = self.site(folder.path())?;
        let mut bench = Workbench::new(None)?;
        let mut profiles: BTreeMap<(Base, u32), Profile> = BTreeMap::new();
        let mut rows = Vec::new();
        let asked = cases(self.longest);
        for case in asked.iter().copied() {
            let probe = self.probe(case)?;
            let key = (case.base, case.sequence);
            if let Entry::Vacant(unknown) = profiles.entry(key) {
                output::note(format!(
                    "probing {:?} with rows of {}",
                    case.base, case.sequence
                ));
                let measured = site.measure(&mut bench, &probe, Link::default())?;
                let profile = profiler::fit::profile(site.name().clone(), measured)?;
                unknown.insert(profile);
            }
            let profile = profiles.get(&key).context("it was just made")?;
            match compare(&site, &mut bench, &probe, case, profile)? {
                Some(row) => rows.push(row),
                None => output::note(format!(
                    "{case:?} was not measured by the probe, within its budget"
                )),
            }
        }
        self.tell(&rows, asked.len())?;
        verdict(&rows, asked.len())
    }

    fn tell(&self, rows: &[Row], asked: usize) -> anyhow::Result<()> {
        let worst =
            |error: fn(&Row) -> f64| rows.iter().map(|row| error(row).abs()).fold(0.0, f64::max);
        let (time, memory) = (worst(|row| row.time_error), worst(|row| row.memory_error));
        if self.json {
            return output::json(&json!({
                "what": "plan",
                "asked": asked,
                "validated": rows,
                "worst_time_error": time,
                "worst_memory_error": memory,
                "time_goal": TIME_GOAL,
                "memory_goal": MEMORY_GOAL,
            }));
        }
        output::line(table(rows))?;
        output::line(format!(
            "{} of {asked} configurations; worst: time {:.1} % (goal {:.0} %), memory {:.1} % (goal {:.0} %)",
            rows.len(),
            100.0 * time,
            100.0 * TIME_GOAL,
            100.0 * memory,
            100.0 * MEMORY_GOAL
        ))
    }

    /// A site beside texts that are longer than any row.
    fn site(&self, folder: &Path) -> anyhow::Result<Local> {
        let train = folder.join("texts.jsonl");
        std::fs::write(&train, texts(self.longest))?;
        let config = json!({
            "name": "bench",
            "state_dir": folder.join("state"),
            "threads": self.threads,
            "datasets": { "texts": { "train": train } },
        });
        let config: worker::Config = serde_json::from_value(config)?;
        let model = self.model.path()?.canonicalize();
        let model = model.with_context(|| format!("there is no model at {}", self.model))?;
        Ok(Local::open(config, model)?)
    }

    fn probe(&self, case: Case) -> anyhow::Result<Probe> {
        Ok(Probe {
            head: Head {
                worker: "bench".parse()?,
                job: JobId::from_bits(1),
                epoch: Epoch(1),
                submitter: "bench".parse()?,
                model: ModelRef::Path(self.model.path()?.display().to_string()),
                dataset: "texts".parse()?,
                expires_at: UnixMillis(u64::MAX),
            },
            targets: Projection::ALL.to_vec(),
            rank_max: RANK_MAX,
            training: Training {
                batch: Choice::Auto,
                sequence_length: case.sequence,
                ..Training::default()
            },
            base: case.base,
            compute: Compute::Auto,
            importance: Importance::Uniform,
            choices: Vec::new(),
            prefix: String::new(),
        })
    }
}

/// Whether what was measured of the configurations that were asked for shows that predictions hold.
fn verdict(rows: &[Row], asked: usize) -> anyhow::Result<()> {
    let measured = rows.len();
    if measured < LEAST {
        bail!(
            "only {measured} of {asked} configurations were measured, fewer than the {LEAST} that show anything: the probes' time or \
             memory ended before they reached the others' modes. Next: leave the machine alone meanwhile and free memory, or take \
             shorter rows (--longest 256)"
        );
    }
    match rows.iter().filter(|row| !row.meets_goals()).count() {
        0 => Ok(()),
        beyond => bail!("{beyond} of {measured} configurations are further off than the goal"),
    }
}

/// What a case is predicted and measured to take; `None` if the probe has not measured its mode.
fn compare(
    site: &Local,
    bench: &mut Workbench,
    probe: &Probe,
    case: Case,
    profile: &Profile,
) -> anyhow::Result<Option<Row>> {
    let Some(mode) = mode(profile, case) else {
        return Ok(None);
    };
    let measured = &profile.measurement;
    let probed = measured.mode(&mode.mode).map(|mode| &mode.samples);
    let reference = probed.and_then(|all| all.iter().max_by(|a, b| larger(a, b)));
    let reference = reference.context("a fitted mode was probed")?;
    let single =
        RankTable::uniform(&probe.targets, measured.layers, 1).parameters(&measured.weights);
    let rank = u16::try_from(reference.parameters / single.max(1))?.max(1);
    let round = |size| site.round(&mut *bench, probe, &mode.mode, size);
    let (again, sample) = beside(round, (reference.batch, rank), (case.batch, case.rank))?;
    let as_modelled =
        mode.cost
            .step_seconds(f64::from(again.tokens), again.squares, again.parameters);
    let pace = again.step_seconds / as_modelled;
    let ranks = RankTable::uniform(&probe.targets, measured.layers, case.rank);
    let parameters = ranks.parameters(&measured.weights);
    let (batch, mean) = (f64::from(case.batch), measured.mean_tokens);
    let tokens = batch * mean.min(f64::from(case.sequence));
    let squares = batch * measured.mean_squares();
    let predicted_seconds = mode.cost.step_seconds(tokens, squares, parameters);
    let longest = batch * f64::from(case.sequence);
    let predicted = mode.cost.peak_memory_bytes(longest, parameters);
    let peak = sample.peak_memory_bytes as f64;
    Ok(Some(Row {
        base: case.base,
        kernel: mode.mode.kernel.clone(),
        optimizer: case.optimizer,
        checkpoint: case.checkpoint,
        rank: case.rank,
        batch: case.batch,
        sequence_length: case.sequence,
        beyond_probed: longest / reference.peak_tokens(),
        predicted_seconds,
        measured_seconds: sample.step_seconds,
        time_error: predicted_seconds / sample.step_seconds - 1.0,
        pace,
        predicted_mib: mib(predicted),
        measured_mib: mib(peak),
        memory_error: predicted / peak - 1.0,
    }))
}

/// The order of steps by their tokens.
fn larger(one: &Sample, other: &Sample) -> Ordering {
    one.peak_tokens().total_cmp(&other.peak_tokens())
}

/// Rounds of both sizes in turn, three of each, so that a change of the machine's pace meets both; of each the middle.
fn beside<E>(
    mut round: impl FnMut((u16, u16)) -> Result<Sample, E>,
    reference: (u16, u16),
    case: (u16, u16),
) -> Result<(Sample, Sample), E> {
    let mut turn = || Ok((round(reference)?, round(case)?));
    let [first, second, third] = [turn()?, turn()?, turn()?];
    Ok((
        middle([first.0, second.0, third.0]),
        middle([first.1, second.1, third.1]),
    ))
}

/// The round in the middle, by time, with the largest peak of them.
fn middle(mut rounds: [Sample; 3]) -> Sample {
    rounds.sort_by(|one, other| one.step_seconds.total_cmp(&other.step_seconds));
    let peak = rounds.iter().map(|round| round.peak_memory_bytes).max();
    let [_, middle, _] = rounds;
    Sample {
        peak_memory_bytes: peak.unwrap_or(middle.peak_memory_bytes),
        ..middle
    }
}

/// The probed mode of a case; its kernel is whatever the probe found.
fn mode(profile: &Profile, case: Case) -> Option<&ModeProfile> {
    profile.modes.iter().find(|fitted| {
        let mode = &fitted.mode;
        mode.base == case.base
            && mode.optimizer == case.optimizer
            && mode.checkpoint == case.checkpoint
    })
}

/// Lines of common words, each more of them than a row has tokens.
fn texts(longest: u32) -> String {
    const WORDS: [&str; 16] = [
        "time", "people", "way", "day", "thing", "world", "life", "hand", "part", "place", "case",
        "week", "group", "number", "point", "night",
    ];
    let mut text = String::new();
    for record in 0..RECORDS {
        let words = (0..longest as usize + 16).map(|place| {
            let index = (place * place + 7 * record + place / 3) % WORDS.len();
            WORDS.get(index).copied().unwrap_or_default()
        });
        let words: Vec<&str> = words.collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", json!({ "text": words.join(" ") }));
    }
    text
}

fn mib(bytes: f64) -> f64 {
    bytes / 1_048_576.0
}

fn table(rows: &[Row]) -> String {
    let heading = [
        "base",
        "how",
        "rank",
        "batch",
        "tokens",
        "of probed",
        "step s",
        "measured",
        "off",
        "pace",
        "peak MiB",
        "measured",
        "off",
    ];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| {
        let how = match (row.optimizer, row.checkpoint) {
            (Optimizer::Mezo, _) => "zeroth-order",
            (_, true) => "recomputed",
            (_, false) => "first-order",
        };
        vec![
            format!("{:?}", row.base).to_lowercase(),
            how.to_owned(),
            row.rank.to_string(),
            row.batch.to_string(),
            row.sequence_length.to_string(),
            format!("{:.1}", row.beyond_probed),
            format!("{:.3}", row.predicted_seconds),
            format!("{:.3}", row.measured_seconds),
            format!("{:+.1} %", 100.0 * row.time_error),
            format!("{:.2}", row.pace),
            format!("{:.0}", row.predicted_mib),
            format!("{:.0}", row.measured_mib),
            format!("{:+.1} %", 100.0 * row.memory_error),
        ]
    }));
    output::table(&cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration that was predicted that far off.
    fn row(time_error: f64, memory_error: f64) -> Row {
        Row {
            base: Base::Source,
            kernel: "portable".to_owned(),
            optimizer: Optimizer::Adamw,
            checkpoint: false,
            rank: 4,
            batch: 2,
            sequence_length: 128,
            beyond_probed: 1.0,
            predicted_seconds: 1.0,
            measured_seconds: 1.0,
            time_error,
            pace: 1.0,
            predicted_mib: 100.0,
            measured_mib: 100.0,
            memory_error,
        }
    }

    fn rows(count: usize) -> Vec<Row> {
        (0..count).map(|_| row(-0.15, 0.1)).collect()
    }

    #[test]
    fn predictions_as_near_as_promised_pass() {
        verdict(&rows(LEAST), 17).unwrap();
    }

    #[test]
    fn too_few_configurations_show_nothing_however_near_they_are() {
        for count in [0, LEAST - 1] {
            let refused = verdict(&rows(count), 17).unwrap_err().to_string();
            let begins = format!("only {count} of 17");
            assert!(refused.starts_with(&begins), "{refused}");
            assert!(refused.contains("Next: "), "{refused}");
        }
    }

    #[test]
    fn one_that_is_further_off_or_no_number_fails_all() {
        for off in [row(0.16, 0.0), row(0.0, -0.11), row(f64::NAN, 0.0)] {
            let mut found = rows(LEAST);
            found.push(off);
            let refused = verdict(&found, 17).unwrap_err().to_string();
            assert!(refused.starts_with("1 of 13"), "{refused}");
        }
    }

    #[test]
    fn enough_configurations_are_tried_that_some_may_be_left_out() {
        assert!(cases(512).len() > LEAST);
    }
}
