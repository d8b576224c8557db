//! Three pages about this process: `/healthz` (it lives), `/readyz` (it can work, or why not) and
//! `/metrics`.
//!
//! They carry no data of jobs and ask for no token. The default address is loopback; a cluster that
//! probes from outside the pod configures another.

mod readiness;
mod server;

pub use readiness::Readiness;
pub use server::{Error, Server, router, serve};
