//! Every place between two effects where a process may be killed, by name.
//!
//! A test starts a process with `FEDPIPE_FAILPOINT=<name>` and `FEDPIPE_FAILPOINT_DIR=<folder>`. The
//! process kills itself (SIGKILL) the first time it comes there and leaves a file of that name in
//! the folder; whoever finds the file goes on, so the restarted process does. With the folder alone,
//! files arm: `<name>.kill` kills the process that comes there first and removes it, `<name>.stop`
//! halts it (SIGSTOP) until it is told to go on or killed. So one fleet serves many cases. A name is
//! `service.verb.place`. Builds without debug assertions contain none of this.

#[cfg(not(debug_assertions))]
mod disabled;
#[cfg(debug_assertions)]
mod enabled;

#[cfg(not(debug_assertions))]
use disabled as switch;
#[cfg(debug_assertions)]
use enabled as switch;

/// The variable with the name of the armed fail-point.
pub const NAME_VARIABLE: &str = "FEDPIPE_FAILPOINT";
/// The variable with the folder of marks.
pub const FOLDER_VARIABLE: &str = "FEDPIPE_FAILPOINT_DIR";

/// A place between two effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failpoint {
    /// API, submit: after state.
    ApiSubmitAfterState,
    /// API, cancel: after state.
    ApiCancelAfterState,
    /// API, pause: after state.
    ApiPauseAfterState,
    /// API, resume: after state.
    ApiResumeAfterState,
    /// API, control: after publish.
    ApiControlAfterPublish,
    /// API, delete: after objects.
    ApiDeleteAfterObjects,
    /// API, delete: after values.
    ApiDeleteAfterValues,
    /// API, delete: after messages.
    ApiDeleteAfterMessages,
    /// API, delete: after state.
    ApiDeleteAfterState,
    /// API, grant: before the answer.
    ApiGrantBeforeAnswer,
    /// Profiler, admit: after state.
    ProfilerAdmitAfterState,
    /// Profiler, admit: after publish.
    ProfilerAdmitAfterPublish,
    /// Profiler, probe: after first task.
    ProfilerProbeAfterFirstTask,
    /// Profiler, profiled: after profiles.
    ProfilerProfiledAfterProfiles,
    /// Profiler, profiled: after state.
    ProfilerProfiledAfterState,
    /// Profiler, profiled: after publish.
    ProfilerProfiledAfterPublish,
    /// Profiler, refine: after profiles.
    ProfilerRefineAfterProfiles,
    /// Profiler, refine: after event.
    ProfilerRefineAfterEvent,
    /// Profiler, refine: after state.
    ProfilerRefineAfterState,
    /// Planner, plan: after plan stored.
    PlannerPlanAfterPlanStored,
    /// Planner, plan: after state.
    PlannerPlanAfterState,
    /// Planner, plan: after publish.
    PlannerPlanAfterPublish,
    /// Aggregator, start: after artifact.
    AggregatorStartAfterArtifact,
    /// Aggregator, start: after summary.
    AggregatorStartAfterSummary,
    /// Aggregator, start: after state.
    AggregatorStartAfterState,
    /// Aggregator, open: after first task.
    AggregatorOpenAfterFirstTask,
    /// Aggregator, open: after tasks.
    AggregatorOpenAfterTasks,
    /// Aggregator, open: after publish.
    AggregatorOpenAfterPublish,
    /// Aggregator, ingest: after download.
    AggregatorIngestAfterDownload,
    /// Aggregator, ingest: after scalars.
    AggregatorIngestAfterScalars,
    /// Aggregator, close: after decision.
    AggregatorCloseAfterDecision,
    /// Aggregator, close: after publish.
    AggregatorCloseAfterPublish,
    /// Aggregator, close: after withdraw.
    AggregatorCloseAfterWithdraw,
    /// Aggregator, fold: after merge.
    AggregatorFoldAfterMerge,
    /// Aggregator, fold: after artifact.
    AggregatorFoldAfterArtifact,
    /// Aggregator, fold: after summary.
    AggregatorFoldAfterSummary,
    /// Aggregator, fold: after state.
    AggregatorFoldAfterState,
    /// Aggregator, clean: after spool.
    AggregatorCleanAfterSpool,
    /// Aggregator, evaluate: after tasks.
    AggregatorEvaluateAfterTasks,
    /// Aggregator, evaluate: after scores.
    AggregatorEvaluateAfterScores,
    /// Aggregator, evaluate: after event.
    AggregatorEvaluateAfterEvent,
    /// Aggregator, evaluate: after state.
    AggregatorEvaluateAfterState,
    /// Aggregator, finalize: after adapter.
    AggregatorFinalizeAfterAdapter,
    /// Aggregator, finalize: after report.
    AggregatorFinalizeAfterReport,
    /// Aggregator, finalize: after state.
    AggregatorFinalizeAfterState,
    /// Aggregator, finalize: after publish.
    AggregatorFinalizeAfterPublish,
    /// Aggregator, settle: after publish.
    AggregatorSettleAfterPublish,
    /// Aggregator, settle: after purge.
    AggregatorSettleAfterPurge,
    /// Aggregator, settle: after orders.
    AggregatorSettleAfterOrders,
    /// Aggregator, settle: after folder.
    AggregatorSettleAfterFolder,
    /// Worker, probe: before report.
    WorkerProbeBeforeReport,
    /// Worker, probe: after seal.
    WorkerProbeAfterSeal,
    /// Worker, probe: after report.
    WorkerProbeAfterReport,
    /// Worker, model: after fetch.
    WorkerModelAfterFetch,
    /// Worker, model: while loading.
    WorkerModelWhileLoading,
    /// Worker, catch up: after replay.
    WorkerCatchUpAfterReplay,
    /// Worker, train: after global.
    WorkerTrainAfterGlobal,
    /// Worker, train: after first step.
    WorkerTrainAfterFirstStep,
    /// Worker, train: between passes.
    WorkerTrainBetweenPasses,
    /// Worker, train: before upload.
    WorkerTrainBeforeUpload,
    /// Worker, train: while uploading.
    WorkerTrainWhileUploading,
    /// Worker, train: after upload.
    WorkerTrainAfterUpload,
    /// Worker, train: after seal.
    WorkerTrainAfterSeal,
    /// Worker, train: after forget.
    WorkerTrainAfterForget,
    /// Worker, train: after report.
    WorkerTrainAfterReport,
    /// Worker, evaluate: before report.
    WorkerEvaluateBeforeReport,
    /// Worker, evaluate: after seal.
    WorkerEvaluateAfterSeal,
    /// Worker, evaluate: after report.
    WorkerEvaluateAfterReport,
    /// Worker, fail: after seal.
    WorkerFailAfterSeal,
}

impl Failpoint {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::ApiSubmitAfterState,
        Self::ApiCancelAfterState,
        Self::ApiPauseAfterState,
        Self::ApiResumeAfterState,
        Self::ApiControlAfterPublish,
        Self::ApiDeleteAfterObjects,
        Self::ApiDeleteAfterValues,
        Self::ApiDeleteAfterMessages,
        Self::ApiDeleteAfterState,
        Self::ApiGrantBeforeAnswer,
        Self::ProfilerAdmitAfterState,
        Self::ProfilerAdmitAfterPublish,
        Self::ProfilerProbeAfterFirstTask,
        Self::ProfilerProfiledAfterProfiles,
        Self::ProfilerProfiledAfterState,
        Self::ProfilerProfiledAfterPublish,
        Self::ProfilerRefineAfterProfiles,
        Self::ProfilerRefineAfterEvent,
        Self::ProfilerRefineAfterState,
        Self::PlannerPlanAfterPlanStored,
        Self::PlannerPlanAfterState,
        Self::PlannerPlanAfterPublish,
        Self::AggregatorStartAfterArtifact,
        Self::AggregatorStartAfterSummary,
        Self::AggregatorStartAfterState,
        Self::AggregatorOpenAfterFirstTask,
        Self::AggregatorOpenAfterTasks,
        Self::AggregatorOpenAfterPublish,
        Self::AggregatorIngestAfterDownload,
        Self::AggregatorIngestAfterScalars,
        Self::AggregatorCloseAfterDecision,
        Self::AggregatorCloseAfterPublish,
        Self::AggregatorCloseAfterWithdraw,
        Self::AggregatorFoldAfterMerge,
        Self::AggregatorFoldAfterArtifact,
        Self::AggregatorFoldAfterSummary,
        Self::AggregatorFoldAfterState,
        Self::AggregatorCleanAfterSpool,
        Self::AggregatorEvaluateAfterTasks,
        Self::AggregatorEvaluateAfterScores,
        Self::AggregatorEvaluateAfterEvent,
        Self::AggregatorEvaluateAfterState,
        Self::AggregatorFinalizeAfterAdapter,
        Self::AggregatorFinalizeAfterReport,
        Self::AggregatorFinalizeAfterState,
        Self::AggregatorFinalizeAfterPublish,
        Self::AggregatorSettleAfterPublish,
        Self::AggregatorSettleAfterPurge,
        Self::AggregatorSettleAfterOrders,
        Self::AggregatorSettleAfterFolder,
        Self::WorkerProbeBeforeReport,
        Self::WorkerProbeAfterSeal,
        Self::WorkerProbeAfterReport,
        Self::WorkerModelAfterFetch,
        Self::WorkerModelWhileLoading,
        Self::WorkerCatchUpAfterReplay,
        Self::WorkerTrainAfterGlobal,
        Self::WorkerTrainAfterFirstStep,
        Self::WorkerTrainBetweenPasses,
        Self::WorkerTrainBeforeUpload,
        Self::WorkerTrainWhileUploading,
        Self::WorkerTrainAfterUpload,
        Self::WorkerTrainAfterSeal,
        Self::WorkerTrainAfterForget,
        Self::WorkerTrainAfterReport,
        Self::WorkerEvaluateBeforeReport,
        Self::WorkerEvaluateAfterSeal,
        Self::WorkerEvaluateAfterReport,
        Self::WorkerFailAfterSeal,
    ];

    /// The name that arms it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiSubmitAfterState => "api.submit.after_state",
            Self::ApiCancelAfterState => "api.cancel.after_state",
            Self::ApiPauseAfterState => "api.pause.after_state",
            Self::ApiResumeAfterState => "api.resume.after_state",
            Self::ApiControlAfterPublish => "api.control.after_publish",
            Self::ApiDeleteAfterObjects => "api.delete.after_objects",
            Self::ApiDeleteAfterValues => "api.delete.after_values",
            Self::ApiDeleteAfterMessages => "api.delete.after_messages",
            Self::ApiDeleteAfterState => "api.delete.after_state",
            Self::ApiGrantBeforeAnswer => "api.grant.before_answer",
            Self::ProfilerAdmitAfterState => "profiler.admit.after_state",
            Self::ProfilerAdmitAfterPublish => "profiler.admit.after_publish",
            Self::ProfilerProbeAfterFirstTask => "profiler.probe.after_first_task",
            Self::ProfilerProfiledAfterProfiles => "profiler.profiled.after_profiles",
            Self::ProfilerProfiledAfterState => "profiler.profiled.after_state",
            Self::ProfilerProfiledAfterPublish => "profiler.profiled.after_publish",
            Self::ProfilerRefineAfterProfiles => "profiler.refine.after_profiles",
            Self::ProfilerRefineAfterEvent => "profiler.refine.after_event",
            Self::ProfilerRefineAfterState => "profiler.refine.after_state",
            Self::PlannerPlanAfterPlanStored => "planner.plan.after_plan_stored",
            Self::PlannerPlanAfterState => "planner.plan.after_state",
            Self::PlannerPlanAfterPublish => "planner.plan.after_publish",
            Self::AggregatorStartAfterArtifact => "aggregator.start.after_artifact",
            Self::AggregatorStartAfterSummary => "aggregator.start.after_summary",
            Self::AggregatorStartAfterState => "aggregator.start.after_state",
            Self::AggregatorOpenAfterFirstTask => "aggregator.open.after_first_task",
            Self::AggregatorOpenAfterTasks => "aggregator.open.after_tasks",
            Self::AggregatorOpenAfterPublish => "aggregator.open.after_publish",
            Self::AggregatorIngestAfterDownload => "aggregator.ingest.after_download",
            Self::AggregatorIngestAfterScalars => "aggregator.ingest.after_scalars",
            Self::AggregatorCloseAfterDecision => "aggregator.close.after_decision",
            Self::AggregatorCloseAfterPublish => "aggregator.close.after_publish",
            Self::AggregatorCloseAfterWithdraw => "aggregator.close.after_withdraw",
            Self::AggregatorFoldAfterMerge => "aggregator.fold.after_merge",
            Self::AggregatorFoldAfterArtifact => "aggregator.fold.after_artifact",
            Self::AggregatorFoldAfterSummary => "aggregator.fold.after_summary",
            Self::AggregatorFoldAfterState => "aggregator.fold.after_state",
            Self::AggregatorCleanAfterSpool => "aggregator.clean.after_spool",
            Self::AggregatorEvaluateAfterTasks => "aggregator.evaluate.after_tasks",
            Self::AggregatorEvaluateAfterScores => "aggregator.evaluate.after_scores",
            Self::AggregatorEvaluateAfterEvent => "aggregator.evaluate.after_event",
            Self::AggregatorEvaluateAfterState => "aggregator.evaluate.after_state",
            Self::AggregatorFinalizeAfterAdapter => "aggregator.finalize.after_adapter",
            Self::AggregatorFinalizeAfterReport => "aggregator.finalize.after_report",
            Self::AggregatorFinalizeAfterState => "aggregator.finalize.after_state",
            Self::AggregatorFinalizeAfterPublish => "aggregator.finalize.after_publish",
            Self::AggregatorSettleAfterPublish => "aggregator.settle.after_publish",
            Self::AggregatorSettleAfterPurge => "aggregator.settle.after_purge",
            Self::AggregatorSettleAfterOrders => "aggregator.settle.after_orders",
            Self::AggregatorSettleAfterFolder => "aggregator.settle.after_folder",
            Self::WorkerProbeBeforeReport => "worker.probe.before_report",
            Self::WorkerProbeAfterSeal => "worker.probe.after_seal",
            Self::WorkerProbeAfterReport => "worker.probe.after_report",
            Self::WorkerModelAfterFetch => "worker.model.after_fetch",
            Self::WorkerModelWhileLoading => "worker.model.while_loading",
            Self::WorkerCatchUpAfterReplay => "worker.catch_up.after_replay",
            Self::WorkerTrainAfterGlobal => "worker.train.after_global",
            Self::WorkerTrainAfterFirstStep => "worker.train.after_first_step",
            Self::WorkerTrainBetweenPasses => "worker.train.between_passes",
            Self::WorkerTrainBeforeUpload => "worker.train.before_upload",
            Self::WorkerTrainWhileUploading => "worker.train.while_uploading",
            Self::WorkerTrainAfterUpload => "worker.train.after_upload",
            Self::WorkerTrainAfterSeal => "worker.train.after_seal",
            Self::WorkerTrainAfterForget => "worker.train.after_forget",
            Self::WorkerTrainAfterReport => "worker.train.after_report",
            Self::WorkerEvaluateBeforeReport => "worker.evaluate.before_report",
            Self::WorkerEvaluateAfterSeal => "worker.evaluate.after_seal",
            Self::WorkerEvaluateAfterReport => "worker.evaluate.after_report",
            Self::WorkerFailAfterSeal => "worker.fail.after_seal",
        }
    }
}

/// Dies here if this fail-point is armed and was not used yet.
pub fn hit(failpoint: Failpoint) {
    switch::hit(failpoint);
}

/// Says once, at the start of a process, what is armed; a name that does not exist is an error in
/// the log, because a test that waits for it would prove nothing.
pub fn announce() {
    switch::announce();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fail_point_is_listed_once_and_spelled_like_its_variant() {
        let mut names = BTreeSet::new();
        for failpoint in Failpoint::ALL {
            let name = failpoint.name();
            assert!(names.insert(name), "{name} twice");
            assert_eq!(name.split('.').count(), 3, "{name}");
            let spelled = name.replace(['.', '_'], "").to_lowercase();
            assert_eq!(format!("{failpoint:?}").to_lowercase(), spelled);
        }
        // A variant that is not in ALL leaves a gap: the last variant's number is ALL's length - 1.
        let last = Failpoint::ALL.last().map(|failpoint| *failpoint as usize);
        assert_eq!(last, Some(Failpoint::ALL.len() - 1));
    }
}
