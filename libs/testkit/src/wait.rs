//! Waiting in tests. A test never sleeps for a while and hopes: it waits for what it means, up to a
//! deadline that is far beyond what is usual, and says what did not come.

#![expect(clippy::panic, reason = "a test that waited in vain has failed")]

use std::future::Future;
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// How often a condition is looked at; nowhere else is there a shorter poll.
const POLL: Duration = Duration::from_millis(10);

/// Waits until the condition holds.
///
/// # Panics
/// If it does not within the time; `what` is in the message.
pub async fn until(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> bool) {
    some(what, within, async || condition().await.then_some(())).await;
}

/// Waits until there is a value, and returns it.
///
/// # Panics
/// If there is none within the time; `what` is in the message.
pub async fn some<T>(what: &str, within: Duration, mut find: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = find().await {
                return found;
            }
            sleep(POLL).await;
        }
    };
    in_time(what, within, search).await
}

/// Waits for a future that must be ready within the time.
///
/// # Panics
/// If it is not; `what` is in the message.
pub async fn in_time<T>(what: &str, within: Duration, future: impl Future<Output = T>) -> T {
    match timeout(within, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {within:?} in vain until {what}"),
    }
}

/// Looks on for the whole time and fails as soon as the future is ready: for what must not happen.
///
/// # Panics
/// If it is ready; `what` is in the message.
pub async fn never<T>(what: &str, during: Duration, future: impl Future<Output = T>) {
    if timeout(during, future).await.is_ok() {
        panic!("happened within {during:?} and must not: {what}");
    }
}
