//! Disks of a fleet that are small enough to be filled: each is a tmpfs in the fleet's own mount
//! namespace, so that nothing else sees it and nothing of it stays.
//!
//! Mounting needs root, or a kernel that lets users make namespaces. Where neither is so, a case
//! fails and says what it needs, unless `FEDPIPE_TEST_NO_MOUNT` is set: then it is left out by name.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set by whoever runs the tests where nothing may be mounted.
const OPT_OUT: &str = "FEDPIPE_TEST_NO_MOUNT";

/// What a fleet is asked for: a folder inside its state folder, and how large its disk is.
#[derive(Debug, Clone)]
pub struct Small {
    /// Inside the state folder.
    pub folder: &'static str,
    /// Its size, in KiB.
    pub kib: u32,
}

/// A disk of a running fleet.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
}

/// Whether disks can be had here.
///
/// # Panics
/// If not, unless the run was told to do without.
#[must_use]
pub fn available() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let small = [(folder.path().to_owned(), 64)];
    let mut program = wrapped(&small, Path::new("true"));
    let tried = program.stdin(Stdio::null()).output();
    let why = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    assert!(
        std::env::var_os(OPT_OUT).is_some(),
        "a full disk needs a mount: run as root, allow user namespaces, or set {OPT_OUT} to leave these cases out ({})",
        why.trim()
    );
    eprintln!("LEFT OUT, because {OPT_OUT} is set: cases of a full disk");
    false
}

/// A command that sees these folders as disks of so many KiB; give it the program's arguments.
#[must_use]
pub fn wrapped(disks: &[(PathBuf, u32)], program: &Path) -> Command {
    let mut script = String::from("set -e\n");
    for (folder, kib) in disks {
        fs::create_dir_all(folder).expect("a folder to mount on");
        script.push_str(&format!(
            "mount -t tmpfs -o size={kib}k,mode=700 tmpfs '{}'\n",
            folder.display()
        ));
    }
    script.push_str("exec \"$@\"\n");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    // Without a fork: the process is the caller's child, and its children are its own.
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(script).arg("sh").arg(program);
    command
}

impl Disk {
    /// The folder as the process sees it.
    pub(crate) fn of(pid: u32, folder: &Path) -> Self {
        let seen = folder.strip_prefix("/").expect("an absolute folder");
        let root = PathBuf::from(format!("/proc/{pid}/root")).join(seen);
        Self { root }
    }

    /// What lies on it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Leaves so many KiB and no more.
    pub fn fill(&self, left_kib: u32) {
        let mut filler = File::create(self.filler()).expect("a file on the disk");
        let page = [7; 1024];
        loop {
            match filler.write_all(&page).and_then(|()| filler.flush()) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("the disk cannot be filled: {error}"),
            }
        }
        let full = filler.metadata().expect("its length").len();
        let left = u64::from(left_kib) * 1024;
        filler.set_len(full.saturating_sub(left)).expect("cut");
    }

    /// Gives back what [`Disk::fill`] took.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }
}
