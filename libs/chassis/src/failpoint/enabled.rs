//! Fail-points of builds with debug assertions.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::process::{Signal, getpid, kill_process};

use super::{FOLDER_VARIABLE, Failpoint, NAME_VARIABLE};

struct Armed {
    /// The one that is armed from the start, if any.
    name: Option<String>,
    folder: PathBuf,
}

fn armed() -> Option<&'static Armed> {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    ARMED
        .get_or_init(|| {
            let name = std::env::var(NAME_VARIABLE).ok();
            let folder = std::env::var_os(FOLDER_VARIABLE)?.into();
            Some(Armed { name, folder })
        })
        .as_ref()
}

pub(super) fn hit(failpoint: Failpoint) {
    let Some(armed) = armed() else { return };
    let named = armed.name.as_deref() == Some(failpoint.name());
    // Nothing is flushed and nothing unwinds: that is the point.
    if (named && is_first(armed, failpoint)) || takes(armed, failpoint, "kill") {
        let _ = kill_process(getpid(), Signal::KILL);
    }
    if takes(armed, failpoint, "stop") {
        // Who it is that will stand: whoever lets it go on must see it stand first, or it stands for ever.
        let halted = armed.folder.join(format!("{}.halted", failpoint.name()));
        let _ = fs::write(halted, std::process::id().to_string());
        let _ = kill_process(getpid(), Signal::STOP);
        stand();
    }
}

/// Returns only after the process stood. The kernel gives a process's signal to its main thread, and this one would go on until
/// that was scheduled, which on a busy machine takes milliseconds. Once the signal is taken, no thread leaves the kernel.
fn stand() {
    while is_pending(Signal::STOP) {
        std::thread::yield_now();
    }
}

/// Whether a signal to this process waits to be taken; to be let go on takes a stop back.
fn is_pending(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> (signal.as_raw() - 1) & 1 == 1)
}

/// Whether a file asks for this; of several processes that come here one finds it.
fn takes(armed: &Armed, failpoint: Failpoint, what: &str) -> bool {
    let order = armed.folder.join(format!("{}.{what}", failpoint.name()));
    fs::remove_file(order).is_ok()
}

fn is_first(armed: &Armed, failpoint: Failpoint) -> bool {
    let mark = armed.folder.join(failpoint.name());
    match OpenOptions::new().write(true).create_new(true).open(&mark) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => {
            // Without a mark every restart would die again, for ever.
            tracing::error!(%error, mark = %mark.display(), "fail-point cannot leave its mark");
            false
        }
    }
}

pub(super) fn announce() {
    match armed().map(|armed| &armed.name) {
        Some(Some(name)) if Failpoint::ALL.iter().any(|known| known.name() == name) => {
            tracing::warn!(name, "fail-point armed");
        }
        Some(Some(name)) => tracing::error!(name, "no such fail-point"),
        Some(None) => tracing::warn!("fail-points are armed by files"),
        None if std::env::var_os(NAME_VARIABLE).is_some() => {
            tracing::error!("{FOLDER_VARIABLE} is missing, so the fail-point is not armed");
        }
        None => {}
    }
}
