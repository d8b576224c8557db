//! How long a job rests between two looks at it. Pure, so that its limits can be tested: whatever a
//! step answers, for ever, a job costs at most a few looks a second.

use std::time::Duration;

use domain::time::UnixMillis;

use super::Next;
use crate::Retry;

/// Looks in a row without a rest, as long as each says that something changed.
const AGAIN_LIMIT: u32 = 64;
/// Rest after so many of them.
const AGAIN_REST_MS: u64 = 100;
/// Rest after a first failure, doubled with each further one.
const FAILURE_REST_MS: u64 = 200;
/// Doublings at most.
const DOUBLINGS: u32 = 10;

/// What a look at a job came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// The step said when to look next.
    Next(Next),
    /// It did not succeed.
    Failed(Retry),
}

/// What the last looks came to: how many in a row of each kind.
#[derive(Debug, Default)]
pub(super) struct Pace {
    again: u32,
    overdue: u32,
    overtaken: u32,
    failed: u32,
}

impl Pace {
    /// The rest before the next look, unless something wakes the job.
    pub(super) fn rest(&mut self, looked: Looked, now: UnixMillis, sweep_ms: u64) -> Duration {
        let before = std::mem::take(self);
        let rest_ms = match looked {
            Looked::Next(Next::Again) => {
                self.again = before.again.saturating_add(1);
                if self.again > AGAIN_LIMIT {
                    AGAIN_REST_MS
                } else {
                    0
                }
            }
            Looked::Next(Next::Wait(None)) => sweep_ms,
            Looked::Next(Next::Wait(Some(until))) if until > now => until.since(now).min(sweep_ms),
            // The moment is past and the step still waits: not for the time, then.
            Looked::Next(Next::Wait(Some(_))) => {
                self.overdue = before.overdue.saturating_add(1);
                doubled(1, before.overdue).min(sweep_ms)
            }
            Looked::Failed(Retry::Reread) => {
                self.overtaken = before.overtaken.saturating_add(1);
                doubled(1, before.overtaken).min(sweep_ms.max(500))
            }
            Looked::Failed(Retry::Later | Retry::Never) => {
                self.failed = before.failed.saturating_add(1);
                doubled(FAILURE_REST_MS, before.failed).min(sweep_ms.max(500))
            }
        };
        Duration::from_millis(rest_ms)
    }
}

fn doubled(ms: u64, times: u32) -> u64 {
    ms << times.min(DOUBLINGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);
    const SWEEP: u64 = 5_000;

    /// Rests of a job whose every look comes to the same, in milliseconds.
    fn rests(looked: Looked, looks: usize) -> Vec<u128> {
        let mut pace = Pace::default();
        let rest = |_| pace.rest(looked, NOW, SWEEP).as_millis();
        (0..looks).map(rest).collect()
    }

    #[test]
    fn no_answer_repeated_for_ever_spins() {
        let answers = [
            Looked::Next(Next::Again),
            Looked::Next(Next::Wait(Some(UnixMillis(0)))),
            Looked::Next(Next::Wait(Some(NOW))),
            Looked::Next(Next::Wait(None)),
            Looked::Failed(Retry::Reread),
            Looked::Failed(Retry::Later),
            Looked::Failed(Retry::Never),
        ];
        for looked in answers {
            let all = rests(looked, 200);
            let late: u128 = all[100..].iter().sum();
            assert!(late >= 100 * 100, "{looked:?} looks too often: {all:?}");
            assert!(
                all.iter().all(|rest| *rest <= u128::from(SWEEP)),
                "{looked:?} rests longer than a sweep: {all:?}"
            );
        }
    }

    #[test]
    fn a_first_conflict_or_change_costs_next_to_nothing() {
        assert!(rests(Looked::Failed(Retry::Reread), 1)[0] <= 1);
        assert_eq!(rests(Looked::Next(Next::Again), 64), vec![0; 64]);
    }

    #[test]
    fn a_moment_to_come_is_waited_for_and_a_success_forgets_failures() {
        let mut pace = Pace::default();
        for _ in 0..9 {
            pace.rest(Looked::Failed(Retry::Later), NOW, SWEEP);
        }
        let soon = Looked::Next(Next::Wait(Some(NOW.plus(70))));
        assert_eq!(pace.rest(soon, NOW, SWEEP).as_millis(), 70);
        let failed = pace.rest(Looked::Failed(Retry::Later), NOW, SWEEP);
        assert_eq!(failed.as_millis(), u128::from(FAILURE_REST_MS));
    }
}
