//! The process's instruments and their text form for Prometheus.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use domain::id::InstanceId;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::resource::EnvResourceDetector;
use prometheus::core::Collector;
use prometheus::proto::LabelPair;
use prometheus::{GaugeVec, Opts, TextEncoder};

use super::otlp::Pipelines;
use super::{Error, Kind, Label, Metric, Picture};
use crate::clock::Stopwatch;
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

/// Replaces all that was shown of jobs and workers.
pub fn show(picture: &Picture) {
    // Invariant: a process has far fewer than 2^53 series.
    set(Metric::SeriesLeftOut, picture.left_out() as f64, &[]);
    if let Some(registry) = REGISTRY.get() {
        registry.show(picture);
    }
}

/// All metrics in Prometheus's text form; empty before `init`.
#[must_use]
pub fn exposition() -> String {
    REGISTRY.get().map(Registry::text).unwrap_or_default()
}

pub(super) fn init(
    service: &str,
    resource: Resource,
    mut pipelines: Pipelines,
) -> Result<(), Error> {
    let registry = Registry::new(service, resource, &mut pipelines)?;
    let meter = registry.provider.clone();
    REGISTRY.set(registry).map_err(|_| Error::Started)?;
    pipelines.keep(meter);
    Ok(())
}

enum Instrument {
    Counter(Counter<u64>),
    Gauge(Gauge<f64>),
    Histogram(Histogram<f64>),
    /// Read whenever somebody looks, or before it is pushed.
    Read,
    Shown(GaugeVec),
}

struct Registry {
    prometheus: prometheus::Registry,
    /// In the order of [`Metric::ALL`], which is the order of the variants.
    instruments: Vec<Instrument>,
    /// A picture is read whole or not at all.
    shown: Arc<Mutex<()>>,
    /// Keeps the pipeline alive: the exporter holds it weakly.
    provider: SdkMeterProvider,
}

impl Registry {
    fn new(service: &str, resource: Resource, pipelines: &mut Pipelines) -> Result<Self, Error> {
        let prometheus = prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(prometheus.clone())
            .scope_info_enabled(false)
            .build()
            .map_err(Error::Exporter)?;
        let provider = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_resource(resource);
        let provider = match pipelines.reader.take() {
            Some(reader) => provider.with_reader(reader),
            None => provider,
        };
        let provider = provider.build();
        let meter = provider.meter("fedpipe");
        let started = Stopwatch::start();
        let instruments = Metric::ALL
            .iter()
            .map(|metric| build(&meter, &prometheus, started, *metric));
        let registry = Self {
            instruments: instruments.collect::<Result<_, _>>()?,
            prometheus,
            shown: Arc::default(),
            provider,
        };
        registry.push_shown(pipelines.shown.as_ref());
        registry.say_build(service);
        registry.begin_at_zero(service);
        Ok(registry)
    }

    fn get(&self, metric: Metric) -> Option<&Instrument> {
        self.instruments.get(metric as usize)
    }

    fn gauge(&self, metric: Metric, value: f64, labels: &[KeyValue]) {
        if let Some(Instrument::Gauge(gauge)) = self.get(metric) {
            gauge.record(value, labels);
        }
    }

    /// Has what is shown pushed as well.
    fn push_shown(&self, provider: Option<&SdkMeterProvider>) {
        let Some(meter) = provider.map(|provider| provider.meter("fedpipe")) else {
            return;
        };
        for metric in Metric::ALL {
            let Some(Instrument::Shown(gauges)) = self.get(*metric) else {
                continue;
            };
            let (gauges, shown) = (gauges.clone(), Arc::clone(&self.shown));
            // The provider keeps what it calls.
            let _ = meter
                .f64_observable_gauge(metric.name())
                .with_unit(metric.unit())
                .with_description(metric.description())
                .with_callback(move |observer| {
                    let _whole = shown.lock().unwrap_or_else(PoisonError::into_inner);
                    for family in gauges.collect() {
                        for series in family.get_metric() {
                            let pair = |one: &LabelPair| {
                                KeyValue::new(one.name().to_owned(), one.value().to_owned())
                            };
                            let labels: Vec<KeyValue> =
                                series.get_label().iter().map(pair).collect();
                            observer.observe(series.get_gauge().get_value(), &labels);
                        }
                    }
                })
                .build();
        }
    }

    fn say_build(&self, service: &str) {
        let is_debug = cfg!(debug_assertions);
        let labels = [
            KeyValue::new("service", service.to_owned()),
            KeyValue::new("version", VERSION),
            KeyValue::new("profile", if is_debug { "debug" } else { "release" }),
        ];
        self.gauge(Metric::BuildInfo, 1.0, &labels);
    }

    /// A counter that is not there until it counts hides its first event from `increase()`: those whose
    /// labels are known are there from the start.
    fn begin_at_zero(&self, service: &str) {
        for metric in Metric::ALL {
            let Some(Instrument::Counter(counter)) = self.get(*metric) else {
                continue;
            };
            if !metric.is_served_by(service) {
                continue;
            }
            match metric.labels() {
                [] => counter.add(0, &[]),
                [Label { name, values }] => {
                    let value = |value: &&'static str| KeyValue::new(*name, *value);
                    values.iter().for_each(|one| counter.add(0, &[value(one)]));
                }
                _ => {}
            }
        }
    }

    fn show(&self, picture: &Picture) {
        let _whole = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for metric in Metric::ALL {
            let Some(Instrument::Shown(gauges)) = self.get(*metric) else {
                continue;
            };
            gauges.reset();
            for (values, value) in picture.of(*metric) {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                match gauges.get_metric_with_label_values(&values) {
                    Ok(gauge) => gauge.set(value),
                    Err(error) => tracing::debug!(?metric, %error, "a series is not shown"),
                }
            }
        }
    }

    fn text(&self) -> String {
        let _whole = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        TextEncoder::new()
            .encode_to_string(&self.prometheus.gather())
            .unwrap_or_else(|error| {
                tracing::error!(%error, "metrics cannot be written");
                String::new()
            })
    }
}

/// Who speaks, in OpenTelemetry's words; what `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` say counts more.
pub(super) fn resource(service: &str, instance: &InstanceId) -> Resource {
    let named = std::env::var("OTEL_SERVICE_NAME").ok();
    let named = named.filter(|name| !name.is_empty());
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", service.to_owned()),
            KeyValue::new("service.instance.id", instance.to_string()),
            KeyValue::new("service.version", VERSION),
        ])
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_attributes(named.map(|name| KeyValue::new("service.name", name)))
        .build()
}

/// What is read whenever somebody looks: its present value; `None` of what is recorded.
fn read(metric: Metric, started: Stopwatch) -> Option<f64> {
    // Invariant: memory stays far below 2^53 bytes, where f64 is exact.
    match metric {
        Metric::HeapBytes => Some(memory::current_bytes() as f64),
        Metric::MemoryBytes => Some(memory::resident_bytes() as f64),
        Metric::UptimeSeconds => Some(started.seconds()),
        _ => None,
    }
}

fn build(
    meter: &Meter,
    prometheus: &prometheus::Registry,
    started: Stopwatch,
    metric: Metric,
) -> Result<Instrument, Error> {
    let (name, unit, text) = (metric.name(), metric.unit(), metric.description());
    Ok(match metric.kind() {
        Kind::Counter => Instrument::Counter(
            meter
                .u64_counter(name)
                .with_unit(unit)
                .with_description(text)
                .build(),
        ),
        Kind::Gauge if read(metric, started).is_some() => {
            // The provider keeps what it calls.
            let _ = meter
                .f64_observable_gauge(name)
                .with_unit(unit)
                .with_description(text)
                .with_callback(move |observer| {
                    observer.observe(read(metric, started).unwrap_or_default(), &[]);
                })
                .build();
            Instrument::Read
        }
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
        Kind::Shown => {
            let labels: Vec<&str> = metric.labels().iter().map(|label| label.name).collect();
            let gauges = GaugeVec::new(Opts::new(metric.prometheus_name(), text), &labels);
            let gauges = gauges.map_err(Error::Register)?;
            let registered = prometheus.register(Box::new(gauges.clone()));
            registered.map_err(Error::Register)?;
            Instrument::Shown(gauges)
        }
    })
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
                .all(|(name, _)| metric.labels().iter().any(|label| label.name == *name)),
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
    fn what_is_recorded_appears_under_its_name_and_what_was_shown_goes_again() {
        count(Metric::Rounds, 1, &[]);
        assert_eq!(exposition(), "", "nothing is kept before init");
        let instance = "worker-1".parse().unwrap();
        let start = || {
            init(
                "worker",
                resource("worker", &instance),
                Pipelines::default(),
            )
        };
        start().unwrap();
        assert!(matches!(start(), Err(Error::Started)));

        count(Metric::TransferBytes, 7, &[("direction", "up")]);
        count(Metric::TransferBytes, 5, &[("direction", "up")]);
        set(Metric::Jobs, 2.0, &[("phase", "running")]);
        set(Metric::Jobs, 1.0, &[("phase", "running")]);
        observe(Metric::RoundSeconds, 42.0, &[]);
        let mut picture = Picture::default();
        picture.add(Metric::WorkerUp, &["site-a"], 1.0);
        picture.add(Metric::SiteTokens, &["job_1", "site-a"], 4.5);
        show(&picture);
        let text = exposition();
        for line in [
            "# TYPE fedpipe_transfer_bytes_total counter",
            r#"fedpipe_transfer_bytes_total{direction="up"} 12"#,
            r#"fedpipe_transfer_bytes_total{direction="down"} 0"#,
            "fedpipe_training_tokens_total 0",
            r#"fedpipe_jobs{phase="running"} 1"#,
            r#"fedpipe_round_duration_seconds_bucket{le="30"} 0"#,
            r#"fedpipe_round_duration_seconds_bucket{le="60"} 1"#,
            "fedpipe_round_duration_seconds_count 1",
            "fedpipe_process_heap_bytes 0",
            r#"fedpipe_worker_up{worker="site-a"} 1"#,
            r#"fedpipe_site_tokens_per_second{job_id="job_1",worker="site-a"} 4.5"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
        assert!(text.contains("fedpipe_build_info{"), "{text}");
        assert!(text.contains(r#"service_instance_id="worker-1""#), "{text}");
        assert!(!text.contains("otel_scope"), "{text}");
        // Of another service.
        assert!(!text.contains("fedpipe_updates_refused_total"), "{text}");

        show(&Picture::default());
        assert!(!exposition().contains("site-a"), "what has gone is gone");
        every_name_is_as_prometheus_shows_it();
    }

    /// Whatever the exporter does with names and units is what `prometheus_name` says.
    fn every_name_is_as_prometheus_shows_it() {
        for metric in Metric::ALL {
            let labels: Vec<(&str, &str)> = metric.labels().iter().map(|l| (l.name, "x")).collect();
            let mut picture = Picture::default();
            match metric.kind() {
                Kind::Counter => count(*metric, 1, &labels),
                Kind::Gauge => set(*metric, 1.0, &labels),
                Kind::Histogram => observe(*metric, 1.0, &labels),
                Kind::Shown => picture.add(*metric, &vec!["x"; labels.len()], 1.0),
            }
            show(&picture);
            let name = metric.prometheus_name();
            let of_it = |line: &str| line.starts_with(&format!("# TYPE {name} "));
            let text = exposition();
            assert!(text.lines().any(of_it), "{name} is not in:\n{text}");
        }
    }
}
