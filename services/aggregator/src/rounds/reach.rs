//! Whether object storage answers, as this process sees it.
//!
//! A site that does not get rid of its update makes no progress, and is given up for it; but not while
//! storage is away for everybody. So nobody is judged while it is, and everybody has the same time
//! again once it is back, as after a gap in hearing beats ([`bus::fleet::Fleet::gave_out`]). And no
//! step waits for it longer than it takes to notice, so that the job can say what it waits for.

use std::time::Duration;

use artifacts::Retry;
use bus::drive::error_chain;
use chassis::clock;
use chassis::health::Readiness;
use domain::time::UnixMillis;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Between two questions at most, and at least.
const LONGEST: Duration = Duration::from_secs(4);
const SHORTEST: Duration = Duration::from_millis(500);
/// An answer that takes longer than this is none, at least.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known.
#[derive(Debug)]
pub struct Reach(watch::Sender<Known>);

#[derive(Debug)]
struct Known {
    /// Since when it has answered without a gap.
    since: UnixMillis,
    /// Why it does not answer now, if it does not.
    away: Option<String>,
}

impl Reach {
    /// Taken to be there until it was asked.
    #[must_use]
    pub fn new(now: UnixMillis) -> Self {
        let away = None;
        Self(watch::Sender::new(Known { since: now, away }))
    }

    /// Since when storage has answered without a gap.
    ///
    /// # Errors
    /// [`Error::Away`] while it does not.
    pub fn since(&self) -> Result<UnixMillis, Error> {
        let known = self.0.borrow();
        match &known.away {
            None => Ok(known.since),
            Some(why) => Err(Error::Away { why: why.clone() }),
        }
    }

    /// Does something with storage, as long as it is there. What is given up resumes when it is tried
    /// again, as every transfer does.
    ///
    /// # Errors
    /// [`Error::Away`] as soon as it is known that storage does not answer.
    pub async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut known = self.0.subscribe();
        let away = async {
            let gone = known.wait_for(|known| known.away.is_some()).await;
            gone.ok().and_then(|known| known.away.clone())
        };
        tokio::select! {
            Some(why) = away => Err(Error::Away { why }),
            done = work => Ok(done),
        }
    }

    /// Asks every half idle interval until the token is cancelled, and keeps the readiness page true.
    pub async fn watch(
        &self,
        store: &artifacts::Store,
        idle: Duration,
        readiness: &Readiness,
        token: &CancellationToken,
    ) {
        let interval = (idle / 2).clamp(SHORTEST, LONGEST);
        let patience = interval.max(PATIENCE);
        loop {
            let asked = tokio::time::timeout(patience, store.ready());
            let answer = match token.run_until_cancelled(asked).await {
                None => return,
                Some(Ok(Ok(()))) => Ok(()),
                Some(Ok(Err(error))) => Err((error_chain(&error), error.retry())),
                Some(Err(_)) => {
                    let why = format!("no answer in {} s", patience.as_secs());
                    Err((why, Retry::Later))
                }
            };
            let why = answer.as_ref().err().map(|(why, _)| why.as_str());
            readiness.set("storage", answer.is_ok(), why.unwrap_or_default());
            // A refusal is an answer: what is refused ends with a cause of its own.
            let away = answer.err().filter(|(_, retry)| *retry == Retry::Later);
            self.learn(away.map(|(why, _)| why), clock::now());
            let rest = tokio::time::sleep(interval);
            if token.run_until_cancelled(rest).await.is_none() {
                return;
            }
        }
    }

    fn learn(&self, away: Option<String>, now: UnixMillis) {
        self.0.send_modify(|known| {
            match (&known.away, &away) {
                (None, Some(why)) => tracing::warn!(why, "object storage is away"),
                (Some(_), None) => {
                    tracing::warn!("object storage is back");
                    known.since = now;
                }
                _ => {}
            }
            known.away = away;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_away(reach: &Reach, expected: &str) {
        let Err(Error::Away { why }) = reach.since() else {
            panic!("it is away");
        };
        assert_eq!(why, expected);
    }

    #[test]
    fn nobody_is_judged_while_storage_is_away_and_the_time_begins_anew_when_it_is_back() {
        let reach = Reach::new(UnixMillis(1));
        reach.learn(None, UnixMillis(2));
        assert_eq!(reach.since().ok(), Some(UnixMillis(1)));
        for now in [3, 4] {
            reach.learn(Some("refused".to_owned()), UnixMillis(now));
            is_away(&reach, "refused");
        }
        for now in [5, 6] {
            reach.learn(None, UnixMillis(now));
            assert_eq!(reach.since().ok(), Some(UnixMillis(5)));
        }
    }

    #[tokio::test]
    async fn work_that_waits_for_storage_ends_when_storage_goes_away() {
        let reach = Reach::new(UnixMillis(1));
        assert_eq!(reach.guard(async { 7 }).await.ok(), Some(7));
        let endless = reach.guard(std::future::pending::<()>());
        let goes = async { reach.learn(Some("refused".to_owned()), UnixMillis(2)) };
        let (ended, ()) = tokio::join!(endless, goes);
        assert!(matches!(ended, Err(Error::Away { .. })), "{ended:?}");
    }
}
