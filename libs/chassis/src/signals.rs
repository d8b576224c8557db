//! How a process is told to stop: SIGTERM, SIGINT, or the death of its parent.
//!
//! The first signal cancels a token and everything ends in order. The second ends the process at
//! once, with the exit code a shell would show.

use std::future::Future;

use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The variable in which a supervising parent tells its children its process id.
pub const PARENT_VARIABLE: &str = "FEDPIPE_PARENT_PID";

/// Why signals cannot be obeyed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No handler could be installed.
    #[error("cannot listen for signals")]
    Listen(#[source] std::io::Error),
    /// `FEDPIPE_PARENT_PID` is not a process id.
    #[error("{PARENT_VARIABLE} is {0:?}, not a process id")]
    NotAProcess(String),
    /// The kernel refused.
    #[error("cannot follow the parent process")]
    Follow(#[source] rustix::io::Errno),
}

/// A token that SIGTERM or SIGINT cancels; the second signal exits with 128 + its number.
///
/// # Errors
/// [`Error::Listen`].
pub fn stop_on_signals() -> Result<CancellationToken, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Listen)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Listen)?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let first = next(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = first, "stopping");
        cancelled.cancel();
        let second = next(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = second, "stopping at once");
        std::process::exit(128 + second);
    });
    Ok(token)
}

async fn next(terminate: &mut Stream, interrupt: &mut Stream) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}

/// Arranges that this process receives SIGTERM when the parent named in `FEDPIPE_PARENT_PID` dies;
/// without the variable nothing happens.
///
/// The kernel watches the *thread* that started this process: a supervisor starts its children from
/// a thread that lives as long as itself. The arrangement survives `exec`.
///
/// # Errors
/// [`Error::NotAProcess`], [`Error::Follow`].
pub fn follow_parent() -> Result<(), Error> {
    let Ok(text) = std::env::var(PARENT_VARIABLE) else {
        return Ok(());
    };
    let parent = text
        .parse()
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Error::NotAProcess(text))?;
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(Error::Follow)?;
    // The parent may have died before the line above; then nobody would ever tell us.
    if getppid() != Some(parent) {
        kill_process(getpid(), Signal::TERM).map_err(Error::Follow)?;
    }
    Ok(())
}

/// What `work` gives, or `None` if the token was cancelled first; `work` is then dropped at its
/// current await, so it must bear that.
pub async fn run_until<T>(token: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    token.run_until_cancelled(work).await
}
