//! Takes jobs over HTTP and shows what becomes of them.
//!
//! It promises: a job that was accepted is stored before the answer leaves; the same submission
//! under the same key is the same job, whatever crashed in between; every error is a problem
//! document (RFC 9457) that says what to do; whoever asks for a job learns within ten seconds which
//! site it waits for and why. What it shows of one job comes from the key-value store.
//!
//! It is the door: people come in by token, over HTTP; workers without credentials of their own are let
//! at single objects in storage, as far as the stored job says that they take part.
//!
//! It does not drive a job: it stores what a person decided (submit, cancel, pause, resume, delete)
//! and says so. Several may run side by side; none keeps anything that another needs.

mod access;
mod app;
mod auth;
mod config;
mod cursor;
mod error;
mod explain;
mod extract;
mod grants;
mod layers;
mod observe;
mod pin;
mod problem;
mod reported;
mod routes;
mod state;
mod tokens;
mod view;
mod watch;

pub use access::Role;
pub use app::{run, serve};
pub use config::{Config, Limits};
pub use error::Error;
pub use routes::openapi::openapi_json;
pub use routes::table::routes_markdown;
pub use tokens::Token;
