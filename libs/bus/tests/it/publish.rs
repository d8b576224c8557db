//! Saying things once.

use std::time::Duration;

use bus::{Reported, Retry, Said};
use contract::message::report::{Failed, Probed};
use contract::{Message, subject};
use domain::id::{Epoch, WorkerName};
use testkit::wait;

use crate::fixture::{Garbage, Site, failed, job_id, probe, site_a, site_b, submitted};

/// Longer than the server's own memory of identities.
const LATER: Duration = Duration::from_millis(1100);

async fn reported<M: Message>(site: &Site, worker: &WorkerName, job: u64, epoch: u64) -> Option<M> {
    let job = job_id(job);
    let read = site.aggregator.report::<M>(worker, &job, Epoch(epoch));
    read.await.unwrap().read()
}

#[tokio::test]
async fn what_was_said_once_is_not_said_again_however_late() {
    let site = Site::open().await;
    let event = submitted(1, 1);
    assert_eq!(site.api.publish(&event, None).await.unwrap(), Said::Now);
    assert_eq!(site.api.publish(&event, None).await.unwrap(), Said::Before);
    wait::never(
        "the memory of identities lasts",
        LATER,
        std::future::pending::<()>(),
    )
    .await;
    assert_eq!(site.api.publish(&event, None).await.unwrap(), Said::Before);
    let next = submitted(1, 2);
    assert_eq!(site.api.publish(&next, None).await.unwrap(), Said::Now);
}

#[tokio::test]
async fn the_first_report_stands() {
    let site = Site::open().await;
    let first = failed(&site_a(), 1, 3);
    let mut second = first.clone();
    second.detail = "something else".to_owned();
    assert_eq!(site.worker.publish(&first, None).await.unwrap(), Said::Now);
    assert_eq!(
        site.worker.publish(&second, None).await.unwrap(),
        Said::Before
    );
    let read = reported::<Failed>(&site, &site_a(), 1, 3).await;
    assert_eq!(read, Some(first));
}

#[tokio::test]
async fn a_report_is_found_by_worker_job_epoch_and_kind_alone() {
    let site = Site::open().await;
    site.worker
        .publish(&failed(&site_a(), 1, 3), None)
        .await
        .unwrap();
    for (worker, job, epoch) in [(site_b(), 1, 3), (site_a(), 2, 3), (site_a(), 1, 4)] {
        let read = reported::<Failed>(&site, &worker, job, epoch).await;
        assert_eq!(read, None, "{worker} {job} {epoch}");
    }
    let other_kind = reported::<Probed>(&site, &site_a(), 1, 3).await;
    assert_eq!(other_kind, None);
}

#[tokio::test]
async fn a_report_that_cannot_be_read_is_found_as_one_and_is_no_error() {
    let site = Site::open().await;
    let subject = subject::report(&site_a(), &job_id(1), Epoch(3), Failed::KIND);
    let garbage = Garbage {
        subject: subject.clone(),
    };
    site.worker.publish(&garbage, None).await.unwrap();
    let (worker, job) = (site_a(), job_id(1));
    let found = site.aggregator.report::<Failed>(&worker, &job, Epoch(3));
    let found = found.await.unwrap();
    let Reported::Unreadable(report) = found else {
        panic!("{found:?}")
    };
    assert_eq!((report.subject, report.kind), (subject, Failed::KIND));
    assert!(report.bytes > 0);
    assert_eq!(report.error.retry(), Retry::Never);
}

#[tokio::test]
async fn a_message_larger_than_any_may_be_is_refused_before_it_is_sent() {
    let site = Site::open().await;
    let mut large = failed(&site_a(), 1, 1);
    large.detail = "x".repeat(2 << 20);
    let error = site.worker.publish(&large, None).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Never, "{error}");
    assert!(site.worker.is_connected());
}

#[tokio::test]
async fn a_forgotten_job_leaves_nothing_and_other_jobs_everything() {
    let site = Site::open().await;
    for job in [1, 2] {
        site.api.publish(&submitted(job, 1), None).await.unwrap();
        site.worker
            .publish(&failed(&site_a(), job, 1), None)
            .await
            .unwrap();
        let task = probe(&site_a(), job, 1);
        site.aggregator.publish(&task, None).await.unwrap();
    }
    site.api.forget(&job_id(1)).await.unwrap();
    // What is gone can be said anew; what stayed cannot.
    for (job, expected) in [(1, Said::Now), (2, Said::Before)] {
        let said = |what, said| assert_eq!(said, expected, "{what} of job {job}");
        wait::never(
            "the memory of identities lasts",
            LATER,
            std::future::pending::<()>(),
        )
        .await;
        let event = site.api.publish(&submitted(job, 1), None).await;
        said("event", event.unwrap());
        let report = site.worker.publish(&failed(&site_a(), job, 1), None).await;
        said("report", report.unwrap());
        let task = site
            .aggregator
            .publish(&probe(&site_a(), job, 1), None)
            .await;
        said("task", task.unwrap());
    }
}
