//! Spans of jobs and rounds. Without a collector they cost a few comparisons.
//!
//! A phase's span is written when the phase is over, by whoever ends it: start, end and both names follow from the
//! stored job, so a process that died in between leaves no hole. What is done within a phase is a span of its own
//! that lasts as long as the value does.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use domain::job::{Job, Phase};
use domain::time::UnixMillis;
use domain::trace::Trace;
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use super::text::bounded;

/// The tracer's name, as the meter's.
const SCOPE: &str = "fedpipe";

/// The names of all spans; a phase's own is `phase` and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanName {
    /// A job, from its submission to its end.
    Job,
    /// A round, from its opening to its commit.
    Round,
    /// Taking a job in.
    Submit,
    /// A worker's task, from taking it to having reported on it.
    Task,
    /// Fetching the merged adapter, and the model if it is not there.
    Download,
    /// Computing: measuring, training or scoring.
    Compute,
    /// Sending an update.
    Upload,
    /// Merging updates.
    Merge,
}

impl SpanName {
    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Round => "round",
            Self::Submit => "submit",
            Self::Task => "task",
            Self::Download => "download",
            Self::Compute => "compute",
            Self::Upload => "upload",
            Self::Merge => "merge",
        }
    }
}

/// A span that lasts as long as this value.
#[derive(Debug)]
pub struct Open {
    span: global::BoxedSpan,
    trace: Option<Trace>,
}

impl Open {
    /// Where it stands in its trace, for spans and log events within it: its parent's place if nobody collects
    /// spans.
    #[must_use]
    pub const fn trace(&self) -> Option<Trace> {
        self.trace
    }

    /// Marks it as failed.
    pub fn fail(&mut self, why: String) {
        self.span.set_status(Status::error(bounded(why)));
    }
}

/// Begins a span within another one, which may be another process's.
#[must_use]
pub fn within(parent: Option<Trace>, name: SpanName, labels: &[(&'static str, String)]) -> Open {
    let tracer = global::tracer(SCOPE);
    let kind = match name {
        SpanName::Task => SpanKind::Consumer,
        SpanName::Submit => SpanKind::Server,
        SpanName::Download | SpanName::Upload => SpanKind::Client,
        _ => SpanKind::Internal,
    };
    let builder = tracer
        .span_builder(name.as_str())
        .with_kind(kind)
        .with_attributes(attributes(labels));
    let span = tracer.build_with_context(builder, &context(parent));
    let context = span.span_context();
    let trace = context.is_valid().then(|| Trace {
        trace: u128::from_be_bytes(context.trace_id().to_bytes()),
        span: u64::from_be_bytes(context.span_id().to_bytes()),
    });
    Open {
        span,
        trace: trace.or(parent),
    }
}

/// A job went from one phase to the next: writes the span of the phase that is over, and of the round or the job
/// if it ends with it.
pub fn phase_ended(before: &Job, after: &Job, now: UnixMillis) {
    let labels = |round: Option<u32>| {
        let mut labels = vec![("fedpipe.job.id", before.id.to_string())];
        labels.extend(round.map(|round| ("fedpipe.round", round.to_string())));
        labels
    };
    let round = before.phase.traced_round();
    let mut of_phase = labels(round);
    of_phase.push(("fedpipe.epoch", before.epoch.0.to_string()));
    write(&Finished {
        name: format!("phase {}", before.phase.name()),
        own: Trace::of_phase(before),
        parent: Some(Trace::around_phase(before)),
        link: None,
        from: before.phase_since,
        to: now,
        labels: of_phase,
        failed: None,
    });
    let failed = match &after.phase {
        Phase::Failed { cause } => Some(cause.message.clone()),
        _ => None,
    };
    if let Some((round, opened_at)) = round_over(&before.phase, &after.phase) {
        write(&Finished {
            name: SpanName::Round.as_str().to_owned(),
            own: Trace::of_round(&before.id, round),
            parent: None,
            link: Some(Trace::of_job(&before.id)),
            from: opened_at,
            to: now,
            labels: labels(Some(round)),
            failed: failed.clone(),
        });
    }
    if after.phase.is_terminal() {
        let mut of_job = labels(None);
        of_job.push(("fedpipe.job.phase", after.phase.name().to_owned()));
        write(&Finished {
            name: SpanName::Job.as_str().to_owned(),
            own: Trace::of_job(&before.id),
            parent: None,
            link: None,
            from: before.submitted_at,
            to: now,
            labels: of_job,
            failed,
        });
    }
}

/// The round that is over with this transition, committed or not, and when it opened. A pause ends no round.
fn round_over(before: &Phase, after: &Phase) -> Option<(u32, UnixMillis)> {
    let (round, opened_at) = open_round(before)?;
    let goes_on = open_round(after).is_some_and(|(other, _)| other == round);
    (!goes_on).then_some((round, opened_at))
}

/// The round that is open in a phase, or will be again after a pause.
fn open_round(phase: &Phase) -> Option<(u32, UnixMillis)> {
    match phase {
        Phase::Training {
            round, opened_at, ..
        }
        | Phase::Folding {
            round, opened_at, ..
        } => Some((*round, *opened_at)),
        Phase::Paused { resume, .. } => open_round(resume),
        _ => None,
    }
}

/// A span that is over before it is written.
struct Finished {
    name: String,
    own: Trace,
    parent: Option<Trace>,
    link: Option<Trace>,
    from: UnixMillis,
    to: UnixMillis,
    labels: Vec<(&'static str, String)>,
    failed: Option<String>,
}

fn write(finished: &Finished) {
    let tracer = global::tracer(SCOPE);
    let links = finished.link.map(|link| Link::with_context(remote(link)));
    let builder = tracer
        .span_builder(finished.name.clone())
        .with_kind(SpanKind::Internal)
        .with_start_time(time(finished.from))
        .with_attributes(attributes(&finished.labels))
        .with_links(links.into_iter().collect());
    NEXT.set(Some(finished.own));
    let mut span = tracer.build_with_context(builder, &context(finished.parent));
    NEXT.set(None);
    if let Some(why) = &finished.failed {
        span.set_status(Status::error(bounded(why.clone())));
    }
    span.end_with_timestamp(time(finished.to));
}

fn attributes(labels: &[(&'static str, String)]) -> Vec<KeyValue> {
    let attribute =
        |(name, value): &(&'static str, String)| KeyValue::new(*name, bounded(value.clone()));
    labels.iter().map(attribute).collect()
}

fn context(parent: Option<Trace>) -> Context {
    let context = Context::new();
    match parent {
        Some(parent) => context.with_remote_span_context(remote(parent)),
        None => context,
    }
}

fn remote(trace: Trace) -> SpanContext {
    SpanContext::new(
        TraceId::from(trace.trace),
        SpanId::from(trace.span),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    )
}

fn time(at: UnixMillis) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(at.0)
}

thread_local! {
    /// What the span that this thread builds next is called; building is synchronous.
    static NEXT: Cell<Option<Trace>> = const { Cell::new(None) };
}

/// Numbers of spans: those that follow from the job where they do, random ones otherwise.
#[derive(Debug, Default)]
pub(super) struct Numbers(RandomIdGenerator);

impl IdGenerator for Numbers {
    fn new_trace_id(&self) -> TraceId {
        let next = NEXT.get();
        next.map_or_else(|| self.0.new_trace_id(), |next| TraceId::from(next.trace))
    }

    fn new_span_id(&self) -> SpanId {
        let next = NEXT.get();
        next.map_or_else(|| self.0.new_span_id(), |next| SpanId::from(next.span))
    }
}

#[cfg(test)]
mod tests {
    use domain::artifact::{ArtifactRef, Digest};

    use super::*;

    fn training(round: u32) -> Phase {
        let global = ArtifactRef {
            key: "adapter".to_owned(),
            sha256: Digest::from_bytes(&[7; 32]),
            bytes: 7,
        };
        Phase::Training {
            round,
            global,
            opened_at: UnixMillis(u64::from(round)),
            deadline: UnixMillis(100),
            asked: Vec::new(),
        }
    }

    fn paused(resume: Phase) -> Phase {
        Phase::Paused {
            resume: Box::new(resume),
            since: UnixMillis(50),
        }
    }

    #[test]
    fn a_round_is_over_when_it_goes_on_nowhere() {
        let second = Some((2, UnixMillis(2)));
        assert_eq!(round_over(&training(2), &paused(training(2))), None);
        assert_eq!(round_over(&paused(training(2)), &training(2)), None);
        assert_eq!(round_over(&training(2), &Phase::Cancelled), second);
        assert_eq!(round_over(&paused(training(2)), &Phase::Cancelled), second);
        assert_eq!(round_over(&training(2), &training(3)), second);
        assert_eq!(round_over(&Phase::Queued, &training(1)), None);
    }
}
