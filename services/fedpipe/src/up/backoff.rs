//! How long a child that died stays down. Pure.

use std::time::Duration;

/// First pause, doubled with each death in a row.
const FIRST: Duration = Duration::from_millis(100);

/// Longest pause: long enough that a child which cannot start costs nothing, short enough that work which waits for one that
/// was killed seven times in a row is still done in time.
const LONGEST: Duration = Duration::from_secs(2);

/// Who lived this long was healthy, and its next death is a first one.
const HEALTHY: Duration = Duration::from_secs(5);

/// The pauses of one child.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Of a child that never died.
    pub const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause after a life of this length.
    pub fn after(&mut self, lived: Duration) -> Duration {
        if lived >= HEALTHY {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_two_seconds_and_start_anew_after_a_healthy_life() {
        let mut backoff = Backoff::new();
        let short = Duration::from_millis(10);
        let pauses: Vec<u128> = (0..7).map(|_| backoff.after(short).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff.after(HEALTHY), FIRST);
        assert_eq!(backoff.after(short), FIRST * 2);
    }
}
