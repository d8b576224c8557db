//! Where in a file a parser stopped, for people who look for the damage.

use std::error::Error;

/// What a parser said, and at which byte.
#[derive(Debug, thiserror::Error)]
#[error("at byte {byte}: {what}")]
pub(super) struct Broken {
    byte: u64,
    what: String,
}

impl Broken {
    /// A parser had read as far as `byte` when it said this. Of what it says the first line alone: candle's errors
    /// carry where they were made behind it.
    pub(super) fn at(byte: u64, error: &dyn Error) -> Box<dyn Error + Send + Sync> {
        let what = error.to_string();
        let what = what.lines().next().unwrap_or_default().to_owned();
        Box::new(Self { byte, what })
    }

    /// JSON that begins at byte `start` of the file is wrong.
    pub(super) fn json(
        start: u64,
        text: &[u8],
        error: &serde_json::Error,
    ) -> Box<dyn Error + Send + Sync> {
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let before: usize = lines
            .take(error.line().saturating_sub(1))
            .map(<[u8]>::len)
            .sum();
        let place = before + error.column().saturating_sub(1);
        Self::at(start + place as u64, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_is_that_of_the_file_whatever_line_it_is_in() {
        let text = b"{\n\"a\": 1,\n\"b\": x}";
        let error = serde_json::from_slice::<serde_json::Value>(text).unwrap_err();
        let place = text.iter().position(|byte| *byte == b'x').unwrap();
        let said = Broken::json(8, text, &error).to_string();
        assert!(
            said.starts_with(&format!("at byte {}: expected value", 8 + place)),
            "{said}"
        );
        let two = std::io::Error::other("first\n   0: at a place");
        assert_eq!(Broken::at(7, &two).to_string(), "at byte 7: first");
    }
}
