use chassis::config::{Format, Health, Telemetry};
use chassis::memory::current_bytes;
use chassis::service::{Error, Frame};
use chassis::telemetry;
use serde_json::Value;

use crate::{child, health::get};

const TEST: &str = "frame::a_service_logs_serves_its_health_and_stops";

async fn serve() {
    let telemetry = Telemetry {
        format: Format::Json,
        ..Telemetry::default()
    };
    let health = Health::default();
    let frame = Frame::start("planner", &telemetry, &health, &["nats"])
        .await
        .unwrap();
    assert!(frame.instance.as_str().starts_with("planner-"));

    assert_eq!(get(frame.health_address, "/readyz").await.0, 503);
    frame.readiness.set("nats", true, "");
    assert_eq!(get(frame.health_address, "/readyz").await.0, 200);

    let (status, metrics) = get(frame.health_address, "/metrics").await;
    assert_eq!(status, 200);
    let instance = format!("service_instance_id=\"{}\"", frame.instance);
    assert!(metrics.contains(&instance), "{metrics}");
    let heap = metrics
        .lines()
        .find_map(|line| line.strip_prefix("fedpipe_process_heap_bytes "));
    let heap: f64 = heap.unwrap().parse().unwrap();
    assert!(heap > 0.0 && heap < 2.0 * current_bytes() as f64, "{heap}");

    let again = Frame::start("planner", &telemetry, &health, &[]).await;
    assert!(matches!(
        again.map(|_| ()),
        Err(Error::Telemetry(telemetry::Error::Started))
    ));
    let token = frame.token.clone();
    frame.stop().await;
    assert!(token.is_cancelled());
}

#[test]
fn a_service_logs_serves_its_health_and_stops() {
    if child::role().is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(serve());
        return;
    }
    let output = child::command(TEST, "service").output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    let events: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let started = events.iter().find(|event| event["message"] == "started");
    assert_eq!(started.unwrap()["service"], "planner", "{log}");
    assert!(
        events.iter().any(|event| event["message"] == "stopped"),
        "{log}"
    );
}

#[tokio::test]
async fn a_bad_log_filter_is_refused_by_name() {
    let telemetry = Telemetry {
        log: "info=info=info".to_owned(),
        ..Telemetry::default()
    };
    let refused = Frame::start("planner", &telemetry, &Health::default(), &[]).await;
    assert!(matches!(
        refused.map(|_| ()),
        Err(Error::Telemetry(telemetry::Error::Filter { filter, .. })) if filter == "info=info=info"
    ));
}
