//! The only user of NATS: typed publish and serve, acknowledgements, the key-value store.
//!
//! Nothing here decides anything. A handler never acknowledges and never spells a subject: the bus
//! maps what it returns, and `contract` declares where everything goes.

mod connection;
pub mod drive;
mod error;
mod feed;
pub mod fleet;
mod publish;
mod queues;
mod reports;
mod request;
mod serve;
mod store;
mod topology;

pub use connection::{Bus, Connect};
pub use error::{Error, Retry};
pub use feed::{Change, IncomingOrder};
pub use publish::{Said, wire_bytes};
pub use queues::{Backlog, Depth};
pub use request::IncomingAsk;
pub use serve::{Delivery, Outcome, Serve};
pub use store::{Revision, Store};
