//! A job as lines, for logs and pipes.

use std::collections::BTreeMap;

use chassis::clock::Stopwatch;

use super::words;
use crate::client::events::Event;
use crate::client::view::{Beat, Job};
use crate::output;

/// A worker that stays in its stage is shown this often, in seconds.
const AGAIN_SECONDS: f64 = 10.0;

/// What was shown last.
pub struct Plain {
    workers: BTreeMap<String, (String, Stopwatch)>,
    waiting: (String, Stopwatch),
}

impl Plain {
    /// Nothing was shown yet.
    pub fn new() -> Self {
        Self {
            workers: BTreeMap::new(),
            waiting: (String::new(), Stopwatch::start()),
        }
    }

    /// A line for an event.
    pub fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        output::line(format!(
            "{} {}",
            words::clock(&event.at),
            words::event(event)
        ))
    }

    /// A line for a worker that entered another stage, or was not shown for a while.
    pub fn beat(&mut self, beat: &Beat) -> anyhow::Result<()> {
        let shown = self.workers.get(&beat.worker);
        let idle = beat.progress.is_none();
        if shown.is_some_and(|(stage, when)| {
            *stage == beat.stage && (idle || when.seconds() < AGAIN_SECONDS)
        }) {
            return Ok(());
        }
        self.workers.insert(
            beat.worker.clone(),
            (beat.stage.clone(), Stopwatch::start()),
        );
        output::line(format!(
            "  {}: {}",
            beat.worker,
            words::progress(&beat.stage, beat.progress.as_ref())
        ))
    }

    /// A line if the job waits for somebody else than before.
    pub fn job(&mut self, job: &Job) -> anyhow::Result<()> {
        let waiting = job.waiting();
        let (last, when) = &self.waiting;
        if waiting.is_empty()
            || *last == waiting
            || (!last.is_empty() && when.seconds() < AGAIN_SECONDS)
        {
            return Ok(());
        }
        output::line(format!("  {}: {waiting}", job.phase))?;
        self.waiting = (waiting, Stopwatch::start());
        Ok(())
    }
}
