//! The NATS server's configuration for `fedpipe up` and tests: JetStream, users and permissions.

use std::fmt::Write as _;

use crate::permission::{Permissions, Role};

/// A user of the server.
#[derive(Debug, Clone)]
pub struct User {
    /// Who.
    pub role: Role,
    /// Its password, as the server stores it.
    pub password: String,
}

/// Where the server listens and keeps its files.
#[derive(Debug, Clone)]
pub struct Listen {
    /// `127.0.0.1:-1` takes a free port.
    pub address: String,
    /// JetStream's folder.
    pub store_dir: String,
    /// Folder into which the server writes the port it took.
    pub ports_file_dir: String,
    /// How much JetStream may keep on disk, in bytes.
    pub disk_bytes: u64,
}

/// Leave to answer a question once, within a time that no requester waits longer than.
const ANSWERS: &str = ", allow_responses: { max: 1, expires: \"30s\" }";

/// Renders the configuration file.
#[must_use]
pub fn configuration(listen: &Listen, users: &[User]) -> String {
    let mut text = String::new();
    // Invariant: writing to a String cannot fail.
    let _ = write!(
        text,
        "# Generated from the message contract; edits are lost.\n\
         listen: {:?}\nports_file_dir: {:?}\nserver_name: \"fedpipe\"\nmax_payload: 8MB\n\
         jetstream {{\n  store_dir: {:?}\n  max_file_store: {}\n}}\n\
         authorization {{\n  users: [\n",
        listen.address, listen.ports_file_dir, listen.store_dir, listen.disk_bytes
    );
    for user in users {
        let Permissions {
            publish,
            subscribe,
            answers,
        } = user.role.permissions();
        let answers = if answers { ANSWERS } else { "" };
        let _ = writeln!(
            text,
            "    {{ user: {:?}, password: {:?}, permissions: {{ publish: {{ allow: {} }}, subscribe: {{ allow: {} }}{answers} }} }}",
            user.role.user(),
            user.password,
            list(&publish),
            list(&subscribe)
        );
    }
    text.push_str("  ]\n}\n");
    text
}

fn list(subjects: &[String]) -> String {
    let quoted: Vec<String> = subjects
        .iter()
        .map(|subject| format!("{subject:?}"))
        .collect();
    format!("[{}]", quoted.join(", "))
}
