//! The virtual clock: what a round takes at each site, and in the whole fleet.

use std::time::Duration;

use domain::id::WorkerName;
use serde::Serialize;

/// A site's link.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Link {
    /// Bytes a second in each direction; 0: no limit, so that a transfer takes no time.
    pub bytes_per_second: f64,
    /// From the site to the control plane and back.
    pub round_trip: Duration,
}

/// What one round took at one site.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spent {
    /// All of it.
    pub seconds: f64,
    /// Its steps, at the site's pace.
    pub compute_seconds: f64,
    /// Fetching the merged adapter.
    pub download_seconds: f64,
    /// Sending the update.
    pub upload_seconds: f64,
    /// Being asked and answering.
    pub round_trip_seconds: f64,
}

impl Link {
    /// What a round takes whose steps took `compute_seconds`: the task and the report are a round trip
    /// each, as in a plan's prediction.
    #[must_use]
    pub fn spent(self, compute_seconds: f64, down: u64, up: u64) -> Spent {
        let transfer = |bytes: u64| {
            if self.bytes_per_second > 0.0 {
                bytes as f64 / self.bytes_per_second
            } else {
                0.0
            }
        };
        let (download_seconds, upload_seconds) = (transfer(down), transfer(up));
        let round_trip_seconds = 2.0 * self.round_trip.as_secs_f64();
        Spent {
            seconds: compute_seconds + download_seconds + upload_seconds + round_trip_seconds,
            compute_seconds,
            download_seconds,
            upload_seconds,
            round_trip_seconds,
        }
    }
}

/// How far a round's sites finish apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Together {
    /// The slowest site's seconds: the round's.
    pub slowest_seconds: f64,
    /// The fastest site's.
    pub fastest_seconds: f64,
    /// Share of the round that the fastest site waits: `(slowest − fastest) / slowest`.
    pub apart: f64,
    /// Share of the fleet's time that is spent waiting.
    pub waiting: f64,
}

impl Together {
    /// Of a round.
    #[must_use]
    pub fn of<'a>(seconds: impl Iterator<Item = (&'a WorkerName, f64)>) -> Self {
        let all: Vec<f64> = seconds.map(|(_, seconds)| seconds).collect();
        let slowest = all.iter().copied().fold(0.0, f64::max);
        let fastest = all.iter().copied().fold(slowest, f64::min);
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let whole = slowest * all.len() as f64;
        Self {
            slowest_seconds: slowest,
            fastest_seconds: fastest,
            apart: share(slowest - fastest, slowest),
            waiting: share(whole - all.iter().sum::<f64>(), whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_its_steps_its_bytes_and_two_round_trips() {
        let link = Link {
            bytes_per_second: 1000.0,
            round_trip: Duration::from_millis(250),
        };
        let spent = link.spent(3.0, 500, 2000);
        assert_eq!(
            (spent.seconds, spent.download_seconds, spent.upload_seconds),
            (6.0, 0.5, 2.0)
        );
        assert_eq!(Link::default().spent(3.0, 500, 2000).seconds, 3.0);
    }

    #[test]
    fn a_fleet_is_as_far_apart_as_its_fastest_site_waits() {
        let names: Vec<WorkerName> = ["a", "b", "c"].iter().map(|n| n.parse().unwrap()).collect();
        let together = Together::of(names.iter().zip([8.0, 10.0, 6.0]));
        assert_eq!(
            (together.slowest_seconds, together.fastest_seconds),
            (10.0, 6.0)
        );
        assert_eq!((together.apart, together.waiting), (0.4, 0.2));
        let alone = Together::of(names.iter().zip([5.0]));
        assert_eq!((alone.apart, alone.waiting), (0.0, 0.0));
    }
}
