//! Reading what a worker answered. The report stream keeps one message per identity, so it can be
//! asked at any time what was said: nothing depends on having listened.

use async_nats::jetstream::stream::DirectGetErrorKind;
use contract::Message;
use contract::envelope::{KIND_HEADER, VERSION_HEADER};
use contract::topology::REPORTS;
use domain::id::{Epoch, JobId, WorkerName};

use crate::{Bus, Error};

impl Bus {
    /// The report of this kind that a worker gave on a job in an epoch, if any.
    ///
    /// # Errors
    /// If the server does not answer, or the report cannot be read.
    pub async fn report<M: Message>(
        &self,
        worker: &WorkerName,
        job: &JobId,
        epoch: Epoch,
    ) -> Result<Option<M>, Error> {
        let subject = contract::subject::report(worker, job, epoch, M::KIND);
        let found = self
            .stream(REPORTS.name)
            .await?
            .direct_get_last_for_subject(&subject)
            .await;
        let found = match found {
            Ok(found) => found,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::unavailable("read a report")(Box::new(error))),
        };
        let header = |name| found.headers.get(name).map(|value| value.as_str());
        let read = contract::decode(header(KIND_HEADER), header(VERSION_HEADER), &found.payload);
        read.map(Some).map_err(|error| Error::Decode {
            subject,
            source: Box::new(error),
        })
    }
}
