//! Names of traces and spans that every process works out for itself: whoever goes on with a job after a crash goes on
//! with its trace, and nobody has to be told.
//!
//! A job has one trace, and each of its rounds has one, linked to the job's. In both, a phase is the span that is
//! numbered as the job's epoch; the span of the whole has the highest bit set, which no epoch has.

use std::fmt;

use crate::id::{Epoch, JobId};
use crate::job::Job;

/// The highest bit of a span's number: the whole of a job, or of a round.
const WHOLE: u64 = 1 << 63;

/// A span's place in a trace; as text, what a `traceparent` header holds (W3C Trace Context).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trace {
    /// The trace.
    pub trace: u128,
    /// The span; never 0.
    pub span: u64,
}

impl Trace {
    /// The whole of a job.
    #[must_use]
    pub fn of_job(job: &JobId) -> Self {
        Self {
            trace: trace(job, 0),
            span: WHOLE,
        }
    }

    /// The whole of a round, which has a trace of its own.
    #[must_use]
    pub fn of_round(job: &JobId, round: u32) -> Self {
        Self {
            trace: trace(job, round),
            span: WHOLE | u64::from(round),
        }
    }

    /// A phase: of a round where there is one, else of the job.
    #[must_use]
    pub fn of_epoch(job: &JobId, epoch: Epoch, round: Option<u32>) -> Self {
        Self {
            trace: trace(job, round.unwrap_or(0)),
            span: epoch.0.clamp(1, WHOLE - 1),
        }
    }

    /// The phase that a job is in. Training, merging and scoring are a round's; round 0, the untrained adapter, is none.
    #[must_use]
    pub fn of_phase(job: &Job) -> Self {
        Self::of_epoch(&job.id, job.epoch, job.phase.traced_round())
    }

    /// What a phase of this job is a part of.
    #[must_use]
    pub fn around_phase(job: &Job) -> Self {
        match job.phase.traced_round() {
            Some(round) => Self::of_round(&job.id, round),
            None => Self::of_job(&job.id),
        }
    }

    /// Reads a `traceparent` header; `None` if it is not one of version 00.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
        if version != "00" || trace.len() != 32 || span.len() != 16 {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok()?;
        let span = u64::from_str_radix(span, 16).ok()?;
        (trace != 0 && span != 0).then_some(Self { trace, span })
    }

    /// The span as 16 hexadecimal digits, as logs have it.
    #[must_use]
    pub fn span_hex(&self) -> String {
        format!("{:016x}", self.span)
    }

    /// The trace as 32 hexadecimal digits, as logs have it.
    #[must_use]
    pub fn trace_hex(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace, self.span)
    }
}

/// A job's number twice; a round's stands in the second half as well, which no other job's trace has.
fn trace(job: &JobId, round: u32) -> u128 {
    let digits = job.as_str().trim_start_matches("job_");
    // A job's id is 16 hexadecimal digits.
    let number = u64::from_str_radix(digits, 16).unwrap_or(1).max(1);
    let second = number ^ u64::from(round).rotate_left(32);
    (u128::from(number) << 64) | u128::from(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_as_it_was_written_and_nothing_else_is() {
        let job = JobId::from_bits(0xab);
        let text = Trace::of_epoch(&job, Epoch(7), None).to_string();
        assert_eq!(
            text,
            "00-00000000000000ab00000000000000ab-0000000000000007-01"
        );
        assert_eq!(
            Trace::parse(&text),
            Some(Trace::of_epoch(&job, Epoch(7), None))
        );
        for wrong in [
            "",
            "00",
            "01-00000000000000ab00000000000000ab-0000000000000007-01",
            "00-00000000000000000000000000000000-0000000000000007-01",
            "00-00000000000000ab00000000000000ab-0000000000000000-01",
            "00-zz-0000000000000007-01",
        ] {
            assert_eq!(Trace::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rounds_of_all_jobs_have_traces_of_their_own() {
        let (one, other) = (JobId::from_bits(1), JobId::from_bits(2));
        let traces = [
            Trace::of_job(&one),
            Trace::of_round(&one, 1),
            Trace::of_round(&one, 2),
            Trace::of_job(&other),
            Trace::of_round(&other, 1),
        ];
        for (index, trace) in traces.iter().enumerate() {
            for later in traces.iter().skip(index + 1) {
                assert_ne!(trace.trace, later.trace);
            }
        }
    }

    #[test]
    fn no_epoch_is_taken_for_the_whole() {
        let job = JobId::from_bits(1);
        for epoch in [0, 1, u64::MAX] {
            let phase = Trace::of_epoch(&job, Epoch(epoch), Some(1));
            assert_ne!(phase, Trace::of_round(&job, 1));
            assert_ne!(phase.span, 0);
        }
    }
}
