use super::*;
use crate::data::{LossOn, Refusal, Truncate};
use crate::text::{Message, Tools};

const SYSTEM: &str = "<|im_start|>system\nBe kind<|im_end|>\n";

fn chat(turns: &[(&str, &str)]) -> Record {
    let messages = turns
        .iter()
        .map(|(role, content)| Message::new(*role, *content));
    Record::Messages {
        messages: messages.collect(),
        tools: Tools::default(),
    }
}

#[test]
fn the_assistants_turns_and_their_ends_carry_loss() {
    let record = chat(&[
        ("user", "One?"),
        ("assistant", "Two"),
        ("user", "Three?"),
        ("assistant", "Four"),
    ]);
    let row = encoder(512).row(0, &record).unwrap();
    let text = format!(
        "{SYSTEM}<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\nTwo<|im_end|>\n\
         <|im_start|>user\nThree?<|im_end|>\n<|im_start|>assistant\nFour<|im_end|>"
    );
    assert_eq!(shown(&row), text);
    assert_eq!(row.tokens, fixture::tokenizer().encode(&text).unwrap());
    assert_eq!(learned(&row), "Two<|im_end|>Four<|im_end|>");
}

#[test]
fn what_follows_the_last_answer_is_left_out() {
    let record = chat(&[("user", "a"), ("assistant", "b"), ("user", "c")]);
    let row = encoder(512).row(0, &record).unwrap();
    assert!(shown(&row).ends_with("assistant\nb<|im_end|>"));
}

#[test]
fn text_that_looks_like_a_turn_and_blanks_are_learned_as_they_are() {
    let record = chat(&[("user", " a "), ("assistant", "  b\n\n c  ")]);
    let row = encoder(512).row(0, &record).unwrap();
    assert_eq!(learned(&row), "  b\n\n c  <|im_end|>");
}

#[test]
fn loss_on_all_covers_the_whole_conversation() {
    let loss_on = LossOn::All;
    let encoder = with_options(EncodeOptions {
        loss_on,
        ..EncodeOptions::new(512)
    });
    let row = encoder
        .row(0, &chat(&[("user", "a"), ("assistant", "b")]))
        .unwrap();
    assert_eq!(row.targets(), row.tokens.len() - 1);
}

#[test]
fn a_long_conversation_loses_its_oldest_exchanges_and_keeps_the_system() {
    let turn = |n: usize| {
        [
            ("user", "question"),
            ("assistant", ["zero", "one", "two", "three"][n]),
        ]
    };
    let turns: Vec<_> = [("system", "Rule")]
        .into_iter()
        .chain((0..4).flat_map(turn))
        .collect();
    let exchange = |answer: &str| {
        format!("<|im_start|>user\nquestion<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n")
    };
    let system = "<|im_start|>system\nRule<|im_end|>\n".to_owned();
    let kept = [system, exchange("two"), exchange("three")].concat();
    let kept = kept.trim_end();
    let length = fixture::tokenizer().encode(kept).unwrap().len();
    for sequence_length in [length, length + 5] {
        let row = encoder(sequence_length).row(0, &chat(&turns)).unwrap();
        assert_eq!(shown(&row), kept);
        assert_eq!(learned(&row), "two<|im_end|>three<|im_end|>");
    }
    let whole = encoder(4096).row(0, &chat(&turns)).unwrap();
    assert_eq!(
        learned(&whole),
        "zero<|im_end|>one<|im_end|>two<|im_end|>three<|im_end|>"
    );
}

#[test]
fn a_single_long_question_is_cut_and_its_answer_is_not() {
    let question = "word ".repeat(60);
    for loss_on in [LossOn::Completion, LossOn::All] {
        let encoder = with_options(EncodeOptions {
            loss_on,
            ..EncodeOptions::new(70)
        });
        let row = encoder
            .row(
                0,
                &chat(&[("user", &question), ("assistant", "the answer")]),
            )
            .unwrap();
        assert_eq!(row.tokens.len(), 70);
        assert!(shown(&row).starts_with("<|im_start|>system\n"));
        assert!(shown(&row).ends_with("<|im_end|>\n<|im_start|>assistant\nthe answer<|im_end|>"));
        if loss_on == LossOn::Completion {
            assert_eq!(learned(&row), "the answer<|im_end|>");
        }
    }
    let refused = encoder(8).row(0, &chat(&[("user", "a"), ("assistant", "the answer")]));
    assert!(
        matches!(refused, Err(Refusal::AnswerTooLong { answer: 11, .. })),
        "{refused:?}"
    );
    let truncate = Truncate::Refuse;
    let strict = with_options(EncodeOptions {
        truncate,
        ..EncodeOptions::new(70)
    });
    let refused = strict.row(0, &chat(&[("user", &question), ("assistant", "a")]));
    assert!(matches!(refused, Err(Refusal::TooLong { .. })));
}

#[test]
fn a_model_without_a_template_refuses_conversations() {
    let mut content = fixture::gguf();
    content.metadata.remove("tokenizer.chat_template");
    let tokenizer = crate::text::Tokenizer::from_gguf(&content).unwrap();
    let encoder = Encoder::new(tokenizer, EncodeOptions::new(64)).unwrap();
    let refused = encoder
        .row(0, &chat(&[("user", "a"), ("assistant", "b")]))
        .unwrap_err();
    assert!(matches!(
        refused,
        Refusal::Text(crate::text::Error::NoChatTemplate)
    ));
    assert!(!refused.is_of_this_record());
    assert!(encoder.row(0, &completion("a", "b")).is_ok());
}

#[test]
fn templates_that_open_a_thought_or_forget_earlier_turns_still_learn_the_last_answer() {
    let template = "{% for m in messages %}{% if m.role == 'assistant' %}A:\
                    {% if loop.last %}{{ m.content }}{% else %}(cut){% endif %}<|im_end|>\
                    {% else %}U:{{ m.content }};{% endif %}{% endfor %}\
                    {% if add_generation_prompt %}A:<think>{% endif %}";
    let folder = tempfile::tempdir().unwrap();
    fixture::write_folder(folder.path());
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let tokenizer = crate::text::Tokenizer::from_folder(folder.path()).unwrap();
    let encoder = Encoder::new(tokenizer, EncodeOptions::new(64)).unwrap();
    let record = chat(&[
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", "d"),
    ]);
    let row = encoder.row(0, &record).unwrap();
    assert_eq!(shown(&row), "U:a;A:(cut)<|im_end|>U:c;A:d<|im_end|>");
    assert_eq!(learned(&row), "d<|im_end|>");
}

/// Looking for the turn that a template refuses takes a text for each; where nobody asks for it, it is not looked for.
#[test]
fn beginnings_that_a_template_refuses_are_tried_once_each() {
    let template = "{% if (messages|last).role == 'assistant' and messages|length < 40 %}\
                    {{ raise_exception('it goes on') }}{% endif %}\
                    {% for m in messages %}{% if m.role == 'assistant' %}A:{{ m.content }}<|im_end|>\
                    {% else %}U:{{ m.content }};{% endif %}{% endfor %}\
                    {% if add_generation_prompt %}A:{% endif %}";
    let folder = tempfile::tempdir().unwrap();
    fixture::write_folder(folder.path());
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let tokenizer = crate::text::Tokenizer::from_folder(folder.path()).unwrap();
    let encoder = Encoder::new(tokenizer, EncodeOptions::new(1024)).unwrap();
    let record = chat(&[("user", "a"), ("assistant", "b")].repeat(20));
    let before = crate::text::texts_made();
    let row = encoder.row(0, &record).unwrap();
    assert!(learned(&row).ends_with("b<|im_end|>"), "{}", learned(&row));
    let made = crate::text::texts_made() - before;
    // Four for each answer that is not the last: its end, what it begins with, and itself and the turn behind it otherwise.
    assert!(made <= 80, "{made} texts of 40 turns");
}
