//! The fleet as one process sees it: who registered, who beats, who makes progress.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use domain::cause::{SiteTrouble, Trouble};
use domain::fleet::{Beat, Liveness, MISSED_BEATS, Registration, Stage, liveness};
use domain::id::WorkerName;
use domain::time::UnixMillis;
use futures::StreamExt;

use crate::Bus;

/// How often the observer makes sure that it would hear a beat, and how long that may take.
const LISTEN: Duration = Duration::from_secs(1);

/// An observer that was not sure for so long, in milliseconds, was deaf: its network was gone, or the
/// process stood still.
const DEAF_MS: u64 = 2500;

/// What is known of one worker. Times are the observer's.
#[derive(Debug, Clone)]
pub struct Member {
    /// What it said of itself.
    pub registration: Registration,
    /// Its last beat and when it arrived.
    pub beat: Option<(Beat, UnixMillis)>,
    /// When it was last seen to make progress, or first seen at all.
    pub moved_at: UnixMillis,
    /// When it was last heard to compute, if it was.
    pub computed_at: Option<UnixMillis>,
}

impl Member {
    /// Whether its beats arrive.
    #[must_use]
    pub fn liveness(&self, now: UnixMillis) -> Liveness {
        liveness(
            self.beat.as_ref().map(|(_, at)| *at),
            self.registration.beat_ms,
            now,
        )
    }

    /// What it was last seen doing.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.beat.as_ref().map(|(beat, _)| beat.stage)
    }
}

/// A view of the fleet that keeps itself up to date. Clones share it.
#[derive(Debug, Clone)]
pub struct Fleet {
    members: Arc<RwLock<BTreeMap<WorkerName, Member>>>,
    /// Since when the observer has been listening without a gap.
    since: Arc<AtomicU64>,
    /// When it was last sure of that.
    sure_at: Arc<AtomicU64>,
    clock: fn() -> UnixMillis,
}

impl Fleet {
    /// Starts listening.
    #[must_use]
    pub fn watch(bus: &Bus, clock: fn() -> UnixMillis) -> Self {
        let fleet = Self {
            members: Arc::default(),
            since: Arc::new(AtomicU64::new(clock().0)),
            sure_at: Arc::new(AtomicU64::new(clock().0)),
            clock,
        };
        tokio::spawn(fleet.clone().follow_registrations(bus.clone()));
        tokio::spawn(fleet.clone().follow_beats(bus.clone()));
        tokio::spawn(fleet.clone().listen(bus.clone()));
        fleet
    }

    /// Everybody, by name.
    #[must_use]
    pub fn members(&self) -> BTreeMap<WorkerName, Member> {
        self.members
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// One worker.
    #[must_use]
    pub fn member(&self, worker: &WorkerName) -> Option<Member> {
        self.members
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(worker)
            .cloned()
    }

    /// Whether a worker beats at this moment.
    #[must_use]
    pub fn is_alive(&self, worker: &WorkerName, now: UnixMillis) -> bool {
        self.member(worker)
            .is_some_and(|member| member.liveness(now) == Liveness::Alive)
    }

    /// Judges a worker that owes a result since `asked_at`: `None` while it may still deliver, the
    /// trouble once it has been silent or without progress for longer than `give_up_ms`. An observer
    /// that was deaf gives nobody up, and everybody the same time again.
    #[must_use]
    pub fn gave_out(
        &self,
        worker: &WorkerName,
        asked_at: UnixMillis,
        give_up_ms: u64,
    ) -> Option<SiteTrouble> {
        let now = (self.clock)();
        if now.since(UnixMillis(self.sure_at.load(Ordering::Relaxed))) > DEAF_MS {
            return None;
        }
        // A process that has just started has heard nobody yet; it gives everybody the same time.
        let asked_at = asked_at.max(UnixMillis(self.since.load(Ordering::Relaxed)));
        let trouble = |trouble, detail| SiteTrouble {
            worker: worker.clone(),
            trouble,
            detail,
        };
        let Some(member) = self.member(worker) else {
            let silent = now.since(asked_at) > give_up_ms;
            return silent.then(|| trouble(Trouble::Unreachable, "never seen".to_owned()));
        };
        let doing = member.stage().map_or_else(String::new, |stage| {
            format!(", last seen {}", stage_words(stage))
        });
        let heard_at = member
            .beat
            .as_ref()
            .map_or(asked_at, |(_, at)| *at)
            .max(asked_at);
        let quiet = now.since(heard_at);
        let missed = MISSED_BEATS.saturating_mul(member.registration.beat_ms);
        if quiet > give_up_ms.max(missed) {
            return Some(trouble(
                Trouble::Unreachable,
                format!("no sign of life for {} s{doing}", quiet / 1000),
            ));
        }
        let still = now.since(member.moved_at.max(asked_at));
        let slow = still > give_up_ms && member.stage() != Some(Stage::Idle);
        slow.then(|| {
            trouble(
                Trouble::NoProgress,
                format!("no progress for {} s{doing}", still / 1000),
            )
        })
    }

    async fn follow_registrations(self, bus: Bus) {
        let mut changes = bus.registrations();
        while let Some(change) = changes.recv().await {
            let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
            match change.value {
                Some(registration) => {
                    let now = (self.clock)();
                    let member = members.entry(registration.worker.clone());
                    member
                        .and_modify(|member| member.registration = registration.clone())
                        .or_insert(Member {
                            registration,
                            beat: None,
                            moved_at: now,
                            computed_at: None,
                        });
                }
                None => members.retain(|worker, _| worker.as_str() != change.key),
            }
        }
    }

    async fn follow_beats(self, bus: Bus) {
        loop {
            if let Ok(mut beats) = bus.beats().await {
                while let Some(beat) = beats.next().await {
                    self.hear(beat);
                }
            }
            tokio::time::sleep(crate::feed::MEND).await;
        }
    }

    /// Keeps sure that beats would be heard.
    async fn listen(self, bus: Bus) {
        loop {
            let answered = tokio::time::timeout(LISTEN, bus.jetstream.query_account());
            if matches!(answered.await, Ok(Ok(_))) {
                let now = (self.clock)();
                let before = self.sure_at.load(Ordering::Relaxed);
                if now.since(UnixMillis(before)) > DEAF_MS {
                    tracing::warn!("heard nobody for a while, which was not their fault");
                    self.since.store(now.0, Ordering::Relaxed);
                }
                self.sure_at.store(now.0, Ordering::Relaxed);
            }
            tokio::time::sleep(LISTEN).await;
        }
    }

    fn hear(&self, beat: Beat) {
        let now = (self.clock)();
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        let Some(member) = members.get_mut(&beat.worker) else {
            return;
        };
        let moved = member.beat.as_ref().is_none_or(|(last, _)| {
            (last.counter, last.stage) != (beat.counter, beat.stage) || beat.stage == Stage::Idle
        });
        if moved {
            member.moved_at = now;
        }
        if beat.stage.computes() {
            member.computed_at = Some(now);
        }
        member.beat = Some((beat, now));
    }
}

/// A stage as a person says it.
#[must_use]
pub const fn stage_words(stage: Stage) -> &'static str {
    match stage {
        Stage::Idle => "idle",
        Stage::Downloading => "downloading",
        Stage::Loading => "loading the model",
        Stage::Probing => "measuring itself",
        Stage::Training => "training",
        Stage::Uploading => "uploading",
        Stage::Evaluating => "evaluating",
        Stage::Stopping => "stopping",
    }
}
