//! What a run tells while it goes: lines of metrics for programs, and for people a bar, or plain lines where there
//! is no terminal.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use chassis::clock::Stopwatch;
use chassis::memory;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::held_out::Scored;
use super::{Step, resume};
use crate::output;
use crate::units::bytes;

/// Who is told.
pub struct Told {
    metrics: Option<File>,
    /// Hidden where standard error is no terminal.
    bar: ProgressBar,
    lines: bool,
    /// Steps that were made before this process, and all.
    made: u64,
    steps: u64,
    since: Stopwatch,
}

/// What is shown of a step.
struct Figures {
    loss: Option<f64>,
    tokens_per_second: f64,
    memory_bytes: u64,
    seconds_left: f64,
}

impl Told {
    /// Steps from `made` to `steps`; metrics go to this file. Quiet: no plain lines, for standard output has JSON.
    pub fn new(
        metrics: Option<&Path>,
        (made, steps): (u64, u64),
        quiet: bool,
    ) -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}");
        let bar = ProgressBar::new(steps).with_position(made);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Ok(Self {
            metrics: metrics
                .map(|path| resume::metrics(path, made))
                .transpose()?,
            lines: bar.is_hidden() && !quiet,
            bar,
            made,
            steps,
            since: Stopwatch::start(),
        })
    }

    /// A step, by its number from 0, that took so many seconds.
    pub fn step(&mut self, number: u64, step: &Step, seconds: f64) -> anyhow::Result<()> {
        let tokens_per_second = step.tokens as f64 / seconds;
        self.write(&json!({
            "step": number, "loss": step.loss, "tokens": step.tokens, "labelled_tokens": step.labelled_tokens,
            "gradient_norm": step.gradient_norm, "seconds": seconds, "tokens_per_second": tokens_per_second,
        }))?;
        let figures = Figures {
            loss: step.loss,
            tokens_per_second,
            memory_bytes: memory::data_bytes(),
            seconds_left: left(
                self.since.seconds(),
                number + 1 - self.made,
                self.steps - number - 1,
            ),
        };
        self.bar.set_position(number + 1);
        self.bar.set_message(figures.words());
        if self.lines {
            output::line(format!(
                "step {}/{}  {}",
                number + 1,
                self.steps,
                figures.words()
            ))?;
        }
        Ok(())
    }

    /// A score of held-out records, if there is one.
    pub fn score(&mut self, scored: Option<Scored>) -> anyhow::Result<()> {
        let Some(scored) = scored else {
            return Ok(());
        };
        self.write(&line_of(scored))?;
        let Scored { steps, loss, .. } = scored;
        let mut words = format!("after {steps} steps: held-out loss {loss:.4}");
        if let Some((all, balanced)) = scored.accuracy.zip(scored.balanced_accuracy) {
            words = format!("{words}, accuracy {all:.4}, balanced {balanced:.4}");
        }
        if self.lines {
            output::line(words)
        } else {
            self.bar.println(words);
            Ok(())
        }
    }

    /// Something to say above the bar.
    pub fn note(&self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }

    /// The last step was made.
    pub fn done(self) {
        self.bar.finish_and_clear();
    }

    fn write(&mut self, line: &Value) -> anyhow::Result<()> {
        let Some(file) = &mut self.metrics else {
            return Ok(());
        };
        writeln!(file, "{line}").context("the metrics cannot be written")
    }
}

impl Figures {
    fn words(&self) -> String {
        let loss = self.loss.map(|loss| format!("loss {loss:.4}"));
        let loss = loss.unwrap_or_else(|| "skipped, its loss is not finite".to_owned());
        format!(
            "{loss}  {:.0} tokens/s  {}  {} left",
            self.tokens_per_second,
            bytes(self.memory_bytes),
            clock(self.seconds_left)
        )
    }
}

/// A score's line of metrics: after the line of the last of its steps, with its number.
fn line_of(scored: Scored) -> Value {
    let Scored { steps, loss, .. } = scored;
    let mut line =
        json!({ "step": steps.saturating_sub(1), "after_steps": steps, "held_out_loss": loss });
    for (name, share) in [
        ("held_out_accuracy", scored.accuracy),
        ("held_out_balanced_accuracy", scored.balanced_accuracy),
    ] {
        if let (Some(share), Value::Object(line)) = (share, &mut line) {
            line.insert(name.to_owned(), share.into());
        }
    }
    line
}

/// Seconds for the steps that remain, as long as those that were made took.
fn left(seconds: f64, made: u64, remain: u64) -> f64 {
    seconds / made.max(1) as f64 * remain as f64
}

/// Seconds as people read them.
fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest} s"),
        (0, _) => format!("{minutes} min {rest:02} s"),
        _ => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_with_loss_speed_memory_and_the_time_that_is_left() {
        let figures = Figures {
            loss: Some(2.5),
            tokens_per_second: 1234.4,
            memory_bytes: 3 << 20,
            seconds_left: left(30.0, 3, 9),
        };
        assert_eq!(
            figures.words(),
            "loss 2.5000  1234 tokens/s  3.0 MiB  1 min 30 s left"
        );
        let skipped = Figures {
            loss: None,
            ..figures
        };
        assert!(skipped.words().starts_with("skipped"));
        assert_eq!(
            (clock(59.4), clock(3600.0), clock(0.0)),
            ("59 s".into(), "1 h 00 min".into(), "0 s".into())
        );
    }
}
