//! What the API shows: plain structures with stable names. Times are RFC 3339, units stand in the
//! names, and a number that is not finite is `null`.

pub mod course;
pub mod fleet;
pub mod job;
pub mod round;
pub mod spec;

use domain::time::UnixMillis;

/// A moment as RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(at: UnixMillis) -> String {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    // Beyond the year 9999, where RFC 3339 ends.
    let moment = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    format!("{moment:.3}")
}

/// JSON has no word for what is not finite.
pub fn finite(number: f64) -> Option<f64> {
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_rfc_3339_whatever_the_number() {
        assert_eq!(rfc3339(UnixMillis(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            rfc3339(UnixMillis(1_700_000_000_123)),
            "2023-11-14T22:13:20.123Z"
        );
        assert!(rfc3339(UnixMillis(u64::MAX)).starts_with("9999"));
    }
}
