//! What tests rely on: the servers start, stop and come back, and waiting can fail.

mod data;
mod model;
mod nats;
mod proxy;
mod wait;
