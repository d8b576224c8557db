//! How much memory and how many threads this process may use.
//!
//! Knows cgroup v1, v2 and both side by side. A group is bound by every group above it, so the
//! smallest limit on the way up holds; inside a container the way up may not be visible, and what is
//! mounted at the top is then the container's own group.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Error;

/// Bytes this process may use: its cgroup's limit, else the machine's memory, whichever is less.
///
/// `root` is `/`; tests give a folder that looks like one.
///
/// # Errors
/// [`Error::File`] or [`Error::UnknownTotal`] if the machine's memory cannot be read.
pub fn limit_bytes(root: &Path) -> Result<u64, Error> {
    let total = total_bytes(root)?;
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| group_limit(root, line));
    Ok(limits.fold(total, u64::min))
}

/// Limits this process's data (heap, private mappings, thread stacks) with `RLIMIT_DATA`; a request
/// beyond it is refused. What is in use already is not taken away.
///
/// # Errors
/// [`Error::Refused`], for example above the hard limit.
pub fn set_limit(bytes: u64) -> Result<(), Error> {
    let limit = Rlimit {
        current: Some(bytes),
        ..getrlimit(Resource::Data)
    };
    setrlimit(Resource::Data, limit).map_err(|source| Error::Refused { bytes, source })
}

/// Bytes this process may use by every limit there is: [`limit_bytes`], and what [`set_limit`] or
/// whoever started the process set.
///
/// # Errors
/// As [`limit_bytes`].
pub fn allowed_bytes(root: &Path) -> Result<u64, Error> {
    let data = getrlimit(Resource::Data).current;
    Ok(data.unwrap_or(u64::MAX).min(limit_bytes(root)?))
}

/// Threads that can run at once: cores this process may use, by affinity and by the cgroup's quota.
#[must_use]
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn total_bytes(root: &Path) -> Result<u64, Error> {
    let path = root.join("proc/meminfo");
    let text = fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .and_then(|kib| kib.checked_mul(1024))
        .ok_or(Error::UnknownTotal)
}

/// The smallest limit from the group of one line of `/proc/self/cgroup` up to the mount.
fn group_limit(root: &Path, line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, group) = rest.split_once(':')?;
    let (mounts, file): (&[&str], _) = if controllers.is_empty() {
        (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes")
    } else {
        return None;
    };
    mounts
        .iter()
        .flat_map(|mount| upwards(&root.join(mount), group))
        .filter_map(|folder| read_limit(&folder.join(file)))
        .min()
}

/// The group's folder and those above it, the mount last.
fn upwards(mount: &Path, group: &str) -> Vec<PathBuf> {
    Path::new(group)
        .ancestors()
        .filter_map(|part| part.strip_prefix("/").ok())
        // A group outside the namespace is shown as `/../x`; it cannot be read from here.
        .filter(|part| !part.starts_with(".."))
        .map(|part| mount.join(part))
        .collect()
}

/// `None` where there is no such file or it says `max`; v1 writes "no limit" as a huge number, which
/// the machine's memory undercuts.
fn read_limit(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: u64 = 8 << 30;
    const V1_UNLIMITED: &str = "9223372036854771712";

    /// A root with `/proc/self/cgroup`, 8 GiB of memory, and files below `/sys/fs/cgroup`.
    fn check(groups: &str, files: &[(&str, &str)], expected: u64) {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/self/cgroup", groups);
        write(
            "proc/meminfo",
            "MemTotal:        8388608 kB\nMemFree: 1 kB\n",
        );
        for (path, text) in files {
            write(&format!("sys/fs/cgroup/{path}"), text);
        }
        assert_eq!(limit_bytes(folder.path()).unwrap(), expected, "{groups}");
    }

    #[test]
    fn without_a_cgroup_limit_the_machine_is_the_limit() {
        check("", &[], TOTAL);
        check("0::/\n", &[("cgroup.procs", "1")], TOTAL);
        check("0::/app\n", &[("app/memory.max", "max\n")], TOTAL);
        check(
            "4:memory:/app\n",
            &[("memory/app/memory.limit_in_bytes", V1_UNLIMITED)],
            TOTAL,
        );
    }

    #[test]
    fn version_2_limits_its_own_group_and_those_below() {
        check(
            "0::/pod/app\n",
            &[("pod/app/memory.max", "1000000\n")],
            1_000_000,
        );
        let nested = [
            ("pod/memory.max", "500000\n"),
            ("pod/app/memory.max", "1000000\n"),
        ];
        check("0::/pod/app\n", &nested, 500_000);
        let open_inner = [
            ("pod/memory.max", "500000\n"),
            ("pod/app/memory.max", "max\n"),
        ];
        check("0::/pod/app\n", &open_inner, 500_000);
    }

    #[test]
    fn version_1_limits_through_its_memory_controller() {
        let groups = "5:devices:/x\n4:memory:/docker/abc\n0::/\n";
        let own = [("memory/docker/abc/memory.limit_in_bytes", "700000\n")];
        check(groups, &own, 700_000);
        let shared = [("memory/docker/memory.limit_in_bytes", "600000"), own[0]];
        check(groups, &shared, 600_000);
        check(
            "3:cpu,memory:/a\n",
            &[("memory/a/memory.limit_in_bytes", "5000\n")],
            5000,
        );
    }

    #[test]
    fn a_container_that_sees_only_its_own_group_finds_it_at_the_mount() {
        check(
            "4:memory:/docker/abc\n",
            &[("memory/memory.limit_in_bytes", "300000\n")],
            300_000,
        );
        check("0::/../other\n", &[("memory.max", "400000\n")], 400_000);
    }

    #[test]
    fn a_limit_above_the_machines_memory_does_not_help() {
        check("0::/\n", &[("memory.max", "99999999999\n")], TOTAL);
    }

    #[test]
    fn a_machine_of_unknown_size_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            limit_bytes(folder.path()),
            Err(Error::File { .. })
        ));
    }

    #[test]
    fn a_limit_on_the_process_holds_besides_its_groups() {
        let before = allowed_bytes(Path::new("/")).unwrap();
        let lower = before - (1 << 20);
        set_limit(lower).unwrap();
        assert_eq!(allowed_bytes(Path::new("/")).unwrap(), lower);
    }

    #[test]
    fn this_machine_has_memory_and_threads() {
        assert!(limit_bytes(Path::new("/")).unwrap() > 1 << 20);
        assert!(threads() >= 1);
    }
}
