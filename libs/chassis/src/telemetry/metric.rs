//! The names of all metrics, each with its unit, its labels and what it means.

use std::fmt::{self, Write};

/// What a metric does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// A metric. Labels hold small closed sets of values, never an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Messages handled.
    MessagesHandled,
    /// Messages given up.
    MessagesDead,
    /// Jobs by phase.
    Jobs,
    /// HTTP requests.
    HttpRequests,
    /// Time of HTTP requests.
    HttpRequestSeconds,
    /// Tokens trained on.
    TrainingTokens,
    /// Time of training steps.
    TrainingStepSeconds,
    /// Last training loss.
    TrainingLoss,
    /// Bytes of artifacts.
    TransferBytes,
    /// Rounds closed.
    Rounds,
    /// Time of rounds.
    RoundSeconds,
    /// Time of rounds that nobody trained in.
    RoundOverheadSeconds,
    /// Updates refused.
    UpdatesRefused,
    /// Storage operations tried again.
    StorageRetries,
    /// Heap in use.
    HeapBytes,
    /// Which build runs.
    BuildInfo,
}

/// What is fixed about one metric.
struct Facts {
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    description: &'static str,
}

impl Metric {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::MessagesHandled,
        Self::MessagesDead,
        Self::Jobs,
        Self::HttpRequests,
        Self::HttpRequestSeconds,
        Self::TrainingTokens,
        Self::TrainingStepSeconds,
        Self::TrainingLoss,
        Self::TransferBytes,
        Self::Rounds,
        Self::RoundSeconds,
        Self::RoundOverheadSeconds,
        Self::UpdatesRefused,
        Self::StorageRetries,
        Self::HeapBytes,
        Self::BuildInfo,
    ];

    /// The name as Prometheus shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// What it does over time.
    #[must_use]
    pub const fn kind(self) -> Kind {
        self.facts().kind
    }

    /// Unit in UCUM: `s`, `By`, `1` for a plain number.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        self.facts().unit
    }

    /// Names of its labels, all of which every record gives.
    #[must_use]
    pub const fn labels(self) -> &'static [&'static str] {
        self.facts().labels
    }

    /// What it says, in one line.
    #[must_use]
    pub const fn description(self) -> &'static str {
        self.facts().description
    }

    const fn facts(self) -> Facts {
        match self {
            Self::MessagesHandled => counter(
                "fedpipe_messages_handled_total",
                &["kind", "outcome"],
                "messages handled, by kind and outcome",
            ),
            Self::MessagesDead => counter(
                "fedpipe_messages_dead_total",
                &[],
                "messages that could not be handled and were set aside",
            ),
            Self::Jobs => gauge("fedpipe_jobs", "1", &["phase"], "jobs in each phase"),
            Self::HttpRequests => counter(
                "fedpipe_http_requests_total",
                &["route", "method", "status"],
                "requests answered by the api",
            ),
            Self::HttpRequestSeconds => {
                seconds("fedpipe_http_request_seconds", "time to answer a request")
            }
            Self::TrainingTokens => counter(
                "fedpipe_training_tokens_total",
                &[],
                "tokens this worker trained on",
            ),
            Self::TrainingStepSeconds => {
                seconds("fedpipe_training_step_seconds", "time of one training step")
            }
            Self::TrainingLoss => gauge(
                "fedpipe_training_loss",
                "1",
                &[],
                "mean loss per token of the last training step",
            ),
            Self::TransferBytes => Facts {
                unit: "By",
                ..counter(
                    "fedpipe_transfer_bytes_total",
                    &["direction"],
                    "bytes of artifacts moved, up or down",
                )
            },
            Self::Rounds => counter("fedpipe_rounds_total", &[], "rounds closed"),
            Self::RoundSeconds => seconds(
                "fedpipe_round_seconds",
                "time from a round's opening to its merged result",
            ),
            Self::RoundOverheadSeconds => seconds(
                "fedpipe_round_overhead_seconds",
                "part of a round in which no site was training",
            ),
            Self::UpdatesRefused => counter(
                "fedpipe_updates_refused_total",
                &["reason"],
                "updates of sites that were refused",
            ),
            Self::StorageRetries => counter(
                "fedpipe_storage_retries_total",
                &[],
                "storage operations that were tried again",
            ),
            Self::HeapBytes => gauge(
                "fedpipe_process_heap_bytes",
                "By",
                &[],
                "heap bytes in use by this process",
            ),
            Self::BuildInfo => gauge(
                "fedpipe_build_info",
                "1",
                &["service", "version", "profile"],
                "always 1; the labels say which build runs",
            ),
        }
    }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    description: &'static str,
) -> Facts {
    Facts {
        name,
        kind: Kind::Counter,
        unit: "1",
        labels,
        description,
    }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    description: &'static str,
) -> Facts {
    Facts {
        name,
        kind: Kind::Gauge,
        unit,
        labels,
        description,
    }
}

const fn seconds(name: &'static str, description: &'static str) -> Facts {
    Facts {
        name,
        kind: Kind::Histogram,
        unit: "s",
        labels: &[],
        description,
    }
}

/// All metrics as a Markdown table.
#[must_use]
pub fn metrics_table() -> String {
    let mut table =
        String::from("| name | kind | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for metric in Metric::ALL {
        let Facts {
            name,
            kind,
            unit,
            labels,
            description,
        } = metric.facts();
        let labels = labels.join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| `{name}` | {kind} | {unit} | {labels} | {description} |"
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_is_listed_once_and_its_name_tells_kind_and_unit() {
        let mut names = BTreeSet::new();
        for (index, metric) in Metric::ALL.iter().enumerate() {
            let name = metric.name();
            assert_eq!(*metric as usize, index, "{name} is out of order");
            assert!(names.insert(name), "{name} twice");
            assert!(name.starts_with("fedpipe_"), "{name}");
            let is_total = name.ends_with("_total");
            assert_eq!(is_total, metric.kind() == Kind::Counter, "{name}");
            assert_eq!(name.contains("_seconds"), metric.unit() == "s", "{name}");
            assert_eq!(name.contains("_bytes"), metric.unit() == "By", "{name}");
        }
    }

    #[test]
    fn the_table_has_a_line_for_every_metric() {
        let table = metrics_table();
        assert_eq!(table.lines().count(), 2 + Metric::ALL.len());
        assert!(
            table
                .contains("| `fedpipe_transfer_bytes_total` | counter | By | direction | bytes of"),
            "{table}"
        );
    }
}
