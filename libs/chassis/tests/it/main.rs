//! What chassis promises of whole processes. A test that needs one to die runs itself again as a
//! child.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test by panicking"
)]

mod child;
#[cfg(debug_assertions)]
mod failpoint;
mod frame;
mod health;
mod memory;
mod push;
mod push_tls;
mod signals;

#[global_allocator]
static HEAP: chassis::memory::Allocator = chassis::memory::Allocator;
