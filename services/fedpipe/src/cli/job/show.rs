//! Jobs, plans, rounds and reports as tables.

use domain::plan::Plan;
use serde_json::Value;

use crate::cli::confusion;
use crate::client::view::{Job, Kept, Late};
use crate::output::table;
use crate::units::bytes;
use crate::watch::words;

/// A job in a few lines.
pub fn job(value: &Value) -> anyhow::Result<String> {
    let job: Job = serde_json::from_value(value.clone())?;
    let round = job
        .round
        .map(|round| format!(", round {round} of {}", job.rounds_total))
        .unwrap_or_default();
    let mut lines = vec![format!("{}  {}  {}{round}", job.id, job.name, job.phase)];
    let waiting = job.waiting();
    if !waiting.is_empty() {
        lines.push(waiting);
    }
    if !job.asked.is_empty() {
        lines.push(format!("the round asks {}", job.asked.join(", ")));
    }
    for late in &job.late {
        let Late { worker, round } = late;
        lines.push(format!("{worker} is late: still at round {round}"));
    }
    for site in &job.sites {
        let doing = match (&site.lost, &site.stage) {
            (Some(lost), _) => format!("given up: {}: {}", lost.trouble, lost.detail),
            (None, Some(stage)) => words::progress(stage, site.progress.as_ref()),
            (None, None) => "not heard of yet".to_owned(),
        };
        lines.push(format!("  {:16} {doing}", site.worker));
    }
    if let Some(cause) = &job.cause {
        lines.push(format!("{}: {}", cause.kind, cause.message));
        lines.extend(
            cause
                .sites
                .iter()
                .map(|site| format!("  {}: {}: {}", site.worker, site.trouble, site.detail)),
        );
    }
    if let Some(adapter) = &job.adapter {
        lines.push(format!(
            "adapter {} ({})",
            adapter.sha256,
            bytes(adapter.bytes)
        ));
    }
    if let Some(kept) = &job.kept {
        lines.push(format!("adapter of {}", kept.words()));
    }
    Ok(lines.join("\n"))
}

/// Jobs as a table.
pub fn jobs(value: &Value) -> anyhow::Result<String> {
    let mut rows = vec![heading(&[
        "id",
        "name",
        "phase",
        "round",
        "submitted",
        "submitter",
    ])];
    for item in items(value) {
        let round = match item.get("round").and_then(Value::as_u64) {
            Some(round) => format!("{round}/{}", text(item, "rounds_total")),
            None => "-".to_owned(),
        };
        rows.push(vec![
            text(item, "id"),
            text(item, "name"),
            text(item, "phase"),
            round,
            text(item, "submitted_at"),
            text(item, "submitter"),
        ]);
    }
    Ok(table(&rows))
}

/// A plan: a line for each worker, and why below it.
pub fn plan(value: &Value) -> anyhow::Result<String> {
    let plan: Plan = serde_json::from_value(value.clone())?;
    let mut lines = vec![format!("plan {} of {}", plan.version.0, plan.job)];
    lines.extend(
        plan.replaces
            .iter()
            .map(|why| format!("it replaces the one before: {why}")),
    );
    if !plan.shrunk.is_empty() {
        let (shrunk, from) = (plan.shrunk.len(), plan.from_round);
        lines.push(format!(
            "{shrunk} weights have a lower rank than before: what that leaves out stands with round {from}, once it is merged (job rounds {})",
            plan.job
        ));
    }
    for (name, worker) in &plan.workers {
        let ranks: std::collections::BTreeSet<u16> =
            worker.ranks.trained().map(|(_, rank)| rank).collect();
        let ranks: Vec<String> = ranks.iter().map(u16::to_string).collect();
        lines.push(format!(
            "{name}: rank {}, batch {}, {} base{}, {} steps, {} thread(s); {:.2} s a step, {:.1} s a round, {} peak, {} up",
            ranks.join("/"),
            worker.batch,
            format!("{:?}", worker.base).to_lowercase(),
            if worker.checkpoint { " with activations recomputed" } else { "" },
            worker.local_steps,
            worker.threads,
            worker.predicted.step_seconds,
            worker.predicted.round_seconds,
            bytes(worker.predicted.peak_memory_bytes),
            bytes(worker.predicted.upload_bytes),
        ));
        lines.push(format!("  {}", worker.why.text));
    }
    for site in &plan.excluded {
        lines.push(format!("{}: left out: {}", site.worker, site.detail));
    }
    Ok(lines.join("\n"))
}

/// Rounds as a table, a row for each worker in each.
pub fn rounds(value: &Value) -> anyhow::Result<String> {
    let mut rows = vec![heading(&[
        "round",
        "worker",
        "rank",
        "batch",
        "share",
        "loss",
        "tokens/s",
        "peak memory",
        "seconds",
        "overhead",
        "score",
    ])];
    for round in items(value) {
        let score = round.get("evaluation").map(scores).unwrap_or_default();
        let mut summary = vec![text(round, "round"), "all".to_owned()];
        summary.extend(std::iter::repeat_n(String::new(), 6));
        summary.extend([
            figure(Some(round), "seconds", 1),
            figure(Some(round), "overhead_seconds", 2),
            score,
        ]);
        rows.push(summary);
        for worker in round.get("workers").map(items).unwrap_or_default() {
            let metrics = worker.get("metrics");
            let peak = metrics
                .and_then(|metrics| metrics.get("peak_memory_bytes"))
                .and_then(Value::as_u64);
            rows.push(vec![
                String::new(),
                name(worker),
                text(worker, "rank"),
                text(worker, "batch"),
                figure(Some(worker), "weight", 3),
                figure(metrics, "loss", 4),
                figure(metrics, "tokens_per_second", 1),
                peak.map(bytes).unwrap_or_default(),
                figure(metrics, "compute_seconds", 1),
                String::new(),
                refused(metrics),
            ]);
        }
    }
    let mut parts = vec![table(&rows)];
    parts.extend(shrunk(value));
    Ok(parts.join("\n"))
}

/// What sites went on without when a plan with lower ranks began, a line for each; of a simulation's rounds as well.
pub fn shrunk(rounds: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for round in items(rounds) {
        for site in round.get("shrunk").map(items).unwrap_or_default() {
            let percent = |key: &str| {
                let share = site.get(key).and_then(Value::as_f64);
                share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", 100.0 * share))
            };
            lines.push(format!(
                "round {}: {} has lower ranks from here on, and drops {} of the merged adapter's energy; it trains without {}",
                text(round, "round"),
                text(site, "worker"),
                percent("dropped_energy"),
                percent("withheld_energy"),
            ));
        }
    }
    lines
}

/// A job's rounds, and below them who was taken for whom: in the round whose adapter it keeps, else in the last that was scored
/// by classes.
pub fn rounds_of(job: &Value, all: &Value) -> anyhow::Result<String> {
    let shown = rounds(all)?;
    let kept = job.pointer("/kept/round").and_then(Value::as_u64);
    let scored: Vec<(u64, Vec<Vec<u64>>)> = items(all).iter().filter_map(counts).collect();
    let of_kept = scored.iter().find(|(round, _)| Some(*round) == kept);
    let names = classes(job);
    match of_kept.or(scored.last()) {
        Some((round, counts)) if counts.len() == names.len() => {
            let table = confusion::table(&names, counts);
            Ok(format!(
                "{shown}\n\nafter round {round}, who was taken for whom:\n{table}"
            ))
        }
        _ => Ok(shown),
    }
}

/// A round's number, and its score by classes if it has one.
fn counts(round: &Value) -> Option<(u64, Vec<Vec<u64>>)> {
    let number = round.get("round")?.as_u64()?;
    let counts = round.pointer("/evaluation/confusion")?.clone();
    let counts: Vec<Vec<u64>> = serde_json::from_value(counts).ok()?;
    (!counts.is_empty()).then_some((number, counts))
}

/// What a job's scores are counted by: its labels, else its choices.
fn classes(job: &Value) -> Vec<String> {
    let places = [
        "/spec/training/labels",
        "/spec/evaluation/choices",
        "/spec/training/choices",
    ];
    let read = |path: &str| -> Option<Vec<String>> {
        serde_json::from_value(job.pointer(path)?.clone()).ok()
    };
    let mut found = places.into_iter().filter_map(read);
    let named = found.find(|names| !names.is_empty());
    named.unwrap_or_default()
}

/// A report: its rounds, and what it says of the whole job.
pub fn report(value: &Value) -> anyhow::Result<String> {
    let empty = Value::Array(Vec::new());
    let mut lines = vec![rounds(value.get("rounds").unwrap_or(&empty))?];
    for score in value.get("evaluations").map(items).unwrap_or_default() {
        lines.push(format!(
            "after round {}: {} on {} held-out records",
            text(score, "round"),
            scores(score),
            text(score, "records"),
        ));
    }
    if let Some(kept) = value.get("kept").filter(|kept| kept.is_object()) {
        let kept: Kept = serde_json::from_value(kept.clone())?;
        lines.push(format!("adapter of {}", kept.words()));
    }
    Ok(lines.join("\n"))
}

/// The figures of a score that are there.
fn scores(score: &Value) -> String {
    const OWN: [(&str, usize); 4] = [
        ("balanced_accuracy", 3),
        ("accuracy", 3),
        ("loss", 4),
        ("perplexity", 2),
    ];
    const OF_ANSWERS: [(&str, usize); 4] =
        [("exact_match", 3), ("f1", 3), ("rouge_l", 3), ("bleu", 2)];
    let shown = |of: Option<&Value>, names: &[(&str, usize)]| -> Vec<String> {
        let known = names.iter().filter_map(|(name, digits)| {
            let digits = *digits;
            let value = of?.get(name)?.as_f64()?;
            Some(format!("{} {value:.digits$}", name.replace('_', " ")))
        });
        known.collect()
    };
    let mut words = shown(Some(score), &OWN);
    words.extend(shown(score.get("answers"), &OF_ANSWERS));
    words.join(", ")
}

/// What a worker could not learn, if anything.
fn refused(metrics: Option<&Value>) -> String {
    let count = metrics.and_then(|metrics| metrics.get("refused_records")?.as_u64());
    match count.filter(|count| *count > 0) {
        Some(count) => format!("{count} draws of records that could not be learned"),
        None => String::new(),
    }
}

/// Workers as a table.
pub fn fleet(value: &Value) -> anyhow::Result<String> {
    let mut rows = vec![heading(&[
        "worker",
        "state",
        "memory",
        "threads",
        "speed",
        "data sets",
        "last beat",
        "policy",
    ])];
    for worker in items(value) {
        let limit = worker
            .get("memory_limit_bytes")
            .and_then(Value::as_u64)
            .map(bytes);
        let state = match (
            text(worker, "liveness").as_str(),
            worker.get("stage").and_then(Value::as_str),
        ) {
            ("alive", Some(stage)) => stage.to_owned(),
            (liveness, _) => liveness.to_owned(),
        };
        let speed = figure(worker.get("progress"), "tokens_per_second", 0);
        rows.push(vec![
            text(worker, "worker"),
            state,
            limit.unwrap_or_default(),
            text(worker, "threads"),
            if speed == "-" {
                speed
            } else {
                format!("{speed} tokens/s")
            },
            datasets(worker.get("datasets")),
            words::clock(&text(worker, "last_beat_at")).to_owned(),
            text(worker, "policy"),
        ]);
    }
    Ok(table(&rows))
}

/// A worker's name, and the round of its update if that is an earlier one.
fn name(worker: &Value) -> String {
    let name = text(worker, "worker");
    match worker.get("trained_in").and_then(Value::as_u64) {
        Some(round) => format!("{name} (of round {round})"),
        None => name,
    }
}

fn datasets(value: Option<&Value>) -> String {
    let Some(Value::Object(datasets)) = value else {
        return "-".to_owned();
    };
    let words = datasets.iter().map(|(name, summary)| {
        let skipped = summary
            .get("skipped")
            .and_then(Value::as_u64)
            .filter(|&count| count > 0);
        let skipped = skipped
            .map(|count| format!(", {count} unreadable"))
            .unwrap_or_default();
        format!(
            "{name} ({} + {} held out{skipped})",
            text(summary, "records"),
            text(summary, "held_out")
        )
    });
    let text = words.collect::<Vec<_>>().join(", ");
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

fn heading(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn figure(value: Option<&Value>, key: &str, digits: usize) -> String {
    let number = value
        .and_then(|value| value.get(key))
        .and_then(Value::as_f64);
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_that_failed_shows_its_cause_and_its_sites() {
        let shown = job(&json!({
            "id": "job_1", "name": "x", "phase": "failed", "round": null, "rounds_total": 3,
            "sites": [{ "worker": "a", "stage": "idle", "progress": null, "lost": null }],
            "cause": { "kind": "quorum_lost", "message": "1 of 2 sites is left",
                "sites": [{ "worker": "b", "trouble": "crashed", "detail": "died three times" }] },
        }));
        let shown = shown.unwrap();
        for part in [
            "failed",
            "quorum_lost: 1 of 2 sites is left",
            "b: crashed: died three times",
            "a                idle",
        ] {
            assert!(shown.contains(part), "{part:?} is not in {shown}");
        }
    }

    #[test]
    fn a_job_shows_whom_its_round_asks_who_is_late_and_what_it_kept() {
        let shown = job(&json!({
            "id": "job_1", "name": "x", "phase": "training", "round": 2, "rounds_total": 3,
            "asked": ["a", "b"], "late": [{ "worker": "c", "round": 1 }],
            "kept": { "round": 1, "last": 2, "why": "the best of 3 scores", "stopped_early": "it was no use" },
        }));
        let shown = shown.unwrap();
        for part in [
            "the round asks a, b",
            "c is late: still at round 1",
            "adapter of round 1 (the best of 3 scores); stopped early: it was no use",
        ] {
            assert!(shown.contains(part), "{part:?} is not in {shown}");
        }
    }

    #[test]
    fn a_late_update_stands_with_its_own_round_and_its_share() {
        let shown = rounds(&json!([{ "round": 2, "seconds": 1.0, "workers": [
            { "worker": "a", "rank": 4, "batch": 2, "weight": 0.625, "trained_in": null },
            { "worker": "c", "rank": 4, "batch": 2, "weight": 0.375, "trained_in": 1 },
        ]}]));
        let shown = shown.unwrap();
        for part in ["c (of round 1)", "0.625", "0.375"] {
            assert!(shown.contains(part), "{part:?} is not in {shown}");
        }
    }

    #[test]
    fn below_the_rounds_stands_what_a_site_drops_whose_ranks_fell() {
        let shown = rounds(&json!([
            { "round": 1, "workers": [], "shrunk": [] },
            { "round": 2, "workers": [],
              "shrunk": [{ "worker": "b", "dropped_energy": 0.042, "withheld_energy": 0.5 }] },
        ]));
        let shown = shown.unwrap();
        let said = "round 2: b has lower ranks from here on, and drops 4.2 % of the merged adapter's energy; it trains without 50.0 %";
        assert!(shown.ends_with(said), "{shown}");
        assert!(!shown.contains("round 1:"), "{shown}");
    }

    #[test]
    fn below_the_rounds_stands_who_was_taken_for_whom_in_the_round_that_is_kept() {
        let round = |number: u32, right: u64| {
            json!({ "round": number, "seconds": 1.0, "workers": [],
                "evaluation": { "loss": 0.5, "confusion": [[right, 0], [1, 2]] } })
        };
        let all =
            json!([round(1, 3), round(2, 4), { "round": 3, "workers": [], "evaluation": null }]);
        let labels = json!({ "training": { "labels": ["ham", "spam"] } });
        let check = |kept: Value, spec: &Value, part: &str| {
            let shown = rounds_of(&json!({ "kept": kept, "spec": spec }), &all).unwrap();
            assert!(shown.contains(part), "{part:?} is not in {shown}");
            assert!(shown.contains("taken for \"spam\""), "{shown}");
        };
        check(json!({ "round": 1 }), &labels, "after round 1, who");
        check(Value::Null, &labels, "after round 2, who");
        let choices =
            json!({ "training": { "labels": [] }, "evaluation": { "choices": ["ham", "spam"] } });
        check(Value::Null, &choices, "after round 2, who");
        let among =
            json!({ "training": { "choices": ["ham", "spam"] }, "evaluation": { "choices": [] } });
        check(Value::Null, &among, "after round 2, who");
        let without =
            json!([{ "round": 1, "workers": [], "evaluation": { "loss": 0.5, "confusion": [] } }]);
        let shown = rounds_of(&json!({ "spec": {} }), &without).unwrap();
        assert!(!shown.contains("who was taken"), "{shown}");
    }

    #[test]
    fn a_fleet_shows_data_sets_with_what_could_not_be_read() {
        let shown = fleet(&json!([{
            "worker": "a", "liveness": "alive", "stage": "idle", "memory_limit_bytes": 4_294_967_296_u64, "threads": 1,
            "datasets": { "mail": { "records": 10, "held_out": 2, "skipped": 1 } }, "last_beat_at": null, "policy": "all",
        }]));
        let shown = shown.unwrap();
        assert!(
            shown.contains("mail (10 + 2 held out, 1 unreadable)") && shown.contains("4.0 GiB"),
            "{shown}"
        );
    }
}
