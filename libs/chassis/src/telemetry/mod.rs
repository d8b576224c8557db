//! Logs on standard error and one registry of metrics, both set up once per process.
//!
//! Metrics are named by [`Metric`] alone. The functions that record do nothing before [`init`], so
//! libraries record without asking whether somebody listens. Traces are not exported.

mod log;
mod metric;
mod registry;

use domain::id::InstanceId;

use crate::config;

pub use metric::{Kind, Metric, metrics_table};
pub use registry::{count, exposition, observe, set};

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
}

/// Starts logging and metrics for the whole process.
///
/// # Errors
/// [`Error`]: a bad filter, or a second call.
pub fn init(service: &str, instance: &InstanceId, config: &config::Telemetry) -> Result<(), Error> {
    log::init(config)?;
    registry::init(service, instance)
}
