use super::*;
use crate::data::{Refusal, Verbalizer};
use crate::text::{Message, Tools};

fn chat(turns: &[(&str, &str)]) -> Record {
    let message = |(role, content): &(&str, &str)| Message::new(*role, *content);
    Record::Messages {
        messages: turns.iter().map(message).collect(),
        tools: Tools::default(),
    }
}

/// What is asked, in text, and what is wanted.
fn asked(encoder: &Encoder, record: &Record, tokens: usize) -> (String, String) {
    let question = encoder.question(record, tokens).unwrap();
    let text = fixture::tokenizer().decode(&question.prompt).unwrap();
    (text, question.wanted)
}

#[test]
fn a_prompt_asks_and_its_completion_is_wanted() {
    let record = completion("is it spam?", " yes");
    let (prompt, wanted) = asked(&encoder(64), &record, 8);
    assert_eq!((prompt.as_str(), wanted.as_str()), ("is it spam?", " yes"));
    let labels = Verbalizer::plain("? Answer:", &["0".to_owned(), "1".to_owned()]);
    let labelled = with_options(EncodeOptions {
        verbalizer: Some(labels),
        ..EncodeOptions::new(64)
    });
    let record = Record::Label {
        text: "buy now".to_owned(),
        label: "1".to_owned(),
    };
    let (prompt, wanted) = asked(&labelled, &record, 8);
    assert_eq!(
        (prompt.as_str(), wanted.as_str()),
        ("buy now? Answer:", " 1")
    );
}

#[test]
fn a_prompt_leaves_room_for_the_answer_and_at_least_half_of_the_sequence() {
    let record = completion(&"word ".repeat(40), " yes");
    let prompt = |tokens| encoder(64).question(&record, tokens).unwrap().prompt;
    assert_eq!(prompt(8).len(), 56);
    assert_eq!(prompt(1000).len(), 32);
}

#[test]
fn a_conversation_asks_before_its_last_answer_and_loses_its_oldest_exchanges() {
    let turns = [
        ("system", "Rule"),
        ("user", "one"),
        ("assistant", "first"),
        ("user", "two"),
        ("assistant", "second"),
    ];
    let (prompt, wanted) = asked(&encoder(400), &chat(&turns), 16);
    assert!(
        prompt.ends_with("two<|im_end|>\n<|im_start|>assistant\n"),
        "{prompt}"
    );
    assert!(
        prompt.contains("first") && !prompt.contains("second"),
        "{prompt}"
    );
    assert_eq!(wanted, "second");
    let shortest = "<|im_start|>system\nRule<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n";
    let length = fixture::tokenizer().encode(shortest).unwrap().len();
    let (prompt, _) = asked(&encoder(length + 16), &chat(&turns), 16);
    assert_eq!(prompt, shortest);
}

#[test]
fn what_asks_nothing_is_refused_by_itself() {
    let refused = |record: &Record| encoder(64).question(record, 8).unwrap_err();
    let open = [("user", "one"), ("assistant", "first"), ("user", "two")];
    for record in [text("only words"), chat(&open)] {
        let refusal = refused(&record);
        assert!(matches!(refusal, Refusal::NothingToLearn), "{refusal:?}");
        assert!(refusal.is_of_this_record());
    }
}
