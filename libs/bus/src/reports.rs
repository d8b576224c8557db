//! Reading what a worker answered. The report stream keeps one message per identity, so it can be
//! asked at any time what was said: nothing depends on having listened.

use async_nats::jetstream::stream::DirectGetErrorKind;
use contract::Message;
use contract::envelope::{KIND_HEADER, VERSION_HEADER};
use contract::topology::REPORTS;
use domain::id::{Epoch, JobId, WorkerName};

use crate::{Bus, Error};

/// What is found of a report.
#[derive(Debug)]
pub enum Reported<M> {
    /// Nothing, so far.
    Absent,
    /// What the worker said.
    Read(M),
    /// Something that cannot be read. Its site is lost by it: whatever a site says, no job ends by it.
    Unreadable(Unreadable),
}

/// A report that cannot be read: none of ours, or of a release that is newer than this one.
#[derive(Debug)]
pub struct Unreadable {
    /// Where it lies.
    pub subject: String,
    /// The kind that it was to be of.
    pub kind: &'static str,
    /// Bytes of its payload.
    pub bytes: u64,
    /// Why it cannot be read, as [`Error::Decode`].
    pub error: Error,
}

impl<M> Reported<M> {
    /// What the worker said, for whoever can do without what cannot be read.
    #[must_use]
    pub fn read(self) -> Option<M> {
        match self {
            Self::Read(report) => Some(report),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }

    /// The same with another value in the place of the report.
    #[must_use]
    pub fn map<T>(self, with: impl FnOnce(M) -> T) -> Reported<T> {
        match self {
            Self::Absent => Reported::Absent,
            Self::Read(report) => Reported::Read(with(report)),
            Self::Unreadable(report) => Reported::Unreadable(report),
        }
    }
}

impl Bus {
    /// The report of this kind that a worker gave on a job in an epoch, if any.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn report<M: Message>(
        &self,
        worker: &WorkerName,
        job: &JobId,
        epoch: Epoch,
    ) -> Result<Reported<M>, Error> {
        let subject = contract::subject::report(worker, job, epoch, M::KIND);
        let found = self
            .stream(REPORTS.name)
            .await?
            .direct_get_last_for_subject(&subject)
            .await;
        let found = match found {
            Ok(found) => found,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                return Ok(Reported::Absent);
            }
            Err(error) => return Err(Error::unavailable("read a report")(Box::new(error))),
        };
        let header = |name| found.headers.get(name).map(|value| value.as_str());
        let read = contract::decode(header(KIND_HEADER), header(VERSION_HEADER), &found.payload);
        Ok(match read {
            Ok(report) => Reported::Read(report),
            Err(error) => Reported::Unreadable(Unreadable {
                subject: subject.clone(),
                kind: M::KIND,
                bytes: found.payload.len() as u64,
                error: Error::Decode {
                    subject,
                    source: Box::new(error),
                },
            }),
        })
    }
}
