//! What `fedpipe up` shows: a table once all is ready, then a line for each death and each restart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::health::Report;
use super::state::State;
use super::supervise::NATS;
use crate::output;

/// What happened to a child.
#[derive(Debug)]
pub enum Notice {
    /// It was started.
    Started {
        /// Which.
        name: String,
        /// Its process id.
        pid: u32,
    },
    /// It ended by itself.
    Died {
        /// Which.
        name: String,
        /// Its process id, if it was started at all.
        pid: Option<u32>,
        /// How it ended.
        status: String,
        /// Until it is started again.
        pause: Duration,
        /// The end of its log.
        lines: Vec<String>,
    },
}

/// The printer.
pub struct Board {
    json: bool,
    state: PathBuf,
    nats_url: String,
    pids: BTreeMap<String, u32>,
    died: BTreeSet<String>,
}

impl Board {
    /// In words, or as lines of JSON.
    pub fn new(json: bool, state: &State, nats_url: String) -> Self {
        Self {
            json,
            state: state.path(""),
            nats_url,
            pids: BTreeMap::new(),
            died: BTreeSet::new(),
        }
    }

    /// Shows what happened.
    pub fn note(&mut self, notice: Notice) -> anyhow::Result<()> {
        match notice {
            Notice::Started { name, pid } => {
                if self.died.remove(&name) {
                    if self.json {
                        output::json_line(
                            &json!({ "event": "restarted", "name": name, "pid": pid }),
                        )?;
                    } else {
                        output::line(format!("{name} was started again with pid {pid}"))?;
                    }
                }
                self.pids.insert(name, pid);
            }
            Notice::Died {
                name,
                pid,
                status,
                pause,
                lines,
            } => {
                let pause_ms = crate::units::milliseconds(pause);
                if self.json {
                    output::json_line(&json!({
                        "event": "died", "name": name, "pid": pid, "status": status,
                        "restart_in_ms": pause_ms, "last_lines": lines,
                    }))?;
                } else {
                    output::note(format!(
                        "{name} ended: {status}; it is started again in {pause_ms} ms. Its last lines:"
                    ));
                    lines
                        .iter()
                        .for_each(|line| output::note(format!("    {line}")));
                }
                self.died.insert(name);
            }
        }
        Ok(())
    }

    /// Shows every process, after all of them became ready or were given up.
    pub fn ready(&self, report: Report) -> anyhow::Result<()> {
        let api = report.api.map(|address| format!("http://{address}"));
        let health = |name: &str| report.health.get(name);
        if self.json {
            let child = |(name, pid): (&String, &u32)| {
                let known = health(name);
                json!({
                    "name": name, "pid": pid, "health": known.and_then(|known| known.address.as_ref()),
                    "ready": known.is_none_or(|known| known.trouble.is_none()),
                    "trouble": known.and_then(|known| known.trouble.as_ref()),
                })
            };
            let children: Vec<_> = self.pids.iter().map(child).collect();
            return output::json_line(&json!({
                "event": "ready", "api": api, "nats": self.nats_url, "state": self.state, "children": children,
            }));
        }
        let mut rows = vec![
            ["name", "pid", "health", "state"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for (name, pid) in &self.pids {
            let known = health(name);
            let address = match known.and_then(|known| known.address.as_ref()) {
                Some(address) => format!("http://{address}/readyz"),
                None if name == NATS => self.nats_url.clone(),
                None => "-".to_owned(),
            };
            let trouble = known.and_then(|known| known.trouble.clone());
            rows.push(vec![
                name.clone(),
                pid.to_string(),
                address,
                trouble.unwrap_or_else(|| "ready".to_owned()),
            ]);
        }
        output::line(output::table(&rows))?;
        let logs = self.state.join("logs");
        match api {
            Some(api) => output::line(format!(
                "\nfedpipe is up: {api} (its pages: {api}/docs), logs in {}",
                logs.display()
            )),
            None => output::line(format!(
                "\nthe api does not answer yet: look into {}",
                logs.display()
            )),
        }
    }

    /// Says that the end begins.
    pub fn stopped(&self) -> anyhow::Result<()> {
        if self.json {
            output::json_line(&json!({ "event": "stopping" }))
        } else {
            output::line("stopping")
        }
    }
}
