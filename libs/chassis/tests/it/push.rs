//! What is pushed to a collector, as the environment says; and what one that takes nothing costs.

use std::future::pending;
use std::io::{Write, stdin};
use std::net::{SocketAddr, TcpListener};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use chassis::clock::Stopwatch;
use chassis::config::{Format, Health, Telemetry};
use chassis::service::Frame;
use chassis::telemetry::{self, Metric, Picture, SpanName};
use domain::id::JobId;
use domain::trace::Trace;
use serde_json::Value;
use testkit::collector::Collector;
use testkit::tls::Authority;
use testkit::wait;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::child;

/// As many spans, events and records as a queue holds, many times over.
const MANY: usize = 20_000;
const ROOM: usize = 64;

pub const SOON: Duration = Duration::from_secs(20);

/// What telemetry may cost at most: 50 µs each, where a training step takes milliseconds.
const MOST_SECONDS: f64 = 3.0 * MANY as f64 * 50e-6;

pub async fn frame() -> Frame {
    let telemetry = Telemetry {
        format: Format::Json,
        log: "info".to_owned(),
    };
    Frame::start("worker", &telemetry, &Health::default(), &[])
        .await
        .unwrap()
}

pub fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(work);
}

/// Runs a test again as a child, with these variables; the runtime goes on meanwhile.
pub async fn child_of(test: &'static str, variables: &[(&'static str, String)]) -> Output {
    let variables = variables.to_vec();
    let child = tokio::task::spawn_blocking(move || {
        let mut command = child::command(test, "pushing");
        command.envs(variables).output().unwrap()
    });
    let output = child.await.unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{log}");
    output
}

/// The log events of a child.
pub fn events(output: &Output) -> Vec<Value> {
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = log.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The value of a series in the metrics' text.
pub fn value(text: &str, series: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(series));
    found
        .unwrap_or_else(|| panic!("{series} is not in:\n{text}"))
        .trim()
        .parse()
        .unwrap()
}

async fn say_much() {
    let frame = frame().await;
    let watch = Stopwatch::start();
    let parent = Trace::of_job(&JobId::from_bits(1));
    for _ in 0..MANY {
        drop(telemetry::within(Some(parent), SpanName::Task, &[]));
        telemetry::count(Metric::TrainingTokens, 1, &[]);
        telemetry::observe(Metric::TrainingStepSeconds, 0.01, &[]);
    }
    let seconds = watch.seconds();
    println!("{:.2} µs each", seconds / MANY as f64 * 1e6);
    assert!(seconds < MOST_SECONDS, "{seconds} s for {MANY}");

    let text = telemetry::exposition();
    let processed = |error: &str| {
        let series = format!(r#"otel_sdk_processor_span_processed_total{{error_type="{error}"}}"#);
        value(&text, &series)
    };
    let (kept, dropped) = (processed(""), processed("queue_full"));
    assert_eq!(kept + dropped, MANY as f64, "each is counted");
    // A queue, what is being sent, and batches that a collector that is not there refused meanwhile.
    assert!(
        kept >= ROOM as f64 && dropped > MANY as f64 / 2.0,
        "{kept}, {dropped}"
    );

    let watch = Stopwatch::start();
    frame.stop().await;
    assert!(watch.seconds() < 4.0, "{} s to end", watch.seconds());
}

#[test]
fn a_collector_that_takes_nothing_costs_no_time_and_no_end() {
    const TEST: &str = "push::a_collector_that_takes_nothing_costs_no_time_and_no_end";
    if child::role().is_some() {
        return run(say_much());
    }
    // One that accepts and never reads, with and without TLS, and one that is not there.
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let absent = gone.local_addr().unwrap();
    drop(gone);
    run(async {
        let authority = Authority::new();
        let trusted = authority.file().display().to_string();
        let here = hole.local_addr().unwrap();
        for endpoint in [
            format!("http://{here}"),
            format!("https://{here}"),
            format!("http://{absent}"),
        ] {
            let variables = [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", trusted.clone()),
                ("OTEL_BSP_MAX_QUEUE_SIZE", ROOM.to_string()),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", ROOM.to_string()),
            ];
            let output = child_of(TEST, &variables).await;
            let of_traces =
                |event: &&Value| event["level"] == "WARN" && event["signal"] == "traces";
            let said = events(&output).iter().filter(of_traces).count();
            assert!(said <= 1, "it is said once: {said}");
        }
    });
}

pub async fn say_little() {
    let frame = frame().await;
    let job = Trace::of_job(&JobId::from_bits(1));
    let task = telemetry::within(
        Some(job),
        SpanName::Task,
        &[("fedpipe.task", "train".to_owned())],
    );
    let trace = task.trace().unwrap();
    let span =
        tracing::info_span!("task", trace_id = %trace.trace_hex(), span_id = %trace.span_hex());
    span.in_scope(|| tracing::info!(steps = 7_u64, "trained"));
    drop(task);
    telemetry::count(Metric::TrainingTokens, 5, &[]);
    frame.stop().await;
}

#[test]
fn the_standard_variables_say_who_speaks_what_is_sent_and_where() {
    const TEST: &str = "push::the_standard_variables_say_who_speaks_what_is_sent_and_where";
    if child::role().is_some() {
        return run(say_little());
    }
    run(async {
        let collector = Collector::start().await;
        let to = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
        let named = ("OTEL_SERVICE_NAME", "site".to_owned());
        let attributes = "deployment.environment.name=test,service.name=lesser".to_owned();
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", attributes);
        let output = child_of(TEST, &[to.clone(), named, attributes]).await;
        check_received(&collector, &output);

        let off = |name: &'static str, value: &str| (name, value.to_owned());
        let cases = [
            (off("OTEL_SDK_DISABLED", "true"), false, false, false),
            (off("OTEL_TRACES_SAMPLER", "always_off"), false, true, true),
            (off("OTEL_TRACES_EXPORTER", "none"), false, true, true),
            (off("OTEL_LOGS_EXPORTER", "none"), true, false, true),
            (off("OTEL_METRICS_EXPORTER", "none"), true, true, false),
        ];
        for (variable, spans, records, metrics) in cases {
            collector.forget();
            child_of(TEST, &[to.clone(), variable.clone()]).await;
            let received = (
                !collector.spans().is_empty(),
                !collector.records().is_empty(),
                !collector.metrics().is_empty(),
            );
            assert_eq!(received, (spans, records, metrics), "{variable:?}");
        }
    });
}

/// One span, one record of its trace, and the same trace in the log line.
fn check_received(collector: &Collector, output: &Output) {
    let job = Trace::of_job(&JobId::from_bits(1));
    let spans = collector.spans();
    let [span] = spans.as_slice() else {
        panic!("{spans:?}")
    };
    assert_eq!(
        (span.name.as_str(), span.service.as_str()),
        ("task", "site")
    );
    assert_eq!(
        (span.trace.as_str(), span.parent.as_str()),
        (job.trace_hex().as_str(), job.span_hex().as_str())
    );
    assert_eq!(span.attribute("fedpipe.task"), Some("train"));
    let environment = ("deployment.environment.name".to_owned(), "test".to_owned());
    assert!(span.resource.contains(&environment), "{span:?}");

    let records = collector.records();
    let trained = records.iter().find(|record| record.body == "trained");
    assert_eq!(trained.unwrap().trace, span.trace);
    let events = events(output);
    let line = events.iter().find(|event| event["message"] == "trained");
    let line = line.unwrap();
    let field = |pointer| line.pointer(pointer).and_then(Value::as_str);
    assert_eq!(field("/span/trace_id"), Some(span.trace.as_str()), "{line}");
    assert_eq!(field("/span/span_id"), Some(span.id.as_str()), "{line}");

    let metrics = collector.metrics();
    for name in [
        "fedpipe.training.tokens",
        "process.uptime",
        "fedpipe.build.info",
    ] {
        let wanted = ("site".to_owned(), name.to_owned());
        assert!(metrics.contains(&wanted), "{name} is not in {metrics:?}");
    }
}

#[test]
fn headers_go_along_with_every_signal_or_with_one_and_nothing_is_compressed() {
    const TEST: &str =
        "push::headers_go_along_with_every_signal_or_with_one_and_nothing_is_compressed";
    if child::role().is_some() {
        return run(say_little());
    }
    run(async {
        let collector = Collector::start().await;
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Bearer%20of-all,tenant=north".to_owned(),
            ),
            (
                "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
                "authorization=Bearer%20of-logs".to_owned(),
            ),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned()),
        ];
        child_of(TEST, &variables).await;
        let all = (vec!["Bearer of-all".to_owned()], vec!["north".to_owned()]);
        let own = (vec!["Bearer of-logs".to_owned()], Vec::new());
        for (signal, expected) in [("traces", &all), ("logs", &own), ("metrics", &all)] {
            let header = |name| collector.header(signal, name);
            let found = (header("authorization"), header("tenant"));
            assert_eq!(&found, expected, "{signal}");
            assert_eq!(header("grpc-encoding"), Vec::<String>::new(), "{signal}");
        }
    });
}

#[test]
fn what_cannot_be_pushed_is_said_once_and_the_work_goes_on() {
    const TEST: &str = "push::what_cannot_be_pushed_is_said_once_and_the_work_goes_on";
    if child::role().is_some() {
        return run(say_little());
    }
    let to = |address: &str| ("OTEL_EXPORTER_OTLP_ENDPOINT", address.to_owned());
    let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned());
    let sampler = ("OTEL_TRACES_SAMPLER", "xray".to_owned());
    let here = to("http://127.0.0.1:1");
    run(async {
        for variables in [
            vec![here.clone(), http],
            vec![here, sampler],
            vec![to("ftp://collector:4317")],
            vec![to("not an address")],
            vec![
                to("https://collector:4317"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere".to_owned()),
            ],
        ] {
            let events = events(&child_of(TEST, &variables).await);
            let errors: Vec<&Value> = events
                .iter()
                .filter(|event| event["level"] == "ERROR")
                .collect();
            let [error] = errors.as_slice() else {
                panic!("{variables:?}: {errors:?}")
            };
            let text = error.to_string();
            assert!(text.contains("telemetry is not pushed"), "{text}");
            assert!(text.contains("OTEL_"), "the variable is named: {text}");
        }
    });
}

async fn show_and_hide() {
    let frame = frame().await;
    let mut picture = Picture::default();
    picture.add(Metric::WorkerUp, &["site-a"], 1.0);
    for shown in [picture, Picture::default()] {
        telemetry::show(&shown);
        println!("done");
        // Until the test has seen enough of it.
        let heard = tokio::task::spawn_blocking(|| stdin().read_line(&mut String::new()));
        heard.await.unwrap().unwrap();
    }
    frame.stop().await;
}

#[test]
fn what_was_shown_of_jobs_and_workers_is_pushed_until_it_is_gone() {
    const TEST: &str = "push::what_was_shown_of_jobs_and_workers_is_pushed_until_it_is_gone";
    if child::role().is_some() {
        return run(show_and_hide());
    }
    run(async {
        let collector = Collector::start().await;
        let mut command = child::command(TEST, "showing");
        command
            .stdin(Stdio::piped())
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
            .env("OTEL_METRIC_EXPORT_INTERVAL", "50");
        let mut child = child::Running::start(&mut command);
        let mut input = child.child.stdin.take().unwrap();
        child.expect_line("done");
        pushed(&collector, "fedpipe.worker.up").await;
        input.write_all(b"\n").unwrap();
        child.expect_line("done");
        // What was on its way then has arrived when others have come twice since.
        for _ in 0..2 {
            collector.forget();
            pushed(&collector, "process.uptime").await;
        }
        collector.forget();
        pushed(&collector, "process.uptime").await;
        let metrics = collector.metrics();
        let is_shown = |(_, name): &(String, String)| name == "fedpipe.worker.up";
        assert!(!metrics.iter().any(is_shown), "{metrics:?}");
        input.write_all(b"\n").unwrap();
        assert!(child.expect_end().success());
    });
}

/// Waits until a metric arrives.
async fn pushed(collector: &Collector, wanted: &str) {
    wait::until(wanted, SOON, async || {
        collector.metrics().iter().any(|(_, name)| name == wanted)
    })
    .await;
}

/// Forwards connections to a collector; those there are fall silent, without an end, when told.
async fn forward(listener: tokio::net::TcpListener, to: SocketAddr, silence: Arc<Notify>) {
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let silenced = Arc::clone(&silence);
        tokio::spawn(async move {
            let mut far = TcpStream::connect(to).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                () = silenced.notified() => pending().await,
            }
        });
    }
}

/// More spans than can be on their way.
const MORE: f64 = 50.0;

/// Sends spans until the collector has taken that many more of them.
async fn send_until_taken() {
    let taken = || {
        let series = r#"otel_sdk_exporter_span_exported_total{error_type=""}"#;
        value(&telemetry::exposition(), series)
    };
    let before = taken();
    wait::until("spans are taken", SOON, async || {
        drop(telemetry::within(None, SpanName::Task, &[]));
        taken() > before + MORE
    })
    .await;
}

async fn send_on() {
    let frame = frame().await;
    for _ in 0..2 {
        send_until_taken().await;
        println!("taken");
        let heard = tokio::task::spawn_blocking(|| stdin().read_line(&mut String::new()));
        heard.await.unwrap().unwrap();
    }
    frame.stop().await;
}

#[test]
fn a_connection_that_falls_silent_is_replaced() {
    const TEST: &str = "push::a_connection_that_falls_silent_is_replaced";
    if child::role().is_some() {
        return run(send_on());
    }
    run(async {
        let collector = Collector::start().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let between = listener.local_addr().unwrap();
        let silence = Arc::new(Notify::new());
        tokio::spawn(forward(listener, collector.address(), Arc::clone(&silence)));
        let mut command = child::command(TEST, "sending");
        command
            .stdin(Stdio::piped())
            .env(
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                format!("http://{between}"),
            )
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "400")
            .env("OTEL_BSP_SCHEDULE_DELAY", "20");
        let mut child = child::Running::start(&mut command);
        let mut input = child.child.stdin.take().unwrap();
        child.expect_line("taken");
        silence.notify_waiters();
        input.write_all(b"\n").unwrap();
        child.expect_line("taken");
        input.write_all(b"\n").unwrap();
        assert!(child.expect_end().success());
    });
}
