//! fedpipe: fine-tune language models on data that stays where it lies.
//!
//! The one binary: every service, `fedpipe up` that supervises them on one machine, and the commands
//! of whoever submits jobs or tries the engine. Exit code 0, 1 failure, 2 usage. Nothing here decides
//! anything about a job: services do, and the engine computes.

mod cli;
mod client;
mod output;
mod units;
mod up;
mod watch;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static HEAP: chassis::memory::Allocator = chassis::memory::Allocator;

fn main() -> ExitCode {
    // Before the first TLS connection, or two providers would meet. Invariant: nothing installed one earlier.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failure(&error),
    }
}
