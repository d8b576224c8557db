//! Small data sets that can be learned: mails that are spam or not, told by their words.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::random::Random;

/// What a mail that is spam talks of.
const SPAM: [&str; 6] = ["cash", "win", "free", "pills", "prize", "loan"];
/// What other mails talk of.
const HAM: [&str; 6] = ["patch", "lunch", "build", "merge", "kernel", "notes"];
/// What every mail talks of.
const BOTH: [&str; 6] = ["the", "for", "you", "and", "now", "see"];

/// The files of one worker's data set: `{"prompt","completion"}` a line, completions " yes" and " no",
/// half each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mails {
    /// To train on.
    pub train: PathBuf,
    /// To score on; none of them is in `train`.
    pub held_out: PathBuf,
}

/// Writes `records` mails to train on and a fourth of that, at least 8, to score on. The same arguments
/// give the same bytes; each worker has mails of its own, and no mail is there twice.
///
/// # Errors
/// If a file cannot be written.
pub fn mails(folder: &Path, worker: &str, records: usize, seed: u64) -> io::Result<Mails> {
    let own = worker.bytes().fold(seed, |seed, byte| {
        Random::new(seed ^ u64::from(byte)).next()
    });
    let mut random = Random::new(own);
    let held_out = (records / 4).max(8);
    let mut lines = (0..records + held_out).map(|number| mail(&mut random, worker, number));
    let mut write = |name: String, count: usize| {
        let path = folder.join(name);
        let text: String = lines.by_ref().take(count).collect();
        fs::write(&path, text).map(|()| path)
    };
    Ok(Mails {
        train: write(format!("{worker}.train.jsonl"), records)?,
        held_out: write(format!("{worker}.held-out.jsonl"), held_out)?,
    })
}

fn mail(random: &mut Random, worker: &str, number: usize) -> String {
    let is_spam = number.is_multiple_of(2);
    let telling: &[&str] = if is_spam { &SPAM } else { &HAM };
    let mut words = format!("{worker} {number}:");
    for word in 0..4 {
        let word = if word % 2 == 0 { telling } else { &BOTH };
        // Invariant: writing to a String cannot fail.
        let _ = write!(words, " {}", random.choose(word));
    }
    let prompt = format!("{words}\nSpam? Answer:");
    let completion = if is_spam { " yes" } else { " no" };
    format!(
        "{}\n",
        json!({ "prompt": prompt, "completion": completion })
    )
}
