//! The processes of a fleet, found by what they are, and the signals they are sent.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// The living children of a process, by name: `api`, `worker-a`, `nats`.
#[must_use]
pub fn children(parent: u32) -> BTreeMap<String, u32> {
    let entries = fs::read_dir("/proc").expect("/proc can be read");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let of_parent = pids.filter(|pid| {
        stat(*pid).is_some_and(|(state, its_parent)| its_parent == parent && state != 'Z')
    });
    of_parent
        .filter_map(|pid| Some((name(pid)?, pid)))
        .collect()
}

/// Whether a process is halted.
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'T')
}

/// Whether a process lives.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Bytes of memory that a process holds.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// Seconds of processor time that a process has used.
#[must_use]
pub fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<f64> = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    // In hundredths of a second on every Linux that this runs on.
    fields.iter().sum::<f64>() / 100.0
}

/// Sends a signal; a process that is gone is gone.
pub fn signal(pid: u32, signal: Signal) {
    let raw = i32::try_from(pid).expect("a process id");
    if let Some(pid) = Pid::from_raw(raw) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

/// State and parent.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = text.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// From the configuration file it was started with; NATS by its program.
fn name(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let words: Vec<&str> = text.split('\0').collect();
    if words.iter().any(|word| word.ends_with("nats-server")) {
        return Some("nats".to_owned());
    }
    let place = words.iter().position(|word| *word == "--config")?;
    let file = words.get(place + 1)?;
    let stem = std::path::Path::new(file).file_stem()?;
    Some(stem.to_str()?.to_owned())
}
