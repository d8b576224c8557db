//! For tests alone: real servers on free ports, a network to break, tiny models and data, waiting
//! with deadlines. Everything a test starts ends with it.

pub mod clock;
pub mod collector;
pub mod data;
pub mod hub;
pub mod model;
pub mod nats;
mod port;
pub mod proxy;
mod random;
pub mod s3;
pub mod tls;
pub mod tool;
pub mod wait;
