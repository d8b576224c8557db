//! Creates what `contract` declares: streams, buckets, one consumer per worker.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{kv, stream};
use contract::subject;
use contract::topology::{self, Bucket, REPORTS, Retention, STREAMS, Stream, TASKS};
use domain::id::{Epoch, JobId, WorkerName};

use crate::{Bus, Error};

/// Within this time the server itself drops a message with an identity it has seen. Short, because
/// `once per subject` already does so for good, and a lost task must be sendable again.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(500);

/// Bytes of a value in a bucket at most.
pub(crate) const VALUE_LIMIT: i32 = 1 << 20;

impl Bus {
    /// Creates or updates every stream and bucket. Every control service may call it at any time.
    ///
    /// # Errors
    /// If the server does not answer or has no JetStream.
    pub async fn ensure_topology(&self) -> Result<(), Error> {
        for declared in STREAMS {
            let created = self
                .jetstream
                .create_or_update_stream(stream_config(declared))
                .await;
            created.map_err(|error| Error::unavailable("create a stream")(Box::new(error)))?;
        }
        for bucket in Bucket::ALL {
            let config = kv::Config {
                bucket: bucket.name().to_owned(),
                history: 1,
                max_value_size: VALUE_LIMIT,
                ..kv::Config::default()
            };
            let created = self.jetstream.create_or_update_key_value(config).await;
            created.map_err(|error| Error::unavailable("create a bucket")(Box::new(error)))?;
        }
        Ok(())
    }

    /// Creates the consumer from which one worker takes its tasks, one at a time.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn ensure_worker(
        &self,
        worker: &WorkerName,
        ack_wait: Duration,
    ) -> Result<(), Error> {
        let config = pull::Config {
            durable_name: Some(topology::consumer(worker)),
            filter_subject: subject::tasks_of(worker),
            ack_policy: AckPolicy::Explicit,
            ack_wait,
            max_ack_pending: 1,
            max_deliver: -1,
            ..pull::Config::default()
        };
        let tasks = self.stream(TASKS.name).await?;
        let created = tasks.create_consumer(config).await;
        created.map_err(|error| Error::unavailable("create a consumer")(Box::new(error)))?;
        Ok(())
    }

    /// Removes every task of a job from the queues.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn purge_tasks(&self, job: &JobId) -> Result<(), Error> {
        self.purge(&TASKS, subject::tasks_for(job)).await
    }

    /// Removes one worker's tasks of a job and an epoch from its queue, taken or not.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn purge_task(
        &self,
        worker: &WorkerName,
        job: &JobId,
        epoch: Epoch,
    ) -> Result<(), Error> {
        self.purge(&TASKS, subject::task(worker, job, epoch, "*"))
            .await
    }

    /// Removes every trace of a job from the streams.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn forget(&self, job: &JobId) -> Result<(), Error> {
        self.purge_tasks(job).await?;
        self.purge(&REPORTS, subject::reports_on(job)).await?;
        self.purge(&topology::JOBS, subject::job_events(job)).await
    }

    async fn purge(&self, stream: &Stream, filter: String) -> Result<(), Error> {
        let purged = self.stream(stream.name).await?.purge().filter(filter).await;
        purged.map_err(|error| Error::unavailable("purge")(Box::new(error)))?;
        Ok(())
    }

    pub(crate) async fn stream(&self, name: &str) -> Result<stream::Stream<()>, Error> {
        let stream = self.jetstream.get_stream_no_info(name).await;
        stream.map_err(|error| Error::unavailable("find a stream")(Box::new(error)))
    }
}

fn stream_config(declared: &Stream) -> stream::Config {
    let discard = if declared.once_per_subject {
        stream::DiscardPolicy::New
    } else {
        stream::DiscardPolicy::Old
    };
    stream::Config {
        name: declared.name.to_owned(),
        subjects: vec![declared.filter()],
        retention: match declared.retention {
            Retention::Limits => stream::RetentionPolicy::Limits,
            Retention::WorkQueue => stream::RetentionPolicy::WorkQueue,
        },
        max_messages_per_subject: if declared.once_per_subject { 1 } else { -1 },
        discard,
        discard_new_per_subject: declared.once_per_subject,
        max_age: declared.max_age,
        max_bytes: declared.max_bytes.unwrap_or(-1),
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        allow_message_ttl: true,
        ..stream::Config::default()
    }
}
