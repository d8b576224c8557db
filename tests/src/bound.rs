//! Times that are promised: printed always, and asserted where the machine is ours.

use std::time::Duration;

/// Set to assert every promised time also in a short run, on a machine that is otherwise idle.
const STRICT: &str = "FEDPIPE_TEST_TIMES";

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
