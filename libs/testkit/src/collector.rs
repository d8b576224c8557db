//! A collector: takes telemetry over gRPC as a real one does, and keeps it for whoever looks.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::metadata::KeyAndValueRef;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::tls::{self, Authority};

/// A span that arrived. Identities are hexadecimal digits; an absent one is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Which service sent it.
    pub service: String,
    /// What else is said of that service, where it is text.
    pub resource: Vec<(String, String)>,
    /// Its name.
    pub name: String,
    /// Its trace.
    pub trace: String,
    /// Itself.
    pub id: String,
    /// What it is a part of.
    pub parent: String,
    /// Spans that it points at: trace and id.
    pub links: Vec<(String, String)>,
    /// Its attributes that are text.
    pub attributes: Vec<(String, String)>,
    /// Nanoseconds since 1970.
    pub began: u64,
    /// The same.
    pub ended: u64,
}

impl Span {
    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A log record that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which service sent it.
    pub service: String,
    /// What it says.
    pub body: String,
    /// Its trace; empty without one.
    pub trace: String,
}

/// All that arrived.
#[derive(Debug, Default)]
struct Kept {
    spans: Vec<Span>,
    records: Vec<Record>,
    /// Service and name of each metric.
    metrics: Vec<(String, String)>,
    /// Signal, name and value of each header that is text.
    headers: BTreeSet<(&'static str, String, String)>,
}

impl Kept {
    fn note_headers<T>(&mut self, signal: &'static str, request: &Request<T>) {
        for header in request.metadata().iter() {
            if let KeyAndValueRef::Ascii(name, value) = header
                && let Ok(value) = value.to_str()
            {
                self.headers
                    .insert((signal, name.to_string(), value.to_owned()));
            }
        }
    }
}

/// A running collector; it ends with this value.
#[derive(Debug)]
pub struct Collector {
    scheme: &'static str,
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    _stop: oneshot::Sender<()>,
}

impl Collector {
    /// Starts one on a free port of loopback.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub async fn start() -> Self {
        Self::serving("http", Server::builder()).await
    }

    /// Starts one that speaks TLS with this certificate; and that takes only what those send whose certificate this
    /// authority signed, if one is given.
    ///
    /// # Panics
    /// If there is no port, or a file cannot be read.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test without its server has failed")]
    pub async fn secured(own: &tls::Certificate, clients: Option<&Authority>) -> Self {
        let read = |file: &Path| std::fs::read(file).expect("a file of a certificate");
        let own = Identity::from_pem(read(&own.certificate_file), read(&own.key_file));
        let tls = ServerTlsConfig::new().identity(own);
        let tls = match clients {
            Some(clients) => tls.client_ca_root(Certificate::from_pem(read(&clients.file()))),
            None => tls,
        };
        let server = Server::builder().tls_config(tls).expect("certificates");
        Self::serving("https", server).await
    }

    #[expect(clippy::expect_used, reason = "a test without its server has failed")]
    async fn serving(scheme: &'static str, mut server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let taker = Taker(Arc::clone(&kept));
        let served = server
            .add_service(TraceServiceServer::new(taker.clone()))
            .add_service(LogsServiceServer::new(taker.clone()))
            .add_service(MetricsServiceServer::new(taker))
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), async {
                let _ = stopped.await;
            });
        tokio::spawn(served);
        Self {
            scheme,
            address,
            kept,
            _stop: stop,
        }
    }

    /// Its address, for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.kept).spans.clone()
    }

    /// The log records so far.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        lock(&self.kept).records.clone()
    }

    /// Forgets what arrived so far.
    pub fn forget(&self) {
        *lock(&self.kept) = Kept::default();
    }

    /// Service and name of the metrics so far.
    #[must_use]
    pub fn metrics(&self) -> Vec<(String, String)> {
        lock(&self.kept).metrics.clone()
    }

    /// The values so far of a header, of requests that carry `traces`, `logs` or `metrics`.
    #[must_use]
    pub fn header(&self, signal: &str, name: &str) -> Vec<String> {
        let kept = lock(&self.kept);
        let found = kept.headers.iter();
        let found = found.filter(|(of, known, _)| (*of, known.as_str()) == (signal, name));
        found.map(|(_, _, value)| value.clone()).collect()
    }
}

/// Takes what is sent.
#[derive(Debug, Clone)]
struct Taker(Arc<Mutex<Kept>>);

#[tonic::async_trait]
impl TraceService for Taker {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = lock(&self.0);
        kept.note_headers("traces", &request);
        for resource in request.into_inner().resource_spans {
            let service = service(resource.resource.as_ref());
            let said = resource.resource.as_ref();
            let said = said.map(|resource| texts(&resource.attributes));
            for span in resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                let links = span.links.iter();
                kept.spans.push(Span {
                    service: service.clone(),
                    resource: said.clone().unwrap_or_default(),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    links: links
                        .map(|one| (hex(&one.trace_id), hex(&one.span_id)))
                        .collect(),
                    attributes: texts(&span.attributes),
                    began: span.start_time_unix_nano,
                    ended: span.end_time_unix_nano,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Taker {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let mut kept = lock(&self.0);
        kept.note_headers("logs", &request);
        for resource in request.into_inner().resource_logs {
            let service = service(resource.resource.as_ref());
            let scopes = resource.scope_logs.into_iter();
            for record in scopes.flat_map(|scope| scope.log_records) {
                let body = record.body.and_then(|body| body.value);
                kept.records.push(Record {
                    service: service.clone(),
                    body: body.as_ref().map(text).unwrap_or_default(),
                    trace: hex(&record.trace_id),
                });
            }
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Taker {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut kept = lock(&self.0);
        kept.note_headers("metrics", &request);
        for resource in request.into_inner().resource_metrics {
            let service = service(resource.resource.as_ref());
            let scopes = resource.scope_metrics.into_iter();
            for metric in scopes.flat_map(|scope| scope.metrics) {
                kept.metrics.push((service.clone(), metric.name));
            }
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn lock(kept: &Mutex<Kept>) -> std::sync::MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn service(resource: Option<&Resource>) -> String {
    let attributes = resource.map(|resource| texts(&resource.attributes));
    let mut named = attributes.into_iter().flatten();
    let found = named.find(|(name, _)| name == "service.name");
    found.map(|(_, value)| value).unwrap_or_default()
}

fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let pair = |one: &KeyValue| Some((one.key.clone(), text(one.value.as_ref()?.value.as_ref()?)));
    attributes.iter().filter_map(pair).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
