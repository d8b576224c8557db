//! Where plans are computed: beside the threads that serve the process, which must answer meanwhile, and one at a time,
//! for a plan may keep a core busy for minutes. Nobody waits here for a turn: a job whose step waited would hold a lease
//! that nobody renews, and hear neither of a pause nor of the end.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::Error;

/// The turn to compute, which one step of the process has at a time.
#[derive(Debug)]
pub(crate) struct Solving {
    free: Arc<Semaphore>,
    stop: CancellationToken,
}

/// The turn of one step. It is over when what it computes has ended, or when it is dropped unused.
#[derive(Debug)]
pub(crate) struct Turn {
    permit: OwnedSemaphorePermit,
    stop: CancellationToken,
}

impl Solving {
    /// Until the token is cancelled.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            free: Arc::new(Semaphore::new(1)),
            stop,
        }
    }

    /// The turn, unless another step has it.
    pub fn turn(&self) -> Option<Turn> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        let stop = self.stop.clone();
        Some(Turn { permit, stop })
    }
}

impl Turn {
    /// What `work` gives. The end of the process does not wait for it: its thread is left behind, with the turn.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the process ends first.
    ///
    /// # Panics
    /// As `work` does: whoever drives the job counts it.
    pub async fn solve<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let Self { permit, stop } = self;
        let span = Span::current();
        let solving = tokio::task::spawn_blocking(move || {
            let _turn = permit;
            span.in_scope(work)
        });
        let solved = tokio::select! {
            solved = solving => solved,
            () = stop.cancelled() => return Err(Error::Interrupted),
        };
        solved.map_err(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Error::Interrupted,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::mpsc;
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    /// Far beyond what anything here takes.
    const SOON: Duration = Duration::from_secs(20);

    fn solving() -> Solving {
        Solving::new(CancellationToken::new())
    }

    #[tokio::test]
    async fn while_a_plan_is_computed_the_process_does_what_else_it_has_to() {
        let turn = solving().turn().expect("nobody computes");
        let (other, heard) = mpsc::channel();
        let solved = turn.solve(move || heard.recv_timeout(SOON));
        let beside = async { other.send(7) };
        let (solved, sent) = futures::join!(solved, beside);
        sent.expect("somebody listens");
        assert_eq!(solved.expect("computed"), Ok(7));
    }

    #[tokio::test]
    async fn one_plan_is_computed_at_a_time_and_nobody_waits_for_a_turn() {
        let solving = solving();
        let turn = solving.turn().expect("nobody computes");
        let (other, heard) = mpsc::channel();
        let solved = turn.solve(move || heard.recv_timeout(SOON));
        let beside = async {
            assert!(solving.turn().is_none(), "two compute");
            other.send(())
        };
        let (solved, sent) = futures::join!(solved, beside);
        sent.expect("somebody listens");
        assert_eq!(solved.expect("computed"), Ok(()));
        assert!(solving.turn().is_some(), "the turn is over");
    }

    #[tokio::test]
    async fn a_plan_that_panics_panics_in_its_step_and_the_next_has_its_turn() {
        let solving = solving();
        let broken = solving.turn().expect("nobody computes");
        let broken = broken.solve(|| assert_eq!(1, 2, "a defect"));
        let step = AssertUnwindSafe(broken).catch_unwind().await;
        assert!(step.is_err());
        let next = solving.turn().expect("the turn is over");
        assert_eq!(next.solve(|| 7).await.expect("computed"), 7);
    }

    #[tokio::test]
    async fn the_end_of_the_process_waits_for_no_plan_and_none_begins_beside_it() {
        let stop = CancellationToken::new();
        let solving = Solving::new(stop.clone());
        let turn = solving.turn().expect("nobody computes");
        let (held, heard) = mpsc::channel::<()>();
        let solved = turn.solve(move || heard.recv_timeout(SOON));
        stop.cancel();
        assert!(matches!(solved.await, Err(Error::Interrupted)));
        assert!(solving.turn().is_none(), "it is still computed");
        drop(held);
    }
}
