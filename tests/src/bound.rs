//! Times that are promised: printed always, and asserted where the machine is ours.

use std::time::Duration;

use serde_json::Value;

/// Set to assert every promised time also in a short run, on a machine that is otherwise idle.
const STRICT: &str = "FEDPIPE_TEST_TIMES";

/// Times that something is tried which takes too long.
const TRIES: u32 = 3;

/// How many times too long the worst of these may be: more is no stall of the machine but a wait in vain.
const WORST: u32 = 3;

/// Idle periods after which whoever makes no progress is given up.
const GIVEN_UP: u32 = 3;

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
    let (mut held, mut worst) = (Ok(()), Duration::ZERO);
    for _ in 0..TRIES {
        let took = attempt().await?;
        worst = worst.max(took);
        held = hold(what, took, limit);
        if held.is_ok() {
            break;
        }
    }
    held.and_then(|()| hold(&format!("{what}, the worst try"), worst, WORST * limit))
}

/// What rounds take beside their slowest site's compute, in seconds: of several the least. Whoever is waited for a little in
/// vain is waited for in every round; what else a busy machine does can only add to some. In none is anybody waited for until it
/// is given up, which is after some of the fleet's idle periods.
///
/// # Panics
/// If a round does not say it, or took as long as a wait in vain.
#[must_use]
pub fn least_overhead(rounds: &[Value], idle: Duration) -> f64 {
    let seconds = rounds
        .iter()
        .map(|round| round["overhead_seconds"].as_f64().expect("a figure"));
    let (least, greatest) = seconds.fold((f64::INFINITY, 0.0), |(least, greatest), seconds| {
        (seconds.min(least), seconds.max(greatest))
    });
    let vain = (GIVEN_UP * idle).as_secs_f64();
    assert!(
        greatest < vain,
        "a round took {greatest} s beside its computing: somebody was waited for in vain"
    );
    least
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn least(seconds: &[f64]) -> f64 {
        let round = |seconds: &f64| json!({ "overhead_seconds": seconds });
        let rounds: Vec<Value> = seconds.iter().map(round).collect();
        least_overhead(&rounds, Duration::from_secs(1))
    }

    #[test]
    fn the_least_of_what_rounds_take_counts() {
        assert!((least(&[0.5, 0.25, 2.75]) - 0.25).abs() < f64::EPSILON);
    }

    #[test]
    #[should_panic(expected = "3.25 s beside its computing")]
    fn a_wait_in_vain_in_every_second_round_is_none_of_a_busy_machine() {
        let _ = least(&[0.25, 3.25, 0.25, 3.25]);
    }
}
