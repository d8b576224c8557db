//! Reference values come from `tests/reference/tokens.py`.

use std::fs::File;

use candle_core::quantized::gguf_file::{Content, Value};
use proptest::prelude::*;
use serde::Deserialize;

use super::{ChatTemplate, Error, Message, Tokenizer, fixture};

#[derive(Deserialize)]
struct Reference {
    eos: u32,
    bos: u32,
    pad: u32,
    vocabulary: usize,
    chat_template: String,
    texts: Vec<Text>,
    chats: Vec<Chat>,
    templates: Vec<Template>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    ids_with_special: Vec<u32>,
    plain: String,
}

#[derive(Deserialize)]
struct Chat {
    messages: Vec<Message>,
    add_generation_prompt: bool,
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Template {
    source: String,
    messages: Vec<Message>,
    text: String,
}

fn reference() -> Reference {
    let json = include_str!("../../tests/reference/smollm2_tokens.json");
    serde_json::from_str(json).unwrap()
}

/// SmolLM2's GGUF.
fn smollm2() -> Option<Tokenizer> {
    let path = testkit::model::real("FEDPIPE_SMOLLM2")?;
    let content = Content::read(&mut File::open(path).unwrap()).unwrap();
    Some(Tokenizer::from_gguf(&content).unwrap())
}

#[test]
fn smollm2_token_ids_equal_the_reference() {
    let Some(tokenizer) = smollm2() else { return };
    let reference = reference();
    for Text {
        text,
        ids,
        ids_with_special,
        plain,
    } in &reference.texts
    {
        assert_eq!(&tokenizer.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(
            &tokenizer.encode_with_special(text).unwrap(),
            ids_with_special,
            "{text:?}"
        );
        assert_eq!(&tokenizer.decode(ids).unwrap(), text);
        assert_eq!(&tokenizer.decode_plain(ids).unwrap(), plain);
        let located = tokenizer.encode_located(text).unwrap();
        assert!(located.iter().map(|token| &token.id).eq(ids), "{text:?}");
    }
    for Chat { text, ids, .. } in &reference.chats {
        assert_eq!(&tokenizer.encode(text).unwrap(), ids, "{text:?}");
    }
}

#[test]
fn smollm2_special_tokens_equal_the_reference() {
    let Some(tokenizer) = smollm2() else { return };
    let reference = reference();
    assert_eq!(tokenizer.eos(), reference.eos);
    assert_eq!(tokenizer.bos(), Some(reference.bos));
    assert_eq!(tokenizer.pad(), reference.pad);
    assert_eq!(tokenizer.vocabulary_size(), reference.vocabulary);
    let template = tokenizer.chat_template().unwrap();
    for Chat {
        messages,
        add_generation_prompt,
        text,
        ..
    } in &reference.chats
    {
        assert_eq!(
            &template.render(messages, *add_generation_prompt).unwrap(),
            text
        );
    }
}

#[test]
fn chat_template_renders_as_transformers_does() {
    let reference = reference();
    let bos = || Some("<|im_start|>".to_owned());
    let eos = || Some("<|im_end|>".to_owned());
    let template = ChatTemplate::new(&reference.chat_template, bos(), eos()).unwrap();
    for Chat {
        messages,
        add_generation_prompt,
        text,
        ..
    } in &reference.chats
    {
        assert_eq!(
            &template.render(messages, *add_generation_prompt).unwrap(),
            text
        );
    }
    for Template {
        source,
        messages,
        text,
    } in &reference.templates
    {
        let template = ChatTemplate::new(source, bos(), eos()).unwrap();
        assert_eq!(&template.render(messages, true).unwrap(), text, "{source}");
    }
}

#[test]
fn a_template_may_refuse_and_cannot_run_for_ever() {
    let refusing = "{{ raise_exception('roles must alternate') }}";
    let endless =
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
    for source in [refusing, endless] {
        let template = ChatTemplate::new(source, None, None).unwrap();
        let rendered = template.render(&[Message::new("user", "hi")], true);
        assert!(
            matches!(
                rendered,
                Err(Error::Turn {
                    turn: 1,
                    turns: 1,
                    ..
                })
            ),
            "{source}"
        );
    }
    let at_the_third = "{% for m in messages %}{% if m.role == 'robot' %}{{ raise_exception('no') }}{% endif %}{% endfor %}";
    let template = ChatTemplate::new(at_the_third, None, None).unwrap();
    let turns = ["user", "assistant", "robot", "assistant"].map(|role| Message::new(role, "hi"));
    let said = template.render(&turns, false).unwrap_err().to_string();
    assert_eq!(said, "the chat template refuses turn 3 of 4");
    let prompting = "{% if add_generation_prompt %}{{ raise_exception('no') }}{% endif %}";
    let template = ChatTemplate::new(prompting, None, None).unwrap();
    assert!(matches!(
        template.render(&turns, true),
        Err(Error::Render(_))
    ));
    let malformed = ChatTemplate::new("{% for %}", None, None);
    assert!(matches!(malformed, Err(Error::Template(_))));
}

#[test]
fn gguf_and_folder_give_the_same_tokenizer() {
    let folder = fixture::tokenizer();
    let gguf = Tokenizer::from_gguf(&fixture::gguf()).unwrap();
    for text in [
        "say yes or no",
        "  12 a  7",
        "<|im_start|>x<|im_end|>",
        "ü 😀\n\n",
    ] {
        let ids = folder.encode(text).unwrap();
        assert_eq!(gguf.encode(text).unwrap(), ids);
        assert_eq!(gguf.decode(&ids).unwrap(), text);
        assert_eq!(folder.decode(&ids).unwrap(), text);
    }
    for tokenizer in [folder, gguf] {
        assert_eq!(
            (tokenizer.bos(), tokenizer.eos(), tokenizer.pad()),
            (Some(1), 2, 2)
        );
        assert!(tokenizer.is_end(2) && !tokenizer.is_end(1));
        assert!(tokenizer.chat_template().is_ok());
    }
}

#[test]
fn no_space_appears_before_the_first_word() {
    let tokenizer = Tokenizer::from_gguf(&fixture::gguf()).unwrap();
    assert_ne!(
        tokenizer.encode("yes").unwrap(),
        tokenizer.encode(" yes").unwrap()
    );
    assert_eq!(tokenizer.encode(" yes").unwrap().len(), 1);
}

#[test]
fn truncation_and_padding_in_tokenizer_json_do_not_apply() {
    let ids = fixture::tokenizer().encode("abcdefgh").unwrap();
    assert_eq!(ids.len(), 8);
}

#[test]
fn every_end_named_by_the_generation_config_stops_generation() {
    let tokenizer = fixture::tokenizer();
    assert!(tokenizer.is_end(0) && tokenizer.is_end(2) && !tokenizer.is_end(3));
}

#[test]
fn gguf_bos_and_eos_surround_a_text_when_the_file_says_so() {
    let mut content = fixture::gguf();
    for key in [
        "tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.add_eos_token",
    ] {
        content.metadata.insert(key.to_owned(), Value::Bool(true));
    }
    let tokenizer = Tokenizer::from_gguf(&content).unwrap();
    let plain = tokenizer.encode("a").unwrap();
    assert_eq!(
        tokenizer.encode_with_special("a").unwrap(),
        [&[1][..], &plain, &[2]].concat()
    );
}

#[test]
fn an_unknown_pre_tokenizer_is_an_error_not_a_guess() {
    let mut content = fixture::gguf();
    let key = "tokenizer.ggml.pre".to_owned();
    content
        .metadata
        .insert(key, Value::String("tekken".to_owned()));
    match Tokenizer::from_gguf(&content) {
        Err(Error::Unsupported { key, value }) => {
            assert_eq!((key, value.as_str()), ("tokenizer.ggml.pre", "tekken"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn missing_metadata_is_named() {
    for key in [
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.pre",
    ] {
        let mut content = fixture::gguf();
        content.metadata.remove(key);
        match Tokenizer::from_gguf(&content) {
            Err(Error::Metadata { key: named }) => assert_eq!(named, key),
            other => panic!("{other:?}"),
        }
    }
    let mut content = fixture::gguf();
    content.metadata.remove("tokenizer.ggml.eos_token_id");
    assert!(matches!(
        Tokenizer::from_gguf(&content),
        Err(Error::NoEndToken)
    ));
    content.metadata.insert(
        "tokenizer.ggml.eos_token_id".to_owned(),
        Value::U32(1 << 30),
    );
    assert!(matches!(
        Tokenizer::from_gguf(&content),
        Err(Error::NoEndToken)
    ));
}

#[test]
fn folder_errors_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        Tokenizer::from_folder(folder.path()),
        Err(Error::Read { .. })
    ));
    fixture::write_folder(folder.path());
    std::fs::write(folder.path().join("tokenizer_config.json"), "{").unwrap();
    match Tokenizer::from_folder(folder.path()) {
        Err(Error::Malformed { what, .. }) => assert_eq!(what, "tokenizer_config.json"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_template_file_wins_over_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write_folder(folder.path());
    std::fs::write(
        folder.path().join("chat_template.jinja"),
        "{{ eos_token }}!",
    )
    .unwrap();
    let template = Tokenizer::from_folder(folder.path())
        .unwrap()
        .chat_template();
    assert_eq!(template.unwrap().render(&[], false).unwrap(), "<|im_end|>!");
}

#[test]
fn an_id_outside_the_vocabulary_is_an_error() {
    let tokenizer = fixture::tokenizer();
    let size = u32::try_from(tokenizer.vocabulary_size()).unwrap();
    assert!(tokenizer.decode(&[size - 1]).is_ok());
    for ids in [vec![3, size], vec![u32::MAX]] {
        for text in [tokenizer.decode(&ids), tokenizer.decode_plain(&ids)] {
            assert!(matches!(text, Err(Error::UnknownToken { .. })));
        }
    }
    let mut stream = tokenizer.stream();
    assert!(matches!(stream.push(size), Err(Error::UnknownToken { .. })));
    assert!(stream.push(size - 1).unwrap().is_some());
}

#[test]
fn a_stream_never_shows_half_a_character() {
    let tokenizer = fixture::tokenizer();
    let mut stream = tokenizer.stream();
    let ids = tokenizer.encode("a😀b").unwrap();
    let pieces: Vec<_> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(pieces, [some("a"), None, None, None, some("😀"), some("b")]);
}

#[test]
fn a_stream_that_ends_within_a_character_says_so() {
    let tokenizer = fixture::tokenizer();
    let ids = tokenizer.encode("😀").unwrap();
    let mut stream = tokenizer.stream();
    assert_eq!(stream.push(ids[0]).unwrap(), None);
    assert_eq!(stream.finish().unwrap(), "\u{fffd}");
}

#[test]
fn replacement_characters_in_a_text_do_not_split_the_character_after_them() {
    let tokenizer = fixture::tokenizer();
    let mut stream = tokenizer.stream();
    let mut streamed = String::new();
    for id in tokenizer.encode("\u{fffd}\u{fffd}₠").unwrap() {
        streamed.extend(stream.push(id).unwrap());
    }
    streamed.push_str(&stream.finish().unwrap());
    assert_eq!(streamed, "\u{fffd}\u{fffd}₠");
}

#[test]
fn a_message_does_not_print_what_was_said() {
    let shown = format!("{:?}", Message::new("user", "my secret"));
    assert!(!shown.contains("secret"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_survives_encoding_and_streaming(text in "\\PC{0,40}[\\s\\d<|😀é]{0,8}") {
        let tokenizer = fixture::tokenizer();
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(&tokenizer.decode(&ids).unwrap(), &text);
        let mut stream = tokenizer.stream();
        let mut streamed = String::new();
        for id in &ids {
            streamed.extend(stream.push(*id).unwrap());
        }
        streamed.push_str(&stream.finish().unwrap());
        prop_assert_eq!(streamed, tokenizer.decode_plain(&ids).unwrap());
    }
}
