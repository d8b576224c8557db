//! `probe`: measure this site for a job.

use std::num::NonZeroU64;

use chassis::clock::Stopwatch;
use contract::message::report::Probed;
use contract::message::task::Probe;
use domain::cause::Trouble;
use domain::fleet::Stage;

use crate::errand::Errand;
use crate::failure::Failure;
use crate::fetch;
use crate::probe::{self, Examination, Link};
use crate::report::Report;
use crate::site::Site;

/// Bytes of the bandwidth probe in each direction, at most.
const PROBE_BYTES: u64 = 2 << 20;
/// Bytes of its first part, which says how many more are worth their time.
const SMALLEST_PROBE_BYTES: u64 = 64 << 10;
/// Seconds that the rest may take in a direction, by what the first part took: a slow link is not kept busy for minutes.
const PROBE_SECONDS: f64 = 4.0;

/// Requests whose round trip is measured.
const ROUND_TRIPS: usize = 3;

/// Measures everything, the link first: nothing else uses it then.
pub(super) async fn handle(running: &Errand, task: &Probe) -> Result<Report, Failure> {
    let site = &running.site;
    let (name, policy) = (task.head.dataset.clone(), site.config.policy.clone());
    let data = running.aside(move |site| site.data.reopen(&name)).await?;
    let summary = data.summary();
    let admitted = policy.admit_count("the length of records", summary.records);
    admitted.map_err(|refusal| Failure::of(Trouble::PolicyRefused, &refusal))?;

    let key = probe::key(site.threads, task);
    let files = fetch::model(running).await?;
    running.stage(Stage::Probing, 0);
    let bandwidth = bandwidth(running, task).await?;
    site.set_download(bandwidth.down_bytes_per_second);
    let link = Link {
        upload_bytes_per_second: bandwidth.up_bytes_per_second,
        download_bytes_per_second: bandwidth.down_bytes_per_second,
        round_trip_ms: round_trip_ms(site).await,
    };
    let examination = Examination {
        task: task.clone(),
        key,
        files,
        data,
        seconds: f64::from(site.config.probe_seconds),
    };
    let examined = running
        .compute(move |bench, running| examination.examine(bench, running))
        .await?;

    let measurement = examined.measurement(site, task, &summary, link);
    let head = running.report_head();
    Ok(Report::Probed(Box::new(Probed { head, measurement })))
}

/// The shortest of a few requests to the bus and their answers; 0 while the bus is away.
async fn round_trip_ms(site: &Site) -> f64 {
    let mut shortest: Option<f64> = None;
    for _ in 0..ROUND_TRIPS {
        let watch = Stopwatch::start();
        if site.bus.worker_is_known(&site.name).await {
            let ms = watch.seconds() * 1000.0;
            shortest = Some(shortest.map_or(ms, |least| least.min(ms)));
        }
    }
    shortest.unwrap_or_else(|| {
        tracing::warn!("the bus is away, its round trip is not measured");
        0.0
    })
}

async fn bandwidth(running: &Errand, task: &Probe) -> Result<artifacts::Bandwidth, Failure> {
    let site = &running.site;
    // About a second on a link that is held slow.
    let most = site.config.bandwidth().map_or(PROBE_BYTES, |rate| {
        rate.get().clamp(SMALLEST_PROBE_BYTES, PROBE_BYTES)
    });
    let first = moved(running, task, SMALLEST_PROBE_BYTES).await?;
    match rest(&first, most) {
        Some(bytes) => moved(running, task, bytes).await,
        None => Ok(first),
    }
}

/// Bytes that are worth moving once the first part was; `None` if that was slow enough to go by.
fn rest(first: &artifacts::Bandwidth, most: u64) -> Option<u64> {
    let slower = first.up_bytes_per_second.min(first.down_bytes_per_second);
    // Saturates; 0 for what is no number.
    let bytes = ((PROBE_SECONDS * slower) as u64).min(most);
    (bytes > SMALLEST_PROBE_BYTES).then_some(bytes)
}

async fn moved(
    running: &Errand,
    task: &Probe,
    bytes: u64,
) -> Result<artifacts::Bandwidth, Failure> {
    let bytes = NonZeroU64::new(bytes).unwrap_or(NonZeroU64::MIN);
    let (transfer, seed) = (running.transfer(), task.head.epoch.0);
    let probe = running.patiently(Trouble::StorageUnavailable, || {
        running.store.probe(&task.prefix, bytes, seed, &transfer)
    });
    probe.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_link_is_measured_with_as_much_as_it_moves_in_little_time() {
        let rest = |up, down| {
            let first = artifacts::Bandwidth {
                up_bytes_per_second: up,
                down_bytes_per_second: down,
            };
            rest(&first, PROBE_BYTES)
        };
        assert_eq!(rest(1e9, 1e8), Some(PROBE_BYTES));
        assert_eq!(rest(1e9, 1e5), Some(400_000));
        assert_eq!(rest(2e5, 1e9), Some(800_000));
        assert_eq!(rest(1e4, 1e9), None);
        assert_eq!(rest(f64::NAN, f64::NAN), None);
    }
}
