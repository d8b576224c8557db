//! A second aggregator beside the fleet's own.

use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use tokio::process::{Child, Command};

use crate::fleet::binary;
use crate::points::Points;
use crate::{Fleet, procs};

/// A second aggregator: with a working folder and fail-points of its own, on the same bus and storage.
#[derive(Debug)]
pub struct Twin {
    _child: Child,
    pid: u32,
    points: Points,
}

impl Twin {
    /// Starts it. With the holder's name of the fleet's own it believes to hold the same leases; with
    /// another it waits until they run out.
    pub fn start(fleet: &Fleet, holder: &str) -> Self {
        let folder = fleet.folder().join("twin");
        std::fs::create_dir_all(&folder).expect("a folder for the twin");
        let points = Points::at(&folder.join("points"));
        let file = folder.join("aggregator-twin.toml");
        std::fs::write(&file, configuration(fleet, &folder, holder)).expect("a configuration");
        let log = std::fs::File::create(folder.join("log")).expect("a log");
        let child = Command::new(binary())
            .args(["aggregator", "--config"])
            .arg(&file)
            .env(chassis::failpoint::FOLDER_VARIABLE, folder.join("points"))
            .env(
                chassis::signals::PARENT_VARIABLE,
                std::process::id().to_string(),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("a second aggregator");
        let pid = child.id().expect("it has just been started");
        Self {
            _child: child,
            pid,
            points,
        }
    }

    /// Its own fail-points.
    #[must_use]
    pub const fn points(&self) -> &Points {
        &self.points
    }

    /// Whether it stands still.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        procs::is_stopped(self.pid)
    }

    /// Whether it lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        procs::is_alive(self.pid)
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        procs::signal(self.pid, Signal::CONT);
    }
}

fn configuration(fleet: &Fleet, folder: &Path, holder: &str) -> String {
    let text = std::fs::read_to_string(fleet.state().join("config/aggregator.toml"));
    let text = text.expect("the aggregator's configuration");
    let mut config: toml::Table = toml::from_str(&text).expect("TOML");
    let work_dir = folder.join("work").display().to_string();
    config.insert("work_dir".to_owned(), work_dir.into());
    config.insert("instance".to_owned(), holder.into());
    let health = config["health"].as_table_mut().expect("a table");
    health.remove("address_file");
    toml::to_string(&config).expect("TOML")
}
