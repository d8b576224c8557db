//! What this program cannot read, such as what a newer release wrote: stored values, and workers' beats. Each is told once
//! in the log, with where it lies or whose it is, and why. What to do without it is for whoever wanted to read it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use contract::DecodeError;
use contract::topology::Bucket;
use domain::id::WorkerName;

use crate::Error;
use crate::drive::error_chain;

/// Most of a kind that is told in a process's life: whoever has not seen a thousand lines sees no more. Of each kind as
/// much, so that a large fleet's beats keep no stored value from being told.
const TOLD: usize = 1024;

/// What was told. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread {
    /// By the kind of thing: a bucket, or a kind of reason to drop a beat.
    told: Arc<Mutex<BTreeMap<&'static str, Told>>>,
}

/// What was told of one kind.
#[derive(Debug, Default)]
struct Told {
    /// Which.
    things: BTreeSet<String>,
    /// Whether it was told that no more are told.
    closed: bool,
}

/// What the log is to say of a thing.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// That it cannot be read.
    Thing,
    /// That neither it nor any other of its kind is told from now on.
    Last,
    /// Nothing.
    None,
}

/// Why a beat is dropped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unheard {
    /// It is none that this release reads.
    #[error(transparent)]
    Unread(#[from] DecodeError),
    /// It came on one worker's subject and names another.
    #[error("it names {0}, and a worker beats for itself alone")]
    Foreign(WorkerName),
}

impl Unheard {
    /// A word for each kind of reason: what else is in it a worker could vary with every beat.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Unread(_) => "unread beat",
            Self::Foreign(_) => "foreign beat",
        }
    }
}

impl Unread {
    /// Tells of a value, unless that was done before.
    pub(crate) fn tell(&self, bucket: Bucket, key: &str, why: &Error) {
        match self.news(bucket.name(), key) {
            News::Thing => tracing::warn!(
                bucket = bucket.name(),
                key,
                cause = error_chain(why),
                "a stored value is left out"
            ),
            News::Last => last(bucket.name()),
            News::None => {}
        }
    }

    /// Tells of a worker's beat that is dropped, unless one of it was told before for the same kind of reason.
    pub(crate) fn tell_beat(&self, worker: &WorkerName, why: &Unheard) {
        match self.news(why.kind(), worker.as_str()) {
            News::Thing => tracing::warn!(
                %worker,
                cause = error_chain(why),
                "message dropped: no further beat of this kind is told"
            ),
            News::Last => last(why.kind()),
            News::None => {}
        }
    }

    fn news(&self, kind: &'static str, which: &str) -> News {
        // Invariant: each change is one insertion or one flag; none is left half done.
        let mut kinds = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = kinds.entry(kind).or_default();
        if told.things.contains(which) {
            return News::None;
        }
        if told.things.len() < TOLD {
            told.things.insert(which.to_owned());
            return News::Thing;
        }
        if std::mem::replace(&mut told.closed, true) {
            News::None
        } else {
            News::Last
        }
    }
}

fn last(kind: &'static str) {
    tracing::warn!(
        kind,
        told = TOLD,
        "more of this kind is left out: none of it is told until this process starts again"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_told_once_by_whoever_of_the_process_comes_by_it() {
        let unread = Unread::default();
        let other = unread.clone();
        let [jobs, profiles] = [Bucket::Jobs, Bucket::Profiles].map(Bucket::name);
        assert_eq!(unread.news(jobs, "k"), News::Thing);
        assert_eq!(unread.news(jobs, "k"), News::None);
        assert_eq!(other.news(jobs, "k"), News::None);
        assert_eq!(other.news(jobs, "l"), News::Thing);
        assert_eq!(other.news(profiles, "k"), News::Thing);
    }

    #[test]
    fn a_worker_whose_every_beat_is_dropped_for_another_reason_is_told_once_for_each_kind() {
        let unread = Unread::default();
        let beat = |why: Unheard| unread.news(why.kind(), "site-a");
        let unknown = |found: &str| {
            Unheard::from(DecodeError::Version {
                kind: "beat",
                found: Some(found.to_owned()),
                known: 2,
            })
        };
        let foreign = |name: &str| Unheard::Foreign(name.parse().unwrap());
        assert_eq!(beat(unknown("3")), News::Thing);
        assert_eq!(beat(unknown("4")), News::None);
        assert_eq!(beat(foreign("site-b")), News::Thing);
        assert_eq!(beat(foreign("site-c")), News::None);
        assert_eq!(unread.news("unread beat", "site-b"), News::Thing);
    }

    #[test]
    fn no_more_are_told_than_a_person_reads_and_the_last_line_says_so() {
        let unread = Unread::default();
        let news = |key: usize| unread.news(Bucket::Jobs.name(), &key.to_string());
        assert!((0..TOLD).all(|key| news(key) == News::Thing));
        // One that was told before is no reason to say that others are not.
        assert_eq!(news(0), News::None);
        assert_eq!(news(TOLD), News::Last);
        assert!((0..2 * TOLD).all(|key| news(key) == News::None));
    }

    #[test]
    fn what_is_told_of_one_kind_keeps_no_other_from_being_told() {
        let unread = Unread::default();
        let site = |number: usize| unread.news("unread beat", &number.to_string());
        assert!((0..TOLD).all(|number| site(number) == News::Thing));
        assert_eq!(site(TOLD), News::Last);
        assert_eq!(unread.news(Bucket::Jobs.name(), "k"), News::Thing);
        assert_eq!(unread.news("foreign beat", "site-a"), News::Thing);
    }
}
