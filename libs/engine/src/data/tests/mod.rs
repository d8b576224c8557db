//! Behaviour of the data module on files made here.

mod conversation;
mod dataset;
mod encode;
mod filler;
mod question;
mod sampler;
mod sentencepiece;
mod tools;

use std::path::PathBuf;

use tempfile::TempDir;

use super::{Dataset, EncodeOptions, Encoder, Format, Record, Row};
use crate::text::fixture;

/// A file that lives as long as the test.
struct Written {
    _folder: TempDir,
    path: PathBuf,
}

fn write(name: &str, content: impl AsRef<[u8]>) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    Written {
        _folder: folder,
        path,
    }
}

fn open(name: &str, content: impl AsRef<[u8]>) -> Dataset {
    Dataset::open(&write(name, content).path, Format::Auto).unwrap()
}

fn encoder(sequence_length: usize) -> Encoder {
    with_options(EncodeOptions::new(sequence_length))
}

fn with_options(options: EncodeOptions) -> Encoder {
    Encoder::new(fixture::tokenizer(), options).unwrap()
}

fn completion(prompt: &str, completion: &str) -> Record {
    Record::Completion {
        prompt: prompt.to_owned(),
        completion: completion.to_owned(),
    }
}

fn text(text: &str) -> Record {
    Record::Text {
        text: text.to_owned(),
    }
}

/// The text of the tokens that carry loss.
fn learned(row: &Row) -> String {
    assert_eq!(row.tokens.len(), row.labelled.len());
    assert!(!row.labelled[0]);
    let pairs = row.tokens.iter().zip(&row.labelled);
    let ids: Vec<u32> = pairs
        .filter(|(_, label)| **label)
        .map(|(id, _)| *id)
        .collect();
    fixture::tokenizer().decode(&ids).unwrap()
}

fn shown(row: &Row) -> String {
    fixture::tokenizer().decode(&row.tokens).unwrap()
}
