//! The only user of NATS: typed publish and serve, acknowledgements, the key-value store.
//!
//! Nothing here decides anything. A handler never acknowledges and never spells a subject: the bus
//! maps what it returns, and `contract` declares where everything goes.

mod advice;
mod config;
mod connection;
pub mod drive;
mod error;
mod feed;
pub mod fleet;
mod key;
mod publish;
mod queues;
mod reports;
mod request;
mod serve;
mod store;
mod topology;
mod unread;

pub use config::Connect;
pub use connection::Bus;
pub use error::{Error, Retry};
pub use feed::{Change, IncomingOrder};
pub use key::{Invalid, Key};
pub use publish::{Said, wire_bytes};
pub use queues::{Backlog, Depth};
pub use reports::{Reported, Unreadable};
pub use request::IncomingAsk;
pub use serve::{Delivery, Outcome, Serve};
pub use store::{Revision, Store};
