//! The NATS server's configuration, for `fedpipe up`, for operators and for tests: JetStream, TLS,
//! users and their permissions.

use std::fmt::Write as _;

use crate::permission::{Permissions, Role};

/// A user of the server.
#[derive(Debug, Clone)]
pub struct User {
    /// Who.
    pub role: Role,
    /// How the server knows it.
    pub proof: Proof,
}

/// How the server knows a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// By its password, as the server stores it.
    Password(String),
    /// By the public half of its nkey, which is no secret.
    Key(String),
}

/// Where the server listens and keeps its files.
#[derive(Debug, Clone)]
pub struct Listen {
    /// `127.0.0.1:-1` takes a free port.
    pub address: String,
    /// JetStream's folder.
    pub store_dir: String,
    /// Folder into which the server writes the port it took; empty: nowhere.
    pub ports_file_dir: String,
    /// How much JetStream may keep on disk, in bytes.
    pub disk_bytes: u64,
    /// With what it speaks TLS, and then nothing else.
    pub tls: Option<Tls>,
}

/// Files of the server's TLS, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Its certificate.
    pub certificate_file: String,
    /// Its key.
    pub key_file: String,
    /// The authorities of clients' certificates; with it, only who shows one is let in.
    pub client_ca_file: Option<String>,
}

/// Leave to answer a question once, within a time that no requester waits longer than.
const ANSWERS: &str = ", allow_responses: { max: 1, expires: \"30s\" }";

/// Renders the configuration file.
#[must_use]
pub fn configuration(listen: &Listen, users: &[User]) -> String {
    let mut text = String::from("# Generated from the message contract; edits are lost.\n");
    // Invariant: writing to a String cannot fail, here and below.
    let _ = writeln!(text, "listen: {:?}", listen.address);
    if !listen.ports_file_dir.is_empty() {
        let _ = writeln!(text, "ports_file_dir: {:?}", listen.ports_file_dir);
    }
    let _ = write!(
        text,
        "server_name: \"fedpipe\"\nmax_payload: 8MB\n\
         jetstream {{\n  store_dir: {:?}\n  max_file_store: {}\n}}\n",
        listen.store_dir, listen.disk_bytes
    );
    if let Some(tls) = &listen.tls {
        text.push_str(&encryption(tls));
    }
    text.push_str("authorization {\n  users: [\n");
    for one in users {
        let _ = writeln!(text, "    {}", user(one));
    }
    text.push_str("  ]\n}\n");
    text
}

/// One entry of `authorization.users`: who, and what it may say and hear.
#[must_use]
pub fn user(user: &User) -> String {
    let Permissions {
        publish,
        subscribe,
        answers,
    } = user.role.permissions();
    let who = match &user.proof {
        Proof::Password(password) => {
            format!("user: {:?}, password: {password:?}", user.role.user())
        }
        Proof::Key(public) => format!("nkey: {public:?}"),
    };
    let answers = if answers { ANSWERS } else { "" };
    format!(
        "{{ {who}, permissions: {{ publish: {{ allow: {} }}, subscribe: {{ allow: {} }}{answers} }} }}",
        list(&publish),
        list(&subscribe)
    )
}

fn encryption(tls: &Tls) -> String {
    let mut text = format!(
        "tls {{\n  cert_file: {:?}\n  key_file: {:?}\n",
        tls.certificate_file, tls.key_file
    );
    if let Some(authority) = &tls.client_ca_file {
        let _ = writeln!(text, "  ca_file: {authority:?}\n  verify: true");
    }
    text.push_str("}\n");
    text
}

fn list(subjects: &[String]) -> String {
    let quoted: Vec<String> = subjects
        .iter()
        .map(|subject| format!("{subject:?}"))
        .collect();
    format!("[{}]", quoted.join(", "))
}
