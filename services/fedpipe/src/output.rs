//! What goes to the terminal. Standard output carries data alone; everything else is standard error.
//!
//! A reader that went away (`fedpipe job list | head`) is no failure of ours.

use std::io::{self, Write as _};
use std::process::ExitCode;

use serde::Serialize;

/// Ends a command that said everything already, with a failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Said(pub String);

/// Prints a line of data.
///
/// # Errors
/// If standard output cannot be written.
pub fn line(text: impl AsRef<str>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Prints a value as one JSON document, indented for people who look at it.
///
/// # Errors
/// As [`line`].
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Prints a value as one line of JSON, for streams.
///
/// # Errors
/// As [`line`].
pub fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)
}

/// Says on standard error what is not data.
pub fn note(text: impl AsRef<str>) {
    // Invariant: where standard error is closed, nobody listens.
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Says why a command failed, with its causes once, and gives the exit code.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<Said>().is_none() {
        note(format!("fedpipe: {error:#}"));
    }
    ExitCode::FAILURE
}

/// Rows as aligned columns; the first row is the heading.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let text = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    rows.iter().map(text).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect();
        let text = table(&[
            row(&["name", "pid"]),
            row(&["a-long-name", "1"]),
            row(&["b", "22"]),
        ]);
        assert_eq!(text, "name         pid\na-long-name  1\nb            22");
    }
}
