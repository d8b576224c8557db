//! Prints what is committed under `docs/` and checked for drift by `./run check`.

use contract::permission::Role;
use contract::server::{Listen, Proof, User, configuration};

use crate::output;

/// `docs/openapi.json`.
pub fn openapi() -> anyhow::Result<()> {
    output::line(api::openapi_json().trim_end())
}

/// `docs/api.md`.
pub fn routes() -> anyhow::Result<()> {
    output::line(api::routes_markdown().trim_end())
}

/// `docs/messages.md`.
pub fn messages() -> anyhow::Result<()> {
    output::line(contract::table::markdown().trim_end())
}

/// `docs/rules.md`.
pub fn rules() -> anyhow::Result<()> {
    output::line(domain::job::legality::markdown().trim_end())
}

/// `docs/metrics.md`.
pub fn metrics() -> anyhow::Result<()> {
    output::line(chassis::telemetry::metrics_table().trim_end())
}

/// `docs/nats-permissions.conf`: the configuration of a server with one worker named `site`.
pub fn nats_permissions() -> anyhow::Result<()> {
    let listen = Listen {
        address: "127.0.0.1:4222".to_owned(),
        store_dir: "/var/lib/nats".to_owned(),
        ports_file_dir: "/run/nats".to_owned(),
        disk_bytes: 4 << 30,
        tls: None,
    };
    let roles = [
        Role::Api,
        Role::Profiler,
        Role::Planner,
        Role::Aggregator,
        Role::Worker("site".parse()?),
    ];
    let user = |role: Role| User {
        proof: Proof::Password(format!("<password of {}>", role.user())),
        role,
    };
    output::line(configuration(&listen, &roles.map(user)).trim_end())
}
