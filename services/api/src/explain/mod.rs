//! Why a job is not further: pure, from the stored job and what is known of the fleet.

pub mod queue;
pub mod waiting;

#[cfg(test)]
pub mod fixture;

use bus::fleet::stage_words;
use domain::fleet::{Beat, Stage};
use domain::id::WorkerName;
use domain::time::UnixMillis;

use crate::watch::Known;

/// The name of a stage as the API shows it.
pub const fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Idle => "idle",
        Stage::Downloading => "downloading",
        Stage::Loading => "loading",
        Stage::Probing => "probing",
        Stage::Training => "training",
        Stage::Uploading => "uploading",
        Stage::Evaluating => "evaluating",
        Stage::Stopping => "stopping",
    }
}

/// What a worker said it was doing, in words: `training, 3 of 8`.
fn doing(beat: &Beat) -> String {
    let stage = stage_words(beat.stage);
    match &beat.progress {
        Some(progress) if progress.total > 0 => {
            format!("{stage}, {} of {}", progress.done, progress.total)
        }
        _ => stage.to_owned(),
    }
}

/// That a worker cannot be reached: for how long, and what it was doing.
fn unreachable(known: &Known, worker: &WorkerName, now: UnixMillis) -> String {
    let seconds = now.since(known.last_heard(worker)) / 1000;
    match known.beats.get(worker) {
        Some(heard) => format!(
            "unreachable: no sign of life for {seconds} s, it was {} then",
            doing(&heard.beat)
        ),
        None => format!(
            "unreachable: no sign of life since this service began to listen for it {seconds} s ago"
        ),
    }
}
