//! What is fixed about each metric: one row each.

use super::{Kind, Label, Metric};

/// What is fixed about one metric.
pub(super) struct Facts {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: &'static str,
    pub labels: &'static [Label],
    pub served_by: &'static [&'static str],
    pub description: &'static str,
}

const ALL: &[&str] = &[];
const API: &[&str] = &["api"];
const PROFILER: &[&str] = &["profiler"];
const PLANNER: &[&str] = &["planner"];
const AGGREGATOR: &[&str] = &["aggregator"];
const WORKER: &[&str] = &["worker"];
const STORING: &[&str] = &["api", "aggregator", "worker"];

const NONE: &[Label] = &[];
const JOB: &[Label] = &[any("job_id")];
const BY_WORKER: &[Label] = &[any("worker")];
const SITE: &[Label] = &[any("job_id"), any("worker")];
const OPERATION: &[Label] = &[of("operation", &["put", "get", "head", "delete", "list"])];
const LET_IN: &[Label] = &[of("error.type", &["", "queue_full"])];
const PUSHED: &[Label] = &[of("error.type", &["", "collector"])];
const ANSWER: &[Label] = &[
    any("http.route"),
    any("http.request.method"),
    of("url.scheme", &["http", "https"]),
    any("http.response.status_code"),
    of("error.type", &["", "500", "503"]),
];
const TASK: &[Label] = &[of("kind", &["probe", "train", "evaluate", "unknown"])];

const fn any(name: &'static str) -> Label {
    Label { name, values: &[] }
}

const fn of(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values }
}

impl Metric {
    /// All of them, in the order of the variants.
    pub const ALL: &[Self] = {
        use Metric::*;
        &[
            BuildInfo,
            Ready,
            HeapBytes,
            MemoryBytes,
            UptimeSeconds,
            SpansProcessed,
            SpansExported,
            LogsProcessed,
            LogsExported,
            HttpRequestSeconds,
            Jobs,
            QueueMessages,
            QueueBytes,
            SeriesLeftOut,
            WorkerUp,
            WorkerBeatAge,
            WorkerProgressAge,
            WorkerStage,
            WorkerMemory,
            WorkerMemoryLimit,
            WorkerTokens,
            WorkerQueue,
            WorkerRedelivered,
            WorkerRetries,
            WorkerLate,
            JobInfo,
            JobRound,
            JobRounds,
            JobPhaseAge,
            JobIdle,
            JobHeld,
            JobWaiting,
            JobLoss,
            JobAccuracy,
            JobRoundSeconds,
            JobRoundOverhead,
            JobEvaluationSeconds,
            JobPlannedSeconds,
            JobDroppedEnergy,
            JobPlanGap,
            SiteLoss,
            SiteWeight,
            SiteTokens,
            SiteCompute,
            SiteStep,
            SitePlannedCompute,
            SiteMemoryPeak,
            SitePlannedMemory,
            SiteUpload,
            SiteDownload,
            SitePlannedUpload,
            Drifts,
            PlanSeconds,
            PlanGap,
            Plans,
            Rounds,
            RoundSeconds,
            RoundOverheadSeconds,
            DroppedEnergy,
            FoldSeconds,
            FoldedUpdates,
            FoldedBytes,
            UpdatesRefused,
            MessagesDead,
            TrainingTokens,
            TrainingStepSeconds,
            TrainingLoss,
            TrainingMemoryPeak,
            TrainingMemoryPlanned,
            TaskSeconds,
            Redelivered,
            MessagesHandled,
            TransferBytes,
            StorageSeconds,
            StorageErrors,
            StorageRetries,
        ]
    };

    pub(super) const fn facts(self) -> Facts {
        let index = self as usize;
        if index < Self::WorkerUp as usize {
            return self.of_processes();
        }
        if index < Self::Drifts as usize {
            return self.of_jobs_and_workers();
        }
        self.of_work()
    }

    /// Of every process, and of the api as a service.
    #[rustfmt::skip]
    const fn of_processes(self) -> Facts {
        match self {
            Self::BuildInfo => gauge("fedpipe.build.info", "{build}", const { &[any("service"), any("version"), any("profile")] }, ALL, "always 1; the labels say which build runs"),
            Self::Ready => gauge("fedpipe.ready", "{condition}", const { &[any("condition")] }, ALL, "1 while this condition of readiness is met, 0 while it is not; `/readyz` says why"),
            Self::HeapBytes => gauge("fedpipe.process.heap", "By", NONE, ALL, "heap bytes in use by this process"),
            Self::MemoryBytes => gauge("process.memory.usage", "By", NONE, ALL, "physical memory in use by this process"),
            Self::UptimeSeconds => gauge("process.uptime", "s", NONE, ALL, "time since this process started"),
            Self::SpansProcessed => counter("otel.sdk.processor.span.processed", "{span}", LET_IN, ALL, "spans that were to be pushed to a collector: let in, or dropped because too many waited"),
            Self::SpansExported => counter("otel.sdk.exporter.span.exported", "{span}", PUSHED, ALL, "spans that the collector took, or did not and that are lost"),
            Self::LogsProcessed => counter("otel.sdk.processor.log.processed", "{log_record}", LET_IN, ALL, "log records that were to be pushed to a collector: let in, or dropped because too many waited"),
            Self::LogsExported => counter("otel.sdk.exporter.log.exported", "{log_record}", PUSHED, ALL, "log records that the collector took, or did not and that are lost"),
            Self::HttpRequestSeconds => seconds("http.server.request.duration", ANSWER, API, "time until the answer to a request begins"),
            Self::Jobs => gauge("fedpipe.jobs", "{job}", const { &[any("phase")] }, API, "jobs in each phase"),
            Self::QueueMessages => gauge("fedpipe.queue.messages", "{message}", const { &[any("stream")] }, API, "messages in each NATS stream; in FEDPIPE_TASKS those that wait or are being worked on, in FEDPIPE_DEAD dead letters of the last 30 days"),
            Self::QueueBytes => gauge("fedpipe.queue", "By", const { &[any("stream")] }, API, "bytes in each NATS stream"),
            _ => gauge("fedpipe.telemetry.series.left_out", "{series}", NONE, API, "series of jobs and workers that found no room at the last look"),
        }
    }

    /// Of jobs and workers, as the api sees them.
    #[rustfmt::skip]
    const fn of_jobs_and_workers(self) -> Facts {
        match self {
            Self::WorkerUp => shown("fedpipe.worker.up", "{worker}", BY_WORKER, "1 while the worker's beats arrive, 0 after three were missed"),
            Self::WorkerBeatAge => shown("fedpipe.worker.beat.age", "s", BY_WORKER, "time since the worker's last beat"),
            Self::WorkerProgressAge => shown("fedpipe.worker.progress.age", "s", BY_WORKER, "time since the worker last made progress; 0 while it is idle"),
            Self::WorkerStage => shown("fedpipe.worker.stage", "{worker}", const { &[any("worker"), of("stage", STAGES)] }, "1 for what the worker does: absent stages are 0"),
            Self::WorkerMemory => shown("fedpipe.worker.memory", "By", BY_WORKER, "heap of the worker, as it beats"),
            Self::WorkerMemoryLimit => shown("fedpipe.worker.memory.limit", "By", BY_WORKER, "memory that the worker may use"),
            Self::WorkerTokens => shown("fedpipe.worker.tokens", "{token}/s", BY_WORKER, "speed of the worker's present task so far; absent while it trains nothing"),
            Self::WorkerQueue => shown("fedpipe.worker.queue", "{message}", BY_WORKER, "tasks that wait for the worker or that it works on"),
            Self::WorkerRedelivered => shown("fedpipe.worker.redelivered", "{message}", BY_WORKER, "tasks in the worker's hands that were delivered more than once"),
            Self::WorkerRetries => shown("fedpipe.worker.retries", "{attempt}", BY_WORKER, "attempts that the worker's process has made again since it started, as it beats: at storage that was away, at a bus that did not take its report; grows, so take `increase`"),
            Self::WorkerLate => shown("fedpipe.worker.late", "{worker}", BY_WORKER, "1 while the worker is at an earlier round of a job than the others"),
            Self::JobInfo => shown("fedpipe.job.info", "{job}", const { &[any("job_id"), any("name"), any("phase")] }, "always 1; the labels are the job's name and phase"),
            Self::JobRound => shown("fedpipe.job.round", "{round}", JOB, "the last committed round"),
            Self::JobRounds => shown("fedpipe.job.rounds", "{round}", JOB, "rounds that the job asks for"),
            Self::JobPhaseAge => shown("fedpipe.job.phase.age", "s", JOB, "time since the job's phase began"),
            Self::JobIdle => shown("fedpipe.job.idle", "s", JOB, "time since anything of the job moved: its phase, or the progress of a site on it; 0 while it is queued, paused or ended"),
            Self::JobHeld => shown("fedpipe.job.held", "s", JOB, "time since its owner could not go on (a full disk, storage that is away); 0 while it can"),
            Self::JobWaiting => shown("fedpipe.job.waiting", "{site}", const { &[any("job_id"), any("worker"), of("what", WAITS)] }, "1 for each thing that the job waits for: a site and what it does, or, with an empty worker, what is missing at the control plane"),
            Self::JobLoss => shown("fedpipe.job.loss", "{nat}", JOB, "held-out loss per token of the last scored round"),
            Self::JobAccuracy => shown("fedpipe.job.accuracy", "1", JOB, "balanced accuracy of the last scored round; absent for jobs without choices"),
            Self::JobRoundSeconds => shown("fedpipe.job.round.duration", "s", JOB, "time of the last committed round, scoring not counted"),
            Self::JobRoundOverhead => shown("fedpipe.job.round.overhead", "s", JOB, "the same without the slowest site's computing"),
            Self::JobEvaluationSeconds => shown("fedpipe.job.evaluation.duration", "s", JOB, "time of the last scoring"),
            Self::JobPlannedSeconds => shown("fedpipe.job.planned.duration", "s", JOB, "time that the plan gives a round"),
            Self::JobDroppedEnergy => shown("fedpipe.job.dropped_energy", "1", JOB, "share of the last merged change's energy that the kept rank does not hold"),
            Self::JobPlanGap => shown("fedpipe.job.plan.gap", "1", JOB, "share by which the plan's worst solved site may be below the best choice; 0: proven"),
            Self::SiteLoss => shown("fedpipe.site.loss", "{nat}", SITE, "mean training loss of the site in the last committed round"),
            Self::SiteWeight => shown("fedpipe.site.weight", "1", SITE, "the site's share of the last merge"),
            Self::SiteTokens => shown("fedpipe.site.tokens", "{token}/s", SITE, "speed of the site in the last committed round"),
            Self::SiteCompute => shown("fedpipe.site.compute", "s", SITE, "time that the site trained in the last committed round"),
            Self::SiteStep => shown("fedpipe.site.step", "s", SITE, "mean time of a training step of the site in the last committed round"),
            Self::SitePlannedCompute => shown("fedpipe.site.planned.compute", "s", SITE, "time that the plan gives the site's training"),
            Self::SiteMemoryPeak => shown("fedpipe.site.memory.peak", "By", SITE, "the site's peak of memory in the last committed round"),
            Self::SitePlannedMemory => shown("fedpipe.site.planned.memory", "By", SITE, "the peak that the plan predicts"),
            Self::SiteUpload => shown("fedpipe.site.upload", "By", SITE, "bytes that the site sent to storage in the last committed round"),
            Self::SiteDownload => shown("fedpipe.site.download", "By", SITE, "bytes that the site fetched from storage in the last committed round"),
            _ => shown("fedpipe.site.planned.upload", "By", SITE, "bytes of an update as the plan has it"),
        }
    }

    /// Of the services that do the work.
    #[rustfmt::skip]
    const fn of_work(self) -> Facts {
        match self {
            Self::Drifts => counter("fedpipe.drifts", "{drift}", const { &[of("quantity", &["seconds", "bytes", "importance"])] }, PROFILER, "sites whose time or memory parted from their prediction, and jobs whose weights came to matter otherwise than their plan took them to"),
            Self::PlanSeconds => seconds("fedpipe.plan.solve.duration", NONE, PLANNER, "time to make a plan, or to find that the present one stays"),
            Self::PlanGap => gauge("fedpipe.plan.gap", "1", NONE, PLANNER, "share by which the last plan's worst solved site may be below the best choice; 0: proven"),
            Self::Plans => counter("fedpipe.plans", "{plan}", const { &[of("outcome", &["made", "kept", "impossible"])] }, PLANNER, "plans asked for: a new one was made, the present one stays, or none is possible"),
            Self::Rounds => counter("fedpipe.rounds", "{round}", NONE, AGGREGATOR, "rounds committed"),
            Self::RoundSeconds => seconds("fedpipe.round.duration", NONE, AGGREGATOR, "time from a round's opening to its merged result"),
            Self::RoundOverheadSeconds => seconds("fedpipe.round.overhead", NONE, AGGREGATOR, "the same without the slowest site's computing"),
            Self::DroppedEnergy => gauge("fedpipe.round.dropped_energy", "1", NONE, AGGREGATOR, "share of the last merged change's energy that the kept rank does not hold"),
            Self::FoldSeconds => seconds("fedpipe.fold.duration", NONE, AGGREGATOR, "time to merge a round's updates"),
            Self::FoldedUpdates => counter("fedpipe.fold.updates", "{update}", NONE, AGGREGATOR, "updates merged"),
            Self::FoldedBytes => counter("fedpipe.fold", "By", NONE, AGGREGATOR, "bytes of updates merged"),
            Self::UpdatesRefused => counter("fedpipe.updates.refused", "{update}", const { &[of("reason", &["checked", "scalars", "unreadable"])] }, AGGREGATOR, "updates of sites that were refused: an adapter, or scalars, did not pass the checks, or a report could not be read"),
            Self::MessagesDead => counter("fedpipe.messages.dead", "{message}", NONE, &["profiler", "aggregator"], "messages that could not be handled and were set aside"),
            Self::TrainingTokens => counter("fedpipe.training.tokens", "{token}", NONE, WORKER, "tokens this worker trained on"),
            Self::TrainingStepSeconds => seconds("fedpipe.training.step.duration", NONE, WORKER, "time of one training step"),
            Self::TrainingLoss => gauge("fedpipe.training.loss", "{nat}", NONE, WORKER, "mean loss per token of the last steps that may be told (docs/privacy.md)"),
            Self::TrainingMemoryPeak => gauge("fedpipe.training.memory.peak", "By", NONE, WORKER, "peak of memory of the last trained round"),
            Self::TrainingMemoryPlanned => gauge("fedpipe.training.memory.planned", "By", NONE, WORKER, "the peak that the plan predicted for it"),
            Self::TaskSeconds => seconds("fedpipe.task.duration", TASK, WORKER, "time from taking a task to having reported on it"),
            Self::Redelivered => counter("fedpipe.messages.redelivered", "{message}", TASK, WORKER, "tasks that came more than once"),
            Self::MessagesHandled => counter("fedpipe.messages.handled", "{message}", const { &[any("kind"), any("outcome")] }, &["api", "worker"], "messages handled, by kind and outcome"),
            Self::TransferBytes => counter("fedpipe.transfer", "By", const { &[of("direction", &["up", "down"])] }, WORKER, "bytes of artifacts moved"),
            Self::StorageSeconds => seconds("fedpipe.storage.operation.duration", OPERATION, STORING, "time until object storage answered, its own retries included"),
            Self::StorageErrors => counter("fedpipe.storage.errors", "{operation}", OPERATION, STORING, "operations that object storage did not answer, or refused; what is not there, or is there already, is no error"),
            _ => counter("fedpipe.storage.retries", "{operation}", NONE, WORKER, "transfers that were tried again because storage was away"),
        }
    }
}

const STAGES: &[&str] = &[
    "idle",
    "downloading",
    "loading",
    "probing",
    "training",
    "uploading",
    "evaluating",
    "stopping",
];

/// What a job may wait for: a site's stage, or what is wrong with it; a step of the control plane.
const WAITS: &[&str] = &[
    "idle",
    "downloading",
    "loading",
    "probing",
    "training",
    "uploading",
    "evaluating",
    "stopping",
    "unreachable",
    "silent",
    "elsewhere",
    "sites",
    "owner",
    "held",
    "resume",
    "profiler",
    "planner",
    "aggregator",
];

const fn counter(
    name: &'static str,
    unit: &'static str,
    labels: &'static [Label],
    served_by: &'static [&'static str],
    description: &'static str,
) -> Facts {
    Facts {
        name,
        kind: Kind::Counter,
        unit,
        labels,
        served_by,
        description,
    }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    labels: &'static [Label],
    served_by: &'static [&'static str],
    description: &'static str,
) -> Facts {
    Facts {
        name,
        kind: Kind::Gauge,
        unit,
        labels,
        served_by,
        description,
    }
}

const fn shown(
    name: &'static str,
    unit: &'static str,
    labels: &'static [Label],
    description: &'static str,
) -> Facts {
    Facts {
        name,
        kind: Kind::Shown,
        unit,
        labels,
        served_by: API,
        description,
    }
}

const fn seconds(
    name: &'static str,
    labels: &'static [Label],
    served_by: &'static [&'static str],
    description: &'static str,
) -> Facts {
    Facts {
        name,
        kind: Kind::Histogram,
        unit: "s",
        labels,
        served_by,
        description,
    }
}
