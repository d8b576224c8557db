//! Keys and TLS: who is let in, what is said to those who are not, and how one is put out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use bus::{Bus, Connect};
use contract::permission::Role;
use futures::StreamExt;
use testkit::nats::{NatsServer, roles};
use testkit::tls::Authority;
use testkit::wait;

use crate::fixture::{SOON, Site, connect, provide_tls, site_a, site_b, way};

/// Long enough to come back in, if that were allowed: the client tries many times.
const MOMENT: Duration = Duration::from_secs(1);

/// Tries once; what a person is told to do.
async fn refused(connect: &Connect, role: &Role) -> String {
    let tried = wait::in_time("an attempt ends", SOON, Bus::connect_once(connect, role));
    let error = tried.await.map(drop).expect_err("it is let in");
    let next = error.next().unwrap_or("nothing known");
    format!("{next} ({:?})", error)
}

fn worker_a() -> Role {
    Role::Worker(site_a())
}

#[tokio::test]
async fn a_role_is_let_in_by_its_key_over_tls_and_told_what_to_do_otherwise() {
    let server = NatsServer::start_secured(&roles(&["site-a"]));
    let right = way(&server, &worker_a());
    let bus = Bus::connect_once(&right, &worker_a()).await.unwrap();
    assert!(bus.is_connected());

    // The scheme of the url does not matter: who names an authority speaks TLS.
    let scheme = Connect {
        url: right.url.replace("tls://", "nats://"),
        ..right.clone()
    };
    assert!(Bus::connect_once(&scheme, &worker_a()).await.is_ok());

    let stranger = Connect {
        seed_file: Some(server.seed_file(&Role::Worker(site_b()))),
        ..right.clone()
    };
    let said = refused(&stranger, &Role::Worker(site_b())).await;
    assert!(said.contains("add-worker"), "{said}");

    let other = Authority::new();
    let distrusting = Connect {
        ca_file: Some(other.file()),
        ..right.clone()
    };
    let said = refused(&distrusting, &worker_a()).await;
    assert!(said.contains("nats.ca_file must"), "{said}");

    let plain = NatsServer::start(&roles(&["site-a"]));
    let downgraded = Connect {
        url: plain.url(),
        ..right.clone()
    };
    refused(&downgraded, &worker_a()).await;

    let mut gone = server;
    gone.kill();
    let said = refused(&right, &worker_a()).await;
    assert!(said.contains("start NATS"), "{said}");
}

#[tokio::test]
async fn a_server_that_asks_for_certificates_lets_in_who_shows_one() {
    let server = NatsServer::start_mutual(&roles(&["site-a"]), "localhost");
    let authority = server.authority().unwrap();
    let by_name = Connect {
        url: server.url().replace("127.0.0.1", "localhost"),
        ..way(&server, &worker_a())
    };
    let said = refused(&by_name, &worker_a()).await;
    assert!(said.contains("nats.certificate_file"), "{said}");

    let own = authority.certify(&["site-a.example.org"]);
    let shown = |url: String| Connect {
        url,
        certificate_file: Some(own.certificate_file.clone()),
        key_file: Some(own.key_file.clone()),
        ..by_name.clone()
    };
    let bus = Bus::connect_once(&shown(by_name.url.clone()), &worker_a()).await;
    assert!(bus.unwrap().is_connected());
    let said = refused(&shown(server.url()), &worker_a()).await;
    assert!(said.contains("names other hosts"), "{said}");
}

/// Connects with a key, and counts how often the connection ended.
async fn watched(server: &NatsServer, role: &Role) -> (async_nats::Client, Arc<AtomicUsize>) {
    let ends = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ends);
    let seed = std::fs::read_to_string(server.seed_file(role)).unwrap();
    let authority = server.authority().unwrap();
    let client = ConnectOptions::with_nkey(seed)
        .add_root_certificates(authority.file())
        .custom_inbox_prefix(role.inbox())
        .event_callback(move |event| {
            if matches!(event, Event::Disconnected) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            std::future::ready(())
        })
        .connect(server.url());
    (client.await.unwrap(), ends)
}

#[tokio::test]
async fn whoever_is_revoked_loses_the_live_connection_and_nobody_else_does() {
    let site = Site::open_secured().await;
    let (_revoked, ended_a) = watched(&site.server, &worker_a()).await;
    let (other, ended_b) = watched(&site.server, &Role::Worker(site_b())).await;
    let mut orders = other.subscribe("fedpipe.v1.ctl.site-b").await.unwrap();
    other.flush().await.unwrap();

    site.server.reload(&roles(&["site-b"]));
    let cut = async || ended_a.load(Ordering::Relaxed) > 0;
    wait::until("the revoked connection is cut", SOON, cut).await;
    let bus_cut = async || !site.worker.is_connected();
    wait::until("the worker's own is cut", SOON, bus_cut).await;
    let back = wait::some("the revoked worker comes back", SOON, async || {
        site.worker.is_connected().then_some(())
    });
    wait::never("the revoked worker is let in again", MOMENT, back).await;

    assert_eq!(ended_b.load(Ordering::Relaxed), 0);
    assert!(site.api.is_connected() && site.aggregator.is_connected());
    let api = crate::denied::raw(&site.server, &Role::Api).await;
    api.publish("fedpipe.v1.ctl.site-b", "still here".into())
        .await
        .unwrap();
    let heard = wait::in_time("the other still hears", SOON, orders.next()).await;
    assert_eq!(&*heard.unwrap().payload, b"still here");

    // Let in again, it comes back by itself.
    site.server.reload(&roles(&["site-a", "site-b"]));
    let back = async || site.worker.is_connected();
    wait::until("the worker is back", SOON, back).await;
}

#[tokio::test]
async fn a_worker_that_takes_anothers_inbox_is_not_let_in_by_its_own_key() {
    provide_tls();
    let server = NatsServer::start_secured(&roles(&["site-a", "site-b"]));
    let api = connect(&server, &Role::Api).await;
    api.ensure_topology().await.unwrap();
    // With a's key under b's inbox: whatever it asks, the answer does not reach it.
    let stolen = Connect {
        seed_file: Some(server.seed_file(&worker_a())),
        ..way(&server, &Role::Worker(site_b()))
    };
    let intruder = Bus::connect_once(&stolen, &Role::Worker(site_b())).await;
    assert!(intruder.unwrap().round_trip().await.is_err());
}
