//! `fedpipe exec-child -- PROGRAM …`: becomes another program that ends when its parent does.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::Context;
use clap::Args as Arguments;

/// The program to become.
#[derive(Debug, Arguments)]
pub struct Args {
    /// Program and its arguments
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

impl Args {
    /// Returns only if the program could not be started.
    pub fn run(self) -> anyhow::Result<()> {
        chassis::signals::follow_parent_before_exec()?;
        let mut words = self.command.into_iter();
        let program = words.next().unwrap_or_default();
        let error = std::process::Command::new(&program).args(words).exec();
        Err(error).with_context(|| format!("cannot start {}", program.display()))
    }
}
