//! What the API shows, as far as the command line reads it. Fields it does not know are left alone.

use serde::Deserialize;

/// A job.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Job {
    /// `job_…`.
    pub id: String,
    /// Its submitter's name for it.
    pub name: String,
    /// How far it is.
    pub phase: String,
    /// The round it is in.
    pub round: Option<u32>,
    /// Rounds asked for.
    pub rounds_total: u32,
    /// Its place while it is queued.
    pub queue: Option<Queue>,
    /// Whom it waits for.
    pub waiting_for: Vec<Waiting>,
    /// Its sites.
    pub sites: Vec<Site>,
    /// Whom the open round asks; empty: every planned site.
    pub asked: Vec<String>,
    /// Who goes on with an earlier round.
    pub late: Vec<Late>,
    /// Of which round the adapter is.
    pub kept: Option<Kept>,
    /// Why it failed.
    pub cause: Option<Cause>,
    /// What it ended with.
    pub adapter: Option<Adapter>,
}

/// A place in the queue.
#[derive(Debug, Clone, Deserialize)]
pub struct Queue {
    /// Counted from 1.
    pub place: usize,
    /// Why it waits.
    pub reason: String,
}

/// One thing a job waits for.
#[derive(Debug, Clone, Deserialize)]
pub struct Waiting {
    /// The site; absent for a service or a person.
    pub worker: Option<String>,
    /// Why.
    pub why: String,
}

/// A site of a job.
#[derive(Debug, Clone, Deserialize)]
pub struct Site {
    /// Its worker.
    pub worker: String,
    /// What it is doing.
    pub stage: Option<String>,
    /// How far it is.
    pub progress: Option<Progress>,
    /// Why it was given up.
    pub lost: Option<Trouble>,
}

/// A site that goes on with an earlier round.
#[derive(Debug, Clone, Deserialize)]
pub struct Late {
    /// Its worker.
    pub worker: String,
    /// The round that it is at.
    pub round: u32,
}

/// The round whose adapter a job ends with.
#[derive(Debug, Clone, Deserialize)]
pub struct Kept {
    /// Which.
    pub round: u32,
    /// Why.
    pub why: String,
    /// Why training stopped early, if it did.
    pub stopped_early: Option<String>,
}

impl Kept {
    /// Both in a line.
    pub fn words(&self) -> String {
        let Self { round, why, .. } = self;
        match &self.stopped_early {
            Some(stopped) => format!("round {round} ({why}); stopped early: {stopped}"),
            None => format!("round {round} ({why})"),
        }
    }
}

/// Trouble at a site.
#[derive(Debug, Clone, Deserialize)]
pub struct Trouble {
    /// Where.
    pub worker: String,
    /// Which kind.
    pub trouble: String,
    /// In a sentence.
    pub detail: String,
}

/// Why a job failed.
#[derive(Debug, Clone, Deserialize)]
pub struct Cause {
    /// Which kind of end.
    pub kind: String,
    /// What happened and what to do.
    pub message: String,
    /// Where it came from.
    #[serde(default)]
    pub sites: Vec<Trouble>,
}

/// A stored adapter.
#[derive(Debug, Clone, Deserialize)]
pub struct Adapter {
    /// `sha256:…` of `adapter_model.safetensors`.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// Progress of a task.
#[derive(Debug, Clone, Deserialize)]
pub struct Progress {
    /// The task's job.
    pub job: String,
    /// Units done.
    pub done: u64,
    /// Units in all; 0 where unknown.
    pub total: u64,
    /// Last loss.
    pub loss: Option<f64>,
    /// Speed.
    pub tokens_per_second: Option<f64>,
}

/// Live progress of one worker in a stream of events.
#[derive(Debug, Clone, Deserialize)]
pub struct Beat {
    /// Whose.
    pub worker: String,
    /// What it is doing.
    pub stage: String,
    /// Of its task.
    pub progress: Option<Progress>,
}

impl Job {
    /// Whom it waits for, in a line; empty if nobody.
    pub fn waiting(&self) -> String {
        if let Some(queue) = &self.queue {
            return format!("place {} in the queue: {}", queue.place, queue.reason);
        }
        let words = |waiting: &Waiting| match &waiting.worker {
            Some(worker) => format!("{worker}: {}", waiting.why),
            None => waiting.why.clone(),
        };
        let words: Vec<String> = self.waiting_for.iter().map(words).collect();
        if words.is_empty() {
            return String::new();
        }
        format!("waiting for {}", words.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_says_in_one_line_whom_it_waits_for() {
        let job: Job = serde_json::from_value(serde_json::json!({
            "id": "job_1", "phase": "training", "colour": "a field of a later version",
            "waiting_for": [{ "worker": "a", "why": "it trains" }, { "worker": null, "why": "nobody owns it" }],
        }))
        .unwrap();
        assert_eq!(job.waiting(), "waiting for a: it trains; nobody owns it");
        let queue = Some(Queue {
            place: 2,
            reason: "a is taken".to_owned(),
        });
        assert_eq!(
            Job { queue, ..job }.waiting(),
            "place 2 in the queue: a is taken"
        );
    }
}
