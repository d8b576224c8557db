//! A test that runs itself again in a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "CHASSIS_TEST_ROLE";

/// The role this process was started in; `None` in the test itself.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// This test binary with one test, in a role.
pub fn command(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture"])
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A running child and what it prints.
pub struct Running {
    pub child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Waits until the child prints `line`.
    pub fn expect_line(&mut self, line: &str) {
        let mut text = String::new();
        while self.lines.read_line(&mut text).unwrap() > 0 {
            if text.trim_end().ends_with(line) {
                return;
            }
            text.clear();
        }
        panic!("the child ended without saying {line:?}");
    }

    /// Waits until every process that holds the child's standard output has ended.
    pub fn expect_end(mut self) -> std::process::ExitStatus {
        self.lines.read_to_end(&mut Vec::new()).unwrap();
        self.child.wait().unwrap()
    }

    pub fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}
