//! A job as progress bars: one for its rounds, one for each worker, events above them.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::words;
use crate::client::events::Event;
use crate::client::view::{Beat, Job};

/// Workers that get a bar of their own; of a larger fleet the others are in the events.
const BARS: usize = 40;

/// The bars of one job.
pub struct Bars {
    all: MultiProgress,
    rounds: ProgressBar,
    workers: BTreeMap<String, ProgressBar>,
}

impl Bars {
    /// Bars of a job of which nothing is known yet.
    pub fn new() -> Self {
        let all = MultiProgress::new();
        let rounds = all.add(
            ProgressBar::new(0).with_style(style("{prefix:16} {bar:20} {pos}/{len} {wide_msg}")),
        );
        rounds.set_prefix("rounds");
        Self {
            all,
            rounds,
            workers: BTreeMap::new(),
        }
    }

    /// A line above the bars.
    pub fn line(&self, text: &str) -> anyhow::Result<()> {
        Ok(self.all.println(text)?)
    }

    /// Shows what happened.
    pub fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        if let ("merged", Some(round)) = (
            event.event.as_str(),
            event
                .detail
                .get("round")
                .and_then(serde_json::Value::as_u64),
        ) {
            self.rounds.set_position(round);
        }
        self.line(&format!(
            "{} {}",
            words::clock(&event.at),
            words::event(event)
        ))
    }

    /// Moves a worker's bar.
    pub fn beat(&mut self, beat: &Beat) {
        if self.workers.len() >= BARS && !self.workers.contains_key(&beat.worker) {
            return;
        }
        let all = &self.all;
        let bar = self.workers.entry(beat.worker.clone()).or_insert_with(|| {
            let bar =
                all.add(ProgressBar::new(0).with_style(style("{prefix:16} {bar:20} {wide_msg}")));
            bar.set_prefix(beat.worker.clone());
            bar
        });
        let (done, total) = beat
            .progress
            .as_ref()
            .map_or((0, 0), |progress| (progress.done, progress.total));
        bar.set_length(total.max(1));
        bar.set_position(done.min(total));
        bar.set_message(words::progress(&beat.stage, beat.progress.as_ref()));
    }

    /// Shows how far the job is and whom it waits for.
    pub fn job(&mut self, job: &Job) {
        self.rounds.set_length(job.rounds_total.into());
        let waiting = job.waiting();
        let words = if waiting.is_empty() {
            job.phase.clone()
        } else {
            format!("{}: {waiting}", job.phase)
        };
        self.rounds.set_message(words);
    }

    /// Leaves the bars as they stand.
    pub fn close(&self) {
        for bar in self.workers.values().chain([&self.rounds]) {
            bar.abandon();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // Invariant: the templates above are legal; a test reads them.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("█▌░")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_legal() {
        for template in [
            "{prefix:16} {bar:20} {pos}/{len} {wide_msg}",
            "{prefix:16} {bar:20} {wide_msg}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
