//! Fail-points of a running fleet: the next process that comes there is killed or halted, once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis::failpoint::Failpoint;
use testkit::wait;

use crate::procs;

/// The folder that every process of the fleet looks into.
#[derive(Debug, Clone)]
pub struct Points {
    folder: PathBuf,
}

/// What becomes of the process that comes to a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// SIGKILL.
    Killed,
    /// SIGSTOP.
    Halted,
}

impl Points {
    pub(crate) fn at(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("a folder for fail-points");
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Arms a point.
    pub fn arm(&self, point: Failpoint, fate: Fate) {
        // There is none unless somebody was halted here before.
        let _ = std::fs::remove_file(self.halted(point));
        std::fs::write(self.file(point, fate), "").expect("a fail-point is armed");
    }

    /// Disarms a point that nobody came to. Says whether it was still armed.
    pub fn disarm(&self, point: Failpoint, fate: Fate) -> bool {
        std::fs::remove_file(self.file(point, fate)).is_ok()
    }

    /// Waits until a process has come to the point; one that is to halt, until it stands.
    pub async fn reached(&self, point: Failpoint, fate: Fate, within: Duration) {
        let (file, halted) = (self.file(point, fate), self.halted(point));
        let what = format!("{} is reached", point.name());
        let stands = || {
            let pid = std::fs::read_to_string(&halted).ok();
            let pid = pid.and_then(|pid| pid.parse().ok());
            pid.is_some_and(procs::is_stopped)
        };
        wait::until(&what, within, async || {
            !file.exists() && (fate == Fate::Killed || stands())
        })
        .await;
    }

    /// Where a process says who it is before it halts.
    fn halted(&self, point: Failpoint) -> PathBuf {
        self.folder.join(format!("{}.halted", point.name()))
    }

    fn file(&self, point: Failpoint, fate: Fate) -> PathBuf {
        let suffix = match fate {
            Fate::Killed => "kill",
            Fate::Halted => "stop",
        };
        self.folder.join(format!("{}.{suffix}", point.name()))
    }
}
