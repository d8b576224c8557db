//! Log events on standard error; standard output belongs to commands that print data.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing::subscriber::set_global_default;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use super::Error;
use crate::config::{Format, Telemetry};

pub(super) fn init(config: &Telemetry) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&config.log).map_err(|source| Error::Filter {
        filter: config.log.clone(),
        source,
    })?;
    let events = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        Format::Json => install(events.json().flatten_event(true).finish()),
        Format::Text => install(events.with_ansi(std::io::stderr().is_terminal()).finish()),
    }
}

fn install(subscriber: impl Subscriber + Send + Sync) -> Result<(), Error> {
    set_global_default(subscriber).map_err(|_| Error::Started)
}
