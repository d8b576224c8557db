//! A bound for each text that is pushed. Queues count spans and records: without it, what they hold would have none.

/// Bytes of one text: an error with its causes fits, an answer's body that somebody logs does not. A batch of records
/// stays below what a collector takes in one message, too (4 MiB).
const LONGEST: usize = 2048;

/// The text, its end cut off if it is too long.
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_letters() {
        assert_eq!(bounded("ü".to_owned()), "ü");
        let whole = "x".repeat(LONGEST);
        assert_eq!(bounded(whole.clone()), whole);
        let long = bounded(format!("x{}", "ü".repeat(LONGEST)));
        assert_eq!(long, format!("x{}…", "ü".repeat(LONGEST / 2 - 1)));
    }
}
