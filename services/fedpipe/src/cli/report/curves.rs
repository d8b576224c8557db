//! Curves out of what this program writes: a job's rounds or report, a simulation's report, a file of metrics.
//!
//! What is read is told apart by its content. Numbers that are not there, or not finite, are gaps.

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::Value;

/// Points of a curve at most; of more, neighbours are averaged.
const POINTS: usize = 1000;

/// What a curve shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Mean loss per labelled token.
    Loss,
    /// Share answered right, classes weighted alike.
    BalancedAccuracy,
    /// Share answered right.
    Accuracy,
}

/// Along what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Along {
    /// Rounds of a job; 0 is the untrained adapter.
    Round,
    /// Steps of one training, counted from 1.
    Step,
}

/// What kind of figure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Scored on held-out records.
    HeldOut,
    /// Seen while training; of a round, the mean of all sites by their records.
    Training,
    /// Of one site.
    Site,
}

/// One curve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// Where it came from, as the reader calls it.
    pub source: String,
    /// Which figure.
    pub name: String,
    /// The kind of figure.
    pub kind: Kind,
    /// What it shows.
    pub measure: Measure,
    /// Along what.
    pub along: Along,
    /// Each in order: place, and figure.
    pub points: Vec<(f64, f64)>,
    /// Neighbours that a point is the mean of.
    pub averaged: usize,
}

impl Measure {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::BalancedAccuracy => "balanced accuracy",
            Self::Accuracy => "accuracy",
        }
    }
}

impl Along {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Round => "round",
            Self::Step => "step",
        }
    }
}

/// The curves of a file, or of an answer of the API.
///
/// # Errors
/// If it is none of what is known, with the line of what cannot be read.
pub fn read(source: &str, text: &str) -> anyhow::Result<Vec<Curve>> {
    let curves = match serde_json::from_str::<Value>(text) {
        Ok(value) if value.get("step").is_none() => of_value(source, &value)?,
        _ => of_metrics(source, text)?,
    };
    let curves: Vec<Curve> = curves
        .into_iter()
        .filter(|curve| !curve.points.is_empty())
        .collect();
    ensure!(
        !curves.is_empty(),
        "there is not one finite loss or accuracy in it"
    );
    Ok(curves)
}

fn of_value(source: &str, value: &Value) -> anyhow::Result<Vec<Curve>> {
    let list = |name: &str| value.get(name).and_then(Value::as_array);
    let page = value.as_array().or_else(|| list("items"));
    let rounds = match (page, list("rounds"), list("evaluations"), value.get("run")) {
        (Some(page), ..) => page
            .iter()
            .map(|round| Round::of(round, round.get("evaluation")))
            .collect(),
        (_, Some(rounds), Some(scores), _) => {
            let score_of = |round: &Value| {
                scores
                    .iter()
                    .find(|score| score.get("round") == round.get("round"))
            };
            rounds
                .iter()
                .map(|round| Round::of(round, score_of(round)))
                .collect()
        }
        (.., Some(run)) => {
            let start = run.get("start").map(|score| Round {
                scored: Scored::of(Some(score)),
                ..Round::default()
            });
            let rounds = run
                .get("rounds")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            let rounds = rounds.map(|round| Round::of(round, round.get("score")));
            start.into_iter().chain(rounds).collect()
        }
        _ if value.get("plan").is_some() => {
            bail!("it is a plan that nobody carried out: simulate without --plan-only")
        }
        _ if value.get("phase").is_some() => bail!(
            "it is a job's status, which has no rounds: save `fedpipe job rounds ID --json`, or give the job's id"
        ),
        _ => bail!(
            "it is neither a job's rounds or report, nor a simulation's report, nor a file of metrics"
        ),
    };
    Ok(of_rounds(source, rounds))
}

/// What is drawn of a round.
#[derive(Debug, Default)]
struct Round {
    round: f64,
    scored: Scored,
    /// Site, records, loss.
    sites: Vec<(String, f64, Option<f64>)>,
}

#[derive(Debug, Default)]
struct Scored {
    loss: Option<f64>,
    balanced_accuracy: Option<f64>,
}

impl Scored {
    fn of(value: Option<&Value>) -> Self {
        let figure = |name: &str| finite(value?.get(name));
        Self {
            loss: figure("loss"),
            balanced_accuracy: figure("balanced_accuracy"),
        }
    }
}

impl Round {
    fn of(value: &Value, score: Option<&Value>) -> Self {
        let workers = value
            .get("workers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let site = |worker: &Value| {
            // A simulation says a site's figures beside its name, a job below it.
            let figures = worker.get("metrics").unwrap_or(worker);
            let name = worker.get("worker")?.as_str()?.to_owned();
            Some((
                name,
                finite(figures.get("records"))?,
                finite(figures.get("loss")),
            ))
        };
        Self {
            round: finite(value.get("round")).unwrap_or_default(),
            scored: Scored::of(score),
            sites: workers.filter_map(site).collect(),
        }
    }

    /// The mean of all sites by their records.
    fn mean(&self) -> Option<f64> {
        let told = self
            .sites
            .iter()
            .filter_map(|(_, records, loss)| Some((*records, (*loss)?)));
        let (records, sum) = told.fold((0.0, 0.0), |(all, sum), (records, loss)| {
            (all + records, sum + records * loss)
        });
        Some(sum / records).filter(|mean| mean.is_finite())
    }
}

fn of_rounds(source: &str, mut rounds: Vec<Round>) -> Vec<Curve> {
    rounds.sort_by(|a, b| a.round.total_cmp(&b.round));
    let curve = |name: &str, kind, measure, figure: &dyn Fn(&Round) -> Option<f64>| {
        let points = rounds
            .iter()
            .filter_map(|round| Some((round.round, figure(round)?)))
            .collect();
        Curve::new(source, name, (kind, measure, Along::Round), points)
    };
    let mut sites: Vec<&str> = rounds
        .iter()
        .flat_map(|round| &round.sites)
        .map(|site| site.0.as_str())
        .collect();
    sites.sort_unstable();
    sites.dedup();
    let of_site = |name: &str| {
        let loss = |round: &Round| round.sites.iter().find(|site| site.0 == name)?.2;
        curve(name, Kind::Site, Measure::Loss, &loss)
    };
    let mut curves = vec![
        curve("held-out loss", Kind::HeldOut, Measure::Loss, &|round| {
            round.scored.loss
        }),
        curve("training loss", Kind::Training, Measure::Loss, &Round::mean),
        curve(
            "held-out",
            Kind::HeldOut,
            Measure::BalancedAccuracy,
            &|round| round.scored.balanced_accuracy,
        ),
    ];
    curves.extend(sites.into_iter().map(of_site));
    curves
}

fn of_metrics(source: &str, text: &str) -> anyhow::Result<Vec<Curve>> {
    let (mut loss, mut scores) = (Vec::new(), Vec::new());
    let mut lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .peekable();
    while let Some((number, line)) = lines.next() {
        let read: Result<Value, _> = serde_json::from_str(line);
        let value = match read {
            Ok(value) => value,
            // A run under way may be writing its last line.
            Err(_) if lines.peek().is_none() && !loss.is_empty() => break,
            Err(error) => return Err(error).context(format!("line {} is no JSON", number + 1)),
        };
        let step = finite(value.get("step"));
        let step = step.with_context(|| format!("line {} has no step", number + 1))?;
        loss.extend(finite(value.get("loss")).map(|loss| (step + 1.0, loss)));
        let after = finite(value.get("after_steps"));
        scores.extend(after.map(|after| (after, value)));
    }
    let curve = |name: &str, (kind, measure), points| {
        Curve::new(source, name, (kind, measure, Along::Step), points)
    };
    let held_out = |name: &str, measure, figure: &str| {
        let points = scores
            .iter()
            .filter_map(|(after, value)| Some((*after, finite(value.get(figure))?)));
        curve(name, (Kind::HeldOut, measure), points.collect())
    };
    let balanced = (Measure::BalancedAccuracy, "held_out_balanced_accuracy");
    Ok(vec![
        held_out("held-out loss", Measure::Loss, "held_out_loss"),
        curve("training loss", (Kind::Training, Measure::Loss), loss),
        held_out("held-out", balanced.0, balanced.1),
        held_out("held-out", Measure::Accuracy, "held_out_accuracy"),
    ])
}

fn finite(value: Option<&Value>) -> Option<f64> {
    value?.as_f64().filter(|figure| figure.is_finite())
}

impl Curve {
    fn new(
        source: &str,
        name: &str,
        (kind, measure, along): (Kind, Measure, Along),
        points: Vec<(f64, f64)>,
    ) -> Self {
        let averaged = points.len().div_ceil(POINTS).max(1);
        let mean = |chunk: &[(f64, f64)]| {
            let (x, y) = chunk
                .iter()
                .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
            (x / chunk.len() as f64, y / chunk.len() as f64)
        };
        Self {
            source: source.to_owned(),
            name: name.to_owned(),
            kind,
            measure,
            along,
            points: points.chunks(averaged).map(mean).collect(),
            averaged,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn points(curves: &[Curve], name: &str, measure: Measure) -> Vec<(f64, f64)> {
        let found = curves
            .iter()
            .find(|curve| curve.name == name && curve.measure == measure);
        found.map(|curve| curve.points.clone()).unwrap_or_default()
    }

    fn rounds() -> Value {
        let worker = |name: &str, records: u64, loss: Value| json!({ "worker": name, "metrics": { "records": records, "loss": loss } });
        json!([
            { "round": 0, "workers": [], "evaluation": { "loss": 3.0, "balanced_accuracy": 0.5 } },
            { "round": 1, "workers": [worker("a", 30, json!(2.0)), worker("b", 10, json!(1.0))], "evaluation": null },
            { "round": 2, "workers": [worker("a", 30, json!(1.0)), worker("b", 10, Value::Null)],
              "evaluation": { "loss": 1.5, "balanced_accuracy": 0.75 } },
        ])
    }

    fn check_rounds(text: &str) {
        let curves = read("job", text).unwrap();
        assert_eq!(
            points(&curves, "held-out loss", Measure::Loss),
            [(0.0, 3.0), (2.0, 1.5)]
        );
        assert_eq!(
            points(&curves, "held-out", Measure::BalancedAccuracy),
            [(0.0, 0.5), (2.0, 0.75)]
        );
        // By records: (30·2 + 10·1) / 40; and a site that said nothing does not count.
        assert_eq!(
            points(&curves, "training loss", Measure::Loss),
            [(1.0, 1.75), (2.0, 1.0)]
        );
        assert_eq!(
            points(&curves, "a", Measure::Loss),
            [(1.0, 2.0), (2.0, 1.0)]
        );
        assert_eq!(points(&curves, "b", Measure::Loss), [(1.0, 1.0)]);
    }

    #[test]
    fn a_job_s_rounds_are_the_same_from_a_page_a_list_and_a_report() {
        check_rounds(&rounds().to_string());
        check_rounds(&json!({ "items": rounds(), "next_cursor": null }).to_string());
        let scores: Vec<Value> = (rounds().as_array().unwrap().iter())
            .filter(|round| !round["evaluation"].is_null())
            .map(|round| {
                let mut score = round["evaluation"].clone();
                score["round"] = round["round"].clone();
                score
            })
            .collect();
        check_rounds(
            &json!({ "job": "job_1", "plan": {}, "rounds": rounds(), "evaluations": scores })
                .to_string(),
        );
    }

    #[test]
    fn a_simulation_begins_with_the_score_of_the_untrained_adapter() {
        let report = json!({ "plan": {}, "run": {
            "start": { "loss": 3.0, "balanced_accuracy": null },
            "rounds": [{ "round": 1, "workers": [{ "worker": "a", "records": 8, "loss": 2.0 }], "score": { "loss": 2.5 } }],
        }});
        let curves = read("sim", &report.to_string()).unwrap();
        assert_eq!(
            points(&curves, "held-out loss", Measure::Loss),
            [(0.0, 3.0), (1.0, 2.5)]
        );
        assert_eq!(
            points(&curves, "training loss", Measure::Loss),
            [(1.0, 2.0)]
        );
        assert!(points(&curves, "held-out", Measure::BalancedAccuracy).is_empty());
    }

    #[test]
    fn metrics_count_steps_from_one_and_leave_out_what_is_not_finite() {
        let text = "{\"step\":0,\"loss\":2.5}\n{\"step\":1,\"loss\":null}\n\n{\"step\":2,\"loss\":1.5}\n\
                    {\"step\":2,\"after_steps\":3,\"held_out_loss\":1.75,\"held_out_accuracy\":0.75,\
                    \"held_out_balanced_accuracy\":0.5}\n{\"st";
        let curves = read("m", text).unwrap();
        assert_eq!(
            points(&curves, "held-out loss", Measure::Loss),
            [(3.0, 1.75)]
        );
        for (measure, share) in [(Measure::Accuracy, 0.75), (Measure::BalancedAccuracy, 0.5)] {
            assert_eq!(points(&curves, "held-out", measure), [(3.0, share)]);
        }
        assert_eq!(
            points(&curves, "training loss", Measure::Loss),
            [(1.0, 2.5), (3.0, 1.5)]
        );
        let one = read("m", "{\"step\":0,\"loss\":2.5}").unwrap();
        assert_eq!(one.first().map(|curve| curve.points.len()), Some(1));
    }

    #[test]
    fn a_long_run_is_drawn_by_means_of_neighbours() {
        let line = |step: usize| format!("{{\"step\":{step},\"loss\":{}}}\n", step % 2);
        let text: String = (0..2500).map(line).collect();
        let curves = read("m", &text).unwrap();
        let curve = curves.first().unwrap();
        assert_eq!((curve.averaged, curve.points.len()), (3, 834));
        assert_eq!(curve.points.first(), Some(&(2.0, 1.0 / 3.0)));
    }

    #[test]
    fn what_cannot_be_drawn_is_refused_with_what_to_do_or_the_line() {
        for (text, part) in [
            (
                "{\"step\":0,\"loss\":1}\n{\"step\":1,\n{\"step\":2,\"loss\":1}",
                "line 2",
            ),
            (
                "{\"step\":0,\"loss\":1}\n{\"loss\":1}",
                "line 2 has no step",
            ),
            (
                "{\"id\":\"job_1\",\"phase\":\"training\"}",
                "fedpipe job rounds",
            ),
            ("{\"plan\":{}}", "--plan-only"),
            ("{\"a\":1}", "neither"),
            ("[]", "not one finite"),
            ("", "not one finite"),
        ] {
            let error = format!("{:#}", read("x", text).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
