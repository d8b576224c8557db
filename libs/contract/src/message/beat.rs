//! A worker's sign of life, every few seconds, on core NATS: nothing keeps it.

use domain::fleet::Beat;

use crate::{Message, subject};

impl Message for Beat {
    const KIND: &'static str = "beat";
    const VERSION: u16 = 2;
    const OLDEST: u16 = 1;

    fn subject(&self) -> String {
        subject::beat(&self.worker)
    }
}
