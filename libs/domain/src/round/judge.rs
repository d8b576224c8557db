//! When an open round closes, and with whom.

use std::collections::BTreeMap;

use super::Update;
use crate::cause::SiteTrouble;
use crate::id::WorkerName;
use crate::time::UnixMillis;

/// What the aggregator knows of one participant while a round is open.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Its update is stored and checked.
    Stored(Box<Update>),
    /// It will not deliver in this round.
    Lost(SiteTrouble),
    /// Still working.
    Waiting,
}

/// Whether an open round may close.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Not yet: these have not delivered.
    Wait(Vec<WorkerName>),
    /// Close.
    Close(Close),
    /// Too few sites are left: who will not deliver, and who has not in time.
    QuorumLost {
        /// Sites that will not deliver, and why.
        lost: Vec<SiteTrouble>,
        /// Sites still at work when the deadline passed.
        late: Vec<WorkerName>,
    },
}

/// With what a round closes.
#[derive(Debug, Clone, PartialEq)]
pub struct Close {
    /// Updates that are there, ordered by worker name.
    pub delivered: Vec<(WorkerName, Update)>,
    /// Sites that will not deliver, and why.
    pub lost: Vec<SiteTrouble>,
    /// Sites still at work: the deadline has passed.
    pub late: Vec<WorkerName>,
}

/// Closes a round when everybody it asks has delivered or is lost and the quorum is met, or when the
/// deadline is past and the quorum is met.
#[must_use]
pub fn judge(
    standings: &BTreeMap<WorkerName, Standing>,
    quorum: usize,
    deadline: UnixMillis,
    now: UnixMillis,
) -> Verdict {
    let mut delivered = Vec::new();
    let mut lost = Vec::new();
    let mut waiting = Vec::new();
    for (worker, standing) in standings {
        match standing {
            Standing::Stored(update) => delivered.push((worker.clone(), (**update).clone())),
            Standing::Lost(trouble) => lost.push(trouble.clone()),
            Standing::Waiting => waiting.push(worker.clone()),
        }
    }
    let past = now >= deadline;
    if delivered.len() >= quorum && (waiting.is_empty() || past) {
        return Verdict::Close(Close {
            delivered,
            lost,
            late: waiting,
        });
    }
    if past {
        let late = waiting;
        return Verdict::QuorumLost { lost, late };
    }
    if delivered.len() + waiting.len() < quorum {
        // Those still at work are not to blame.
        let late = Vec::new();
        return Verdict::QuorumLost { lost, late };
    }
    Verdict::Wait(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::Trouble;
    use crate::round::tests::update;

    fn lost(worker: &WorkerName) -> Standing {
        Standing::Lost(SiteTrouble {
            worker: worker.clone(),
            trouble: Trouble::Crashed,
            detail: String::new(),
        })
    }

    fn check(kinds: &str, quorum: usize, past: bool, expected: &str) {
        let mut standings = BTreeMap::new();
        for (index, kind) in kinds.chars().enumerate() {
            let worker: WorkerName = format!("w{index}").parse().expect("legal");
            let standing = match kind {
                's' => Standing::Stored(Box::new(update())),
                'l' => lost(&worker),
                _ => Standing::Waiting,
            };
            standings.insert(worker, standing);
        }
        let now = if past { UnixMillis(20) } else { UnixMillis(5) };
        let found = match judge(&standings, quorum, UnixMillis(10), now) {
            Verdict::Wait(_) => "wait".to_owned(),
            Verdict::Close(close) => {
                format!("close {}, {} late", close.delivered.len(), close.late.len())
            }
            Verdict::QuorumLost { .. } => "lost".to_owned(),
        };
        assert_eq!(found, expected, "{kinds} quorum {quorum} past {past}");
    }

    #[test]
    fn a_round_closes_with_all_or_with_the_quorum_after_its_deadline() {
        check("sss", 2, false, "close 3, 0 late");
        check("ssw", 2, false, "wait");
        check("ssw", 2, true, "close 2, 1 late");
        check("sww", 2, true, "lost");
        check("ssl", 2, false, "close 2, 0 late");
        check("ssl", 3, false, "lost");
        check("sll", 2, false, "lost");
        check("wwl", 2, false, "wait");
    }

    #[test]
    fn a_site_still_at_work_is_not_blamed_for_a_quorum_that_others_lost() {
        let worker = |index: u8| -> WorkerName { format!("w{index}").parse().expect("legal") };
        let standings = BTreeMap::from([
            (worker(0), Standing::Waiting),
            (worker(1), lost(&worker(1))),
            (worker(2), lost(&worker(2))),
        ]);
        let verdict = judge(&standings, 2, UnixMillis(10), UnixMillis(5));
        let Verdict::QuorumLost { lost, late } = verdict else {
            panic!("two of three are lost");
        };
        let blamed: Vec<_> = lost.into_iter().map(|site| site.worker).collect();
        assert_eq!(blamed, [worker(1), worker(2)]);
        assert_eq!(late, []);
    }
}
