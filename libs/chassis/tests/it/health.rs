use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis::config::Health;
use chassis::health::{Error, Readiness, serve};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Status and body of a page.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Whether nobody answers. A connection alone proves nothing: while another test starts a child,
/// that child holds a copy of the closed listener for a moment.
async fn is_silent(address: SocketAddr) -> bool {
    match TcpStream::connect(address).await {
        Ok(mut stream) => matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)),
        Err(_) => true,
    }
}

async fn readyz(address: SocketAddr) -> (u16, Value) {
    let (status, body) = get(address, "/readyz").await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn readyz_gives_reasons_until_every_condition_is_met() {
    let folder = tempfile::tempdir().unwrap();
    let config = Health {
        address_file: Some(folder.path().join("address")),
        ..Health::default()
    };
    let readiness = Readiness::new(&["nats", "storage"]);
    let token = CancellationToken::new();
    let server = serve(&config, readiness.clone(), token.clone())
        .await
        .unwrap();
    let address = server.address();
    assert_ne!(address.port(), 0);
    let written = std::fs::read_to_string(folder.path().join("address")).unwrap();
    assert_eq!(written, address.to_string());

    assert_eq!(get(address, "/healthz").await, (200, "alive\n".to_owned()));
    readiness.set("nats", false, "connection refused");
    let reasons = json!({ "nats": "connection refused", "storage": "not yet" });
    assert_eq!(
        readyz(address).await,
        (503, json!({ "ready": false, "reasons": reasons }))
    );
    readiness.set("nats", true, "");
    readiness.set("storage", true, "");
    assert_eq!(
        readyz(address).await,
        (200, json!({ "ready": true, "reasons": {} }))
    );

    token.cancel();
    server.finished().await;
    assert!(is_silent(address).await);
}

#[tokio::test]
async fn a_condition_that_is_kept_is_lost_and_met_again_with_what_it_is_about() {
    let readiness = Readiness::new(&["nats"]);
    let (connected, token) = (Arc::new(AtomicBool::new(true)), CancellationToken::new());
    let asked = Arc::clone(&connected);
    let kept = tokio::spawn(readiness.clone().keep(
        "nats",
        move || asked.load(Ordering::Relaxed),
        "not connected",
        token.clone(),
    ));
    for met in [true, false, true] {
        connected.store(met, Ordering::Relaxed);
        testkit::wait::until("it follows", Duration::from_secs(20), async || {
            readiness.is_ready() == met
        })
        .await;
        let reason = readiness.reasons().remove("nats");
        assert_eq!(reason.as_deref(), (!met).then_some("not connected"));
    }
    token.cancel();
    kept.await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Health {
        listen: taken.local_addr().unwrap(),
        ..Health::default()
    };
    let refused = serve(&config, Readiness::default(), CancellationToken::new()).await;
    assert!(matches!(refused, Err(Error::Listen { address, .. }) if address == config.listen));
}
