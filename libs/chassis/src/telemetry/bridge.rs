//! Log events as OTLP records, each with the trace of the innermost span that names one.
//!
//! Events of what carries them (gRPC, HTTP/2) are left out, or every record sent would make another.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use domain::trace::Trace;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::text::bounded;
use crate::clock;

/// The fields by which a span names its place in a trace.
pub const TRACE_ID: &str = "trace_id";
pub const SPAN_ID: &str = "span_id";

/// Whose events are not sent.
const CARRIERS: [&str; 5] = ["h2", "hyper", "opentelemetry", "tonic", "tower"];

/// Sends events on.
#[derive(Debug)]
pub(super) struct Bridge {
    logger: SdkLogger,
}

impl Bridge {
    pub(super) fn new(provider: &SdkLoggerProvider) -> Self {
        Self {
            logger: provider.logger("fedpipe"),
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Bridge {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (Some(span), Some(trace)) = (context.span(id), fields.trace()) {
            span.extensions_mut().insert(trace);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if CARRIERS
            .iter()
            .any(|one| metadata.target().starts_with(one))
        {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut record = self.logger.create_log_record();
        record.set_target(metadata.target());
        record.set_timestamp(UNIX_EPOCH + Duration::from_millis(clock::now().0));
        record.set_severity_number(severity(*metadata.level()));
        record.set_severity_text(metadata.level().as_str());
        record.set_body(AnyValue::from(fields.message));
        record.add_attributes(fields.others);
        let scope = context.event_scope(event).into_iter().flatten();
        let trace = scope
            .into_iter()
            .find_map(|span| span.extensions().get::<Trace>().copied());
        if let Some(trace) = trace {
            let (whole, span) = (TraceId::from(trace.trace), SpanId::from(trace.span));
            record.set_trace_context(whole, span, Some(TraceFlags::SAMPLED));
        }
        self.logger.emit(record);
    }
}

const fn severity(level: Level) -> Severity {
    match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warn,
        Level::INFO => Severity::Info,
        Level::DEBUG => Severity::Debug,
        Level::TRACE => Severity::Trace,
    }
}

/// The fields of an event or a span, as text where they are not plain.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, AnyValue)>,
}

impl Fields {
    /// What the fields name as place in a trace.
    fn trace(&self) -> Option<Trace> {
        let text = |wanted: &str| {
            let found = self.others.iter().find(|(name, _)| *name == wanted)?;
            match &found.1 {
                AnyValue::String(text) => Some(text.as_str().to_owned()),
                _ => None,
            }
        };
        Trace::parse(&format!("00-{}-{}-01", text(TRACE_ID)?, text(SPAN_ID)?))
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = bounded(format!("{value:?}"));
        if field.name() == "message" {
            self.message = text;
        } else {
            self.others.push((field.name(), AnyValue::from(text)));
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.others.push((field.name(), AnyValue::Double(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.push((field.name(), AnyValue::Int(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            Err(_) => self.record_debug(field, &value),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), AnyValue::Boolean(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let text = bounded(value.to_owned());
        if field.name() == "message" {
            self.message = text;
        } else {
            self.others.push((field.name(), AnyValue::from(text)));
        }
    }
}
