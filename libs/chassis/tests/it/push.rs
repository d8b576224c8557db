use std::net::TcpListener;

use chassis::clock::Stopwatch;
use chassis::config::{Format, Health, Telemetry};
use chassis::service::Frame;
use chassis::telemetry::{self, Metric, SpanName};
use domain::id::JobId;
use domain::trace::Trace;

use crate::child;

const TEST: &str = "push::a_collector_that_takes_nothing_costs_no_time_and_no_end";

/// As many spans, events and records as a queue holds, many times over.
const MANY: usize = 20_000;

/// What telemetry may cost at most: 50 µs each, where a training step takes milliseconds.
const MOST_SECONDS: f64 = 3.0 * MANY as f64 * 50e-6;

async fn work() {
    let telemetry = Telemetry {
        format: Format::Json,
        log: "info,push=off".to_owned(),
    };
    let frame = Frame::start("worker", &telemetry, &Health::default(), &[])
        .await
        .unwrap();
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
    let watch = Stopwatch::start();
    frame.stop().await;
    assert!(watch.seconds() < 4.0, "{} s to end", watch.seconds());
}

#[test]
fn a_collector_that_takes_nothing_costs_no_time_and_no_end() {
    if child::role().is_some() {
        tokio::runtime::Runtime::new().unwrap().block_on(work());
        return;
    }
    // One that accepts and never reads, and one that is not there.
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let absent = gone.local_addr().unwrap();
    drop(gone);
    for address in [hole.local_addr().unwrap(), absent] {
        let output = child::command(TEST, "pushing")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
            .output()
            .unwrap();
        let (said, log) = (
            output.stdout,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(
            output.status.success(),
            "{}{log}",
            String::from_utf8_lossy(&said)
        );
    }
}
