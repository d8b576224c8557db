//! The wire: what is said, where, to whom, and who may say it.
//!
//! Every message, subject, stream, consumer, bucket and permission is declared here once. Released
//! messages are frozen by golden files (`golden/`): a change is a new version with an upgrade arm.

pub mod envelope;
pub mod message;
pub mod permission;
pub mod server;
pub mod subject;
pub mod table;
pub mod topology;

pub use envelope::{DecodeError, Message, decode, encode};
