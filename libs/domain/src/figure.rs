//! What a figure that a site reports has to be, whatever it is of. Pure.
//!
//! Reports travel as MessagePack, which has NaN and infinity; what is stored of them is JSON, which has neither: a value
//! with one in it cannot be read again, and its job would end by it. So nothing is taken in that is no number, nor what
//! is so large that what is computed of it might be none.

/// The largest figure that is taken in: beyond all that can be measured, and so far below the largest 64-bit float that
/// neither a fleet's sum nor the product of three is infinite.
pub const LARGEST: f64 = 1e90;

/// The largest count that is added to others': beyond all that one site can have, and 65 536 of them are still a
/// 64-bit number.
pub const MOST: u64 = 1 << 47;

/// Whether it is a number that may be taken in.
#[must_use]
pub fn is_number(figure: f64) -> bool {
    // No comparison with NaN is true.
    figure.abs() <= LARGEST
}

/// Whether it is such a number from 0.
#[must_use]
pub fn is_from_zero(figure: f64) -> bool {
    (0.0..=LARGEST).contains(&figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_has_no_word_for_and_what_leads_there_is_not_taken_in() {
        for figure in [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN,
        ] {
            assert!(!is_number(figure) && !is_from_zero(figure), "{figure}");
        }
        for figure in [0.0, -0.0, f64::MIN_POSITIVE, 1.0, LARGEST] {
            assert!(is_number(figure) && is_from_zero(figure), "{figure}");
        }
        assert!(is_number(-1.0) && !is_from_zero(-1.0));
        assert!((LARGEST * LARGEST * LARGEST).is_finite());
        assert_eq!(MOST.checked_mul(1 << 16), Some(1 << 63));
    }
}
