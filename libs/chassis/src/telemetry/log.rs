//! Log events on standard error; standard output belongs to commands that print data.

use std::io::IsTerminal;

use opentelemetry_sdk::logs::SdkLoggerProvider;
use tracing::Subscriber;
use tracing::subscriber::set_global_default;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;

use super::Error;
use super::bridge::Bridge;
use crate::config::{Format, Telemetry};

pub(super) fn init(config: &Telemetry, push: Option<&SdkLoggerProvider>) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&config.log).map_err(|source| Error::Filter {
        filter: config.log.clone(),
        source,
    })?;
    let bridge = push.map(Bridge::new);
    let events = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        Format::Json => install(events.json().flatten_event(true).finish().with(bridge)),
        Format::Text => {
            let is_terminal = std::io::stderr().is_terminal();
            install(events.with_ansi(is_terminal).finish().with(bridge))
        }
    }
}

fn install(subscriber: impl Subscriber + Send + Sync) -> Result<(), Error> {
    set_global_default(subscriber).map_err(|_| Error::Started)
}
