//! Two aggregators that both believe they own the job: the result is one adapter.

use std::time::Duration;

use chassis::failpoint::Failpoint;
use testkit::wait;
use tests::job::scored;
use tests::points::Fate;
use tests::replay::{Disturbed, Replay};
use tests::twin::Twin;
use tests::{Setup, Wire};

const SOON: Duration = Duration::from_secs(20);
/// In the middle of a merge: it is computed, and nobody has seen anything of it.
const MERGED: Failpoint = Failpoint::AggregatorFoldAfterMerge;
/// The fleet's own aggregator, and the other.
const OWN: &str = "aggregator-up";
const OTHER: &str = "aggregator-twin";

fn impatient() -> Setup {
    Setup {
        idle: Duration::from_secs(1),
        ..Setup::sites(2)
    }
}

/// Who holds the job, and under which fence.
async fn owner(wire: &Wire, job: &Disturbed) -> (String, u64) {
    let job = wire.value("fedpipe_jobs", &job.id).await;
    let holder = job["owner"]["holder"].as_str().unwrap_or_default();
    (
        holder.to_owned(),
        job["owner"]["fence"].as_u64().unwrap_or_default(),
    )
}

async fn taken_over(wire: &Wire, job: &Disturbed, by: &str, after: u64) -> u64 {
    let what = format!("{by} owns the job");
    wait::some(&what, SOON, async || {
        let (holder, fence) = owner(wire, job).await;
        (holder == by && fence > after).then_some(fence)
    })
    .await
}

#[tokio::test]
async fn two_aggregators_in_the_middle_of_the_same_merge_end_with_the_same_adapter() {
    let replay = Replay::prepare(&impatient(), async |fleet| scored(&fleet.model())).await;
    let Replay { fleet, .. } = &replay;
    let wire = Wire::tap(fleet).await;
    let disturbed = replay.hold(MERGED).await;
    let (holder, first) = owner(&wire, &disturbed).await;
    assert_eq!(holder, OWN);

    // The lease runs out, the other takes over, merges the same and stands still as well.
    let twin = Twin::start(fleet, OTHER);
    twin.points().arm(MERGED, Fate::Halted);
    let second = taken_over(&wire, &disturbed, OTHER, first).await;
    twin.points().reached(MERGED, Fate::Halted, SOON).await;
    wait::until("both stand in the merge", SOON, async || twin.is_halted()).await;
    let job = wire.value("fedpipe_jobs", &disturbed.id).await;
    assert_eq!(job["phase"]["phase"], "folding", "{job:#}");

    // The first wakes up in a job that is not its own any more; it may go on once the lease of the
    // other has run out too, and ends the job.
    let committed = Failpoint::AggregatorFoldAfterState;
    fleet.points().arm(committed, Fate::Halted);
    fleet.go_on("aggregator");
    let points = fleet.points();
    points.reached(committed, Fate::Halted, SOON).await;
    let (holder, third) = owner(&wire, &disturbed).await;
    assert_eq!(holder, OWN);
    assert!(first < second && second < third, "{first} {second} {third}");
    fleet.go_on("aggregator");
    replay.end(&disturbed).await.unwrap();
    let before = fleet.api().rounds(&disturbed.id).await;

    // The other wakes up in the merge of a job that has ended.
    twin.go_on();
    let again = replay.begin().await;
    replay.end(&again).await.unwrap();
    assert!(twin.is_alive());
    assert_eq!(fleet.deaths("aggregator"), 0);
    let after = fleet.api().rounds(&disturbed.id).await;
    // Not even a figure of what was committed is replaced by the one that came too late.
    assert_eq!(before, after);
    assert_eq!(
        fleet.api().job(&disturbed.id).await["adapter"]["sha256"],
        replay.digest.as_str()
    );
}

#[tokio::test]
async fn two_aggregators_with_one_name_hold_the_same_lease_and_merge_the_same() {
    let replay = Replay::prepare(&impatient(), async |fleet| scored(&fleet.model())).await;
    let Replay { fleet, .. } = &replay;
    // It believes to own every job from its start on.
    let twin = Twin::start(fleet, OWN);
    twin.points().arm(MERGED, Fate::Halted);
    fleet.points().arm(MERGED, Fate::Halted);
    let disturbed = replay.begin().await;
    fleet.points().reached(MERGED, Fate::Halted, SOON).await;
    twin.points().reached(MERGED, Fate::Halted, SOON).await;
    wait::until("both stand in the merge", SOON, async || twin.is_halted()).await;
    twin.go_on();
    fleet.go_on("aggregator");
    replay.end(&disturbed).await.unwrap();
    for _ in 0..2 {
        let disturbed = replay.begin().await;
        replay.end(&disturbed).await.unwrap();
    }
    assert!(twin.is_alive());
    assert_eq!(fleet.deaths("aggregator"), 0);
}
