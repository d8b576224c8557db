//! Events and progress in words.

use serde_json::{Map, Value};

use crate::client::events::Event;
use crate::client::view::Progress;

/// An event in a sentence.
pub fn event(event: &Event) -> String {
    let detail = &event.detail;
    let round = number(detail, "round");
    match event.event.as_str() {
        "submitted" => "submitted".to_owned(),
        "admitted" => format!("admitted: {} measure themselves", sites(detail, "sites")),
        "profiled" => format!("profiled: {}", sites(detail, "sites")),
        "planned" => format!("planned: version {} of the plan", number(detail, "version")),
        "opened" => opened(detail, &round),
        "closed" => closed(detail, &round),
        "merged" if round == "0" => "the untrained adapter is stored".to_owned(),
        "merged" => format!("round {round} merged"),
        "evaluated" => evaluated(detail, &round),
        "stopped" => format!(
            "stopped early after round {round}: {}",
            text(detail.get("why"))
        ),
        "refused" => format!("refused: {}", site(detail.get("site"))),
        "lost" => format!("given up: {}", site(detail.get("site"))),
        "reused" => format!(
            "{} measured itself for {}, which holds",
            text(detail.get("site")),
            text(detail.get("from"))
        ),
        "drifted" => drifted(detail),
        "importance-moved" => format!(
            "the weights' importance moved (rank correlation {:.2} with round {}): the plan is looked at again",
            detail
                .get("agreement")
                .and_then(Value::as_f64)
                .unwrap_or_default(),
            detail
                .get("since")
                .and_then(Value::as_u64)
                .unwrap_or_default(),
        ),
        "plan-kept" => format!(
            "version {} of the plan stays: {}",
            number(detail, "version"),
            text(detail.get("why"))
        ),
        "failed" => format!(
            "failed: {}",
            text(detail.get("cause").and_then(|cause| cause.get("message")))
        ),
        "finished" => finished(detail),
        other => other.to_owned(),
    }
}

fn drifted(detail: &Map<String, Value>) -> String {
    let site = text(detail.get("site"));
    let by = detail.get("by");
    let figure = |name| by.and_then(|by| by.get(name)).and_then(Value::as_f64);
    let of_memory = by.and_then(|by| by.get("quantity")).and_then(Value::as_str) == Some("bytes");
    let (Some(predicted), Some(observed)) = (figure("predicted"), figure("observed")) else {
        return format!("{site} left its profile: the plan is looked at again");
    };
    let show = |figure: f64| {
        if of_memory {
            format!("{:.0} MiB", figure / 1_048_576.0)
        } else {
            format!("{figure:.1} s")
        }
    };
    format!(
        "{site} left its profile, {} a round instead of {}: the plan is looked at again",
        show(observed),
        show(predicted)
    )
}

fn opened(detail: &Map<String, Value>, round: &str) -> String {
    match list(detail, "asked") {
        [] => format!("round {round} opened"),
        _ => format!("round {round} opened: it asks {}", sites(detail, "asked")),
    }
}

fn finished(detail: &Map<String, Value>) -> String {
    let adapter = detail.get("adapter");
    let adapter = text(adapter.and_then(|adapter| adapter.get("sha256")));
    let kept = detail.get("kept").filter(|kept| kept.is_object());
    let kept = kept.map_or_else(String::new, |kept| {
        let round = kept.get("round").and_then(Value::as_u64).unwrap_or(0);
        format!(" of round {round} ({})", text(kept.get("why")))
    });
    format!("finished: adapter {adapter}{kept}")
}

fn closed(detail: &Map<String, Value>, round: &str) -> String {
    let missing: Vec<String> = list(detail, "missing")
        .iter()
        .map(|one| site(Some(one)))
        .collect();
    let count = list(detail, "sites").len();
    let updates = if count == 1 { "update" } else { "updates" };
    let late: Vec<String> = list(detail, "credited")
        .iter()
        .map(|one| {
            let round = one.get("round").and_then(Value::as_u64).unwrap_or(0);
            format!("{}'s of round {round}", text(one.get("worker")))
        })
        .collect();
    let late = match late.as_slice() {
        [] => String::new(),
        late => format!(", {} among them", late.join(", ")),
    };
    match missing.as_slice() {
        [] => format!("round {round} closed with {count} {updates}{late}"),
        missing => format!(
            "round {round} closed with {count} {updates}{late}, without {}",
            missing.join("; ")
        ),
    }
}

fn evaluated(detail: &Map<String, Value>, round: &str) -> String {
    let figure = |key: &str| detail.get(key).and_then(Value::as_f64);
    let when = if round == "0" {
        "before training".to_owned()
    } else {
        format!("round {round}")
    };
    let accuracy = figure("balanced_accuracy").map(|value| format!("balanced accuracy {value:.3}"));
    let loss = figure("loss").map(|value| format!("loss {value:.4}"));
    let other = detail.get("figure").and_then(|figure| {
        let value = figure.get("value")?.as_f64()?;
        let measure = figure.get("measure")?.as_str()?.replace('_', " ");
        Some(format!("{measure} {value:.3}"))
    });
    let words: Vec<String> = other.into_iter().chain(accuracy).chain(loss).collect();
    format!(
        "{when}: {} on {} held-out records",
        words.join(", "),
        number(detail, "records")
    )
}

/// Progress of a worker in a few words.
pub fn progress(stage: &str, progress: Option<&Progress>) -> String {
    let Some(progress) = progress else {
        return stage.to_owned();
    };
    let mut words = stage.to_owned();
    // Downloads and uploads count bytes, everything else steps or records.
    let in_bytes = matches!(stage, "downloading" | "uploading");
    let count = |number: u64| {
        if in_bytes {
            crate::units::bytes(number)
        } else {
            number.to_string()
        }
    };
    if progress.total > 0 {
        words.push_str(&format!(
            " {}/{}",
            count(progress.done),
            count(progress.total)
        ));
    } else if progress.done > 0 {
        words.push_str(&format!(" {}", count(progress.done)));
    }
    words.push_str(&figures(progress));
    words
}

/// Loss and speed, each after a comma; empty if neither is known.
pub fn figures(progress: &Progress) -> String {
    let loss = progress
        .loss
        .map(|loss| format!(", loss {loss:.4}"))
        .unwrap_or_default();
    let speed = progress
        .tokens_per_second
        .map(|speed| format!(", {speed:.0} tokens/s"))
        .unwrap_or_default();
    loss + &speed
}

/// The time of day of an RFC 3339 time stamp.
pub fn clock(at: &str) -> &str {
    at.get(11..19).unwrap_or(at)
}

fn list<'a>(detail: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    detail
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn sites(detail: &Map<String, Value>, key: &str) -> String {
    let names: Vec<&str> = list(detail, key).iter().filter_map(Value::as_str).collect();
    names.join(", ")
}

fn site(site: Option<&Value>) -> String {
    let part = |key: &str| text(site.and_then(|site| site.get(key)));
    format!(
        "{} ({}: {})",
        part("worker"),
        part("trouble"),
        part("detail")
    )
}

fn number(detail: &Map<String, Value>, key: &str) -> String {
    detail
        .get(key)
        .and_then(Value::as_u64)
        .map_or_else(|| "?".to_owned(), |number| number.to_string())
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(name: &str, detail: Value, expected: &str) {
        let Value::Object(detail) = detail else {
            panic!("{detail}")
        };
        let given = Event {
            at: String::new(),
            event: name.to_owned(),
            detail,
        };
        assert_eq!(event(&given), expected);
    }

    #[test]
    fn events_are_told_in_sentences_that_name_the_site() {
        let trouble =
            json!({ "worker": "c", "trouble": "out_of_memory", "detail": "asked for 9 bytes" });
        check("opened", json!({ "round": 2 }), "round 2 opened");
        check(
            "closed",
            json!({ "round": 1, "sites": ["a", "b"], "missing": [] }),
            "round 1 closed with 2 updates",
        );
        check(
            "closed",
            json!({ "round": 1, "sites": ["a"], "missing": [trouble] }),
            "round 1 closed with 1 update, without c (out_of_memory: asked for 9 bytes)",
        );
        check(
            "evaluated",
            json!({ "round": 0, "records": 240, "loss": 0.51234, "balanced_accuracy": 0.41 }),
            "before training: balanced accuracy 0.410, loss 0.5123 on 240 held-out records",
        );
        check(
            "evaluated",
            json!({ "round": 2, "records": 240, "loss": 0.5, "figure": { "measure": "rouge_l", "value": 0.25 } }),
            "round 2: rouge l 0.250, loss 0.5000 on 240 held-out records",
        );
        check(
            "lost",
            json!({ "site": trouble }),
            "given up: c (out_of_memory: asked for 9 bytes)",
        );
        check("resumed", json!({}), "resumed");
        check(
            "plan-kept",
            json!({ "version": 2, "why": "another plan would be the same" }),
            "version 2 of the plan stays: another plan would be the same",
        );
        check(
            "opened",
            json!({ "round": 2, "asked": ["a", "c"] }),
            "round 2 opened: it asks a, c",
        );
        check(
            "closed",
            json!({ "round": 2, "sites": ["a", "c"], "missing": [], "credited": [{ "worker": "c", "round": 1 }] }),
            "round 2 closed with 2 updates, c's of round 1 among them",
        );
        check(
            "stopped",
            json!({ "round": 4, "why": "the last score was not better" }),
            "stopped early after round 4: the last score was not better",
        );
        check(
            "finished",
            json!({ "adapter": { "sha256": "sha256:1" }, "kept": { "round": 2, "why": "the best of 4 scores" } }),
            "finished: adapter sha256:1 of round 2 (the best of 4 scores)",
        );
        check(
            "finished",
            json!({ "adapter": { "sha256": "sha256:1" }, "kept": null }),
            "finished: adapter sha256:1",
        );
    }

    #[test]
    fn progress_names_what_is_known() {
        let known = Progress {
            job: String::new(),
            done: 3,
            total: 8,
            loss: Some(0.5),
            tokens_per_second: Some(61.4),
        };
        assert_eq!(
            progress("training", Some(&known)),
            "training 3/8, loss 0.5000, 61 tokens/s"
        );
        let bytes = Progress {
            total: 0,
            done: 2048,
            loss: None,
            tokens_per_second: None,
            ..known
        };
        assert_eq!(progress("uploading", Some(&bytes)), "uploading 2.0 KiB");
        assert_eq!(progress("idle", None), "idle");
    }
}
