//! Logs on standard error and one registry of metrics, both set up once per process.
//!
//! Metrics are named by [`Metric`] alone. The functions that record do nothing before [`init`], so
//! libraries record without asking whether somebody listens.

mod bridge;
mod log;
mod metric;
mod otlp;
mod picture;
mod registry;
mod text;
mod trace;

use std::error::Error as _;

use domain::id::InstanceId;

use crate::config;
use otlp::Pipelines;

pub use metric::{Kind, Label, Metric, metrics_table};
pub use otlp::farewell;
pub use picture::{JOBS_SHOWN, Picture, SERIES_SHOWN, WORKERS_SHOWN};
pub use registry::{count, exposition, observe, set, show};
pub use trace::{Open, SpanName, phase_ended, within};

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter cannot be read.
    #[error("the log filter {filter:?} is not valid")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A second start in one process.
    #[error("telemetry was started already")]
    Started,
    /// The metrics exporter could not be made.
    #[error("metrics cannot be exported")]
    Exporter(#[source] opentelemetry_sdk::error::OTelSdkError),
    /// A metric whose series come and go could not be registered.
    #[error("a metric cannot be registered")]
    Register(#[source] prometheus::Error),
}

/// Starts logging, metrics and traces for the whole process; within a runtime, where the environment has them pushed.
///
/// Where the environment asks for a push that is not possible, that is said once, and nothing is pushed: whoever
/// looks on must not keep the work from being done.
///
/// # Errors
/// [`Error`]: a bad filter, or a second call.
pub fn init(service: &str, instance: &InstanceId, config: &config::Telemetry) -> Result<(), Error> {
    let resource = registry::resource(service, instance);
    let (pipelines, refused) = match Pipelines::open(&resource) {
        Ok(pipelines) => (pipelines, None),
        Err(error) => (Pipelines::default(), Some(error)),
    };
    log::init(config, pipelines.logger.as_ref())?;
    registry::init(service, resource, pipelines)?;
    if let Some(error) = refused {
        let causes = std::iter::successors(error.source(), |cause| (**cause).source());
        let why: Vec<String> = causes.map(ToString::to_string).collect();
        let why = (!why.is_empty()).then(|| why.join(": "));
        tracing::error!(%error, why, "telemetry is not pushed; correct the environment and start again");
    }
    Ok(())
}
