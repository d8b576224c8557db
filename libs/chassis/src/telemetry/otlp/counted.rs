//! OpenTelemetry's batch processors and exporters with a [`Gate`] before and behind them: their own queues drop without
//! a word.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::logs::Severity;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};

use super::gate::Gate;

/// Something with a gate.
#[derive(Debug)]
pub(in crate::telemetry) struct Counted<T> {
    inner: T,
    gate: Arc<Gate>,
}

impl<T> Counted<T> {
    pub(super) fn new(inner: T, gate: &Arc<Gate>) -> Self {
        let gate = Arc::clone(gate);
        Self { inner, gate }
    }

    /// Sends so many that waited.
    async fn send(
        &self,
        many: usize,
        sending: impl Future<Output = OTelSdkResult>,
    ) -> OTelSdkResult {
        self.gate.leave(many);
        let result = sending.await;
        self.gate.sent(many, &result);
        result
    }
}

/// Methods that do what the inner one's do.
macro_rules! as_inner {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {$(
        fn $name(&self, $($argument: $kind),*) -> $result {
            self.inner.$name($($argument),*)
        }
    )*};
}

impl<T: SpanProcessor> SpanProcessor for Counted<T> {
    fn on_end(&self, span: SpanData) {
        if self.gate.enter() {
            self.inner.on_end(span);
        }
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }

    as_inner! {
        on_start(span: &mut Span, context: &Context) -> ();
        force_flush() -> OTelSdkResult;
        shutdown_with_timeout(timeout: Duration) -> OTelSdkResult;
    }
}

impl<T: LogProcessor> LogProcessor for Counted<T> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.gate.enter() {
            self.inner.emit(record, scope);
        }
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }

    as_inner! {
        force_flush() -> OTelSdkResult;
        shutdown_with_timeout(timeout: Duration) -> OTelSdkResult;
        event_enabled(level: Severity, target: &str, name: Option<&str>) -> bool;
    }
}

impl<T: SpanExporter> SpanExporter for Counted<T> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.send(batch.len(), self.inner.export(batch)).await
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }

    as_inner! {
        force_flush() -> OTelSdkResult;
        shutdown_with_timeout(timeout: Duration) -> OTelSdkResult;
    }
}

impl<T: LogExporter> LogExporter for Counted<T> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let many = batch.iter().count();
        self.send(many, self.inner.export(batch)).await
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }

    as_inner! {
        shutdown_with_timeout(timeout: Duration) -> OTelSdkResult;
        event_enabled(level: Severity, target: &str, name: Option<&str>) -> bool;
    }
}

impl<T: PushMetricExporter> PushMetricExporter for Counted<T> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        // They do not wait: what is not taken is sent again with the next.
        self.send(0, self.inner.export(metrics)).await
    }

    as_inner! {
        force_flush() -> OTelSdkResult;
        shutdown_with_timeout(timeout: Duration) -> OTelSdkResult;
        temporality() -> Temporality;
    }
}
