//! Gives every worker that registers its queue. One whose queue cannot be opened has another turn, later and later, and
//! nobody waits behind it.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bus::Change;
use bus::drive::error_chain;
use chassis::clock::Stopwatch;
use domain::fleet::Registration;
use domain::id::WorkerName;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Pauses before a queue that could not be opened is tried again: the first, doubled each time, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Least time between two lines of the log about one queue, in milliseconds.
const TOLD_AGAIN_MS: u64 = 60_000;

/// Workers whose queue is not open yet.
type Waiting = BTreeMap<WorkerName, Attempts>;

/// What was tried for one of them.
struct Attempts {
    /// Since the last.
    tried: Stopwatch,
    /// From then to the next.
    pause: Duration,
    /// Since it was last told that they fail.
    told: Stopwatch,
}

impl Attempts {
    fn since(&self) -> Duration {
        Duration::from_millis(self.tried.elapsed_ms())
    }

    /// How long the next is still away.
    fn rest(&self) -> Duration {
        self.pause.saturating_sub(self.since())
    }

    /// Since when the next is due, if it is.
    fn overdue(&self) -> Option<Duration> {
        self.since().checked_sub(self.pause)
    }
}

/// Opens the queue of each worker that registers, as long as registrations come.
pub async fn open<O, F>(mut registrations: mpsc::Receiver<Change<Registration>>, open: O)
where
    O: Fn(WorkerName) -> F,
    F: Future<Output = Result<(), bus::Error>>,
{
    let mut waiting = Waiting::new();
    loop {
        let rest = waiting.values().map(Attempts::rest).min();
        tokio::select! {
            change = registrations.recv() => {
                let Some(Change { key, value }) = change else { return };
                let Some(registration) = value else {
                    waiting.retain(|worker, _| worker.as_str() != key);
                    continue;
                };
                attempt(&open, registration.worker, &mut waiting).await;
            }
            () = sleep(rest.unwrap_or_default()), if rest.is_some() => {
                // One at a time: each may take as long as the server is waited for, and others register meanwhile.
                let due = waiting.iter().filter_map(|(worker, one)| Some((one.overdue()?, worker)));
                let next = due.max().map(|(_, worker)| worker.clone());
                if let Some(worker) = next {
                    attempt(&open, worker, &mut waiting).await;
                }
            }
        }
    }
}

async fn attempt<O, F>(open: &O, worker: WorkerName, waiting: &mut Waiting)
where
    O: Fn(WorkerName) -> F,
    F: Future<Output = Result<(), bus::Error>>,
{
    let before = waiting.remove(&worker);
    let Err(error) = open(worker.clone()).await else {
        return;
    };
    let longer = |before: &Attempts| (before.pause * 2).min(LONGEST_PAUSE);
    let pause = before.as_ref().map_or(FIRST_PAUSE, longer);
    let told_before = before.map(|before| before.told);
    let lately = told_before.filter(|told| told.elapsed_ms() < TOLD_AGAIN_MS);
    let told = lately.unwrap_or_else(|| {
        tracing::warn!(%worker, cause = error_chain(&error), "queue not opened, trying again");
        Stopwatch::start()
    });
    let tried = Stopwatch::start();
    waiting.insert(worker, Attempts { tried, pause, told });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use domain::time::UnixMillis;
    use tokio::sync::mpsc::UnboundedReceiver;
    use tokio::time::timeout;

    use super::*;

    /// Far beyond what anything here takes.
    const SOON: Duration = Duration::from_secs(20);

    fn registered(name: &str) -> Change<Registration> {
        let registration = Registration {
            worker: name.parse().unwrap(),
            version: "0.1.0".to_owned(),
            host: "host".to_owned(),
            started_at: UnixMillis(0),
            memory_limit_bytes: 1 << 30,
            threads: 1,
            datasets: BTreeMap::new(),
            policy: "every job".to_owned(),
            beat_ms: 3000,
        };
        Change {
            key: name.to_owned(),
            value: Some(registration),
        }
    }

    async fn next(tried: &mut UnboundedReceiver<(String, bool)>) -> (String, bool) {
        timeout(SOON, tried.recv()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_queue_that_cannot_be_opened_keeps_nobody_waiting_and_is_opened_once_it_can() {
        let (sender, registrations) = mpsc::channel(8);
        let (told, mut tried) = mpsc::unbounded_channel();
        let broken = Arc::new(AtomicBool::new(true));
        let state = Arc::clone(&broken);
        let opening = tokio::spawn(open(registrations, move |worker: WorkerName| {
            let refused = worker.as_str() == "a" && state.load(Ordering::Relaxed);
            told.send((worker.to_string(), !refused)).unwrap();
            let conflict = bus::Error::Conflict {
                key: worker.to_string(),
            };
            std::future::ready(if refused { Err(conflict) } else { Ok(()) })
        }));
        let of = |name: &str, opened| (name.to_owned(), opened);
        sender.send(registered("a")).await.unwrap();
        sender.send(registered("b")).await.unwrap();
        while next(&mut tried).await != of("b", true) {}
        // The other has its next turn although nobody registers.
        assert_eq!(next(&mut tried).await, of("a", false));
        broken.store(false, Ordering::Relaxed);
        while next(&mut tried).await != of("a", true) {}
        sender.send(registered("c")).await.unwrap();
        // Nobody else is tried any more.
        assert_eq!(next(&mut tried).await, of("c", true));
        drop(sender);
        timeout(SOON, opening).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_worker_whose_queue_cannot_be_opened_lengthens_no_other_s_pauses() {
        let (sender, registrations) = mpsc::channel(8);
        let (told, mut tried) = mpsc::unbounded_channel();
        let came = AtomicBool::new(false);
        let opening = tokio::spawn(open(registrations, move |worker: WorkerName| {
            // The one never is, the other at its second turn.
            let opened = worker.as_str() == "b" && came.swap(true, Ordering::Relaxed);
            told.send((worker.to_string(), opened)).unwrap();
            let conflict = bus::Error::Conflict {
                key: worker.to_string(),
            };
            std::future::ready(if opened { Ok(()) } else { Err(conflict) })
        }));
        sender.send(registered("a")).await.unwrap();
        for _ in 0..4 {
            assert_eq!(next(&mut tried).await.0, "a");
        }
        sender.send(registered("b")).await.unwrap();
        let of = |opened| ("b".to_owned(), opened);
        assert_eq!(next(&mut tried).await, of(false));
        assert_eq!(next(&mut tried).await, of(true));
        drop(sender);
        timeout(SOON, opening).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_worker_that_is_removed_is_not_tried_any_more() {
        let (sender, registrations) = mpsc::channel(8);
        let (told, mut tried) = mpsc::unbounded_channel();
        let opening = tokio::spawn(open(registrations, move |worker: WorkerName| {
            let key = worker.to_string();
            told.send((key.clone(), false)).unwrap();
            std::future::ready(Err(bus::Error::Conflict { key }))
        }));
        let removed = Change {
            key: "a".to_owned(),
            value: None,
        };
        sender.send(registered("a")).await.unwrap();
        sender.send(removed).await.unwrap();
        sender.send(registered("b")).await.unwrap();
        while next(&mut tried).await.0 != "b" {}
        // Its next turn comes, and no other's.
        assert_eq!(next(&mut tried).await.0, "b");
        assert_eq!(next(&mut tried).await.0, "b");
        drop(sender);
        timeout(SOON, opening).await.unwrap().unwrap();
    }
}
