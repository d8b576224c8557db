//! For tests alone: real servers on free ports, tiny models, fault injection.

pub mod nats;
mod port;
pub mod s3;
pub mod tool;
pub mod wait;
