//! What tests rely on: the servers start, stop and come back, and waiting can fail.

mod nats;
mod wait;
