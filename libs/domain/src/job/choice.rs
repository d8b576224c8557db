//! `auto` or a fixed value, as job files write it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{SeqAccessDeserializer, StrDeserializer, U64Deserializer};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// The planner's choice, or a value that is never changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice<T> {
    /// Written `auto`: the planner decides.
    #[default]
    Auto,
    /// Given in the job file.
    Fixed(T),
}

impl<T> Choice<T> {
    /// The fixed value, if there is one.
    pub const fn fixed(&self) -> Option<&T> {
        match self {
            Self::Auto => None,
            Self::Fixed(value) => Some(value),
        }
    }
}

impl<T: Serialize> Serialize for Choice<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Fixed(value) => value.serialize(serializer),
        }
    }
}

// By hand instead of `untagged`, so that a wrong value is refused with a sentence that helps.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Choice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ChoiceVisitor(PhantomData))
    }
}

struct ChoiceVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ChoiceVisitor<T> {
    type Value = Choice<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`auto` or a value")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        if text == "auto" {
            return Ok(Choice::Auto);
        }
        T::deserialize(StrDeserializer::new(text)).map(Choice::Fixed)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        T::deserialize(U64Deserializer::new(number)).map(Choice::Fixed)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(seq)).map(Choice::Fixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Projection;

    fn check<T: Serialize + for<'a> Deserialize<'a> + PartialEq + fmt::Debug>(
        json: &str,
        expected: Choice<T>,
    ) {
        let read: Choice<T> = serde_json::from_str(json).expect(json);
        assert_eq!(read, expected);
        assert_eq!(serde_json::to_string(&read).expect("serializes"), json);
    }

    #[test]
    fn auto_numbers_and_lists_are_read_as_written() {
        check::<u16>("\"auto\"", Choice::Auto);
        check::<u16>("16", Choice::Fixed(16));
        check(
            "[\"q\",\"down\"]",
            Choice::Fixed(vec![Projection::Q, Projection::Down]),
        );
    }

    #[test]
    fn a_wrong_value_is_named() {
        let error = serde_json::from_str::<Choice<u16>>("70000")
            .expect_err("too large")
            .to_string();
        assert!(error.contains("70000"), "{error}");
        assert!(serde_json::from_str::<Choice<u16>>("-1").is_err());
        assert!(serde_json::from_str::<Choice<u16>>("\"many\"").is_err());
    }
}
