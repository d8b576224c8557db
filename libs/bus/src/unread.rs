//! Stored values that this program cannot read, such as those of a newer release: each is told once in the log, with its
//! key and why. What to do without it is for whoever wanted to read it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use contract::topology::Bucket;

use crate::Error;
use crate::drive::error_chain;

/// Most values that are told in a process's life: whoever has not seen a thousand lines sees no more.
const TOLD: usize = 1024;

/// Which values were told. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread {
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    values: BTreeSet<(&'static str, String)>,
    /// Whether it was told that no more are told.
    closed: bool,
}

/// What the log is to say of a value.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// That it cannot be read.
    Value,
    /// That neither it nor any other is told from now on.
    Last,
    /// Nothing.
    None,
}

impl Unread {
    /// Tells of a value, unless that was done before.
    pub(crate) fn tell(&self, bucket: Bucket, key: &str, why: &Error) {
        match self.news(bucket, key) {
            News::Value => tracing::warn!(
                bucket = bucket.name(),
                key,
                cause = error_chain(why),
                "a stored value is left out: this release cannot read it"
            ),
            News::Last => tracing::warn!(
                told = TOLD,
                "more stored values are left out: none of them is told until this process starts again"
            ),
            News::None => {}
        }
    }

    fn news(&self, bucket: Bucket, key: &str) -> News {
        // Invariant: each change is one insertion or one flag; none is left half done.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let value = (bucket.name(), key.to_owned());
        if told.values.contains(&value) {
            return News::None;
        }
        if told.values.len() < TOLD {
            told.values.insert(value);
            return News::Value;
        }
        if std::mem::replace(&mut told.closed, true) {
            News::None
        } else {
            News::Last
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_told_once_by_whoever_of_the_process_comes_by_it() {
        let unread = Unread::default();
        let other = unread.clone();
        assert_eq!(unread.news(Bucket::Jobs, "k"), News::Value);
        assert_eq!(unread.news(Bucket::Jobs, "k"), News::None);
        assert_eq!(other.news(Bucket::Jobs, "k"), News::None);
        assert_eq!(other.news(Bucket::Jobs, "l"), News::Value);
        assert_eq!(other.news(Bucket::Profiles, "k"), News::Value);
    }

    #[test]
    fn no_more_are_told_than_a_person_reads_and_the_last_line_says_so() {
        let unread = Unread::default();
        let news = |key: usize| unread.news(Bucket::Jobs, &key.to_string());
        assert!((0..TOLD).all(|key| news(key) == News::Value));
        // One that was told before is no reason to say that others are not.
        assert_eq!(news(0), News::None);
        assert_eq!(news(TOLD), News::Last);
        assert!((0..2 * TOLD).all(|key| news(key) == News::None));
    }
}
