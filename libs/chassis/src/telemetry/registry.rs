//! The process's instruments and their text form for Prometheus.

use std::sync::OnceLock;

use domain::id::InstanceId;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::TextEncoder;

use super::{Error, Kind, Metric};
use crate::memory;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Bounds in seconds: a request of a millisecond and a round of an hour fall inside.
const SECONDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 1200.0, 3600.0,
];

static REGISTRY: OnceLock<Registry> = OnceLock::new();

/// Adds `amount` to a counter. `labels` are pairs of [`Metric::labels`] and a value.
pub fn count(metric: Metric, amount: u64, labels: &[(&'static str, &str)]) {
    if let Some(Instrument::Counter(counter)) = instrument(metric, Kind::Counter, labels) {
        counter.add(amount, &key_values(labels));
    }
}

/// Adds a value, in the metric's unit, to a histogram.
pub fn observe(metric: Metric, value: f64, labels: &[(&'static str, &str)]) {
    if let Some(Instrument::Histogram(histogram)) = instrument(metric, Kind::Histogram, labels) {
        histogram.record(value, &key_values(labels));
    }
}

/// Sets a gauge to a value, in the metric's unit.
pub fn set(metric: Metric, value: f64, labels: &[(&'static str, &str)]) {
    if let Some(Instrument::Gauge(gauge)) = instrument(metric, Kind::Gauge, labels) {
        gauge.record(value, &key_values(labels));
    }
}

/// All metrics in Prometheus's text form; empty before `init`.
#[must_use]
pub fn exposition() -> String {
    REGISTRY.get().map(Registry::text).unwrap_or_default()
}

pub(super) fn init(service: &str, instance: &InstanceId) -> Result<(), Error> {
    let registry = Registry::new(service, instance)?;
    REGISTRY.set(registry).map_err(|_| Error::Started)
}

enum Instrument {
    Counter(Counter<u64>),
    Gauge(Gauge<f64>),
    Histogram(Histogram<f64>),
}

struct Registry {
    prometheus: prometheus::Registry,
    /// In the order of [`Metric::ALL`], which is the order of the variants.
    instruments: Vec<Instrument>,
    /// Keeps the pipeline alive: the exporter holds it weakly.
    _provider: SdkMeterProvider,
}

impl Registry {
    fn new(service: &str, instance: &InstanceId) -> Result<Self, Error> {
        let prometheus = prometheus::Registry::new();
        // Metric::name() is the whole name, so that a search for it finds the code and the panel.
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(prometheus.clone())
            .without_units()
            .without_counter_suffixes()
            .scope_info_enabled(false)
            .build()
            .map_err(Error::Exporter)?;
        let resource = Resource::builder_empty()
            .with_service_name(service.to_owned())
            .with_attributes([
                KeyValue::new("service.instance.id", instance.to_string()),
                KeyValue::new("service.version", VERSION),
            ])
            .build();
        let provider = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_resource(resource)
            .build();
        let meter = provider.meter("fedpipe");
        let registry = Self {
            prometheus,
            instruments: Metric::ALL.iter().map(|m| build(&meter, *m)).collect(),
            _provider: provider,
        };
        registry.say_build(service);
        Ok(registry)
    }

    fn get(&self, metric: Metric) -> Option<&Instrument> {
        self.instruments.get(metric as usize)
    }

    fn say_build(&self, service: &str) {
        let is_debug = cfg!(debug_assertions);
        let labels = [
            KeyValue::new("service", service.to_owned()),
            KeyValue::new("version", VERSION),
            KeyValue::new("profile", if is_debug { "debug" } else { "release" }),
        ];
        if let Some(Instrument::Gauge(gauge)) = self.get(Metric::BuildInfo) {
            gauge.record(1.0, &labels);
        }
    }

    fn text(&self) -> String {
        if let Some(Instrument::Gauge(gauge)) = self.get(Metric::HeapBytes) {
            // Invariant: a heap stays far below 2^53 bytes, where f64 is exact.
            gauge.record(memory::current_bytes() as f64, &[]);
        }
        TextEncoder::new()
            .encode_to_string(&self.prometheus.gather())
            .unwrap_or_else(|error| {
                tracing::error!(%error, "metrics cannot be written");
                String::new()
            })
    }
}

fn build(meter: &Meter, metric: Metric) -> Instrument {
    let (name, unit, text) = (metric.name(), metric.unit(), metric.description());
    match metric.kind() {
        Kind::Counter => Instrument::Counter(
            meter
                .u64_counter(name)
                .with_unit(unit)
                .with_description(text)
                .build(),
        ),
        Kind::Gauge => Instrument::Gauge(
            meter
                .f64_gauge(name)
                .with_unit(unit)
                .with_description(text)
                .build(),
        ),
        Kind::Histogram => Instrument::Histogram(
            meter
                .f64_histogram(name)
                .with_unit(unit)
                .with_description(text)
                .with_boundaries(SECONDS.to_vec())
                .build(),
        ),
    }
}

/// The instrument, after a check in debug builds that the call fits the metric.
fn instrument(
    metric: Metric,
    kind: Kind,
    labels: &[(&'static str, &str)],
) -> Option<&'static Instrument> {
    debug_assert_eq!(metric.kind(), kind, "{metric:?} is of another kind");
    debug_assert!(
        labels.len() == metric.labels().len()
            && labels
                .iter()
                .all(|(name, _)| metric.labels().contains(name)),
        "{metric:?} has the labels {:?}",
        metric.labels()
    );
    REGISTRY.get()?.get(metric)
}

fn key_values(labels: &[(&'static str, &str)]) -> Vec<KeyValue> {
    labels
        .iter()
        .map(|(name, value)| KeyValue::new(*name, (*value).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The only test that starts the process's registry; what needs logging is tested in tests/it.
    #[test]
    fn what_is_recorded_appears_under_its_name_with_bounds_for_seconds() {
        count(Metric::Rounds, 1, &[]);
        assert_eq!(exposition(), "", "nothing is kept before init");
        let instance = "worker-1".parse().unwrap();
        init("worker", &instance).unwrap();
        assert!(matches!(init("worker", &instance), Err(Error::Started)));

        count(Metric::TransferBytes, 7, &[("direction", "up")]);
        count(Metric::TransferBytes, 5, &[("direction", "up")]);
        set(Metric::Jobs, 2.0, &[("phase", "running")]);
        set(Metric::Jobs, 1.0, &[("phase", "running")]);
        observe(Metric::RoundSeconds, 42.0, &[]);
        let text = exposition();
        for line in [
            "# TYPE fedpipe_transfer_bytes_total counter",
            r#"fedpipe_transfer_bytes_total{direction="up"} 12"#,
            r#"fedpipe_jobs{phase="running"} 1"#,
            r#"fedpipe_round_seconds_bucket{le="30"} 0"#,
            r#"fedpipe_round_seconds_bucket{le="60"} 1"#,
            "fedpipe_round_seconds_count 1",
            "fedpipe_process_heap_bytes 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
        assert!(text.contains("fedpipe_build_info{"), "{text}");
        assert!(text.contains(r#"service_instance_id="worker-1""#), "{text}");
        assert!(!text.contains("otel_scope"), "{text}");
    }
}
