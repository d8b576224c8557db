//! Messages that come twice, and messages that are lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chassis::failpoint::Failpoint;
use futures::StreamExt;
use testkit::wait;
use tests::job::{job, scored};
use tests::replay::{Disturbed, Replay};
use tests::{Setup, Wire};

const REACHED: Duration = Duration::from_secs(20);
const TASKS: &str = "FEDPIPE_TASKS";
const REPORTS: &str = "FEDPIPE_REPORTS";
const JOBS: &str = "FEDPIPE_JOBS";
/// What is said again of a job of three sites and two rounds, at least.
const LEAST: [(&str, usize); 3] = [("task", 6), ("report", 15), ("job", 10)];
/// Marks what was said before.
const AGAIN: &str = "Again";

#[tokio::test]
async fn every_message_may_come_twice() {
    let replay = Replay::prepare(&Setup::sites(3), async |fleet| scored(&fleet.model())).await;
    let wire = Wire::tap(&replay.fleet).await;
    let heard = wire.hear("fedpipe.v1.>").await;
    let disturbed = replay.begin().await;
    let counts: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let ended = tokio::select! {
        ended = ended_and_told(&replay, &disturbed, &counts) => ended,
        () = echo(wire, heard, Arc::clone(&counts)) => panic!("the wire fell silent"),
    };
    ended.unwrap();
}

/// The replay's end, once its last event is that of the end and enough was said again: the echo takes each event out of the
/// stream before it says it again, so that it may be absent for a moment, and comes after what it repeats.
async fn ended_and_told(
    replay: &Replay,
    disturbed: &Disturbed,
    counts: &Mutex<BTreeMap<String, usize>>,
) -> Result<Duration, String> {
    let ended = replay.end(disturbed).await;
    wait::until("the end is told", REACHED, async || {
        let repeated = replay.fleet.api().events(&disturbed.id).await;
        // By epoch: what was said again may stand behind what came after it.
        let last = repeated.iter().max_by_key(|event| event.epoch);
        last.is_some_and(|event| event.name == "finished")
    })
    .await;
    if ended.is_ok() {
        wait::until("enough is said again", REACHED, async || {
            let said = counts.lock().unwrap();
            let enough = |(kind, least)| said.get(kind).is_some_and(|said| *said >= least);
            LEAST.into_iter().all(enough)
        })
        .await;
    }
    ended
}

/// Says everything a second time: what a stream still holds is taken out first, and a task comes
/// again after it was answered, when the queue has forgotten it.
async fn echo(
    wire: Wire,
    mut heard: async_nats::Subscriber,
    counts: Arc<Mutex<BTreeMap<String, usize>>>,
) {
    let count = |kind: &str, stored: bool| {
        *counts.lock().unwrap().entry(kind.to_owned()).or_default() += usize::from(stored);
    };
    let mut tasks: BTreeMap<String, async_nats::Message> = BTreeMap::new();
    while let Some(message) = heard.next().await {
        let mut headers = message.headers.clone().unwrap_or_default();
        if headers.get(AGAIN).is_some() {
            continue;
        }
        headers.insert(AGAIN, "yes");
        headers.insert("Nats-Msg-Id", chassis::clock::random_token().as_str());
        let subject = message.subject.to_string();
        let tokens: Vec<&str> = subject.split('.').collect();
        match tokens.as_slice() {
            [_, _, "task", worker, job, epoch, _] => {
                let identity = [*worker, *job, *epoch].join(".");
                tasks.insert(identity, message.clone());
            }
            [_, _, "report", worker, job, epoch, _] => {
                if let Some(task) = tasks.remove(&[*worker, *job, *epoch].join(".")) {
                    let mut again = headers.clone();
                    for name in ["Fedpipe-Kind", "Fedpipe-Version"] {
                        let original = task.headers.as_ref().and_then(|headers| headers.get(name));
                        again.insert(name, original.unwrap().as_str());
                    }
                    // Until it is answered and forgotten the queue takes no second one; then it does.
                    let what = format!("{} is forgotten", task.subject);
                    wait::until(&what, REACHED, async || {
                        wire.held(TASKS, &task.subject).await == 0
                    })
                    .await;
                    let stored = wire.say(&task.subject, again, task.payload.to_vec()).await;
                    count("task", stored);
                }
                wire.lose(REPORTS, &subject).await;
                count(
                    "report",
                    wire.say(&subject, headers, message.payload.to_vec()).await,
                );
            }
            [_, _, "job", ..] => {
                wire.lose(JOBS, &subject).await;
                count(
                    "job",
                    wire.say(&subject, headers, message.payload.to_vec()).await,
                );
            }
            [_, _, "beat" | "ctl", ..] => {
                wire.shout(&subject, headers, message.payload.to_vec())
                    .await;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn any_one_message_may_be_lost() {
    let replay = Replay::prepare(&Setup::sites(3), async |fleet| job(&fleet.model())).await;
    let wire = Wire::tap(&replay.fleet).await;
    lose_task(&replay, &wire).await.unwrap();
    lose_report(&replay, &wire).await.unwrap();
    lose_event(&replay, &wire).await.unwrap();
}

/// The task leaves the queue and the process that was about to take it.
async fn lose_task(replay: &Replay, wire: &Wire) -> Result<Duration, String> {
    let Replay { fleet, .. } = replay;
    let disturbed = replay.hold(Failpoint::PlannerPlanAfterPlanStored).await;
    fleet.halt("worker-c");
    fleet.go_on("planner");
    let subject = format!("fedpipe.v1.task.c.{}.>", disturbed.id);
    wait::until("the task is given", REACHED, async || {
        wire.held(TASKS, &subject).await > 0
    })
    .await;
    assert_eq!(wire.lose(TASKS, &subject).await, 1);
    fleet.kill("worker-c");
    replay.end(&disturbed).await
}

/// The report is acknowledged by the server and gone before anybody reads it.
async fn lose_report(replay: &Replay, wire: &Wire) -> Result<Duration, String> {
    let Replay { fleet, .. } = replay;
    let disturbed = replay.hold(Failpoint::AggregatorOpenAfterTasks).await;
    let subject = format!("fedpipe.v1.report.c.{}.*.updated", disturbed.id);
    wait::until("the report is there", REACHED, async || {
        wire.held(REPORTS, &subject).await > 0
    })
    .await;
    assert_eq!(wire.lose(REPORTS, &subject).await, 1);
    fleet.all_go_on();
    replay.end(&disturbed).await
}

/// Nobody hears that there is a plan, and who could say it again is dead.
async fn lose_event(replay: &Replay, wire: &Wire) -> Result<Duration, String> {
    let Replay { fleet, .. } = replay;
    fleet.halt("aggregator");
    let disturbed = replay.hold(Failpoint::PlannerPlanAfterPublish).await;
    let subject = format!("fedpipe.v1.job.{}.*.planned", disturbed.id);
    assert_eq!(wire.lose(JOBS, &subject).await, 1);
    fleet.kill("planner");
    fleet.all_go_on();
    replay.end(&disturbed).await
}
