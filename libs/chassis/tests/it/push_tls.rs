//! Pushing over TLS: who is trusted, who is shown what, and what a collector costs that is not trusted or says nothing.

use std::path::Path;
use std::process::Output;

use chassis::clock::Stopwatch;
use chassis::telemetry::{self, SpanName};
use domain::id::JobId;
use domain::trace::Trace;
use serde_json::Value;
use testkit::collector::Collector;
use testkit::tls::Authority;
use testkit::wait;
use tokio::net::TcpListener;

use crate::child;
use crate::push::{SOON, child_of, events, frame, run, say_little, value};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const CA: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const SHOWN: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
const KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";

/// Where every collector of these tests is.
const HERE: [&str; 1] = ["127.0.0.1"];

type Variables = Vec<(&'static str, String)>;

fn file(variable: &'static str, path: &Path) -> (&'static str, String) {
    (variable, path.display().to_string())
}

/// Whether spans, records and metrics have come.
fn received(collector: &Collector) -> [bool; 3] {
    let received = [
        !collector.spans().is_empty(),
        !collector.records().is_empty(),
        !collector.metrics().is_empty(),
    ];
    collector.forget();
    received
}

/// What was said of a collector that takes no traces.
fn complaints(output: &Output) -> Vec<String> {
    let events = events(output);
    let of_traces = |event: &&Value| event["level"] == "WARN" && event["signal"] == "traces";
    let errors = events.iter().filter(of_traces);
    errors.map(|event| event["error"].to_string()).collect()
}

#[test]
fn tls_trusts_whom_the_variables_name_and_the_system_otherwise() {
    const TEST: &str = "push_tls::tls_trusts_whom_the_variables_name_and_the_system_otherwise";
    if child::role().is_some() {
        return run(say_little());
    }
    run(async {
        let (authority, other) = (Authority::new(), Authority::new());
        let collector = Collector::secured(&authority.certify(&HERE), None).await;
        let to = (ENDPOINT, collector.endpoint());
        let (right, wrong) = (authority.file(), other.file());
        let own = "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE";
        // Without a scheme it is TLS.
        let short = (ENDPOINT, collector.address().to_string());
        let cases: [(Variables, [bool; 3]); 5] = [
            (vec![to.clone(), file(CA, &right)], [true; 3]),
            (vec![short, file(CA, &right)], [true; 3]),
            (vec![to.clone(), file("SSL_CERT_FILE", &right)], [true; 3]),
            (vec![to.clone(), file("SSL_CERT_FILE", &wrong)], [false; 3]),
            (
                vec![to, file(CA, &wrong), file(own, &right)],
                [false, true, false],
            ),
        ];
        for (variables, expected) in cases {
            child_of(TEST, &variables).await;
            assert_eq!(received(&collector), expected, "{variables:?}");
        }
    });
}

#[test]
fn an_address_without_a_scheme_is_insecure_only_if_a_variable_says_so() {
    const TEST: &str =
        "push_tls::an_address_without_a_scheme_is_insecure_only_if_a_variable_says_so";
    if child::role().is_some() {
        return run(say_little());
    }
    run(async {
        let authority = Authority::new();
        let collector = Collector::start().await;
        let to = (ENDPOINT, collector.address().to_string());
        let insecure = |text: &str| ("OTEL_EXPORTER_OTLP_INSECURE", text.to_owned());
        let trusted = file(CA, &authority.file());
        for (text, expected) in [("true", [true; 3]), ("false", [false; 3])] {
            let variables = [to.clone(), trusted.clone(), insecure(text)];
            child_of(TEST, &variables).await;
            assert_eq!(received(&collector), expected, "{text}");
        }
    });
}

#[test]
fn a_collector_that_asks_for_a_certificate_takes_what_comes_with_one() {
    const TEST: &str =
        "push_tls::a_collector_that_asks_for_a_certificate_takes_what_comes_with_one";
    if child::role().is_some() {
        return run(say_little());
    }
    run(async {
        let (authority, clients) = (Authority::new(), Authority::new());
        let collector = Collector::secured(&authority.certify(&HERE), Some(&clients)).await;
        let to = (ENDPOINT, collector.endpoint());
        let trusted = file(CA, &authority.file());
        let known = clients.certify(&["api"]);
        let unknown = authority.certify(&["stranger"]);
        let shown = |one: &testkit::tls::Certificate| {
            [file(SHOWN, &one.certificate_file), file(KEY, &one.key_file)]
        };
        for (client, is_taken) in [(Some(known), true), (Some(unknown), false), (None, false)] {
            let mut variables = vec![to.clone(), trusted.clone()];
            variables.extend(client.iter().flat_map(shown));
            let output = child_of(TEST, &variables).await;
            assert_eq!(received(&collector), [is_taken; 3], "{client:?}");
            // Unless the process has ended before it was sure.
            let said = complaints(&output).len();
            assert!(
                said <= usize::from(!is_taken),
                "{client:?}: said {said} times"
            );
        }
    });
}

/// Sends two batches in vain.
async fn lose() {
    const BATCH: usize = 16;
    let frame = frame().await;
    let watch = Stopwatch::start();
    let parent = Trace::of_job(&JobId::from_bits(1));
    for batch in 1..=2 {
        for _ in 0..BATCH {
            drop(telemetry::within(Some(parent), SpanName::Task, &[]));
        }
        wait::until("the loss is counted", SOON, async || {
            let series = r#"otel_sdk_exporter_span_exported_total{error_type="collector"}"#;
            value(&telemetry::exposition(), series) >= (batch * BATCH) as f64
        })
        .await;
    }
    println!("{:.2} s until both are lost", watch.seconds());
    let watch = Stopwatch::start();
    frame.stop().await;
    assert!(watch.seconds() < 4.0, "{} s to end", watch.seconds());
}

#[test]
fn a_collector_that_is_not_trusted_or_silent_is_counted_and_said_once() {
    const TEST: &str =
        "push_tls::a_collector_that_is_not_trusted_or_silent_is_counted_and_said_once";
    if child::role().is_some() {
        return run(lose());
    }
    run(async {
        let (authority, other) = (Authority::new(), Authority::new());
        let collector = Collector::secured(&authority.certify(&HERE), None).await;
        // It accepts connections and says nothing, so that a handshake never ends by itself.
        let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = format!("https://{}", hole.local_addr().unwrap());
        // A handshake with whom is not trusted may take long on a busy machine; silence ends by the limit alone.
        for (endpoint, why, limit) in [
            (collector.endpoint(), "invalid peer certificate", "5000"),
            (silent, "timeout", "500"),
        ] {
            let variables = [
                (ENDPOINT, endpoint),
                file(CA, &other.file()),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", limit.to_owned()),
                ("OTEL_BSP_SCHEDULE_DELAY", "20".to_owned()),
            ];
            let output = child_of(TEST, &variables).await;
            let said = complaints(&output);
            assert!(
                matches!(said.as_slice(), [one] if one.contains(why)),
                "{said:?}"
            );
        }
        assert_eq!(received(&collector), [false; 3]);
    });
}
