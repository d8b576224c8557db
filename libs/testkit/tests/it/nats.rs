//! The NATS server of tests.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use contract::permission::Role;
use testkit::nats::{NatsServer, roles};
use testkit::wait;

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_secs(1);

/// Connects as the api, pings, and returns what comes back.
fn ping(server: &NatsServer, password: &str) -> Option<String> {
    ping_within(server, password, SOON)
}

/// The same; whoever says nothing for so long says nothing.
fn ping_within(server: &NatsServer, password: &str, patience: Duration) -> Option<String> {
    let login = server.login(&Role::Api);
    let mut stream = TcpStream::connect(server.address()).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let hello = format!(
        "CONNECT {{\"verbose\":false,\"user\":\"{}\",\"pass\":\"{password}\"}}\r\nPING\r\n",
        login.user
    );
    let mut heard = String::new();
    let mut buffer = [0; 4096];
    let mut greeted = false;
    loop {
        let read = stream.read(&mut buffer).ok()?;
        heard.push_str(&String::from_utf8_lossy(buffer.get(..read)?));
        if heard.ends_with("\r\n") && greeted || read == 0 {
            return heard.lines().last().map(str::to_owned);
        }
        if !greeted && heard.ends_with("\r\n") {
            greeted = true;
            heard.clear();
            stream.write_all(hello.as_bytes()).ok()?;
        }
    }
}

#[test]
fn it_knows_its_roles_and_no_other_password() {
    let server = NatsServer::start(&roles(&["site-a"]));
    let right = server.login(&Role::Api).password;
    assert_eq!(ping(&server, &right).as_deref(), Some("PONG"));
    assert_eq!(
        ping(&server, "wrong").as_deref(),
        Some("-ERR 'Authorization Violation'")
    );
}

#[test]
fn it_is_gone_when_killed_and_back_on_the_same_port_after_a_restart() {
    let mut server = NatsServer::start(&roles(&[]));
    let (url, right) = (server.url(), server.login(&Role::Api).password);
    server.kill();
    assert_eq!(ping(&server, &right), None);
    server.restart();
    assert_eq!(ping(&server, &right).as_deref(), Some("PONG"));
    assert_eq!(server.url(), url);
}

#[test]
fn it_says_nothing_while_it_is_paused() {
    let server = NatsServer::start(&roles(&[]));
    let right = server.login(&Role::Api).password;
    server.pause();
    assert_eq!(ping_within(&server, &right, MOMENT), None);
    server.resume();
    assert_eq!(ping(&server, &right).as_deref(), Some("PONG"));
}

#[tokio::test]
async fn it_forgets_a_user_on_reload() {
    let server = NatsServer::start(&roles(&[]));
    let right = server.login(&Role::Api).password;
    server.reload(&roles(&[])[1..]);
    wait::until("the user is denied", SOON, async || {
        ping(&server, &right).is_some_and(|heard| heard.starts_with("-ERR"))
    })
    .await;
}
