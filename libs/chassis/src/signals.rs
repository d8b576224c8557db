//! How a process is told to stop: SIGTERM, SIGINT, SIGHUP, or the death of its parent.
//!
//! The first signal cancels a token and everything ends in order. Who insists ends the process at
//! once, with the exit code a shell would show: a SIGINT while it is stopping, or a second SIGTERM.
//! SIGTERM after SIGINT is no insistence: Ctrl-C reaches a whole process group, and a supervisor in
//! it then sends its children SIGTERM as well.

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

/// A token that the first SIGTERM, SIGINT or SIGHUP cancels; insistence exits with 128 + the
/// signal's number.
///
/// # Errors
/// [`Error::Listen`].
pub fn stop_on_signals() -> Result<CancellationToken, Error> {
    let mut streams = Streams::new().map_err(Error::Listen)?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let mut terminations = 0;
        loop {
            let signal = streams.next().await;
            terminations += u32::from(signal == SignalKind::terminate());
            let insists = match signal {
                s if s == SignalKind::interrupt() => cancelled.is_cancelled(),
                s if s == SignalKind::terminate() => terminations > 1,
                // The kernel repeats it for each thread of a dying parent.
                _ => false,
            };
            let number = signal.as_raw_value();
            if insists {
                tracing::warn!(signal = number, "stopping at once");
                std::process::exit(128 + number);
            }
            tracing::info!(signal = number, "stopping");
            cancelled.cancel();
        }
    });
    Ok(token)
}

struct Streams {
    interrupt: Stream,
    terminate: Stream,
    hangup: Stream,
}

impl Streams {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            // Of signals that wait together, the group's SIGINT came before a supervisor's SIGTERM.
            biased;
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
        }
    }
}

/// Arranges that this process is told to stop (SIGHUP) when the parent named in
/// `FEDPIPE_PARENT_PID` dies; without the variable nothing happens. To be called after
/// [`stop_on_signals`].
///
/// The kernel watches the *thread* that started this process: a supervisor starts its children from
/// a thread that lives as long as itself.
///
/// # Errors
/// [`Error::NotAProcess`], [`Error::Follow`].
pub fn follow_parent() -> Result<(), Error> {
    follow(Signal::HUP)
}

/// As [`follow_parent`] for a program that is not ours and is about to replace this process with
/// `exec`, which the arrangement survives: it receives SIGTERM, perhaps more than once.
///
/// # Errors
/// As [`follow_parent`].
pub fn follow_parent_before_exec() -> Result<(), Error> {
    follow(Signal::TERM)
}

fn follow(farewell: Signal) -> Result<(), Error> {
    let Ok(text) = std::env::var(PARENT_VARIABLE) else {
        return Ok(());
    };
    let parent = text
        .parse()
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Error::NotAProcess(text))?;
    set_parent_process_death_signal(Some(farewell)).map_err(Error::Follow)?;
    // The parent may have died before the line above; then nobody would ever tell us.
    if getppid() != Some(parent) {
        kill_process(getpid(), farewell).map_err(Error::Follow)?;
    }
    Ok(())
}

/// What `work` gives, or `None` if the token was cancelled first; `work` is then dropped at its
/// current await, so it must bear that.
pub async fn run_until<T>(token: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    token.run_until_cancelled(work).await
}
