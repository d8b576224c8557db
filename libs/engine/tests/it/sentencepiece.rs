//! SentencePiece's vocabularies: from a folder as transformers reads it, from GGUF as llama.cpp does, and from one to
//! the other. Vocabularies and ids by `tests/reference/make_sentencepiece.py`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Content, Value};
use engine::export::{Error, Exported, Format, Precision, Request, export};
use engine::text::{Error as TextError, Tokenizer};
use safetensors::tensor::{SafeTensors, TensorView};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::support::{control, read, reference};

/// More than each vocabulary has.
const ROWS: usize = 540;

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    ids_with_special: Vec<u32>,
    /// Of the ids, special tokens spelled out, and without them.
    decoded: String,
    plain: String,
}

fn texts(name: &str) -> Vec<Text> {
    let mut all: BTreeMap<String, Vec<Text>> = read("sentencepiece/values.json");
    all.remove(name).unwrap()
}

fn folder(name: &str) -> Tokenizer {
    Tokenizer::from_folder(&reference("sentencepiece").join(name)).unwrap()
}

fn content(path: &Path) -> Content {
    Content::read(&mut File::open(path).unwrap()).unwrap()
}

fn metadata(name: &str) -> Content {
    content(&reference("sentencepiece").join(format!("{name}.gguf")))
}

#[track_caller]
fn check(tokenizer: &Tokenizer, texts: &[Text]) {
    assert!(texts.len() > 20);
    for want in texts {
        let text = &want.text;
        assert_eq!(tokenizer.encode(text).unwrap(), want.ids, "{text:?}");
        let around = tokenizer.encode_with_special(text).unwrap();
        assert_eq!(around, want.ids_with_special, "{text:?}");
        assert_eq!(tokenizer.decode(&want.ids).unwrap(), want.decoded);
        assert_eq!(tokenizer.decode_plain(&want.ids).unwrap(), want.plain);
    }
}

#[test]
fn folders_give_the_ids_and_texts_of_transformers() {
    for name in ["llama2", "mistral", "gemma", "unigram"] {
        check(&folder(name), &texts(name));
    }
    let specials = |name| {
        (
            folder(name).bos(),
            folder(name).eos(),
            folder(name).first().unwrap(),
        )
    };
    assert_eq!(specials("llama2"), (Some(1), 2, Some(1)));
    assert_eq!(specials("gemma"), (Some(2), 1, Some(2)));
}

/// Merges that are made of the scores join what the folder's own merges join, bytes and special tokens included.
#[test]
fn gguf_gives_the_ids_of_the_folder_that_it_was_made_of() {
    for name in ["llama2", "gemma"] {
        let tokenizer = Tokenizer::from_gguf(&metadata(name)).unwrap();
        check(&tokenizer, &texts(name));
        let own = folder(name);
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (own.bos(), own.eos()));
        assert_eq!(tokenizer.vocabulary_size(), own.vocabulary_size());
    }
}

#[test]
fn texts_come_out_of_a_stream_as_they_are_decoded_at_once() {
    for name in ["llama2", "mistral", "gemma", "unigram"] {
        let tokenizer = folder(name);
        for Text {
            ids, plain, text, ..
        } in texts(name)
        {
            let mut stream = tokenizer.stream();
            let mut streamed = String::new();
            for id in &ids {
                streamed.extend(stream.push(*id).unwrap());
            }
            streamed.push_str(&stream.finish().unwrap());
            assert_eq!(streamed, plain, "{name} {text:?}");
        }
    }
}

/// The bytes of characters in a row are decoded together: the second must not make the first unreadable.
#[test]
fn a_stream_gives_each_of_several_characters_that_are_spelled_in_bytes() {
    let tokenizer = folder("gemma");
    let ids = tokenizer.encode("😀👍é!").unwrap();
    let mut stream = tokenizer.stream();
    let pieces: Vec<_> = ids
        .iter()
        .filter_map(|id| stream.push(*id).unwrap())
        .collect();
    assert_eq!(pieces, ["😀", "👍", "é", "!"]);
}

/// A special token has no text, and what follows it is not the beginning, whose blank is not the text's.
#[test]
fn a_stream_keeps_the_blank_behind_a_special_token() {
    let tokenizer = folder("llama2");
    let hello = tokenizer.encode("hello").unwrap();
    let ids = [&hello[..], &[2], &hello[..], &hello[..]].concat();
    let mut stream = tokenizer.stream();
    let pieces: Vec<_> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        pieces,
        [some("hello"), None, some(" hello"), some(" hello")]
    );
    assert_eq!(tokenizer.decode_plain(&ids).unwrap(), "hello hello hello");
}

#[test]
fn what_a_file_says_goes_before_what_llama_cpp_takes_as_given() {
    let of = |changes: &[(&str, Value)]| {
        let mut content = metadata("llama2");
        for (key, value) in changes {
            let key = format!("tokenizer.ggml.{key}");
            content.metadata.insert(key, value.clone());
        }
        Tokenizer::from_gguf(&content).unwrap()
    };
    let given = of(&[]);
    let hello = given.encode("hello").unwrap();
    assert_eq!(hello.len(), 1);
    let around = |tokenizer: &Tokenizer| tokenizer.encode_with_special("hello").unwrap();
    assert_eq!(around(&given), [&[1], &hello[..]].concat());
    let other = of(&[
        ("add_bos_token", Value::Bool(false)),
        ("add_eos_token", Value::Bool(true)),
    ]);
    assert_eq!(around(&other), [&hello[..], &[2]].concat());
    let bare = of(&[("add_space_prefix", Value::Bool(false))]);
    assert_eq!(bare.encode(" hello").unwrap(), hello);
    assert_eq!(bare.decode(&hello).unwrap(), " hello");

    let mut content = metadata("llama2");
    for key in ["bos_token_id", "eos_token_id", "unknown_token_id"] {
        let key = format!("tokenizer.ggml.{key}");
        assert!(content.metadata.remove(&key).is_some());
    }
    let silent = Tokenizer::from_gguf(&content).unwrap();
    assert_eq!((silent.bos(), silent.eos()), (Some(1), 2));
}

#[test]
fn a_file_without_a_score_for_every_token_is_refused() {
    let refused = |content: &Content| match Tokenizer::from_gguf(content) {
        Err(TextError::Metadata { key }) => assert_eq!(key, "tokenizer.ggml.scores"),
        other => panic!("{other:?}"),
    };
    let mut content = metadata("llama2");
    let scores = content.metadata.get_mut("tokenizer.ggml.scores").unwrap();
    let Value::Array(scores) = scores else {
        panic!("no list");
    };
    scores.pop();
    refused(&content);
    content.metadata.remove("tokenizer.ggml.scores");
    refused(&content);
    let mut content = metadata("llama2");
    let other = Value::String("t5".to_owned());
    content
        .metadata
        .insert("tokenizer.ggml.model".to_owned(), other);
    match Tokenizer::from_gguf(&content) {
        Err(TextError::Unsupported { value, .. }) => assert_eq!(value, "t5"),
        other => panic!("{other:?}"),
    }
}

/// The tiny model with as many rows as the vocabulary needs, and the folder's tokenizer beside it.
fn model(name: &str, into: &Path) {
    let tiny = reference("tiny");
    let mut config: Json =
        serde_json::from_slice(&fs::read(tiny.join("config.json")).unwrap()).unwrap();
    for (key, value) in [
        ("vocab_size", ROWS),
        ("bos_token_id", 1),
        ("eos_token_id", 2),
    ] {
        config[key] = json!(value);
    }
    if name == "gemma" {
        config["bos_token_id"] = json!(2);
        config["eos_token_id"] = json!(1);
    }
    fs::write(into.join("config.json"), config.to_string()).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let from = reference("sentencepiece").join(name).join(file);
        fs::copy(from, into.join(file)).unwrap();
    }
    let data = fs::read(tiny.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&data).unwrap();
    let tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let mut shape = view.shape().to_vec();
            let mut bytes = view.data().to_vec();
            if name == "model.embed_tokens.weight" || name == "lm_head.weight" {
                let row = bytes.len() / shape[0];
                bytes = bytes.iter().copied().cycle().take(row * ROWS).collect();
                shape[0] = ROWS;
            }
            (name, shape, bytes, view.dtype())
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes, kind)| {
        (name, TensorView::new(*kind, shape.clone(), bytes).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(into.join("model.safetensors"), bytes).unwrap();
}

struct Case {
    place: tempfile::TempDir,
}

impl Case {
    fn new(name: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("model")).unwrap();
        model(name, &place.path().join("model"));
        Self { place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn export(&self, from: &str, format: Format, out: &str) -> Result<Exported, Error> {
        let request = Request {
            adapter: &reference("tiny-adapter"),
            model: &self.path(from),
            format,
            precision: Precision::F32,
            output: &self.path(out),
            replace: false,
            name: "tiny",
            labels: &[],
            threads: NonZeroUsize::new(2).unwrap(),
        };
        export(request, &control())
    }
}

/// From a folder to GGUF and on to a folder again, whose tokenizer.json is made of the scores.
#[test]
fn a_vocabulary_goes_to_gguf_and_back_with_every_id() {
    for name in ["llama2", "gemma"] {
        let case = Case::new(name);
        let exported = case.export("model", Format::Gguf, "gguf").unwrap();
        assert_eq!(exported.tokenizer_differs, None, "{name}");
        let about = content(&case.path("gguf/model.gguf"));
        let said = |key: &str| &about.metadata[&format!("tokenizer.ggml.{key}")];
        assert_eq!(said("model").to_string().unwrap(), "llama");
        for key in ["tokens", "scores", "token_type"] {
            assert_eq!(said(key).to_vec().unwrap().len(), ROWS, "{key}");
        }
        let in_front = said("add_space_prefix").to_bool().unwrap();
        assert_eq!(in_front, name == "llama2");
        let Value::Array(kinds) = said("token_type") else {
            panic!("no list");
        };
        let of_kind = |kind: i32| kinds.iter().filter(|k| k.to_i32().unwrap() == kind).count();
        // Unknown, control, user-defined, unused, bytes; a tab of gemma's is its own.
        let counted = [2, 3, 4, 5, 6].map(of_kind);
        let vocabulary = folder(name).vocabulary_size();
        let want = match name {
            "llama2" => [1, 2, 0, ROWS - vocabulary, 256],
            _ => [1, 5, 15, ROWS - vocabulary, 255],
        };
        assert_eq!(counted, want, "{name}");
        check(&Tokenizer::from_gguf(&about).unwrap(), &texts(name));

        let exported = case.export("gguf", Format::Merged, "again").unwrap();
        assert_eq!(exported.tokenizer_differs, None, "{name}");
        let again = Tokenizer::from_folder(&case.path("again")).unwrap();
        check(&again, &texts(name));
        assert_eq!(again.eos(), folder(name).eos());
    }
}

/// Gemma 3 has a token for images behind the last row of its text models, and llama.cpp's converter leaves it out.
#[test]
fn an_added_token_that_the_model_has_no_row_for_is_left_out() {
    let case = Case::new("llama2");
    let path = case.path("model/tokenizer.json");
    let mut file: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let added = file["added_tokens"].as_array_mut().unwrap();
    let mut image = added[0].clone();
    image["id"] = json!(ROWS);
    image["content"] = json!("<image>");
    added.push(image);
    // Ids have no gaps in such a file.
    let vocabulary = file["model"]["vocab"].as_object_mut().unwrap();
    for id in vocabulary.len()..ROWS {
        vocabulary.insert(format!("<unused{id}>"), json!(id));
    }
    fs::write(&path, file.to_string()).unwrap();
    let exported = case.export("model", Format::Gguf, "gguf").unwrap();
    assert!(exported.tokenizer_differs.is_some());
    let read = Tokenizer::from_gguf(&content(&case.path("gguf/model.gguf"))).unwrap();
    assert_eq!(read.vocabulary_size(), ROWS);
    assert!(read.encode("an <image>").unwrap().len() > 3);
}

/// The scores that llama.cpp's converter takes from SentencePiece's own file order the pieces as ours do.
#[test]
fn scores_that_are_made_of_merges_order_pieces_as_sentencepiece_does() {
    let case = Case::new("llama2");
    case.export("model", Format::Gguf, "gguf").unwrap();
    let order = |content: &Content| {
        let list = |key: &str| {
            let list = &content.metadata[&format!("tokenizer.ggml.{key}")];
            list.to_vec().unwrap().clone()
        };
        let pieces = list("tokens").into_iter().zip(list("scores"));
        let pieces = pieces
            .skip(259)
            .map(|(piece, score)| (piece.to_string().unwrap().clone(), score.to_f32().unwrap()));
        // Characters are made of nothing, and runs of blanks share a score: their order says nothing.
        let mut pieces: Vec<_> = pieces
            .filter(|(piece, _)| piece.trim_matches('▁').chars().count() > 0)
            .filter(|(piece, _)| piece.chars().count() > 1 && !piece.starts_with("[PAD"))
            .collect();
        pieces.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        pieces
            .into_iter()
            .map(|(piece, _)| piece)
            .collect::<Vec<_>>()
    };
    let ours = order(&content(&case.path("gguf/model.gguf")));
    assert!(ours.len() > 100);
    assert_eq!(ours, order(&metadata("llama2")));
}

/// Readers of GGUF put a blank in front of every text; where the model's own does not, whoever exports is told.
#[test]
fn what_gguf_cannot_say_of_blanks_is_told() {
    let case = Case::new("mistral");
    let exported = case.export("model", Format::Gguf, "gguf").unwrap();
    let told = exported.tokenizer_differs.unwrap();
    assert!(told.contains("blank") && told.contains("special"), "{told}");
    let read = Tokenizer::from_gguf(&content(&case.path("gguf/model.gguf"))).unwrap();
    let ordinary = |text: &str| !text.starts_with([' ', '▁']) && !text.contains("<s>");
    let mut alike = 0;
    for Text { text, ids, .. } in texts("mistral") {
        if ordinary(&text) && !text.contains("</s>") {
            assert_eq!(read.encode(&text).unwrap(), ids, "{text:?}");
            alike += 1;
        }
    }
    assert!(alike > 15);
    let hello = |tokenizer: &Tokenizer| tokenizer.encode("[INST]hello").unwrap().len();
    assert_ne!(hello(&read), hello(&folder("mistral")));
}

#[test]
fn what_has_no_scores_in_gguf_is_refused_and_leaves_nothing() {
    let unigram = Case::new("unigram");
    // One way less to make a piece: a reader of scores would go it all the same.
    let lacking = Case::new("llama2");
    let path = lacking.path("model/tokenizer.json");
    let mut file: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let merges = file["model"]["merges"].as_array_mut().unwrap();
    let made = |merge: &Json| {
        format!(
            "{}{}",
            merge[0].as_str().unwrap(),
            merge[1].as_str().unwrap()
        )
    };
    let twice = (1..merges.len()).find(|place| made(&merges[*place]) == made(&merges[place - 1]));
    merges.remove(twice.unwrap());
    fs::write(&path, file.to_string()).unwrap();
    // A byte that nothing spells.
    let mute = Case::new("llama2");
    let path = mute.path("model/tokenizer.json");
    let file = fs::read_to_string(&path).unwrap();
    fs::write(&path, file.replace("<0xFE>", "<an FE>")).unwrap();
    for (case, why) in [
        (
            unigram,
            "only byte-level BPE and SentencePiece's BPE are written",
        ),
        (lacking, "no scores say the order of its merges"),
        (mute, "it has no token for some bytes"),
    ] {
        match case.export("model", Format::Gguf, "out") {
            Err(Error::Tokenizer(error)) => assert!(error.to_string().contains(why), "{error}"),
            other => panic!("{other:?}"),
        }
        assert!(!case.path("out").exists());
        let exported = case.export("model", Format::Merged, "merged").unwrap();
        assert_eq!(exported.tokenizer_differs, None);
    }
}
