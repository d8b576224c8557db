//! Trains beside the private data what its plan says, and uploads only adapters.
//!
//! Promises: records and tokens never leave this process, and every number that does is listed in
//! `docs/privacy.md`; a task that comes twice has one result; a task that kills the process is
//! reported with its cause; beats and orders go on whatever is being computed; the same plan, model,
//! data and seed give the same update, byte for byte.
//!
//! Does not: choose anything a plan says, read another service's state, or take part in the merge.

mod app;
mod config;
mod error;

mod handlers;

mod probe;
mod train;

mod evaluate;

mod local;

mod machine;
mod site;

mod beats;
mod register;
mod status;

mod policy;

mod hours;
mod size;

mod errand;
mod running;
mod stop;

mod failure;
mod trouble;

mod catch_up;
mod emphasis;
mod fetch;
mod storage;

mod adapter_file;
mod compute;
mod data;

mod journal;
mod report;
mod sealed;

mod durable;
mod floors;

pub use app::run;
pub use config::{Config, Files, Policy};
pub use error::Error;
pub use failure::Failure;
pub use hours::Hours;
pub use local::{Local, Trained, Workbench};
pub use probe::Link;
pub use size::Size;
pub use storage::Storage;
