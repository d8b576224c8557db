//! The only wall clock and the only source of randomness. Everywhere else `now` and `seed` are
//! parameters.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the one place with a clock and with randomness"
)]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use domain::id::{self, InstanceId};
use domain::time::UnixMillis;
use rustix::rand::{GetRandomFlags, getrandom};

/// The present moment; 1970 if the machine's clock stands before it.
#[must_use]
pub fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Measures a span of time; never goes backwards.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since the start.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }

    /// Whole milliseconds since the start.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// 64 random bits of the kernel, fit for identities.
///
/// Aborts the process if the kernel has none to give: every supported kernel has.
#[must_use]
pub fn random_bits() -> u64 {
    u64::from_ne_bytes(random())
}

/// 128 random bits as 32 hexadecimal digits, fit for a token that must not be guessed.
///
/// Aborts as [`random_bits`] does.
#[must_use]
pub fn random_token() -> String {
    format!("{:032x}", u128::from_ne_bytes(random()))
}

/// 256 random bits, fit for a key.
///
/// Aborts as [`random_bits`] does.
#[must_use]
pub fn random_key() -> [u8; 32] {
    random()
}

/// A name for this process as holder of leases: `aggregator-` and 16 hexadecimal digits.
///
/// # Errors
/// If `service` is not a legal start of a name.
pub fn instance_id(service: &str) -> Result<InstanceId, id::Invalid> {
    format!("{service}-{:016x}", random_bits()).parse()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match getrandom(rest, GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                // Going on with a guessable token would be worse than not going on.
                tracing::error!(%errno, "the kernel gives no random bytes");
                std::process::abort();
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_past_2020_and_does_not_stand_in_seconds() {
        assert!(now().0 > 1_577_836_800_000, "{}", now());
    }

    #[test]
    fn random_numbers_and_tokens_differ() {
        assert_ne!(random_bits(), random_bits());
        let token = random_token();
        assert_eq!(token.len(), 32);
        assert_ne!(token, random_token());
        assert_ne!(random_key(), random_key());
    }

    #[test]
    fn an_instance_is_named_after_its_service() {
        let id = instance_id("aggregator").unwrap();
        assert!(id.as_str().starts_with("aggregator-"));
        assert_ne!(id, instance_id("aggregator").unwrap());
        assert!(instance_id("not a name").is_err());
    }
}
