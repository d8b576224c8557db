//! The generated configuration, judged by the server itself.

use std::process::Command;

use testkit::nats::{NatsServer, roles};

#[test]
fn the_server_accepts_the_configuration_for_any_fleet() {
    let server = NatsServer::start(&roles(&["site-a", "0", "a-b-c", "api"]));
    let checked = Command::new(testkit::tool::path("nats-server"))
        .arg("-t")
        .arg("-c")
        .arg(server.configuration_file())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    assert!(said.contains("is valid"), "{said}");
}
