//! A few questions with answers, in files.

use std::path::Path;

use serde_json::json;

/// Records with a rule that even a tiny model can see, the same ones for the same seed.
#[must_use]
pub fn records(seed: u64, count: usize) -> String {
    let words = ["win", "cash", "meeting", "report", "prize", "patch"];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % 6).unwrap_or(0)
    };
    let record = |_| {
        let first = next();
        let answer = if [0, 1, 4].contains(&first) {
            " yes"
        } else {
            " no"
        };
        let prompt = format!("{} {} spam?", words[first], words[next()]);
        json!({"prompt": prompt, "completion": answer}).to_string() + "\n"
    };
    (0..count).map(record).collect()
}

/// Writes a file of records.
pub fn write(path: &Path, seed: u64, count: usize) {
    std::fs::write(path, records(seed, count)).expect("data is written");
}
