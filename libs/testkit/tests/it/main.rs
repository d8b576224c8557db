//! What tests rely on: the servers start, stop and come back, and waiting can fail.

// Clippy then knows that helper modules are tests, too.
#![cfg(test)]

mod data;
mod model;
mod nats;
mod proxy;
mod wait;
