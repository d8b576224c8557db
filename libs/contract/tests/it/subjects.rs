//! Subjects: built, read back, and never one another's.

use contract::subject::{self, parse_address};
use domain::id::{Epoch, JobId, WorkerName};
use proptest::prelude::*;

use crate::permissions::matches;

fn worker() -> impl Strategy<Value = WorkerName> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?".prop_map(|name| name.parse().unwrap())
}

proptest! {
    #[test]
    fn an_address_is_read_as_it_was_written(
        worker in worker(), job in any::<u64>(), epoch in any::<u64>(),
        kind in "[a-z]{1,12}", is_task in any::<bool>(),
    ) {
        let (job, epoch) = (JobId::from_bits(job), Epoch(epoch));
        let build = if is_task { subject::task } else { subject::report };
        let read = parse_address(&build(&worker, &job, epoch, &kind)).unwrap();
        prop_assert_eq!((read.worker, read.job, read.epoch, read.kind), (worker, job, epoch, kind));
    }

    #[test]
    fn no_text_makes_reading_panic(text in "(fedpipe\\.v1\\.)?(task|report)?[a-z0-9_.*>\\- ]{0,60}") {
        let _ = parse_address(&text);
    }

    #[test]
    fn a_filter_takes_its_own_and_no_other_worker_or_job(
        one in worker(), other in worker(), job in any::<u64>(), another in any::<u64>(), epoch in any::<u64>(),
    ) {
        prop_assume!(one != other && job != another);
        let (job, another, epoch) = (JobId::from_bits(job), JobId::from_bits(another), Epoch(epoch));
        let task = subject::task(&one, &job, epoch, "train");
        prop_assert!(matches(&subject::tasks_of(&one), &task));
        prop_assert!(!matches(&subject::tasks_of(&other), &task));
        prop_assert!(matches(&subject::tasks_for(&job), &task));
        prop_assert!(!matches(&subject::tasks_for(&another), &task));
        let report = subject::report(&one, &job, epoch, "updated");
        prop_assert!(matches(&subject::reports_on(&job), &report));
        prop_assert!(!matches(&subject::reports_on(&another), &report));
        let event = subject::job(&job, epoch, "opened");
        prop_assert!(matches(&subject::job_events(&job), &event));
        prop_assert!(!matches(&subject::job_events(&another), &event));
        prop_assert!(matches(&subject::beats(), &subject::beat(&one)));
        prop_assert!(matches(&subject::grants(), &subject::grant(&one)));
        prop_assert_eq!(subject::parse_beat(&subject::grant(&one)), None);
        prop_assert_eq!(subject::parse_beat(&subject::beat(&one)), Some(one.clone()));
        prop_assert_eq!(subject::parse_grant(&subject::grant(&one)), Some(one));
    }

    #[test]
    fn everything_belongs_to_exactly_one_stream_or_to_none(
        worker in worker(), job in any::<u64>(), epoch in any::<u64>(),
    ) {
        let (job, epoch) = (JobId::from_bits(job), Epoch(epoch));
        let streams = |subject: &str| {
            let takes = |stream: &&&contract::topology::Stream| matches(&stream.filter(), subject);
            contract::topology::STREAMS.iter().filter(takes).map(|stream| stream.name).collect::<Vec<_>>()
        };
        prop_assert_eq!(streams(&subject::job(&job, epoch, "opened")), ["FEDPIPE_JOBS"]);
        let task = subject::task(&worker, &job, epoch, "train");
        prop_assert_eq!(streams(&task), ["FEDPIPE_TASKS"]);
        prop_assert_eq!(streams(&subject::report(&worker, &job, epoch, "failed")), ["FEDPIPE_REPORTS"]);
        prop_assert_eq!(streams(&subject::dead("api", &task)), ["FEDPIPE_DEAD"]);
        prop_assert!(streams(&subject::beat(&worker)).is_empty());
        prop_assert!(streams(&subject::control(&worker)).is_empty());
        prop_assert!(streams(&subject::grant(&worker)).is_empty());
    }
}
