//! How many of the planned sites a round asks, as job files write it: `all`, a number or a fraction.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// How many of the planned sites a round asks. Which ones is drawn anew for each round.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Sample {
    /// Every one.
    #[default]
    All,
    /// So many, or all if there are fewer.
    Count(u32),
    /// This share of them, rounded up; above 0 and below 1.
    Fraction(f64),
}

impl Sample {
    /// How many of so many planned sites a round asks.
    #[must_use]
    pub fn of(self, planned: usize) -> usize {
        match self {
            Self::All => planned,
            Self::Count(count) => planned.min(usize::try_from(count).unwrap_or(usize::MAX)),
            Self::Fraction(share) => {
                // 0.07 · 100 is a little above 7 in binary, which is not an eighth site.
                let exact = share * planned as f64 - 1e-9;
                // Invariant: the share is below 1, so the product is below `planned`.
                (exact.ceil() as usize).clamp(planned.min(1), planned)
            }
        }
    }

    /// What is wrong with it and what would be right.
    pub(super) fn problem(self) -> Option<&'static str> {
        match self {
            Self::Count(0) => Some("use at least 1 site, a fraction above 0 and below 1, or `all`"),
            Self::Fraction(share) if !(share > 0.0 && share < 1.0) => {
                Some("use a fraction above 0 and below 1, a number of sites, or `all`")
            }
            _ => None,
        }
    }
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Fraction(share) => serializer.serialize_f64(*share),
        }
    }
}

// By hand instead of `untagged`, so that a wrong value is refused with a sentence that helps.
impl<'de> Deserialize<'de> for Sample {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = Sample;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`all`, a number of sites or a fraction")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Sample, E> {
                match text {
                    "all" => Ok(Sample::All),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Sample, E> {
                let count = u32::try_from(number);
                count
                    .map(Sample::Count)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Sample, E> {
                Ok(Sample::Fraction(number))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, sample: Sample, of: [usize; 3]) {
        let read: Sample = serde_json::from_str(json).expect(json);
        assert_eq!(read, sample);
        assert_eq!(serde_json::to_string(&read).expect("serializes"), json);
        assert_eq!(read.problem(), None);
        let found = [1, 10, 100].map(|planned| read.of(planned));
        assert_eq!(found, of, "{json} of 1, 10 and 100 planned");
    }

    #[test]
    fn a_sample_is_read_as_written_and_asks_as_many_sites_as_it_means() {
        check("\"all\"", Sample::All, [1, 10, 100]);
        check("3", Sample::Count(3), [1, 3, 3]);
        check("0.07", Sample::Fraction(0.07), [1, 1, 7]);
        check("0.5", Sample::Fraction(0.5), [1, 5, 50]);
        check("0.34", Sample::Fraction(0.34), [1, 4, 34]);
        assert_eq!(Sample::Fraction(0.5).of(0), 0);
    }

    #[test]
    fn a_sample_of_nobody_or_of_more_than_all_has_a_problem() {
        for sample in [
            Sample::Count(0),
            Sample::Fraction(0.0),
            Sample::Fraction(1.0),
            Sample::Fraction(-0.5),
            Sample::Fraction(f64::NAN),
        ] {
            assert!(sample.problem().is_some(), "{sample:?}");
        }
        let error = serde_json::from_str::<Sample>("\"half\"").expect_err("unknown");
        assert!(error.to_string().contains("`all`"), "{error}");
        assert!(serde_json::from_str::<Sample>("-1").is_err());
    }
}
