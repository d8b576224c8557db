//! Times that are promised: printed always, and asserted where the machine is ours.

use std::time::Duration;

use serde_json::Value;

/// Set to assert every promised time also in a short run, on a machine that is otherwise idle.
const STRICT: &str = "FEDPIPE_TEST_TIMES";

/// Times that something is tried which takes too long.
const TRIES: u32 = 3;

/// Prints how long something took and what was promised. In the long run (`./run test --full`), or
/// with `FEDPIPE_TEST_TIMES` set, more than that is an error.
///
/// # Errors
/// What took too long.
pub fn hold(what: &str, took: Duration, limit: Duration) -> Result<(), String> {
    let sentence = format!(
        "{what}: {:.1} s of at most {} s",
        took.as_secs_f64(),
        limit.as_secs_f64()
    );
    eprintln!("{sentence}");
    let asserted = crate::full() || std::env::var_os(STRICT).is_some();
    if asserted && took > limit {
        Err(sentence)
    } else {
        Ok(())
    }
}

/// As [`hold`], of what can be done again: of a few tries one has to keep the time. What is too slow by itself is so every
/// time; what a busy machine adds it does not add each time.
///
/// # Errors
/// What took too long every time, or what went wrong.
pub async fn hold_once(
    what: &str,
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> Result<Duration, String>,
) -> Result<(), String> {
    let mut held = Ok(());
    for _ in 0..TRIES {
        held = hold(what, attempt().await?, limit);
        if held.is_ok() {
            break;
        }
    }
    held
}

/// What rounds take beside their slowest site's compute, in seconds: of several the least. Whoever is waited for in vain is
/// waited for in every round; what else a busy machine does can only add to some.
///
/// # Panics
/// If a round does not say it.
#[must_use]
pub fn least_overhead(rounds: &[Value]) -> f64 {
    let seconds = rounds
        .iter()
        .map(|round| round["overhead_seconds"].as_f64().expect("a figure"));
    seconds.fold(f64::INFINITY, f64::min)
}
