//! Fail-points of builds with debug assertions.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::process::{Signal, getpid, kill_process};

use super::{FOLDER_VARIABLE, Failpoint, NAME_VARIABLE};

struct Armed {
    name: String,
    folder: PathBuf,
}

fn armed() -> Option<&'static Armed> {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    ARMED
        .get_or_init(|| {
            let name = std::env::var(NAME_VARIABLE).ok()?;
            let folder = std::env::var_os(FOLDER_VARIABLE)?.into();
            Some(Armed { name, folder })
        })
        .as_ref()
}

pub(super) fn hit(failpoint: Failpoint) {
    if let Some(armed) = armed()
        && armed.name == failpoint.name()
        && is_first(armed)
    {
        // Nothing is flushed and nothing unwinds: that is the point.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

fn is_first(armed: &Armed) -> bool {
    let mark = armed.folder.join(&armed.name);
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
    match armed() {
        Some(armed)
            if Failpoint::ALL
                .iter()
                .any(|known| known.name() == armed.name) =>
        {
            tracing::warn!(name = armed.name, "fail-point armed");
        }
        Some(armed) => tracing::error!(name = armed.name, "no such fail-point"),
        None if std::env::var_os(NAME_VARIABLE).is_some() => {
            tracing::error!("{FOLDER_VARIABLE} is missing, so the fail-point is not armed");
        }
        None => {}
    }
}
