//! The names of all metrics, each with its unit, its labels, who serves it and what it means.

mod facts;
mod name;
mod table;

use std::fmt;

use facts::Facts;

pub use table::metrics_table;

/// What a metric does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
    /// A gauge whose series come and go, because its labels name jobs or workers: the whole set is
    /// replaced at each look (`telemetry::show`), and has a limit.
    Shown,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge | Self::Shown => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// A label: its name, and all its values where they are known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values; empty where they are a small closed set that is known elsewhere, or names.
    pub values: &'static [&'static str],
}

/// A metric. Labels hold small closed sets of values; names of jobs and workers stand in metrics of the
/// kind [`Kind::Shown`] alone, whose number of series is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    // Every process.
    /// Which build runs.
    BuildInfo,
    /// Conditions of readiness.
    Ready,
    /// Heap in use.
    HeapBytes,
    /// Memory in use.
    MemoryBytes,
    /// Time since the start.
    UptimeSeconds,
    /// Spans that were to be pushed.
    SpansProcessed,
    /// Spans that were pushed.
    SpansExported,
    /// Log records that were to be pushed.
    LogsProcessed,
    /// Log records that were pushed.
    LogsExported,

    // The api: what people ask, and what it sees of jobs, queues and the fleet.
    /// Time of HTTP requests.
    HttpRequestSeconds,
    /// Jobs by phase.
    Jobs,
    /// Messages in each stream.
    QueueMessages,
    /// Bytes in each stream.
    QueueBytes,
    /// Series that found no room.
    SeriesLeftOut,
    /// Workers whose beats arrive.
    WorkerUp,
    /// Time since the last beat.
    WorkerBeatAge,
    /// Time without progress of a worker that is not idle.
    WorkerProgressAge,
    /// What a worker does.
    WorkerStage,
    /// Heap of a worker.
    WorkerMemory,
    /// What a worker may use.
    WorkerMemoryLimit,
    /// Speed of the present task.
    WorkerTokens,
    /// Tasks that wait for a worker.
    WorkerQueue,
    /// Tasks that were delivered again.
    WorkerRedelivered,
    /// What a worker tried again.
    WorkerRetries,
    /// Workers at an earlier round.
    WorkerLate,
    /// A job's name and phase.
    JobInfo,
    /// The round that a job is at.
    JobRound,
    /// Rounds that a job asks for.
    JobRounds,
    /// Time in the present phase.
    JobPhaseAge,
    /// Time in which nothing of a job moved.
    JobIdle,
    /// Time in which a job's owner could not go on.
    JobHeld,
    /// Whom a job waits for.
    JobWaiting,
    /// Held-out loss.
    JobLoss,
    /// Held-out balanced accuracy.
    JobAccuracy,
    /// Time of the last round.
    JobRoundSeconds,
    /// Time of the last round in which nobody trained.
    JobRoundOverhead,
    /// Time of the last evaluation.
    JobEvaluationSeconds,
    /// Time that the plan gives a round.
    JobPlannedSeconds,
    /// Energy that the last merge dropped.
    JobDroppedEnergy,
    /// How far the plan may be from the best one.
    JobPlanGap,
    /// A site's training loss.
    SiteLoss,
    /// A site's share of the merge.
    SiteWeight,
    /// A site's speed.
    SiteTokens,
    /// A site's computing.
    SiteCompute,
    /// Time of a site's training steps.
    SiteStep,
    /// A site's computing as planned.
    SitePlannedCompute,
    /// A site's peak of memory.
    SiteMemoryPeak,
    /// A site's peak of memory as planned.
    SitePlannedMemory,
    /// Bytes that a site sent.
    SiteUpload,
    /// Bytes that a site fetched.
    SiteDownload,
    /// Bytes that a site was planned to send.
    SitePlannedUpload,

    // The profiler and the planner.
    /// Sites that drifted.
    Drifts,
    /// Time to make a plan.
    PlanSeconds,
    /// How far the last plan may be from the best one.
    PlanGap,
    /// Plans by what became of them.
    Plans,

    // The aggregator.
    /// Rounds committed.
    Rounds,
    /// Time of rounds.
    RoundSeconds,
    /// Time of rounds in which nobody trained.
    RoundOverheadSeconds,
    /// Energy that the last merge dropped.
    DroppedEnergy,
    /// Time of merges.
    FoldSeconds,
    /// Updates merged.
    FoldedUpdates,
    /// Bytes of updates merged.
    FoldedBytes,
    /// Updates refused.
    UpdatesRefused,
    /// Messages given up.
    MessagesDead,

    // The worker.
    /// Tokens trained on.
    TrainingTokens,
    /// Time of training steps.
    TrainingStepSeconds,
    /// Last training loss.
    TrainingLoss,
    /// Peak of memory of the last round.
    TrainingMemoryPeak,
    /// The same as planned.
    TrainingMemoryPlanned,
    /// Time of tasks.
    TaskSeconds,
    /// Tasks that came again.
    Redelivered,
    /// Messages handled.
    MessagesHandled,
    /// Bytes of artifacts.
    TransferBytes,

    // Object storage, whoever uses it.
    /// Time of operations.
    StorageSeconds,
    /// Operations that failed.
    StorageErrors,
    /// Operations tried again.
    StorageRetries,
}

impl Metric {
    /// The name as OpenTelemetry has it: `fedpipe.round.duration`. A semantic convention's own where there
    /// is one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// The name as Prometheus shows it: `fedpipe_round_duration_seconds`. A histogram's series end in
    /// `_bucket`, `_sum` and `_count` besides.
    #[must_use]
    pub fn prometheus_name(self) -> String {
        let Facts {
            name, unit, kind, ..
        } = self.facts();
        name::prometheus(name, unit, kind)
    }

    /// What it does over time.
    #[must_use]
    pub const fn kind(self) -> Kind {
        self.facts().kind
    }

    /// Unit in UCUM: `s`, `By`, `1` for a share, `{job}` for a count of jobs.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        self.facts().unit
    }

    /// Its labels, all of which every record gives.
    #[must_use]
    pub const fn labels(self) -> &'static [Label] {
        self.facts().labels
    }

    /// Names of the services that serve it; empty: every one.
    #[must_use]
    pub const fn served_by(self) -> &'static [&'static str] {
        self.facts().served_by
    }

    /// Whether a service of this name serves it.
    #[must_use]
    pub fn is_served_by(self, service: &str) -> bool {
        self.served_by().is_empty() || self.served_by().contains(&service)
    }

    /// What it says, in one line.
    #[must_use]
    pub const fn description(self) -> &'static str {
        self.facts().description
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_is_listed_once_and_its_name_fits_prometheus() {
        let mut names = BTreeSet::new();
        for (index, metric) in Metric::ALL.iter().enumerate() {
            let name = metric.prometheus_name();
            assert_eq!(*metric as usize, index, "{name} is out of order");
            assert!(names.insert(name.clone()), "{name} twice");
            assert!(
                ["fedpipe_", "http_server_", "otel_sdk_", "process_"]
                    .iter()
                    .any(|known| name.starts_with(known)),
                "{name}"
            );
            let legal = |letter: char| letter.is_ascii_lowercase() || letter == '_';
            assert!(name.chars().all(legal), "{name}");
            let is_total = name.ends_with("_total");
            assert_eq!(is_total, metric.kind() == Kind::Counter, "{name}");
        }
    }

    #[test]
    fn jobs_and_workers_are_named_only_where_the_number_of_series_has_a_bound() {
        for metric in Metric::ALL {
            let names = metric.labels().iter().map(|label| label.name);
            let identities = names.filter(|name| matches!(*name, "job_id" | "worker"));
            let bounded = metric.kind() == Kind::Shown;
            assert_eq!(identities.count() > 0, bounded, "{metric:?}");
        }
    }

    #[test]
    fn every_label_has_a_bound() {
        // Of a build, of the code (routes, conditions, streams, kinds), or of the protocol (methods that are known,
        // status codes).
        let closed = [
            "service",
            "version",
            "profile",
            "condition",
            "http.route",
            "http.request.method",
            "http.response.status_code",
            "phase",
            "stream",
            "kind",
            "outcome",
        ];
        for metric in Metric::ALL {
            for label in metric.labels() {
                let is_listed = !label.values.is_empty();
                let is_shown = metric.kind() == Kind::Shown;
                assert!(
                    is_listed || is_shown || closed.contains(&label.name),
                    "{metric:?}: {}",
                    label.name
                );
            }
        }
    }

    #[test]
    fn no_label_is_one_that_prometheus_gives_to_targets() {
        let reserved = ["job", "instance", "namespace", "pod", "container", "le"];
        for metric in Metric::ALL {
            for label in metric.labels() {
                assert!(!reserved.contains(&label.name), "{metric:?}");
            }
        }
    }
}
