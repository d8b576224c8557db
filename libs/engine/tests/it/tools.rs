//! Conversations that call tools: the text, the tokens and which of them are the assistant's, as in transformers. Values by
//! `tests/reference/make_tools.py`.

use std::fs;

use engine::data::{Dataset, EncodeOptions, Encoder, Format, Record};
use engine::text::Tokenizer;
use serde::Deserialize;
use tempfile::TempDir;

use crate::support::{read, reference};

#[derive(Deserialize)]
struct Template {
    name: String,
    source: String,
    /// Of each record of `records.jsonl`.
    rows: Vec<Rendered>,
}

#[derive(Deserialize)]
struct Rendered {
    text: String,
    /// The turns before the last, and what opens that one.
    asked: String,
    tokens: Vec<u32>,
    /// From which token to which the assistant speaks.
    spoken: Vec<(usize, usize)>,
}

fn templates() -> Vec<Template> {
    let templates: Vec<Template> = read("tools/rendered.json");
    assert_eq!(templates.len(), 4);
    templates
}

fn records() -> Vec<Record> {
    let dataset = Dataset::open(&reference("tools/records.jsonl"), Format::Messages).unwrap();
    assert_eq!((dataset.len(), dataset.skipped().total()), (5, 0));
    dataset.records().map(Result::unwrap).collect()
}

/// The reference's tokenizer with a template.
fn tokenizer(template: &str) -> Tokenizer {
    let folder = TempDir::new().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(reference("tools").join(name), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

fn encoder(tokenizer: &Tokenizer) -> Encoder {
    Encoder::new(tokenizer.clone(), EncodeOptions::new(2048)).unwrap()
}

#[test]
fn calls_answers_and_tools_become_transformers_tokens_and_the_assistants_alone_are_learned() {
    for Template { name, source, rows } in templates() {
        let tokenizer = tokenizer(&source);
        let encoder = encoder(&tokenizer);
        for (number, (record, want)) in records().iter().zip(rows).enumerate() {
            let row = encoder.row(number, record).unwrap();
            let length = row.tokens.len();
            let text = tokenizer.decode(&row.tokens).unwrap();
            assert_eq!(text, want.text.trim_end(), "{name}, record {number}");
            // The blank behind the last turn's end teaches nothing.
            assert_eq!(row.tokens, want.tokens[..length], "{name}, record {number}");
            let is_spoken = |place| {
                want.spoken
                    .iter()
                    .any(|(from, to)| (*from..*to).contains(&place))
            };
            let spoken: Vec<bool> = (0..length).map(is_spoken).collect();
            assert_eq!(row.labelled, spoken, "{name}, record {number}");
        }
    }
}

#[test]
fn a_question_is_the_prompt_that_transformers_makes_and_a_call_is_wanted_as_it_is_written() {
    let written = [
        r#"<call>{"name": "clock", "arguments": {}}</call>"#,
        "<think>\nThe clock\nknows.\n</think>\n\n<call name=clock></call>",
        r#"[CALLS] [{"name": "clock", "arguments": {}, "id": "call00001"}]"#,
        "function:clock\n{}",
    ];
    for (Template { name, source, rows }, called) in templates().into_iter().zip(written) {
        let tokenizer = tokenizer(&source);
        let encoder = encoder(&tokenizer);
        let wanted = ["Yes.", "Yes.", "Grey.", called, "Hello!"];
        for ((record, want), wanted) in records().iter().zip(rows).zip(wanted) {
            let question = encoder.question(record, 8).unwrap();
            let asked = tokenizer.encode(&want.asked).unwrap();
            assert_eq!(question.prompt, asked, "{name}: {wanted}");
            assert_eq!(question.wanted, wanted, "{name}");
        }
    }
}
