//! `fedpipe admin add-worker|add-service`: one user of the NATS server.

use std::path::PathBuf;

use bus::Key;
use clap::{Args as Arguments, ValueEnum};
use contract::permission::Role;
use contract::server::{Proof, User, user};
use domain::id::WorkerName;
use serde_json::json;

use super::{file, users};
use crate::output;

/// Flags of `fedpipe admin add-worker`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe admin add-worker mail-1                               print the seed, the site's [nats] and its permissions
  fedpipe admin add-worker mail-1 --output keys --users users.toml   write keys/worker-mail-1.nk and .conf, note the public key
  fedpipe admin add-worker mail-1 --key UBX3… --users users.toml     for a site that made its key itself: no secret travels

The site's site.toml names the seed in a file: [nats] seed_file = \"/etc/fedpipe/worker-mail-1.nk\". The NATS server is told the
public key and the permissions: put the printed block into authorization { users: [ … ] }, or render the whole file with
`fedpipe admin nats-config`, and send the server SIGHUP. To revoke, take the block out and send SIGHUP: the live connection ends.")]
pub struct Worker {
    /// The site's worker, as in its site.toml
    #[arg(value_name = "NAME")]
    name: WorkerName,
    #[command(flatten)]
    how: How,
}

/// Flags of `fedpipe admin add-service`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe admin add-service planner --output keys --users users.toml

The service's configuration names the seed in a file: [nats] seed_file, or FEDPIPE_NATS__SEED_FILE.")]
pub struct Service {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: Control,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Control {
    Api,
    Profiler,
    Planner,
    Aggregator,
}

#[derive(Debug, Arguments)]
struct How {
    /// The public key of a pair that is there already; otherwise one is made
    #[arg(long, value_name = "U…", value_parser = public)]
    key: Option<String>,
    /// Write the seed and the block to files of this folder that only you may read, instead of printing them
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Note the public key in this users file, for `fedpipe admin nats-config`
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn public(text: &str) -> Result<String, bus::Invalid> {
    Key::check_public(text)
}

impl Worker {
    pub fn run(self) -> anyhow::Result<()> {
        self.how.add(Role::Worker(self.name))
    }
}

impl Service {
    pub fn run(self) -> anyhow::Result<()> {
        let role = match self.service {
            Control::Api => Role::Api,
            Control::Profiler => Role::Profiler,
            Control::Planner => Role::Planner,
            Control::Aggregator => Role::Aggregator,
        };
        self.how.add(role)
    }
}

impl How {
    fn add(self, role: Role) -> anyhow::Result<()> {
        let (public, seed) = match self.key {
            Some(public) => (public, None),
            None => {
                let key = Key::new(chassis::clock::random_key())?;
                (key.public().to_owned(), Some(key.seed().clone()))
            }
        };
        let name = role.user();
        let block = user(&User {
            role: role.clone(),
            proof: Proof::Key(public.clone()),
        });
        // A name that is taken makes no file, and a file that is there no note.
        let noted = match &self.users {
            Some(path) => Some((path, users::with(path, &role, &public)?)),
            None => None,
        };
        let mut files = Vec::new();
        if let Some(folder) = &self.output {
            if let Some(seed) = &seed {
                let text = format!("{}\n", seed.expose());
                files.push(file::create(folder, &format!("{name}.nk"), &text)?);
            }
            let text = format!("{block}\n");
            files.push(file::create(folder, &format!("{name}.conf"), &text)?);
        }
        if let Some((path, text)) = noted {
            users::write(path, &text)?;
        }
        // What lies in a file is not shown as well.
        let shown = seed.as_ref().filter(|_| files.is_empty());
        if self.json {
            let permissions = role.permissions();
            return output::json(&json!({
                "user": name,
                "public_key": public,
                "seed": shown.map(|seed| seed.expose()),
                "inbox_prefix": role.inbox(),
                "publish": permissions.publish,
                "subscribe": permissions.subscribe,
                "answers": permissions.answers,
                "block": block,
                "files": files,
            }));
        }
        if let Some(seed) = shown {
            output::line(format!(
                "# {name}.nk: the seed. Who holds it is {name}; it is not kept here.\n{}\n",
                seed.expose()
            ))?;
        }
        for path in &files {
            output::line(format!("{} is written", path.display()))?;
        }
        if files.is_empty() {
            output::line(format!(
                "# {name}'s own configuration\n[nats]\nurl = \"tls://HOST:4222\"\nseed_file = \"/etc/fedpipe/{name}.nk\"\n"
            ))?;
            output::line(format!(
                "# the NATS server's, in authorization {{ users: [ … ] }}\n{block}\n"
            ))?;
            output::line(format!(
                "# the users file's, for `fedpipe admin nats-config`\n{}",
                users::line(&role, &public).trim_end()
            ))?;
        }
        output::note(
            "next: put the block into the NATS server's configuration and send it SIGHUP (`nats-server --signal reload`)",
        );
        Ok(())
    }
}
