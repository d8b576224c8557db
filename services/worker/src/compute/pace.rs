//! Playing a slower machine: a cap on tokens a second, kept by waiting after the work.

use std::time::Duration;

use tokio::runtime::Handle;

use crate::failure::Failure;
use crate::stop::Stop;

/// Longest wait between two signs of progress: an emulated machine computes all the time.
const SLICE_SECONDS: f64 = 0.1;

/// How many forward passes cost what a training step costs, where it was not measured: with a frozen
/// base a token takes 4 floating point operations per weight, 2 of them forward.
const FORWARD_SPEEDUP: f64 = 2.0;

/// A cap on the tokens a second of training, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace(Option<f64>);

impl Pace {
    /// A cap of so many tokens a second.
    #[must_use]
    pub const fn new(tokens_per_second: Option<f64>) -> Self {
        Self(tokens_per_second)
    }

    /// The same machine's cap on forward passes alone, which are so many times as fast as training on it.
    #[must_use]
    pub fn forward(self, speedup: Option<f64>) -> Self {
        let speedup = speedup.unwrap_or(FORWARD_SPEEDUP).max(1.0);
        Self(self.0.map(|rate| rate * speedup))
    }

    /// Seconds that work on so many tokens takes at this pace, if it really took `seconds`.
    #[must_use]
    pub fn seconds(self, tokens: usize, seconds: f64) -> f64 {
        self.0
            .map_or(seconds, |rate| seconds.max(tokens as f64 / rate))
    }

    /// Waits for what the work was too fast, telling progress as a machine of this pace would.
    ///
    /// # Errors
    /// [`Failure::Stopped`] as soon as the task is stopped.
    pub fn wait(
        self,
        runtime: &Handle,
        stop: &Stop,
        tokens: usize,
        seconds: f64,
        mut progress: impl FnMut(),
    ) -> Result<(), Failure> {
        let mut left = self.seconds(tokens, seconds) - seconds;
        while left > 0.0 {
            let slice = Duration::from_secs_f64(left.min(SLICE_SECONDS));
            let stopped = runtime
                .block_on(async { tokio::time::timeout(slice, stop.stopped()).await.is_ok() });
            if stopped {
                return Err(Failure::Stopped);
            }
            progress();
            left -= SLICE_SECONDS;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn a_pace_makes_fast_work_slow_and_leaves_slow_work_alone() {
        let pace = Pace::new(Some(100.0));
        assert_eq!(pace.seconds(50, 0.1), 0.5);
        assert_eq!(pace.seconds(50, 0.7), 0.7);
        assert_eq!(Pace::new(None).seconds(50, 0.1), 0.1);
    }

    #[test]
    fn a_forward_pass_is_slowed_by_what_it_costs() {
        let pace = Pace::new(Some(100.0));
        assert_eq!(pace.forward(Some(4.0)).seconds(400, 0.1), 1.0);
        assert_eq!(pace.forward(None).seconds(100, 0.1), 0.5);
        assert_eq!(pace.forward(Some(0.5)).seconds(100, 0.1), 1.0);
        assert_eq!(Pace::new(None).forward(Some(2.0)), Pace::new(None));
    }

    #[test]
    fn a_wait_ends_when_the_task_is_stopped_and_tells_progress_until_then() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let stop = Stop::below(&CancellationToken::new());
        let pace = Pace::new(Some(1.0));
        let mut slices = 0;
        let waited = pace.wait(runtime.handle(), &stop, 1_000_000, 0.0, || {
            slices += 1;
            if slices == 2 {
                stop.stop();
            }
        });
        assert_eq!((waited, slices), (Err(Failure::Stopped), 2));
    }
}
