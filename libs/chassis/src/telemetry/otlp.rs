//! Pushing traces, metrics and logs to a collector (OTLP over gRPC), as the standard variables say:
//! `OTEL_EXPORTER_OTLP_ENDPOINT`, or one signal's own, turns it on; `OTEL_SDK_DISABLED`, or a signal's exporter
//! `none`, turns it off.
//!
//! It never stalls the work: each signal has a bounded queue and a thread of its own, what finds no room is
//! dropped, and the end of the process waits for a collector [`FAREWELL`] at most.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::global;
use opentelemetry_otlp::{ExporterBuildError, LogExporter, MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::SdkTracerProvider;

use super::trace::Numbers;

/// How long the end of the process waits until what is left has been sent.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// The address of every signal that has none of its own.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const DISABLED: &str = "OTEL_SDK_DISABLED";
const PROTOCOLS: [&str; 4] = [
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
];

static OPEN: OnceLock<Pipelines> = OnceLock::new();

/// Why telemetry cannot be pushed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A protocol that this program does not speak.
    #[error("{variable}={found}: this program pushes by grpc alone")]
    Protocol {
        /// Which variable says so.
        variable: &'static str,
        /// What it says.
        found: String,
    },
    /// An address that cannot be used.
    #[error("the collector's address cannot be used")]
    Exporter(#[from] ExporterBuildError),
}

/// Which signals are pushed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wanted {
    traces: bool,
    metrics: bool,
    logs: bool,
}

impl Wanted {
    /// What the environment asks for.
    fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let said = |name: &str| variable(name).filter(|text| !text.is_empty());
        let disabled = said(DISABLED).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let signal = |name: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_{name}_ENDPOINT");
            let exporter = said(&format!("OTEL_{name}_EXPORTER"));
            let is_off = disabled || exporter.is_some_and(|text| text == "none");
            !is_off && (said(ENDPOINT).is_some() || said(&own).is_some())
        };
        let wanted = Self {
            traces: signal("TRACES"),
            metrics: signal("METRICS"),
            logs: signal("LOGS"),
        };
        let other = |variable: &&'static str| said(variable).is_some_and(|text| text != "grpc");
        match PROTOCOLS.iter().find(other) {
            Some(variable) if wanted != Self::default() => Err(Error::Protocol {
                variable,
                found: said(variable).unwrap_or_default(),
            }),
            _ => Ok(wanted),
        }
    }
}

/// What is pushed, by what.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    tracer: Option<SdkTracerProvider>,
    pub(super) logger: Option<SdkLoggerProvider>,
    /// Series that come and go have a provider of their own: `/metrics` has them already.
    pub(super) shown: Option<SdkMeterProvider>,
    /// All other metrics, which are pushed from the provider that serves them.
    meter: Option<SdkMeterProvider>,
    pub(super) reader: Option<PeriodicReader<MetricExporter>>,
}

impl Pipelines {
    /// Opens what the environment asks for; nothing is sent yet, so a collector may come later.
    pub(super) fn open(resource: &Resource) -> Result<Self, Error> {
        let wanted = Wanted::from(|name| std::env::var(name).ok())?;
        let mut pipelines = Self::default();
        if wanted.traces {
            let exporter = SpanExporter::builder().with_tonic().build()?;
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_id_generator(Numbers::default())
                .with_resource(resource.clone())
                .build();
            pipelines.tracer = Some(provider);
        }
        if wanted.logs {
            let exporter = LogExporter::builder().with_tonic().build()?;
            let provider = SdkLoggerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource.clone())
                .build();
            pipelines.logger = Some(provider);
        }
        if wanted.metrics {
            let exporter = MetricExporter::builder().with_tonic().build()?;
            pipelines.reader = Some(PeriodicReader::builder(exporter).build());
            // Of gauges, delta means: only what was observed since, so what has gone is gone here too.
            let exporter = MetricExporter::builder()
                .with_tonic()
                .with_temporality(Temporality::Delta)
                .build()?;
            let provider = SdkMeterProvider::builder()
                .with_reader(PeriodicReader::builder(exporter).build())
                .with_resource(resource.clone())
                .build();
            pipelines.shown = Some(provider);
        }
        Ok(pipelines)
    }

    /// Lets spans go, and keeps everything until [`farewell`].
    pub(super) fn keep(mut self, meter: SdkMeterProvider) {
        if let Some(provider) = &self.tracer {
            global::set_tracer_provider(provider.clone());
        }
        if self.shown.is_some() {
            self.meter = Some(meter);
        }
        // A second start was refused before.
        let _ = OPEN.set(self);
    }
}

/// Sends what is left, for [`FAREWELL`] at most; for the end of a process.
pub async fn farewell() {
    let Some(open) = OPEN.get() else { return };
    let (done, sent) = tokio::sync::oneshot::channel();
    if open.tracer.is_none() && open.logger.is_none() && open.shown.is_none() {
        return;
    }
    let (tracer, logger) = (open.tracer.clone(), open.logger.clone());
    let meters = [open.meter.clone(), open.shown.clone()];
    // A thread of its own: the runtime would wait for one of its own, however long a collector takes.
    std::thread::spawn(move || {
        // What cannot be sent at the end is lost, as it would have been before.
        let _ = tracer.map(|provider| provider.shutdown_with_timeout(FAREWELL));
        let _ = logger.map(|provider| provider.shutdown_with_timeout(FAREWELL));
        meters
            .into_iter()
            .flatten()
            .for_each(|provider| drop(provider.shutdown()));
        let _ = done.send(());
    });
    if tokio::time::timeout(FAREWELL, sent).await.is_err() {
        tracing::warn!("the collector did not take the last telemetry in time");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(variables: &[(&str, &str)]) -> Result<Wanted, Error> {
        Wanted::from(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_is_pushed_without_an_address() {
        let off = Wanted::default();
        assert_eq!(wanted(&[]).unwrap(), off);
        assert_eq!(wanted(&[(ENDPOINT, "")]).unwrap(), off);
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        assert_eq!(wanted(&[http]).unwrap(), off);
    }

    #[test]
    fn each_signal_is_turned_on_and_off_by_its_own_variables() {
        let all = (ENDPOINT, "http://127.0.0.1:4317");
        let everything = Wanted {
            traces: true,
            metrics: true,
            logs: true,
        };
        assert_eq!(wanted(&[all]).unwrap(), everything);
        let no_logs = wanted(&[all, ("OTEL_LOGS_EXPORTER", "none")]).unwrap();
        assert!(no_logs.traces && no_logs.metrics && !no_logs.logs);
        let own = wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4317")]).unwrap();
        assert!(own.traces && !own.metrics && !own.logs);
        assert_eq!(
            wanted(&[all, (DISABLED, "TRUE")]).unwrap(),
            Wanted::default()
        );
    }

    #[test]
    fn another_protocol_is_refused_by_name() {
        let refused = wanted(&[
            (ENDPOINT, "http://127.0.0.1:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ]);
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
            "{text}"
        );
    }
}
