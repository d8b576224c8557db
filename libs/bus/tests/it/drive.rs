//! Driving jobs: leases, retries, wake-ups, defects.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::drive::{Drive, Driver, Next, Owned};
use bus::{Bus, Error, Retry, Store};
use contract::message::job::Event;
use contract::permission;
use contract::topology::Bucket;
use domain::cause::{Cause, CauseKind, SiteTrouble, Trouble};
use domain::id::{Epoch, Fence, JobId};
use domain::job::{Job, Phase, Role};
use testkit::wait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::feeds::next;
use crate::fixture::{SOON, Site, connect, planning, site_a};

/// What a step does.
#[derive(Debug, Clone, Copy)]
enum Act {
    Wait,
    Fail(Retry),
    Overtaken,
    Panic,
    Lose,
}

/// A step that was made.
#[derive(Debug)]
struct Seen {
    job: JobId,
    epoch: Epoch,
    fence: Fence,
    paused_ms: u64,
}

/// A planner that plays what it is told, then waits.
struct Script {
    acts: Mutex<VecDeque<Act>>,
    seen: mpsc::UnboundedSender<Seen>,
    left: mpsc::UnboundedSender<JobId>,
    jobs: Store<Job>,
}

#[derive(Debug, thiserror::Error)]
enum Trial {
    #[error("as told")]
    Told(Retry),
    #[error("the bus")]
    Bus(#[from] Error),
}

impl Driver for Script {
    type Error = Trial;

    async fn step(&self, job: &mut Owned) -> Result<Next, Trial> {
        let stored = job.job();
        let _ = self.seen.send(Seen {
            job: stored.id.clone(),
            epoch: stored.epoch,
            fence: stored.owner.as_ref().unwrap().fence,
            paused_ms: stored.paused_ms,
        });
        let act = self.acts.lock().unwrap().pop_front();
        match act.unwrap_or(Act::Wait) {
            Act::Wait => Ok(Next::Wait(None)),
            Act::Fail(retry) => Err(Trial::Told(retry)),
            Act::Panic => panic!("as told"),
            Act::Overtaken => {
                let key = stored.id.as_str();
                let (mut theirs, _) = self.jobs.get(key).await?.unwrap();
                theirs.paused_ms = 77;
                self.jobs.put(key, &theirs).await?;
                job.change(|job| job.paused_ms = 1).await?;
                Ok(Next::Wait(None))
            }
            Act::Lose => {
                let site = SiteTrouble {
                    worker: site_a(),
                    trouble: Trouble::DiskFull,
                    detail: String::new(),
                };
                job.lose(site.clone()).await?;
                job.lose(site).await?;
                Ok(Next::Wait(None))
            }
        }
    }

    fn retry(&self, error: &Trial) -> Retry {
        match error {
            Trial::Told(retry) => *retry,
            Trial::Bus(error) => error.retry(),
        }
    }

    async fn give_up(&self, job: &mut Owned, error: &Trial) -> Result<(), Error> {
        let cause = Cause {
            kind: CauseKind::PlanImpossible,
            message: error.to_string(),
            sites: Vec::new(),
        };
        job.fail(cause).await
    }

    async fn left(&self, job: &JobId) {
        let _ = self.left.send(job.clone());
    }
}

/// A running planner. Dropping it kills it: nothing is given back.
struct Planner {
    seen: mpsc::UnboundedReceiver<Seen>,
    left: mpsc::UnboundedReceiver<JobId>,
    token: CancellationToken,
    _killed: oneshot::Sender<()>,
}

const LONG_MS: u64 = 60_000;

impl Planner {
    async fn start(site: &Site, name: &str, lease_ms: u64, sweep_ms: u64, acts: &[Act]) -> Self {
        let bus = connect(&site.server, &permission::Role::Planner).await;
        let drive = Drive {
            role: Role::Planner,
            instance: name.parse().unwrap(),
            lease_ms,
            sweep_ms,
            clock: testkit::clock::now,
            moved: |_, _, _| {},
        };
        let (sender, seen) = mpsc::unbounded_channel();
        let (leaves, left) = mpsc::unbounded_channel();
        let script = Arc::new(Script {
            acts: Mutex::new(acts.iter().copied().collect()),
            seen: sender,
            left: leaves,
            jobs: bus.store(Bucket::Jobs).await.unwrap(),
        });
        let token = CancellationToken::new();
        let (killed, kill) = oneshot::channel::<()>();
        let stop = token.clone();
        tokio::spawn(async move {
            tokio::select! {
                ended = drive.run(&bus, script, &stop) => ended.unwrap(),
                _ = kill => {}
            }
        });
        Self {
            seen,
            left,
            token,
            _killed: killed,
        }
    }

    async fn next(&mut self) -> Seen {
        let step = wait::in_time("a step is made", SOON, self.seen.recv()).await;
        step.unwrap()
    }

    async fn rests(&mut self, during: Duration) {
        wait::never("a step is made", during, self.seen.recv()).await;
    }
}

async fn jobs(bus: &Bus) -> Store<Job> {
    bus.store(Bucket::Jobs).await.unwrap()
}

async fn submit(site: &Site, job: &Job) {
    let store = jobs(&site.api).await;
    store.create(job.id.as_str(), job).await.unwrap();
}

/// Changes the stored job, as somebody else would.
async fn write(site: &Site, id: &JobId, change: impl Fn(&mut Job)) {
    let store = jobs(&site.api).await;
    wait::until("it is written", SOON, async || {
        let (mut job, revision) = store.get(id.as_str()).await.unwrap().unwrap();
        change(&mut job);
        store.update(id.as_str(), &job, revision).await.is_ok()
    })
    .await;
}

/// Waits until the job's stored phase is as asked, and returns the job.
async fn until_phase(site: &Site, id: &JobId, is: fn(&Phase) -> bool) -> Job {
    let store = jobs(&site.api).await;
    wait::some("the job gets there", SOON, async || {
        let (job, _) = store.get(id.as_str()).await.ok()??;
        is(&job.phase).then_some(job)
    })
    .await
}

#[tokio::test]
async fn a_job_has_one_owner_at_a_time() {
    let site = Site::open().await;
    submit(&site, &planning(1)).await;
    let mut first = Planner::start(&site, "first", LONG_MS, 50, &[]).await;
    assert_eq!(first.next().await.fence, Fence(1));
    let mut second = Planner::start(&site, "second", LONG_MS, 50, &[]).await;
    second.rests(Duration::from_millis(500)).await;
    // The first one goes on meanwhile: every sweep is a step.
    first.next().await;
}

#[tokio::test]
async fn a_killed_owners_job_is_taken_over_when_its_lease_has_run_out() {
    let site = Site::open().await;
    let mut first = Planner::start(&site, "first", 3000, LONG_MS, &[]).await;
    submit(&site, &planning(1)).await;
    first.next().await;
    let mut second = Planner::start(&site, "second", 3000, LONG_MS, &[]).await;
    drop(first);
    second.rests(Duration::from_millis(300)).await;
    let step = second.next().await;
    assert_eq!(step.fence, Fence(2));
}

#[tokio::test]
async fn a_stopping_owners_job_is_taken_over_at_once() {
    let site = Site::open().await;
    submit(&site, &planning(1)).await;
    let mut first = Planner::start(&site, "first", LONG_MS, LONG_MS, &[]).await;
    first.next().await;
    let mut second = Planner::start(&site, "second", LONG_MS, LONG_MS, &[]).await;
    second.rests(Duration::from_millis(200)).await;
    first.token.cancel();
    assert_eq!(second.next().await.fence, Fence(2));
}

#[tokio::test]
async fn a_step_that_fails_is_made_again() {
    let site = Site::open().await;
    submit(&site, &planning(1)).await;
    let acts = [
        Act::Fail(Retry::Later),
        Act::Fail(Retry::Later),
        Act::Fail(Retry::Reread),
    ];
    let mut planner = Planner::start(&site, "p", LONG_MS, LONG_MS, &acts).await;
    // The last one goes on, which is stored and wakes the job once more.
    for _ in 0..5 {
        planner.next().await;
    }
    planner.rests(Duration::from_millis(500)).await;
}

#[tokio::test]
async fn what_keeps_a_job_is_stored_after_a_second_failure_and_until_it_goes_on() {
    let site = Site::open().await;
    let acts = [Act::Fail(Retry::Later); 4];
    let _planner = Planner::start(&site, "first", LONG_MS, 50, &acts).await;
    let (job, store) = (planning(1), jobs(&site.api).await);
    submit(&site, &job).await;
    let held = async || store.get(job.id.as_str()).await.ok()??.0.held;
    let found = wait::some("what keeps it is stored", SOON, &held).await;
    assert_eq!(found.why, "as told");
    wait::until("it goes on", SOON, async || held().await.is_none()).await;
}

#[tokio::test]
async fn a_step_that_can_never_succeed_ends_the_job_and_says_so() {
    let site = Site::open().await;
    let job = planning(1);
    submit(&site, &job).await;
    let _planner = Planner::start(&site, "p", LONG_MS, LONG_MS, &[Act::Fail(Retry::Never)]).await;
    until_phase(&site, &job.id, |phase| {
        matches!(phase, Phase::Failed { .. })
    })
    .await;
    let mut events = site.api.events(Some(&job.id), 0);
    assert!(matches!(
        next(&mut events).await.1.event,
        Event::Profiled { .. }
    ));
    let Event::Failed { cause } = next(&mut events).await.1.event else {
        panic!("not said");
    };
    assert_eq!(
        (cause.kind, cause.message.as_str()),
        (CauseKind::PlanImpossible, "as told")
    );
}

#[tokio::test]
async fn whoever_is_overtaken_reads_again() {
    let site = Site::open().await;
    submit(&site, &planning(1)).await;
    let mut planner = Planner::start(&site, "p", LONG_MS, LONG_MS, &[Act::Overtaken]).await;
    assert_eq!(planner.next().await.paused_ms, 0);
    assert_eq!(planner.next().await.paused_ms, 77);
}

#[tokio::test]
async fn an_event_that_was_lost_is_said_again_on_the_sweep() {
    let site = Site::open().await;
    let job = planning(1);
    submit(&site, &job).await;
    let mut planner = Planner::start(&site, "p", LONG_MS, 300, &[]).await;
    planner.next().await;
    site.aggregator.forget(&job.id).await.unwrap();
    let mut events = site.api.events(Some(&job.id), 0);
    let (_, event) = next(&mut events).await;
    assert_eq!((event.epoch, event.at), (job.epoch, job.phase_since));
}

#[tokio::test]
async fn a_job_that_leaves_and_comes_back_quickly_is_not_forgotten() {
    let site = Site::open().await;
    let mut job = planning(1);
    submit(&site, &job).await;
    let mut planner = Planner::start(&site, "p", LONG_MS, LONG_MS, &[]).await;
    planner.next().await;
    let store = jobs(&site.api).await;
    for _ in 0..50 {
        for pause in [true, false] {
            let (mut stored, revision) = store.get(job.id.as_str()).await.unwrap().unwrap();
            let now = testkit::clock::now();
            let done = if pause {
                stored.pause(now)
            } else {
                stored.resume(now)
            };
            done.unwrap();
            match store.update(job.id.as_str(), &stored, revision).await {
                Ok(_) => job = stored,
                // The planner took the lease in between; this round trip is left out.
                Err(error) => assert_eq!(error.retry(), Retry::Reread, "{error}"),
            }
            if matches!(job.phase, Phase::Paused { .. }) != pause {
                break;
            }
        }
    }
    let store = jobs(&site.api).await;
    let last = wait::some("the job is the planner's", SOON, async || {
        let (mut stored, revision) = store.get(job.id.as_str()).await.ok()??;
        if matches!(stored.phase, Phase::Paused { .. }) {
            stored.resume(testkit::clock::now()).ok()?;
            store
                .update(job.id.as_str(), &stored, revision)
                .await
                .ok()?;
        }
        (stored.phase == Phase::Planning { resume: None }).then_some(stored.epoch)
    })
    .await;
    // Far less than a sweep.
    wait::until("the last epoch is looked at", SOON, async || {
        planner.seen.try_recv().is_ok_and(|seen| seen.epoch == last)
    })
    .await;
}

#[tokio::test]
async fn who_drove_a_job_lets_go_of_it_also_where_another_holds_it_by_then() {
    let (site, job) = (Site::open().await, planning(1));
    submit(&site, &job).await;
    let mut first = Planner::start(&site, "first", LONG_MS, 100, &[]).await;
    first.next().await;
    let mut second = Planner::start(&site, "second", LONG_MS, 100, &[]).await;
    write(&site, &job.id, |job| {
        let owner = job.owner.as_mut().unwrap();
        owner.holder = "second".parse().unwrap();
    })
    .await;
    second.next().await;
    assert!(first.left.try_recv().is_err() && second.left.try_recv().is_err());
    let pause = |job: &mut Job| job.pause(testkit::clock::now()).unwrap();
    write(&site, &job.id, pause).await;
    for planner in [&mut first, &mut second] {
        let left = wait::in_time("it is left", SOON, planner.left.recv()).await;
        assert_eq!(left, Some(job.id.clone()));
    }
}

#[tokio::test]
async fn a_job_that_cannot_be_read_for_a_while_is_driven_again_once_it_can() {
    let site = Site::open().await;
    let mut job = planning(1);
    submit(&site, &job).await;
    let mut planner = Planner::start(&site, "p", LONG_MS, LONG_MS, &[]).await;
    planner.next().await;
    let texts: Store<String> = site.api.store(Bucket::Jobs).await.unwrap();
    let newer = "of a newer release".to_owned();
    texts.put(job.id.as_str(), &newer).await.unwrap();
    wait::until("no more steps are made", SOON, async || {
        let step = tokio::time::timeout(Duration::from_millis(300), planner.seen.recv());
        step.await.is_err()
    })
    .await;
    job.paused_ms = 77;
    jobs(&site.api)
        .await
        .put(job.id.as_str(), &job)
        .await
        .unwrap();
    assert_eq!(planner.next().await.paused_ms, 77);
}

#[tokio::test]
async fn one_panic_is_survived_and_three_end_the_job_with_a_cause() {
    let site = Site::open().await;
    let (lucky, doomed) = (planning(1), planning(2));
    submit(&site, &lucky).await;
    let mut planner = Planner::start(&site, "p", LONG_MS, LONG_MS, &[Act::Panic]).await;
    planner.next().await;
    assert_eq!(planner.next().await.job, lucky.id);
    drop(planner);

    submit(&site, &doomed).await;
    let acts = [Act::Panic, Act::Panic, Act::Panic];
    let mut planner = Planner::start(&site, "q", LONG_MS, LONG_MS, &acts).await;
    let ended = until_phase(&site, &doomed.id, |phase| {
        matches!(phase, Phase::Failed { .. })
    })
    .await;
    let Phase::Failed { cause } = ended.phase else {
        panic!("not failed");
    };
    assert_eq!(cause.kind, CauseKind::Internal);
    // The process goes on with other jobs.
    let other = planning(3);
    submit(&site, &other).await;
    wait::until("another job is looked at", SOON, async || {
        planner
            .seen
            .try_recv()
            .is_ok_and(|seen| seen.job == other.id)
    })
    .await;
}

#[tokio::test]
async fn a_lost_site_is_stored_once_and_said_once() {
    let site = Site::open().await;
    let job = planning(1);
    submit(&site, &job).await;
    let mut planner = Planner::start(&site, "p", LONG_MS, LONG_MS, &[Act::Lose]).await;
    planner.next().await;
    let mut events = site.api.events(Some(&job.id), 0);
    assert!(matches!(
        next(&mut events).await.1.event,
        Event::Profiled { .. }
    ));
    assert!(matches!(
        next(&mut events).await.1.event,
        Event::Lost { .. }
    ));
    wait::never(
        "it is said twice",
        Duration::from_millis(300),
        events.recv(),
    )
    .await;
    let (stored, _) = jobs(&site.api)
        .await
        .get(job.id.as_str())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored.lost.len(), 1);
}

#[tokio::test]
async fn a_job_that_comes_after_the_server_died_and_came_back_is_driven() {
    let mut site = Site::open().await;
    let mut planner = Planner::start(&site, "p", LONG_MS, LONG_MS, &[]).await;
    submit(&site, &planning(1)).await;
    planner.next().await;
    site.server.restart();
    let store = jobs_when_back(&site).await;
    let job = planning(2);
    store.create(job.id.as_str(), &job).await.unwrap();
    let other = async { while planner.next().await.job != job.id {} };
    wait::in_time("it is looked at", Duration::from_secs(5), other).await;
}

async fn jobs_when_back(site: &Site) -> Store<Job> {
    wait::some("the server is back", SOON, async || {
        site.api.store(Bucket::Jobs).await.ok()
    })
    .await
}
