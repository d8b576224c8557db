//! From a delivery to its outcome. Each kind of task has its own file; what all share is here.
//!
//! The order is decide → artifact → state → publish: the result is computed, what is large is
//! stored, the report is sealed on disk, then said. Whatever dies in between is done again by a
//! redelivery, which finds how far it came. The bus acknowledges.

pub mod evaluate;
pub mod order;
pub mod probe;
pub mod train;

mod settle;

use std::sync::Arc;
use std::time::Duration;

use bus::{Delivery, Outcome};
use chassis::clock::{self, Stopwatch};
use chassis::telemetry::{self, Metric, SpanName};
use contract::DecodeError;
use contract::message::task::{Head, ModelRef, Task};
use domain::cause::Trouble;
use domain::fleet::{Progress, Stage};
use domain::job::spec::{Base, Optimizer};
use domain::plan::WorkerPlan;
use domain::trace::Trace;
use engine::kernel::Kernel;
use tracing::Instrument;

use crate::compute::Key;
use crate::errand::Errand;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::report::Report;
use crate::running::Running;
use crate::site::Site;
use crate::stop::Stop;

pub use settle::{bury, say};

/// How long a worker that was told to end waits for its computation: a block, and a checkpoint on the disk.
const PUT_AWAY: Duration = Duration::from_secs(20);

/// Handles one delivery.
pub async fn handle(site: &Arc<Site>, delivery: Delivery) -> Outcome {
    let kind = kind(&delivery.address.kind);
    let watch = Stopwatch::start();
    if delivery.deliveries > 1 {
        telemetry::count(Metric::Redelivered, 1, &[("kind", kind)]);
    }
    let labels = [
        ("fedpipe.job.id", delivery.address.job.to_string()),
        ("fedpipe.epoch", delivery.address.epoch.0.to_string()),
        ("fedpipe.worker", site.name.to_string()),
        ("fedpipe.task", kind.to_owned()),
    ];
    let mut task = telemetry::within(delivery.trace, SpanName::Task, &labels);
    let (job, trace) = (delivery.address.job.clone(), task.trace());
    let span = match trace {
        Some(trace) => {
            tracing::info_span!("task", %job, trace_id = %trace.trace_hex(), span_id = %trace.span_hex())
        }
        None => tracing::info_span!("task", %job),
    };
    let outcome = dispatch(site, delivery, trace).instrument(span).await;
    let said = match outcome {
        Outcome::Done => "done",
        Outcome::Later => "later",
        Outcome::HandBack => "hand_back",
    };
    if !matches!(outcome, Outcome::Done) {
        task.fail(said.to_owned());
    }
    drop(task);
    telemetry::observe(Metric::TaskSeconds, watch.seconds(), &[("kind", kind)]);
    telemetry::count(
        Metric::MessagesHandled,
        1,
        &[("kind", kind), ("outcome", said)],
    );
    outcome
}

async fn dispatch(site: &Arc<Site>, delivery: Delivery, trace: Option<Trace>) -> Outcome {
    let Delivery {
        address,
        task,
        deliveries,
        poison,
        progress,
        ..
    } = delivery;
    tracing::info!(job = %address.job, epoch = %address.epoch, kind = address.kind, deliveries, "task");
    if site.floors.cover(&address.job, address.epoch) {
        return Outcome::Done;
    }
    match settle::find(site, &address).await {
        Ok(None) => {}
        Ok(Some(report)) => return say(site, &report, &site.token).await,
        Err(outcome) => return outcome,
    }
    let task = match readable(task, poison, deliveries) {
        Ok(task) => task,
        Err(failure) => return settle::fail(site, &address, failure).await,
    };
    let head = task.head().clone();
    let now = clock::now();
    if head.expires_at < now {
        tracing::warn!(job = %head.job, late_ms = now.since(head.expires_at), "task expired, dropped");
        return Outcome::Done;
    }
    if let Err(refusal) = site.config.policy.admit(&head, now) {
        tracing::warn!(job = %head.job, %refusal, "policy refuses");
        let failure = Failure::of(Trouble::PolicyRefused, &refusal);
        return settle::fail(site, &address, failure).await;
    }
    let stop = Stop::below(&site.token);
    let site = Arc::clone(site);
    let sent_before = site.bus.bytes_sent();
    let store = site.storage.store(Some(&address.job));
    let running = Running {
        site: Arc::clone(&site.machine),
        stop,
        progress,
    };
    let errand = Errand {
        site,
        running,
        address,
        head,
        store,
        sent_before,
        trace,
    };
    run(&errand, task).await
}

/// Runs an admitted task to its end.
async fn run(running: &Errand, task: Task) -> Outcome {
    let Errand { site, address, .. } = running;
    let stop = &running.stop;
    if let Err(error) = site.journal.begin(address, Stage::Downloading) {
        let failure = Failure::of(Trouble::DiskFull, &error);
        return settle::fail(site, address, failure).await;
    }
    site.floors.begin(&address.job, address.epoch, stop);
    site.status.begin(
        progress(running, round(&task)),
        Arc::clone(&running.progress),
    );

    let result = tokio::select! {
        result = work(running, &task) => result,
        () = stop.stopped() => Err(Failure::Stopped),
        () = expiry(&running.head) => Err(expired(running)),
        never = running.pump() => match never {},
    };
    let outcome = match result {
        Ok(report) => settle::succeed(running, &task, &report).await,
        Err(Failure::Stopped) if site.token.is_cancelled() => {
            put_away(site).await;
            Outcome::HandBack
        }
        Err(Failure::Stopped) => Outcome::Done,
        Err(failure) => settle::fail(site, address, failure).await,
    };

    site.floors.end();
    site.status.end();
    // A compute thread that died of a defect is a death like any other: the next process counts it.
    if !site.compute.is_gone()
        && let Err(error) = site.journal.end()
    {
        tracing::warn!(%error, "the journal cannot be removed");
    }
    outcome
}

/// Waits until the compute thread has put away what it did, for a time that every grace period has.
async fn put_away(site: &Site) {
    let idle = site.compute.run(|_| ());
    if tokio::time::timeout(PUT_AWAY, idle).await.is_err() {
        tracing::warn!("the computation does not end, the task is handed back as it is");
    }
}

async fn work(running: &Errand, task: &Task) -> Result<Report, Failure> {
    match task {
        Task::Probe(task) => probe::handle(running, task).await,
        Task::Train(task) => train::handle(running, task).await,
        Task::Evaluate(task) => evaluate::handle(running, task).await,
    }
}

/// Nobody waits for the result any more.
async fn expiry(head: &Head) {
    let left = head.expires_at.since(clock::now());
    tokio::time::sleep(Duration::from_millis(left)).await;
}

fn expired(running: &Errand) -> Failure {
    tracing::warn!(job = %running.head.job, "task expired while it ran, dropped");
    running.stop.stop();
    Failure::Stopped
}

fn readable(
    task: Result<Task, DecodeError>,
    poison: bool,
    deliveries: u64,
) -> Result<Task, Failure> {
    if poison {
        let detail = format!("the task was delivered {deliveries} times and never finished");
        return Err(Failure::new(Trouble::Crashed, detail));
    }
    task.map_err(|error| Failure::internal(&error))
}

fn progress(running: &Errand, round: u32) -> Progress {
    Progress {
        job: running.address.job.clone(),
        epoch: running.address.epoch,
        round,
        done: 0,
        total: 0,
        loss: None,
        tokens_per_second: None,
    }
}

const fn round(task: &Task) -> u32 {
    match task {
        Task::Probe(_) => 0,
        Task::Train(task) => task.round,
        Task::Evaluate(task) => task.round,
    }
}

/// One of the known kinds: names of metrics and their labels are no place for what a message says.
fn kind(text: &str) -> &'static str {
    match text {
        "probe" => "probe",
        "train" => "train",
        "evaluate" => "evaluate",
        _ => "unknown",
    }
}

/// Whether this worker can do exactly what the plan says, and with which model.
///
/// # Errors
/// What the plan asks that is not here; a plan leaves no choice, so nothing is replaced.
pub fn honour(site: &Machine, model: &ModelRef, plan: &WorkerPlan) -> Result<Key, Failure> {
    let refuse = |detail: String| Err(Failure::new(Trouble::PlanUnsupported, detail));
    let kernel = Kernel::named(&plan.kernel)
        .map_err(|error| Failure::of(Trouble::PlanUnsupported, &error))?;
    if plan.threads == 0 || plan.threads > site.threads {
        let (asked, here) = (plan.threads, site.threads);
        return refuse(format!(
            "the plan asks for {asked} threads, there are {here}"
        ));
    }
    if plan.optimizer == Optimizer::Auto {
        return refuse("the plan leaves the optimizer open".to_owned());
    }
    let open = plan.batch == 0 || plan.accumulate == 0 || plan.local_steps == 0;
    if plan.base == Base::Auto || open {
        return refuse("the plan leaves base, batch or steps open".to_owned());
    }
    if plan.optimizer == Optimizer::Mezo && plan.accumulate > 1 {
        return refuse("zeroth-order steps have one batch".to_owned());
    }
    Ok(Key {
        model: model.clone(),
        base: plan.base,
        kernel,
        threads: plan.threads,
    })
}
