use proptest::prelude::*;

use super::*;
use crate::data::{LossOn, Refusal, Truncate, Verbalizer};

#[test]
fn a_short_record_is_prompt_completion_and_eos_with_loss_behind_the_prompt() {
    let tokenizer = fixture::tokenizer();
    let row = encoder(64)
        .row(7, &completion("Is it? Answer:", " yes"))
        .unwrap();
    let prompt = tokenizer.encode("Is it? Answer:").unwrap();
    let answer = tokenizer.encode(" yes").unwrap();
    assert_eq!(
        row.tokens,
        [&prompt[..], &answer, &[tokenizer.eos()]].concat()
    );
    let labelled: Vec<bool> = (0..row.tokens.len())
        .map(|place| place >= prompt.len())
        .collect();
    assert_eq!((row.labelled, row.record), (labelled, 7));
}

#[test]
fn prompt_and_completion_are_encoded_apart() {
    // Together "e" + "s" would merge into one token.
    let row = encoder(64).row(0, &completion("e", "s")).unwrap();
    assert_eq!(row.tokens.len(), 3);
}

#[test]
fn a_long_prompt_loses_its_middle_but_not_its_question() {
    let mail = format!(
        "Subject: hello {} Is this mail spam? Answer:",
        "word ".repeat(100)
    );
    let row = encoder(80).row(0, &completion(&mail, " yes")).unwrap();
    assert_eq!(row.tokens.len(), 80);
    assert!(shown(&row).starts_with("Subject: hello word "));
    assert!(shown(&row).ends_with(" Is this mail spam? Answer: yes<|im_end|>"));
    assert_eq!(learned(&row), " yes<|im_end|>");
}

#[test]
fn front_truncation_keeps_the_end_of_the_prompt() {
    let truncate = Truncate::Front;
    let options = EncodeOptions {
        truncate,
        ..EncodeOptions::new(6)
    };
    let row = with_options(options)
        .row(0, &completion("abcdefgh", " yes"))
        .unwrap();
    assert_eq!(shown(&row), "efgh yes<|im_end|>");
}

#[test]
fn truncation_can_be_forbidden() {
    let truncate = Truncate::Refuse;
    let strict = with_options(EncodeOptions {
        truncate,
        ..EncodeOptions::new(6)
    });
    assert!(strict.row(0, &completion("abcd", " yes")).is_ok());
    for record in [completion("abcde", " yes"), text("abcdefg")] {
        let refused = strict.row(0, &record).unwrap_err();
        assert!(matches!(refused, Refusal::TooLong { .. }) && refused.is_of_this_record());
    }
}

#[test]
fn an_answer_longer_than_the_sequence_is_refused_not_cut() {
    // Three tokens and eos; the prompt needs one.
    assert!(encoder(5).row(0, &completion("abc", "xyz")).is_ok());
    match encoder(4).row(0, &completion("abc", "xyz")) {
        Err(
            refused @ Refusal::AnswerTooLong {
                answer: 4,
                sequence_length: 4,
            },
        ) => {
            assert!(refused.is_of_this_record());
        }
        other => panic!("{other:?}"),
    }
    assert!(encoder(4).row(0, &completion("", "xyz")).is_ok());
}

#[test]
fn without_a_prompt_the_first_token_of_the_answer_is_no_target() {
    let row = encoder(8).row(0, &completion("", "abc")).unwrap();
    assert_eq!(learned(&row), "bc<|im_end|>");
}

#[test]
fn loss_on_all_labels_the_prompt_too() {
    let loss_on = LossOn::All;
    let encoder = with_options(EncodeOptions {
        loss_on,
        ..EncodeOptions::new(16)
    });
    let row = encoder.row(0, &completion("ab", "c")).unwrap();
    assert_eq!(learned(&row), "bc<|im_end|>");
}

#[test]
fn text_is_learned_whole() {
    let row = encoder(16).row(0, &text("abc")).unwrap();
    assert_eq!(
        (shown(&row).as_str(), learned(&row).as_str()),
        ("abc", "bc")
    );
    assert!(matches!(
        encoder(16).row(0, &text("a")),
        Err(Refusal::NothingToLearn)
    ));
}

#[test]
fn a_long_text_shows_another_window_in_each_pass() {
    let encoder = encoder(4);
    let seen = |pass| shown(&encoder.row_of_pass(0, &text("abcdefghi"), pass).unwrap());
    let passes = [seen(0), seen(1), seen(2), seen(3)];
    assert_eq!(passes, ["abcd", "defg", "ghi", "abcd"]);
    let windows = encoder.windows(0, &text("abcdefghi")).unwrap();
    let learned: String = windows.iter().map(learned).collect();
    assert_eq!(learned, "bcdefghi");
    // No window holds a token alone.
    assert_eq!(encoder.windows(0, &text("abcd")).unwrap().len(), 1);
}

#[test]
fn bos_stands_first_where_the_tokenizer_puts_it_and_survives_truncation() {
    for truncate in [Truncate::Front, Truncate::default()] {
        let options = EncodeOptions {
            truncate,
            ..EncodeOptions::new(6)
        };
        let row = Encoder::new(fixture::tokenizer_with_bos(), options)
            .unwrap()
            .row(0, &completion("abcdefgh", " yes"))
            .unwrap();
        assert_eq!(shown(&row), "<|im_start|>fgh yes<|im_end|>");
    }
}

#[test]
fn texts_and_prompts_begin_as_transformers_begins_them() {
    let tokenizer = fixture::tokenizer_with_bos();
    assert_eq!(fixture::tokenizer().first().unwrap(), None);
    assert_eq!(tokenizer.first().unwrap(), Some(1));
    let encoder = Encoder::new(tokenizer.clone(), EncodeOptions::new(16)).unwrap();
    // What `tokenizer("one yes").input_ids` is in transformers of the same folder, and
    // `tokenizer("one").input_ids + tokenizer(" yes", add_special_tokens=False).input_ids + [eos]`.
    let text_ids = [1, 81, 80, 71, 261];
    assert_eq!(encoder.row(0, &text("one yes")).unwrap().tokens, text_ids);
    assert_eq!(tokenizer.encode_begun("one yes").unwrap(), text_ids);
    let row = encoder.row(0, &completion("one", " yes")).unwrap();
    assert_eq!(row.tokens, [1, 81, 80, 71, 261, 2]);
    assert_eq!(learned(&row), " yes<|im_end|>");
    let asked = encoder.question(&completion("one", " yes"), 4).unwrap();
    assert_eq!(asked.prompt, tokenizer.encode_begun("one").unwrap());
    // A template writes its own.
    let messages = ["user", "assistant"].map(|role| crate::text::Message::new(role, "a"));
    let chat = Record::Messages {
        messages: messages.into(),
        tools: crate::text::Tools::default(),
    };
    let plain = self::encoder(512).row(0, &chat).unwrap();
    let encoder = Encoder::new(tokenizer, EncodeOptions::new(512)).unwrap();
    assert_eq!(encoder.row(0, &chat).unwrap().tokens, plain.tokens);
}

fn labels() -> Encoder {
    let completions = [("1", " yes"), ("0", " no")];
    let completions = completions.map(|(label, said)| (label.to_owned(), said.to_owned()));
    let verbalizer = Some(Verbalizer {
        suffix: " Spam? Answer:".to_owned(),
        completions: completions.into(),
    });
    let truncate = Truncate::Middle { keep_end: 0 };
    with_options(EncodeOptions {
        verbalizer,
        truncate,
        ..EncodeOptions::new(24)
    })
}

fn label(text: &str, label: &str) -> Record {
    Record::Label {
        text: text.to_owned(),
        label: label.to_owned(),
    }
}

#[test]
fn a_label_is_said_by_its_completion_and_the_question_is_never_cut() {
    let row = labels()
        .row(0, &label("free money now, click here", "1"))
        .unwrap();
    assert_eq!(shown(&row), "free mon Spam? Answer: yes<|im_end|>");
    assert_eq!(learned(&row), " yes<|im_end|>");
}

#[test]
fn a_label_without_a_completion_is_refused() {
    let unknown = labels().row(0, &label("a", "2")).unwrap_err();
    assert!(matches!(unknown, Refusal::UnknownLabel) && unknown.is_of_this_record());
    let missing = encoder(24).row(0, &label("a", "1")).unwrap_err();
    assert!(matches!(missing, Refusal::NoVerbalizer) && !missing.is_of_this_record());
}

#[test]
fn the_plain_verbalizer_says_the_label_itself() {
    let names = ["ham".to_owned(), "spam".to_owned()];
    let verbalizer = Some(Verbalizer::plain(" Kind:", &names));
    let encoder = with_options(EncodeOptions {
        verbalizer,
        ..EncodeOptions::new(64)
    });
    assert_eq!(
        shown(&encoder.row(0, &label("a", "ham")).unwrap()),
        "a Kind: ham<|im_end|>"
    );
}

#[test]
fn a_loss_among_choices_reads_the_prompt_and_learns_which_of_them_follows() {
    let among = |choices: &[&str]| {
        let among = choices.iter().map(|choice| (*choice).to_owned()).collect();
        let options = EncodeOptions {
            among,
            ..EncodeOptions::new(8)
        };
        Encoder::new(fixture::tokenizer(), options)
    };
    let (tokenizer, encoder) = (fixture::tokenizer(), among(&["y", "n"]).unwrap());
    let row = encoder.row(4, &completion("abcdefghijkl", "n")).unwrap();
    assert_eq!((row.tokens.len(), row.targets(), row.record), (7, 0, 4));
    let class = row.class.clone().unwrap();
    let ids = ["y", "n"].map(|word| tokenizer.encode(word).unwrap()[0]);
    assert_eq!((class.number, &class.words[..]), (1, &ids[..]));
    assert_eq!(encoder.preview(&row).unwrap().class.as_deref(), Some("n"));
    let refused = |record| encoder.row(0, &record).unwrap_err();
    let other = refused(completion("p", "x"));
    assert!(matches!(other, Refusal::OtherAnswer) && other.is_of_this_record());
    assert!(matches!(refused(text("words")), Refusal::NoChoices));
    let nothing = refused(completion("", "y"));
    assert!(matches!(nothing, Refusal::NothingToLearn), "{nothing}");
    let several = among(&["y", "y n"]).unwrap_err().to_string();
    assert!(
        several.contains("\"y n\" is 2 tokens of the model's"),
        "{several}"
    );
    let twice = among(&["y", "y"]).unwrap_err().to_string();
    assert!(twice.contains("the same token as another"), "{twice}");
}

#[test]
fn choices_share_one_prompt_and_label_their_own_tokens() {
    let choices = [" yes".to_owned(), " maybe".to_owned(), " no".to_owned()];
    let record = completion(&"word ".repeat(50), " no");
    let made = encoder(40).choices(3, &record, &choices).unwrap();
    assert_eq!(made.answer, Some(2));
    let said: Vec<String> = made.rows.iter().map(learned).collect();
    assert_eq!(said, choices);
    let prompts: Vec<_> = made
        .rows
        .iter()
        .map(|row| &row.tokens[..row.tokens.len() - row.targets()])
        .collect();
    assert!(prompts.windows(2).all(|pair| pair[0] == pair[1]));
    assert!(
        made.rows
            .iter()
            .all(|row| row.tokens.len() <= 40 && row.record == 3)
    );

    let made = labels().choices(0, &label("a", "1"), &choices).unwrap();
    assert_eq!(made.answer, Some(0));
    assert!(matches!(
        encoder(40).choices(0, &text("a"), &choices),
        Err(Refusal::NoChoices)
    ));
}

#[test]
fn a_sequence_of_one_token_is_refused() {
    let made = Encoder::new(fixture::tokenizer(), EncodeOptions::new(1));
    assert!(matches!(
        made,
        Err(Refusal::SequenceTooShort { sequence_length: 1 })
    ));
}

#[test]
fn a_preview_shows_what_carries_loss() {
    let encoder = encoder(16);
    let row = encoder.row(0, &completion("ab", " yes")).unwrap();
    let preview = encoder.preview(&row).unwrap();
    assert_eq!(preview.text, "ab yes<|im_end|>");
    assert_eq!(
        preview.to_string(),
        "a|b[ yes|<|im_end|>]\n4 tokens, 2 carry loss"
    );
    assert!(!format!("{preview:?}").contains("yes"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn truncation_never_eats_the_answer(
        prompt in "[a-z \\n😀]{0,60}",
        answer in "[a-zé ]{1,20}",
        sequence_length in 2usize..40,
        keep_end in 0usize..20,
        front: bool,
        all: bool,
        bos: bool,
    ) {
        let tokenizer = if bos { fixture::tokenizer_with_bos() } else { fixture::tokenizer() };
        let truncate = if front { Truncate::Front } else { Truncate::Middle { keep_end } };
        let loss_on = if all { LossOn::All } else { LossOn::Completion };
        let options = EncodeOptions { sequence_length, truncate, loss_on, verbalizer: None, labels: Vec::new(), among: Vec::new() };
        let expected = [tokenizer.encode(&answer).unwrap(), vec![tokenizer.eos()]].concat();
        match Encoder::new(tokenizer, options).unwrap().row(0, &completion(&prompt, &answer)) {
            Ok(row) => {
                prop_assert!(row.tokens.len() <= sequence_length);
                prop_assert_eq!(row.tokens.len(), row.labelled.len());
                prop_assert!(row.tokens.ends_with(&expected));
                let targets = row.labelled.len() - expected.len().min(row.labelled.len() - 1);
                prop_assert!(row.labelled[targets..].iter().all(|label| *label));
                if !all {
                    prop_assert!(row.targets() <= expected.len());
                }
            }
            Err(Refusal::AnswerTooLong { answer, .. }) => {
                prop_assert_eq!(answer, expected.len());
                prop_assert!(answer + usize::from(bos || !prompt.is_empty()) > sequence_length);
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}
