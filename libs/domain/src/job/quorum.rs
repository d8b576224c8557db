//! How many sites a job needs, as job files write it: `auto`, `all` or a number.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// How many updates close a round after its deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quorum {
    /// More than half of the sites that the round asks: a site that cannot take part, or that goes
    /// missing, does not end the job.
    #[default]
    Auto,
    /// Every site that was admitted: the result then follows from the inputs alone, whatever happens
    /// on the way, and a job that cannot have that fails.
    All,
    /// So many.
    Fixed(u32),
}

impl Quorum {
    /// The number that the job fixes, if it fixes one.
    #[must_use]
    pub const fn fixed(self) -> Option<u32> {
        match self {
            Self::Fixed(count) => Some(count),
            Self::Auto | Self::All => None,
        }
    }

    /// Sites without which a job with so many admitted sites is not planned.
    #[must_use]
    pub fn least(self, admitted: usize) -> usize {
        match self {
            Self::Auto => 1,
            Self::All => admitted.max(1),
            Self::Fixed(count) => usize::try_from(count).unwrap_or(usize::MAX),
        }
    }

    /// Updates that a round needs which asks so many of the admitted sites.
    #[must_use]
    pub fn of_round(self, asked: usize, admitted: usize) -> usize {
        match self {
            Self::Auto => asked / 2 + 1,
            Self::All | Self::Fixed(_) => self.least(admitted),
        }
    }
}

impl Serialize for Quorum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::All => serializer.serialize_str("all"),
            Self::Fixed(count) => serializer.serialize_u32(*count),
        }
    }
}

// By hand instead of `untagged`, so that a wrong value is refused with a sentence that helps.
impl<'de> Deserialize<'de> for Quorum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = Quorum;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto`, `all` or a number of sites")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quorum, E> {
                match text {
                    "auto" => Ok(Quorum::Auto),
                    "all" => Ok(Quorum::All),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quorum, E> {
                let count = u32::try_from(number);
                count
                    .map(Quorum::Fixed)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, quorum: Quorum, least: usize, of_round: usize) {
        let read: Quorum = serde_json::from_str(json).expect(json);
        assert_eq!(read, quorum);
        assert_eq!(serde_json::to_string(&read).expect("serializes"), json);
        let found = (read.least(5), read.of_round(4, 5));
        assert_eq!(found, (least, of_round), "{json} of 5 admitted, 4 planned");
    }

    #[test]
    fn a_quorum_is_read_as_written_and_counts_the_sites_that_it_means() {
        check("\"auto\"", Quorum::Auto, 1, 3);
        check("\"all\"", Quorum::All, 5, 5);
        check("2", Quorum::Fixed(2), 2, 2);
        for (planned, needed) in [(1, 1), (2, 2), (3, 2), (10, 6)] {
            assert_eq!(Quorum::Auto.of_round(planned, 10), needed);
        }
    }

    #[test]
    fn another_word_is_refused_with_what_would_be_right() {
        let error = serde_json::from_str::<Quorum>("\"most\"").expect_err("unknown");
        assert!(error.to_string().contains("`all`"), "{error}");
        assert!(serde_json::from_str::<Quorum>("-1").is_err());
    }
}
