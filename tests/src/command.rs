//! The command line as a script sees it: no terminal, an exit code, lines on standard output and
//! standard error.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use testkit::wait;
use tokio::process::Command;

use crate::fleet::binary;

/// Far beyond what any command takes here.
const END: Duration = Duration::from_secs(240);

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// Standard output of a command that succeeded.
    #[must_use]
    pub fn good(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Standard output of a command that succeeded, as JSON.
    #[must_use]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.good()).expect("JSON")
    }

    /// Standard error of a command that failed: exit code 1, nothing that looks like data, and each
    /// of these words.
    ///
    /// # Panics
    /// If it is otherwise.
    pub fn failed(&self, words: &[&str]) {
        assert_eq!(self.code, 1, "{self:?}");
        self.says(words);
    }

    /// As [`Ended::failed`], for wrong usage: exit code 2.
    pub fn misused(&self, words: &[&str]) {
        assert_eq!(self.code, 2, "{self:?}");
        assert!(self.out.is_empty(), "{self:?}");
        self.says(words);
    }

    fn says(&self, words: &[&str]) {
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not said: {self:?}");
        }
        assert!(!self.err.contains("panicked"), "{self:?}");
    }
}

/// Runs `fedpipe` with these arguments until it ends.
pub async fn fedpipe<S: AsRef<OsStr>>(arguments: &[S]) -> Ended {
    fedpipe_with(arguments, &[]).await
}

/// The same with these variables.
pub async fn fedpipe_with<S: AsRef<OsStr>>(arguments: &[S], environment: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env("FEDPIPE_NATS_SERVER", testkit::tool::path("nats-server"))
        .env_remove("FEDPIPE_API")
        .env_remove("FEDPIPE_TOKEN")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = wait::in_time("the command ends", END, command.output()).await;
    let output = output.expect("fedpipe is started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended {
        code: output.status.code().expect("it was not killed"),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}
