//! Loss on the right tokens where blanks belong to the word behind them and one more is put in front.

use std::path::Path;

use super::*;
use crate::text::{Message, Tokenizer, Tools};

/// As Llama 2's and Mistral's write it.
const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]\
                        {% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";

fn tokenizer(name: &str) -> Tokenizer {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/sentencepiece");
    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(name).join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("chat_template.jinja"), TEMPLATE).unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

/// The tokens that carry loss.
fn labelled(row: &Row) -> Vec<u32> {
    let pairs = row.tokens.iter().zip(&row.labelled);
    let labelled = pairs.filter(|(_, label)| **label);
    labelled.map(|(token, _)| *token).collect()
}

#[test]
fn answers_carry_loss_with_their_blank_and_every_byte() {
    let turns = [
        ("user", "hello there"),
        ("assistant", "the answer 😀 is naïve"),
        ("user", "the site?"),
        ("assistant", "hello"),
    ];
    let turns = turns.map(|(role, content)| Message::new(role, content));
    let text = "<s>[INST] hello there [/INST] the answer 😀 is naïve</s>[INST] the site? [/INST] hello</s>";
    for name in ["llama2", "mistral"] {
        let tokenizer = tokenizer(name);
        let encoder = Encoder::new(tokenizer.clone(), EncodeOptions::new(512)).unwrap();
        let record = Record::Messages {
            messages: turns.to_vec(),
            tools: Tools::default(),
        };
        let row = encoder.row(0, &record).unwrap();
        assert_eq!(row.tokens, tokenizer.encode(text).unwrap(), "{name}");
        let answers = ["the answer 😀 is naïve</s>", "hello</s>"];
        let want = answers.map(|answer| tokenizer.encode(answer).unwrap());
        assert_eq!(labelled(&row), want.concat(), "{name}");
    }
}

#[test]
fn prompts_and_answers_are_encoded_apart_behind_one_bos() {
    let tokenizer = tokenizer("llama2");
    let encoder = Encoder::new(tokenizer.clone(), EncodeOptions::new(64)).unwrap();
    let row = encoder.row(0, &completion("the site", "sends")).unwrap();
    let of = |text: &str| tokenizer.encode(text).unwrap();
    assert_eq!(
        row.tokens,
        [vec![1], of("the site"), of("sends"), vec![2]].concat()
    );
    assert_eq!(labelled(&row), [of("sends"), vec![2]].concat());
}
