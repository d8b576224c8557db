//! Logs on standard error and one registry of metrics, both set up once per process.
//!
//! Metrics are named by [`Metric`] alone. The functions that record do nothing before [`init`], so
//! libraries record without asking whether somebody listens.

mod log;
mod metric;
mod picture;
mod registry;

use domain::id::InstanceId;

use crate::config;

pub use metric::{Kind, Label, Metric, metrics_table};
pub use picture::{JOBS_SHOWN, Picture, SERIES_SHOWN, WORKERS_SHOWN};
pub use registry::{count, exposition, observe, set, show};

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

/// Starts logging and metrics for the whole process.
///
/// # Errors
/// [`Error`]: a bad filter, or a second call.
pub fn init(service: &str, instance: &InstanceId, config: &config::Telemetry) -> Result<(), Error> {
    log::init(config)?;
    registry::init(service, instance)
}
