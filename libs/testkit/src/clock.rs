//! The wall clock of tests, for what takes a clock as a parameter.

use std::time::{SystemTime, UNIX_EPOCH};

use domain::time::UnixMillis;

/// The present moment.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "tests need one real clock")]
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMillis(u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX))
}
