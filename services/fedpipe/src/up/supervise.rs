//! Keeps one child alive until told to stop.

use std::fs::File;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chassis::clock::Stopwatch;
use chassis::memory::{self, TUNABLES_VARIABLE};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::board::Notice;
use super::children::Child;
use super::log;
use super::state::State;

/// How long a child may take to stop in order; then it is killed.
const GRACE: Duration = Duration::from_secs(25);

/// Between two looks at the size of a running child's log.
const TIDY: Duration = Duration::from_secs(60);

/// Last lines of a dead child's log that are shown.
const LAST_LINES: usize = 5;

/// The name of the message bus among the children.
pub const NATS: &str = "nats";

/// Variables of ours that children inherit; every other would be taken for their configuration.
const INHERITED: [&str; 4] = [
    "FEDPIPE_TOOLS",
    // The profiler's alone: for how long what a site measured serves other jobs; 0: not at all.
    "FEDPIPE_REUSE_PROFILES_SECONDS",
    chassis::failpoint::NAME_VARIABLE,
    chassis::failpoint::FOLDER_VARIABLE,
];

/// What every child's keeper needs. Clones share it.
#[derive(Clone)]
pub struct Supervisor {
    lock: Arc<File>,
    notices: mpsc::Sender<Notice>,
}

impl Supervisor {
    /// Of the children of this state folder.
    pub fn new(state: &State, notices: mpsc::Sender<Notice>) -> anyhow::Result<Self> {
        let lock = Arc::new(state.lock.try_clone()?);
        Ok(Self { lock, notices })
    }

    /// Starts a child and says so.
    pub async fn spawn(&self, child: &Child) -> anyhow::Result<Process> {
        if let Some(health) = &child.health {
            // What an earlier process left there is no longer true.
            let _ = std::fs::remove_file(health);
        }
        let output = log::open(&child.log)
            .with_context(|| format!("cannot open {}", child.log.display()))?;
        let known = std::env::var(TUNABLES_VARIABLE).ok();
        let mut command = Command::new(&child.program);
        command
            .args(&child.arguments)
            .envs(child.environment.iter().map(|(name, value)| (name, value)))
            .env(
                chassis::signals::PARENT_VARIABLE,
                std::process::id().to_string(),
            )
            // A worker counts all that is held against its limit.
            .env(TUNABLES_VARIABLE, memory::tunables(known.as_deref()))
            // The lock is held until the last child is gone, whoever reads from it: nobody does.
            .stdin(Stdio::from(self.lock.try_clone()?))
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(output))
            // Ctrl-C reaches this process alone, which then stops its children in order.
            .process_group(0)
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("FEDPIPE_")
                && !INHERITED.contains(&&*text)
                && text != chassis::signals::PARENT_VARIABLE
            {
                command.env_remove(name);
            }
        }
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {}", child.name))?;
        let pid = process.id().unwrap_or_default();
        self.say(Notice::Started {
            name: child.name.clone(),
            pid,
        })
        .await;
        Ok(process)
    }

    /// Keeps a child alive until `stop`, beginning with a process that runs already if there is one.
    pub async fn keep(self, child: Child, mut running: Option<Process>, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        while !stop.is_cancelled() {
            let watch = Stopwatch::start();
            let started = match running.take() {
                Some(process) => Ok(process),
                None => self.spawn(&child).await,
            };
            let (pid, status) = match started {
                Ok(mut process) => (process.id(), watch_over(&child, &mut process, &stop).await),
                Err(error) => (None, Some(format!("{error:#}"))),
            };
            let Some(status) = status else { return };
            let pause = backoff.after(Duration::from_millis(watch.elapsed_ms()));
            let lines = log::tail(&child.log, LAST_LINES);
            self.say(Notice::Died {
                name: child.name.clone(),
                pid,
                status,
                pause,
                lines,
            })
            .await;
            let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }

    async fn say(&self, notice: Notice) {
        // Invariant: once nobody prints any more, nobody needs to know.
        let _ = self.notices.send(notice).await;
    }
}

/// How the child ended by itself; `None` if it was stopped.
async fn watch_over(
    child: &Child,
    process: &mut Process,
    stop: &CancellationToken,
) -> Option<String> {
    loop {
        tokio::select! {
            ended = process.wait() => return Some(words(ended)),
            () = stop.cancelled() => break,
            () = tokio::time::sleep(TIDY) => {
                // A log that cannot be put away now is tried again.
                let _ = log::tidy(&child.log);
            }
        }
    }
    if let Some(pid) = process
        .id()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
    {
        // It may have ended meanwhile, which is what is wanted.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(GRACE, process.wait()).await.is_err() {
        let _ = process.kill().await;
    }
    None
}

fn words(ended: std::io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match ended {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => status.to_string(),
        },
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str) -> (tempfile::TempDir, Child, Supervisor, mpsc::Receiver<Notice>) {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state")).await.unwrap();
        let (notices, inbox) = mpsc::channel(64);
        let supervisor = Supervisor::new(&state, notices).unwrap();
        let child = Child {
            name: "x".to_owned(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: Vec::new(),
            log: state.path("logs/x.log"),
            health: None,
        };
        (folder, child, supervisor, inbox)
    }

    #[tokio::test]
    async fn a_child_that_dies_is_started_again_and_its_last_words_are_kept() {
        let (_folder, child, supervisor, mut inbox) = shell("echo farewell >&2; exit 3").await;
        let stop = CancellationToken::new();
        let keeper = tokio::spawn(supervisor.keep(child, None, stop.clone()));
        let mut seen = Vec::new();
        while seen.len() < 4 {
            seen.push(inbox.recv().await.unwrap());
        }
        stop.cancel();
        keeper.await.unwrap();
        assert!(
            matches!(
                (&seen[0], &seen[2]),
                (Notice::Started { .. }, Notice::Started { .. })
            ),
            "{seen:?}"
        );
        let Notice::Died { status, lines, .. } = &seen[1] else {
            panic!("{seen:?}")
        };
        assert_eq!(
            (status.as_str(), lines.as_slice()),
            ("exit code 3", ["farewell".to_owned()].as_slice())
        );
    }

    #[tokio::test]
    async fn a_child_keeps_no_stacks_of_ended_threads() {
        let (_folder, child, supervisor, mut inbox) = shell("echo $GLIBC_TUNABLES").await;
        let stop = CancellationToken::new();
        let keeper = tokio::spawn(supervisor.keep(child, None, stop.clone()));
        assert!(matches!(inbox.recv().await, Some(Notice::Started { .. })));
        let Some(Notice::Died { lines, .. }) = inbox.recv().await else {
            panic!("it ends by itself")
        };
        stop.cancel();
        keeper.await.unwrap();
        let own = "glibc.pthread.stack_cache_size=0";
        assert!(lines.concat().contains(own), "{lines:?}");
    }

    #[tokio::test]
    async fn a_child_is_stopped_by_signal() {
        let (_folder, child, supervisor, mut inbox) =
            shell("trap 'echo bye; exit 0' TERM; echo up; while :; do read x; done").await;
        let (log, stop) = (child.log.clone(), CancellationToken::new());
        let keeper = tokio::spawn(supervisor.keep(child, None, stop.clone()));
        assert!(matches!(inbox.recv().await, Some(Notice::Started { .. })));
        while log::tail(&log, 1).is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        keeper.await.unwrap();
        assert_eq!(log::tail(&log, 1), ["bye"]);
    }
}
