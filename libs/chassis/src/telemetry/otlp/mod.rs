//! Pushing traces, metrics and logs to a collector (OTLP over gRPC, with TLS where its address says so), as the standard
//! variables say: `OTEL_EXPORTER_OTLP_ENDPOINT`, or one signal's own, turns it on; `OTEL_SDK_DISABLED`, or a signal's
//! exporter `none`, turns it off.
//!
//! It never stalls the work: each signal has a bounded queue and a thread of its own, every step of sending has a limit,
//! what finds no room is dropped and counted, and the end of the process waits for a collector [`FAREWELL`] at most.

mod channel;
mod counted;
mod environment;
mod gate;

use std::sync::{Arc, OnceLock};
use std::thread::Builder;
use std::time::Duration;

use opentelemetry::global;
use opentelemetry_otlp::{
    LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{self, BatchLogProcessor, SdkLoggerProvider};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{self, BatchSpanProcessor, SdkTracerProvider};
use tokio::sync::oneshot;

use super::Metric;
use super::trace::Numbers;
use channel::Way;
use counted::Counted;
use environment::{Signal, Wanted, pause, room, sampler, variable};
use gate::Gate;

pub use environment::Error;

/// How long the end of the process waits until what is left has been sent.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// Until spans, log records and metrics are sent, if no variable says otherwise, as the standard has it.
const SPANS_PAUSE: Duration = Duration::from_secs(5);
const LOGS_PAUSE: Duration = Duration::from_secs(1);
const METRICS_PAUSE: Duration = Duration::from_secs(60);

/// The stack of a thread that does nothing but wait; a worker's memory has a limit.
const STACK: usize = 256 << 10;

static OPEN: OnceLock<Pipelines> = OnceLock::new();

/// Reads and pushes all metrics, or those that come and go.
pub(super) type Reader = PeriodicReader<Counted<MetricExporter>>;

/// What is pushed, by what.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    tracer: Option<SdkTracerProvider>,
    pub(super) logger: Option<SdkLoggerProvider>,
    /// Series that come and go have a provider of their own: `/metrics` has them already.
    pub(super) shown: Option<SdkMeterProvider>,
    /// All other metrics, which are pushed from the provider that serves them.
    meter: Option<SdkMeterProvider>,
    pub(super) reader: Option<Reader>,
}

impl Pipelines {
    /// Opens what the environment asks for; nothing is sent yet, so a collector may come later.
    pub(super) fn open(resource: &Resource) -> Result<Self, Error> {
        let wanted = Wanted::from(variable)?;
        let mut pipelines = Self::default();
        if let Some(address) = wanted.traces {
            let way = Way::open(variable, Signal::Traces, address)?;
            pipelines.tracer = Some(traces(resource, way)?);
        }
        if let Some(address) = wanted.logs {
            let way = Way::open(variable, Signal::Logs, address)?;
            pipelines.logger = Some(records(resource, way)?);
        }
        if let Some(address) = wanted.metrics {
            let way = Way::open(variable, Signal::Metrics, address)?;
            let gate = Arc::new(Gate::uncounted("metrics"));
            pipelines.reader = Some(reader(&gate, way.clone())?);
            let provider = SdkMeterProvider::builder()
                .with_reader(reader(&gate, way)?)
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

    /// What has to be done for each of them to send what is left; it blocks.
    fn endings(&self) -> Vec<Box<dyn FnOnce() + Send>> {
        // What cannot be sent at the end is lost, as it would have been before.
        let mut endings: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        if let Some(tracer) = self.tracer.clone() {
            endings.push(Box::new(move || {
                drop(tracer.shutdown_with_timeout(FAREWELL));
            }));
        }
        if let Some(logger) = self.logger.clone() {
            endings.push(Box::new(move || {
                drop(logger.shutdown_with_timeout(FAREWELL));
            }));
        }
        for meter in [&self.meter, &self.shown].into_iter().flatten() {
            let meter = meter.clone();
            endings.push(Box::new(move || {
                drop(meter.shutdown_with_timeout(FAREWELL));
            }));
        }
        endings
    }
}

fn traces(resource: &Resource, way: Way) -> Result<SdkTracerProvider, Error> {
    let room = room(variable, "OTEL_BSP_MAX_QUEUE_SIZE");
    let counters = (Metric::SpansProcessed, Metric::SpansExported);
    let gate = Arc::new(Gate::counting("traces", counters, room));
    let exporter = by(way, SpanExporter::builder().with_tonic()).build()?;
    let config = trace::BatchConfigBuilder::default()
        .with_max_queue_size(room)
        .with_scheduled_delay(pause(variable, "OTEL_BSP_SCHEDULE_DELAY", SPANS_PAUSE));
    let queue = BatchSpanProcessor::builder(Counted::new(exporter, &gate))
        .with_batch_config(config.build())
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Counted::new(queue, &gate))
        .with_id_generator(Numbers::default())
        .with_sampler(sampler(variable)?)
        .with_resource(resource.clone());
    Ok(provider.build())
}

fn records(resource: &Resource, way: Way) -> Result<SdkLoggerProvider, Error> {
    let room = room(variable, "OTEL_BLRP_MAX_QUEUE_SIZE");
    let counters = (Metric::LogsProcessed, Metric::LogsExported);
    let gate = Arc::new(Gate::counting("logs", counters, room));
    let exporter = by(way, LogExporter::builder().with_tonic()).build()?;
    let config = logs::BatchConfigBuilder::default()
        .with_max_queue_size(room)
        .with_scheduled_delay(pause(variable, "OTEL_BLRP_SCHEDULE_DELAY", LOGS_PAUSE));
    let queue = BatchLogProcessor::builder(Counted::new(exporter, &gate))
        .with_batch_config(config.build())
        .build();
    let provider = SdkLoggerProvider::builder()
        .with_log_processor(Counted::new(queue, &gate))
        .with_resource(resource.clone());
    Ok(provider.build())
}

fn reader(gate: &Arc<Gate>, way: Way) -> Result<Reader, Error> {
    let exporter = by(way, MetricExporter::builder().with_tonic()).build()?;
    let interval = pause(variable, "OTEL_METRIC_EXPORT_INTERVAL", METRICS_PAUSE);
    let reader = PeriodicReader::builder(Counted::new(exporter, gate));
    Ok(reader.with_interval(interval).build())
}

/// Has an exporter send by this way.
fn by<B: WithExportConfig + WithTonicConfig>(way: Way, exporter: B) -> B {
    exporter.with_channel(way.channel).with_timeout(way.timeout)
}

/// Sends what is left, for [`FAREWELL`] at most; for the end of a process.
pub async fn farewell() {
    let endings = OPEN.get().map(Pipelines::endings).unwrap_or_default();
    let sent = endings.into_iter().map(|ending| {
        let (done, sent) = oneshot::channel::<()>();
        // A thread of its own: the runtime would wait for one of its own, however long a collector takes.
        let started = Builder::new().stack_size(STACK).spawn(move || {
            ending();
            drop(done);
        });
        // One that finds no room is not waited for: what it was given has been dropped.
        drop(started);
        sent
    });
    let sent: Vec<oneshot::Receiver<()>> = sent.collect();
    let all = async {
        for one in sent {
            // It says nothing; it ends.
            let _ = one.await;
        }
    };
    if tokio::time::timeout(FAREWELL, all).await.is_err() {
        tracing::warn!("the collector did not take the last telemetry in time");
    }
}
