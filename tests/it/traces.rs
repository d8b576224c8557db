//! What a collector receives, by TLS with certificates on both sides: the tree of a job's rounds from five kinds of
//! process, logs that name their trace, metrics. And one that takes nothing or is not trusted changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::id::JobId;
use domain::trace::Trace;
use testkit::collector::{Collector, Span};
use testkit::tls::Authority;
use testkit::wait;
use tests::job::scored;
use tests::{Fleet, Setup, bound};
use tokio::net::TcpListener;

const END: Duration = Duration::from_secs(60);

/// Where the collectors are.
const HERE: [&str; 1] = ["127.0.0.1"];

/// Everything is sent at once, so that a test need not wait for it.
fn at_once() -> Vec<(&'static str, String)> {
    let quick = "200".to_owned();
    vec![
        ("OTEL_BSP_SCHEDULE_DELAY", quick.clone()),
        ("OTEL_BLRP_SCHEDULE_DELAY", quick.clone()),
        ("OTEL_METRIC_EXPORT_INTERVAL", quick),
    ]
}

/// Names of what is within a span, as `service:name`, sorted.
fn within(spans: &[Span], parent: &Span) -> Vec<String> {
    let children = spans
        .iter()
        .filter(|span| span.trace == parent.trace && span.parent == parent.id);
    let mut names: Vec<String> = children
        .map(|span| format!("{}:{}", span.service, span.name))
        .collect();
    names.sort();
    names
}

fn find<'a>(spans: &'a [Span], trace: &Trace, name: &str) -> Option<&'a Span> {
    spans
        .iter()
        .find(|span| span.trace == trace.trace_hex() && span.name == name)
}

#[tokio::test]
async fn a_round_is_one_trace_from_the_aggregator_to_each_worker_and_back() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let collector = Collector::secured(&authority.certify(&HERE), Some(&clients)).await;
    let shown = clients.certify(&["fedpipe"]);
    let files = [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.file()),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            shown.certificate_file,
        ),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", shown.key_file),
    ];
    let files = files.map(|(variable, file)| (variable, file.display().to_string()));
    let mut setup = Setup::sites(2);
    setup.environment = at_once();
    setup.environment.extend(files);
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
    setup.environment.push(endpoint);
    let fleet = Fleet::start(&setup).await;
    let api = fleet.api();
    let id = api.submit(&scored(&fleet.model())).await;
    api.succeeded(&id, END).await;

    let job: JobId = id.parse().unwrap();
    let whole = Trace::of_job(&job);
    wait::until("all spans arrive", END, async || {
        is_complete(&collector.spans(), &whole, &Trace::of_round(&job, 2))
    })
    .await;
    let spans = collector.spans();

    check_job(&spans, &whole);
    for round in 1..=2 {
        check_round(&spans, &whole, &Trace::of_round(&job, round));
    }
    for span in &spans {
        assert!(span.began <= span.ended, "{span:?}");
    }
    check_logs(&collector, &whole).await;
    // What each process writes for its own operator names the same trace.
    let first = Trace::of_round(&job, 1).trace_hex();
    for process in ["aggregator", "worker-a"] {
        let log = fleet.log(process);
        assert!(log.contains(&first), "{process}:\n{log}");
    }
    check_metrics(&collector).await;
}

/// Whether the last has come that each process sends, whenever that is.
fn is_complete(spans: &[Span], whole: &Trace, last: &Trace) -> bool {
    let within = |trace, name| find(spans, trace, name).map_or(0, |one| within(spans, one).len());
    within(whole, "job") >= 7 && within(last, "phase evaluating") >= 2
}

/// The job's own trace: taken in by the api, then phase after phase by whose turn it is.
fn check_job(spans: &[Span], whole: &Trace) {
    let job = find(spans, whole, "job").unwrap();
    assert_eq!(job.parent, "");
    assert_eq!(
        within(spans, job),
        [
            "aggregator:phase evaluating",
            "aggregator:phase finalizing",
            "aggregator:phase starting",
            "api:submit",
            "planner:phase planning",
            "profiler:phase profiling",
            "profiler:phase queued",
        ]
    );
    let profiling = find(spans, whole, "phase profiling").unwrap();
    let probes = within(spans, profiling);
    assert_eq!(probes, ["worker:task", "worker:task"], "one of each site");
}

/// A round's trace: what the aggregator did, and within its phases what each worker did for it.
fn check_round(spans: &[Span], whole: &Trace, trace: &Trace) {
    let round = find(spans, trace, "round").unwrap();
    assert_eq!(
        (round.parent.as_str(), round.service.as_str()),
        ("", "aggregator")
    );
    let linked = (whole.trace_hex(), whole.span_hex());
    assert_eq!(round.links, [linked]);
    assert_eq!(
        within(spans, round),
        [
            "aggregator:phase evaluating",
            "aggregator:phase folding",
            "aggregator:phase training",
        ]
    );
    let training = find(spans, trace, "phase training").unwrap();
    let tasks: BTreeMap<&str, &Span> = spans
        .iter()
        .filter(|span| span.parent == training.id && span.trace == training.trace)
        .map(|span| (span.attribute("fedpipe.worker").unwrap(), span))
        .collect();
    assert_eq!(tasks.keys().copied().collect::<Vec<_>>(), ["a", "b"]);
    for task in tasks.values() {
        assert_eq!(task.name, "task");
        let steps = within(spans, task);
        for step in ["worker:compute", "worker:upload"] {
            assert!(steps.iter().any(|one| one == step), "{steps:?}");
        }
    }
    let folding = find(spans, trace, "phase folding").unwrap();
    assert_eq!(within(spans, folding), ["aggregator:merge"]);
    let evaluating = find(spans, trace, "phase evaluating").unwrap();
    assert_eq!(within(spans, evaluating), ["worker:task", "worker:task"]);
}

/// Log records of every service name the trace that they belong to.
async fn check_logs(collector: &Collector, whole: &Trace) {
    wait::until("logs arrive", END, async || {
        let records = collector.records();
        let of_job = |service: &str, body: &str| {
            records.iter().any(|record| {
                record.service == service
                    && record.body == body
                    && record.trace == whole.trace_hex()
            })
        };
        of_job("planner", "job advanced") && of_job("worker", "task")
    })
    .await;
}

async fn check_metrics(collector: &Collector) {
    wait::until("metrics arrive", END, async || {
        let metrics = collector.metrics();
        let has = |service: &str, name: &str| {
            metrics
                .iter()
                .any(|(one, other)| one == service && other == name)
        };
        has("worker", "fedpipe.training.tokens")
            && has("api", "fedpipe.worker.up")
            && has("aggregator", "fedpipe.round.duration")
    })
    .await;
}

#[tokio::test]
async fn collectors_that_take_nothing_or_are_not_trusted_change_nothing() {
    // It accepts connections, and never reads: a request gets no answer, and a handshake does not end.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hole = listener.local_addr().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    let stranger = Collector::secured(&authority.certify(&HERE), None).await;
    let mut setup = Setup::sites(2);
    setup.environment = at_once();
    setup.environment.extend([
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            format!("http://{hole}"),
        ),
        (
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            format!("https://{hole}"),
        ),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", stranger.endpoint()),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            other.file().display().to_string(),
        ),
    ]);
    let fleet = Fleet::start(&setup).await;
    let api = fleet.api();
    let id = api.submit(&scored(&fleet.model())).await;
    api.succeeded(&id, END).await;
    let overhead = bound::least_overhead(&api.rounds(&id).await[1..], setup.idle);
    assert!(overhead < 1.0, "{overhead} s");
    wait::until("lost log records are counted", END, async || {
        let lost = r#"otel_sdk_exporter_log_exported_total{error_type="collector"} "#;
        let metrics = metrics(&fleet, "aggregator").await;
        let mut counts = metrics.lines().filter_map(|line| line.strip_prefix(lost));
        counts.any(|count| count.parse::<f64>().unwrap() > 0.0)
    })
    .await;
    let log = fleet.log("aggregator");
    let said = log
        .lines()
        .filter(|line| line.contains("invalid peer certificate"));
    assert_eq!(said.count(), 1, "{log}");
    assert!(stranger.records().is_empty());
}

/// What a process tells Prometheus.
async fn metrics(fleet: &Fleet, process: &str) -> String {
    let file = fleet.state().join(format!("run/{process}.health"));
    let address = std::fs::read_to_string(file).unwrap();
    let url = format!("http://{}/metrics", address.trim());
    reqwest::get(url).await.unwrap().text().await.unwrap()
}
