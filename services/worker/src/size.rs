//! Sizes in bytes as people write them: `2GB`, `512MiB`, `1.5GiB`, `1048576`.

use std::fmt;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size: write bytes, or a number with kB, MB, GB, TB, KiB, MiB, GiB or TiB")]
pub struct Invalid(String);

const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("b", 1),
    ("kb", 1000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Bytes as people read them in a sentence.
#[must_use]
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl FromStr for Size {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || Invalid(text.chars().take(40).collect());
        let plain = text.trim();
        let digits = plain
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(plain.len());
        let (number, unit) = plain.split_at(digits);
        let unit = unit.trim().to_ascii_lowercase();
        let (_, factor) = UNITS
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(invalid)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(invalid);
        }
        let part: f64 = number.parse().map_err(|_| invalid())?;
        let bytes = part * factor as f64;
        // Above 2^53 a fraction of a unit is not exact; nobody writes one there.
        if (0.0..9e15).contains(&bytes) {
            Ok(Self(bytes as u64))
        } else {
            Err(invalid())
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS
            .iter()
            .rev()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match unit {
            Some((name, factor)) if *factor > 1 => {
                let name = match name.strip_suffix("ib") {
                    Some(prefix) => format!("{}iB", prefix.to_ascii_uppercase()),
                    None => name.to_ascii_uppercase(),
                };
                write!(f, "{}{name}", self.0 / factor)
            }
            _ => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as 2GB, 512MiB or a number of bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Size, E> {
        Ok(Size(bytes))
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Size, E> {
        u64::try_from(bytes)
            .map(Size)
            .map_err(|_| E::custom("a size is not negative"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(text.parse::<Size>().ok().map(|s| s.0), expected, "{text}");
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        check("1048576", Some(1 << 20));
        check("2GB", Some(2_000_000_000));
        check("4GiB", Some(4 << 30));
        check("1.5 GiB", Some(3 << 29));
        check("8mib", Some(8 << 20));
        for wrong in ["", "GB", "-1", "2 gigs", "1.2.3MB", "99999999999TB"] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_size_survives_printing_and_parsing() {
        for bytes in [0, 1, 1000, 1024, 1 << 30, 1_500_000_000, 123_456_789] {
            check(&Size(bytes).to_string(), Some(bytes));
        }
        assert_eq!(Size(4 << 30).to_string(), "4GiB");
    }
}
