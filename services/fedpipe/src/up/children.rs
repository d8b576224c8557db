//! The children beside NATS: what each is started with, and its configuration file.

use std::ffi::OsString;
use std::path::PathBuf;

use contract::permission::Role;
use toml::{Table, Value};

use super::Options;
use super::fleet::Site;
use super::state::State;

/// How a child is started.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its name here and in the name of its log.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables beside the ones every child inherits.
    pub environment: Vec<(&'static str, String)>,
    /// Where its output goes.
    pub log: PathBuf,
    /// The file in which it says where its health is served.
    pub health: Option<PathBuf>,
}

/// The file, inside the state folder, in which the API says where it listens.
pub const API_ADDRESS: &str = "run/api.address";

/// Every service and every worker, their configurations written.
pub fn all(options: &Options, state: &mut State, nats_url: &str) -> anyhow::Result<Vec<Child>> {
    let mut write = Writer {
        options,
        state,
        nats_url,
    };
    let mut children = vec![write.api()?];
    for role in [Role::Profiler, Role::Planner, Role::Aggregator] {
        children.push(write.control(&role)?);
    }
    for site in &options.fleet.workers {
        children.push(write.worker(site)?);
    }
    Ok(children)
}

struct Writer<'a> {
    options: &'a Options,
    state: &'a mut State,
    nats_url: &'a str,
}

impl Writer<'_> {
    fn api(&mut self) -> anyhow::Result<Child> {
        let mut config = self.common(&Role::Api)?;
        insert(&mut config, "listen", self.options.listen.to_string());
        insert(
            &mut config,
            "address_file",
            self.state.path(API_ADDRESS).display().to_string(),
        );
        config.insert("storage".to_owned(), Value::Table(self.state.storage()?));
        if let Some(token) = &self.options.token {
            insert(&mut config, "token", token.clone());
        }
        self.child("api", &Role::Api, &config)
    }

    fn control(&mut self, role: &Role) -> anyhow::Result<Child> {
        let mut config = self.common(role)?;
        let service = role.user();
        // A fixed name: whoever is started again holds its leases still, and goes on at once.
        insert(&mut config, "instance", format!("{service}-up"));
        if *role == Role::Aggregator {
            config.insert("storage".to_owned(), Value::Table(self.state.storage()?));
            insert(
                &mut config,
                "work_dir",
                self.state.path("aggregator").display().to_string(),
            );
        }
        self.child(&service, role, &config)
    }

    fn worker(&mut self, site: &Site) -> anyhow::Result<Child> {
        let role = Role::Worker(site.name.clone());
        let mut config = self.common(&role)?;
        config.extend(site.config.clone());
        let storage = worker_storage(self.state.storage()?);
        config.insert("storage".to_owned(), Value::Table(storage));
        let folder = self.state.path("workers").join(site.name.as_str());
        insert(&mut config, "state_dir", folder.display().to_string());
        // On one machine a job may name a model by path or of the Hub; a site's own policy comes first.
        let policy = config
            .entry("policy")
            .or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(policy) = policy {
            policy
                .entry("allow_paths")
                .or_insert_with(|| Value::Array(vec!["/".into()]));
            policy
                .entry("allow_hub")
                .or_insert_with(|| Value::Array(vec!["*".into()]));
        }
        self.child("worker", &role, &config)
    }

    fn common(&mut self, role: &Role) -> anyhow::Result<Table> {
        let (user, password) = (role.user(), self.state.password(role)?);
        let health = self.health(&user).display().to_string();
        let idle_ms = i64::try_from(self.options.idle.as_millis())?;
        let table = |entries: &[(&str, Value)]| {
            let owned = entries
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()));
            Value::Table(owned.collect())
        };
        let sections = [
            (
                "nats",
                table(&[
                    ("url", self.nats_url.into()),
                    ("user", user.into()),
                    ("password", password.into()),
                ]),
            ),
            (
                "health",
                table(&[
                    ("listen", "127.0.0.1:0".into()),
                    ("address_file", health.into()),
                ]),
            ),
            (
                "telemetry",
                table(&[("log", self.options.log.as_str().into())]),
            ),
            ("liveness", table(&[("idle_ms", idle_ms.into())])),
        ];
        Ok(sections
            .into_iter()
            .map(|(key, section)| (key.to_owned(), section))
            .collect())
    }

    fn child(&mut self, command: &str, role: &Role, config: &Table) -> anyhow::Result<Child> {
        let name = role.user();
        let file = self
            .state
            .write(&format!("config/{name}.toml"), &toml::to_string(config)?)?;
        Ok(Child {
            program: std::env::current_exe()?,
            arguments: vec![command.into(), "--config".into(), file.into()],
            environment: Vec::new(),
            log: self.state.path(format!("logs/{name}.log")),
            health: Some(self.health(&name)),
            name,
        })
    }

    fn health(&self, name: &str) -> PathBuf {
        self.state.path(format!("run/{name}.health"))
    }
}

/// Workers get no credentials, here as anywhere else: what lies in S3 they reach through URLs that
/// the API signs. A folder they share.
fn worker_storage(storage: Table) -> Table {
    let url = storage.get("url").and_then(Value::as_str);
    if url.is_none_or(|url| !url.starts_with("s3://")) {
        return storage;
    }
    let trust = |key: &str| ["ca_file", "allow_http"].contains(&key);
    storage.into_iter().filter(|(key, _)| trust(key)).collect()
}

fn insert(table: &mut Table, key: &str, value: String) {
    table.insert(key.to_owned(), Value::String(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(storage: &str, expected: &str) {
        let table: Table = toml::from_str(storage).unwrap();
        let expected: Table = toml::from_str(expected).unwrap();
        assert_eq!(worker_storage(table), expected, "{storage}");
    }

    #[test]
    fn a_worker_is_told_whom_to_trust_and_no_secret() {
        let s3 = "url = 's3://b'\nendpoint = 'http://h'\naccess_key = 'a'\nsecret_key = 's'\n";
        check(s3, "");
        let trusting =
            format!("{s3}allow_http = true\nca_file = '/ca.pem'\n[urls]\nvalid_seconds = 9");
        check(&trusting, "allow_http = true\nca_file = '/ca.pem'");
        check("url = 'file:///objects'", "url = 'file:///objects'");
    }
}
