//! The nats-server child: found, configured with every user's permissions, and always on one port.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use contract::permission::Role;
use contract::server::{Listen, Proof, User, configuration};
use tokio::process::Child as Process;

use super::children::Child;
use super::fleet::Fleet;
use super::state::State;
use super::supervise::{NATS, Supervisor};
use super::{log, port};

/// Starts on different ports that are tried.
const ATTEMPTS: u32 = 5;

/// How long the server may take to listen; a large store is read first.
const START: Duration = Duration::from_secs(30);

/// Between two looks for the server's ports file.
const LOOK: Duration = Duration::from_millis(10);

/// What JetStream may keep on disk.
const DISK_BYTES: u64 = 4 << 30;

/// A server that listens.
pub struct Server {
    /// Where.
    pub url: String,
    /// How it is started again.
    pub child: Child,
    /// The running process.
    pub process: Process,
}

/// Finds the program.
pub fn find(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        let found = path.canonicalize();
        return found.with_context(|| format!("there is no nats-server at {}", path.display()));
    }
    let tools = std::env::var_os("FEDPIPE_TOOLS").map(|tools| PathBuf::from(tools).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = tools
        .into_iter()
        .chain([PathBuf::from(".tools/bin")])
        .chain(std::env::split_paths(&path));
    let found = folders
        .map(|folder| folder.join("nats-server"))
        .find(|program| program.is_file());
    match found.map(|program| program.canonicalize()) {
        Some(program) => Ok(program?),
        None => bail!(
            "nats-server is not in $FEDPIPE_TOOLS/bin, ./.tools/bin or the PATH. Next: `./run setup nats`, or --nats-server FILE"
        ),
    }
}

/// Starts the server and waits until it listens.
pub async fn start(
    state: &mut State,
    program: &Path,
    fleet: &Fleet,
    supervisor: &Supervisor,
) -> anyhow::Result<Server> {
    let users = users(state, fleet)?;
    let child = child(state, program)?;
    for _ in 0..ATTEMPTS {
        let port = port::keep(state, NATS)?;
        write_configuration(state, &users, port)?;
        let mut process = supervisor.spawn(&child).await?;
        if listens(state, &mut process).await? {
            return Ok(Server {
                url: format!("nats://127.0.0.1:{port}"),
                child,
                process,
            });
        }
        let last = log::tail(&child.log, 3).join("\n");
        // Somebody else may have been given the port in between; every other trouble stays.
        if !last.contains("address already in use") {
            bail!("nats-server does not start; its last words:\n{last}");
        }
    }
    bail!("nats-server finds no free port")
}

fn users(state: &mut State, fleet: &Fleet) -> anyhow::Result<Vec<User>> {
    let control = [Role::Api, Role::Profiler, Role::Planner, Role::Aggregator].into_iter();
    let workers = fleet
        .workers
        .iter()
        .map(|site| Role::Worker(site.name.clone()));
    let user = |role: Role| {
        Ok(User {
            proof: Proof::Password(state.password(&role)?),
            role,
        })
    };
    control.chain(workers).map(user).collect()
}

fn child(state: &State, program: &Path) -> anyhow::Result<Child> {
    let itself = std::env::current_exe()?;
    let mut arguments: Vec<OsString> = ["exec-child", "--"].map(OsString::from).into();
    arguments.extend([
        program.into(),
        "-c".into(),
        state.path("config/nats.conf").into(),
    ]);
    Ok(Child {
        name: NATS.to_owned(),
        program: itself,
        arguments,
        environment: Vec::new(),
        log: state.path("logs/nats.log"),
        health: None,
    })
}

fn write_configuration(state: &State, users: &[User], port: u16) -> anyhow::Result<()> {
    let ports = state.path("run/nats");
    // What an earlier server left there could be taken for this one's.
    let _ = std::fs::remove_dir_all(&ports);
    std::fs::create_dir_all(&ports)?;
    let listen = Listen {
        address: format!("127.0.0.1:{port}"),
        store_dir: state.path("nats").display().to_string(),
        ports_file_dir: ports.display().to_string(),
        disk_bytes: DISK_BYTES,
        tls: None,
    };
    state.write("config/nats.conf", &configuration(&listen, users))?;
    Ok(())
}

/// Waits for the file the server writes once it listens; false if the process ended before.
async fn listens(state: &State, process: &mut Process) -> anyhow::Result<bool> {
    let folder = state.path("run/nats");
    let written = async {
        loop {
            if std::fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_some()) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = written => Ok(true),
        ended = process.wait() => ended.map(|_| false).context("nats-server"),
        () = tokio::time::sleep(START) => bail!("nats-server does not listen within {} s", START.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_named_and_missing_is_named_in_the_error() {
        let error = find(Some(Path::new("/nowhere/nats-server"))).unwrap_err();
        assert!(
            error.to_string().contains("/nowhere/nats-server"),
            "{error}"
        );
    }
}
