use std::io::Write;

use super::*;
use crate::data::{Error, OpenOptions, Reason, Shape, is_held_out};
use crate::text::{Message, Tools};

fn all(dataset: &Dataset) -> Vec<Record> {
    dataset.records().map(Result::unwrap).collect()
}

#[test]
fn each_shape_is_found_by_its_first_readable_line() {
    let cases = [
        (r#"{"text":"a"}"#, Shape::Text, text("a")),
        (
            r#"{"prompt":"p","completion":"c","id":7}"#,
            Shape::Completion,
            completion("p", "c"),
        ),
        (
            r#"{"text":"a","label":1}"#,
            Shape::Label,
            Record::Label {
                text: "a".to_owned(),
                label: "1".to_owned(),
            },
        ),
        (
            r#"{"messages":[{"role":"assistant","content":"c"}]}"#,
            Shape::Messages,
            Record::Messages {
                messages: vec![Message::new("assistant", "c")],
                tools: Tools::default(),
            },
        ),
    ];
    for (line, shape, record) in cases {
        let dataset = open("a.jsonl", format!("not json\n{line}\n"));
        assert_eq!(dataset.shape(), shape);
        assert_eq!(all(&dataset), [record]);
        assert_eq!(dataset.skipped().total(), 1);
    }
}

#[test]
fn json_lines_need_no_extension_and_other_text_is_plain() {
    assert_eq!(open("data", "\n{\"text\":\"a\"}").shape(), Shape::Text);
    assert_eq!(open("data", "once upon a time").shape(), Shape::Plain);
    assert_eq!(open("a.txt", "{\"text\":\"a\"}").shape(), Shape::Plain);
}

#[test]
fn unreadable_lines_are_counted_by_reason_with_their_numbers() {
    let mut file: Vec<u8> = Vec::new();
    let lines: [&[u8]; 10] = [
        br#"{"prompt":"1","completion":"a"}"#,
        br#"{"prompt":"2","comple"#,
        b"",
        br#"{"prompt":2,"completion":"a"}"#,
        b"{\"prompt\":\"\xff\",\"completion\":\"a\"}",
        br#"{"text":"another shape"}"#,
        br#"{"prompt":"p","completion":""}"#,
        br#"["1","2"]"#,
        br#"{"prompt":"9","completion":"b"}"#,
        br#"{"prompt":"0123456789012345678901234567890123456789","completion":"a"}"#,
    ];
    for line in lines {
        file.write_all(line).unwrap();
        file.write_all(b"\n").unwrap();
    }
    let file = write("a.jsonl", file);
    let options = OpenOptions {
        format: Format::Auto,
        line_limit_bytes: 48,
    };
    let dataset = Dataset::open_with(&file.path, options, &mut |_| {}).unwrap();

    assert_eq!(all(&dataset), [completion("1", "a"), completion("9", "b")]);
    let skipped = dataset.skipped();
    let expected = [
        (Reason::BadJson, vec![2, 8]),
        (Reason::WrongShape, vec![4, 6]),
        (Reason::BadUtf8, vec![5]),
        (Reason::Empty, vec![3, 7]),
        (Reason::TooLong, vec![10]),
    ];
    for (reason, lines) in &expected {
        assert_eq!(skipped.first_lines(*reason), lines, "{reason:?}");
        assert_eq!(skipped.count(*reason), lines.len() as u64, "{reason:?}");
    }
    assert_eq!(skipped.total(), 8);
    let shown = "8 skipped: bad_json 2 (lines 2, 8), wrong_shape 2 (lines 4, 6), bad_utf8 1 (line 5), \
                 empty 2 (lines 3, 7), too_long 1 (line 10)";
    assert_eq!(skipped.to_string(), shown);
}

#[test]
fn only_the_first_few_line_numbers_are_kept() {
    let bad = "x\n".repeat(100);
    let dataset = open("a.jsonl", format!("{bad}{{\"text\":\"a\"}}\n"));
    assert_eq!(dataset.skipped().count(Reason::BadJson), 100);
    assert_eq!(
        dataset.skipped().first_lines(Reason::BadJson),
        [1, 2, 3, 4, 5]
    );
}

#[test]
fn a_line_of_exactly_the_limit_is_read() {
    let line = r#"{"text":"abc"}"#;
    let file = write("a.jsonl", format!("{line}\n{line} \n{line}"));
    let options = OpenOptions {
        format: Format::Auto,
        line_limit_bytes: line.len(),
    };
    let dataset = Dataset::open_with(&file.path, options, &mut |_| {}).unwrap();
    assert_eq!(
        (
            dataset.len(),
            dataset.skipped().first_lines(Reason::TooLong)
        ),
        (2, &[2][..])
    );
}

#[test]
fn byte_order_mark_and_windows_line_ends_are_understood() {
    let dataset = open(
        "a.jsonl",
        "\u{feff}{\"text\":\"a\"}\r\n{\"text\":\"b\"}\r\n",
    );
    assert_eq!(all(&dataset), [text("a"), text("b")]);
    assert_eq!(dataset.skipped().total(), 0);
}

#[test]
fn records_are_read_in_any_order_and_larger_than_the_buffer() {
    let long = "x".repeat(100_000);
    let dataset = open(
        "a.jsonl",
        format!("{{\"text\":\"a\"}}\n{{\"text\":\"{long}\"}}\n{{\"text\":\"c\"}}\n"),
    );
    assert_eq!(dataset.record(2).unwrap(), text("c"));
    assert_eq!(dataset.record(1).unwrap(), text(&long));
    assert_eq!(dataset.record(0).unwrap(), text("a"));
    assert!(matches!(
        dataset.record(3),
        Err(Error::NoSuchRecord {
            record: 3,
            records: 3
        })
    ));
}

#[test]
fn plain_text_becomes_pieces_of_whole_lines_that_join_to_the_file() {
    let lines: String = (0..400)
        .map(|n| format!("this is line number {n}\n"))
        .collect();
    let dataset = open("a.txt", &lines);
    assert!(dataset.len() > 2);
    let mut joined = String::new();
    for record in all(&dataset) {
        let Record::Text { text } = record else {
            panic!()
        };
        assert!(text.ends_with('\n') && text.len() < 2100);
        joined.push_str(&text);
    }
    assert_eq!(joined, lines);
}

#[test]
fn a_line_too_long_in_plain_text_costs_only_itself() {
    let file = write("a.txt", format!("before\n{}\nafter\n", "x".repeat(5000)));
    let options = OpenOptions {
        format: Format::Auto,
        line_limit_bytes: 3000,
    };
    let dataset = Dataset::open_with(&file.path, options, &mut |_| {}).unwrap();
    assert_eq!(all(&dataset), [text("before\n"), text("after\n")]);
    assert_eq!(dataset.skipped().first_lines(Reason::TooLong), [2]);
}

#[test]
fn a_file_that_is_no_lines_of_text_is_named_for_what_it_is() {
    let cases: [(&str, &[u8], &str); 5] = [
        ("a.jsonl", b"\x1f\x8b\x08", "a gzip file"),
        ("a.bin", b"PAR1", "a parquet file"),
        ("a.json", b" [{\"text\":\"a\"}]", "one JSON array"),
        ("a.csv", b"text,label\na,b\n", "a table"),
        ("a.txt", b"\xff\xfea\0", "text in UTF-16"),
    ];
    for (name, content, what) in cases {
        match Dataset::open(&write(name, content).path, Format::Auto) {
            Err(Error::Unsupported { found, .. }) => assert_eq!(found, what),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_file_without_records_is_an_error_that_says_why() {
    match Dataset::open(&write("a.jsonl", "x\n\n").path, Format::Auto) {
        Err(error @ Error::NoRecords { .. }) => {
            let said = error.to_string();
            assert!(
                said.contains("bad_json 1 (line 1)") && said.contains("empty 1"),
                "{said}"
            );
        }
        other => panic!("{other:?}"),
    }
    let missing = Dataset::open(&PathBuf::from("/nonexistent"), Format::Auto);
    assert!(matches!(missing, Err(Error::Read { .. })));
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        Dataset::open(folder.path(), Format::Auto),
        Err(Error::Read { .. })
    ));
}

#[test]
fn a_named_format_does_not_guess() {
    let file = write(
        "a.jsonl",
        "{\"text\":\"a\",\"label\":\"l\"}\n{\"text\":\"b\"}\n",
    );
    let auto = Dataset::open(&file.path, Format::Auto).unwrap();
    assert_eq!((auto.shape(), auto.len()), (Shape::Label, 1));
    let named = Dataset::open(&file.path, Format::Text).unwrap();
    assert_eq!((named.shape(), named.len()), (Shape::Text, 2));
}

#[test]
fn a_record_that_changed_under_us_is_an_error() {
    let file = write("a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"}\n");
    let dataset = Dataset::open(&file.path, Format::Auto).unwrap();
    std::fs::write(&file.path, "{\"text\":\"a\"}\n").unwrap();
    assert!(dataset.record(0).is_ok());
    assert!(matches!(
        dataset.record(1),
        Err(Error::Changed { record: 1 })
    ));
}

#[test]
fn classes_are_the_few_distinct_completions_in_their_own_order() {
    let line = |answer: &str| format!("{{\"prompt\":\"p\",\"completion\":\"{answer}\"}}\n");
    let dataset = open("a.jsonl", [" yes", " no", " yes"].map(line).concat());
    assert_eq!(dataset.classes().unwrap(), [" no", " yes"]);
    let of: Vec<_> = (0..3)
        .map(|record| dataset.class_of(record).unwrap())
        .collect();
    assert_eq!(of, [1, 0, 1]);

    let eight: Vec<String> = (0..8).map(|n| line(&n.to_string())).collect();
    assert_eq!(open("a.jsonl", eight.concat()).classes().unwrap().len(), 8);
    let nine: Vec<String> = (0..9).map(|n| line(&n.to_string())).collect();
    assert!(open("a.jsonl", nine.concat()).classes().is_none());
    assert!(open("a.jsonl", "{\"text\":\"a\"}").classes().is_none());
}

#[test]
fn labels_are_classes_up_to_as_many_as_a_job_may_have() {
    let line = |n: usize| format!("{{\"text\":\"t\",\"label\":\"l{n:02}\"}}\n");
    let with = |count: usize| open("a.jsonl", (0..count).rev().map(line).collect::<String>());
    let twenty = with(20);
    let names: Vec<String> = (0..20).map(|n| format!("l{n:02}")).collect();
    assert_eq!(twenty.classes().unwrap(), names);
    assert_eq!(
        (twenty.class_of(0), twenty.class_of(19)),
        (Some(19), Some(0))
    );
    assert_eq!(with(64).classes().unwrap().len(), 64);
    assert!(with(65).classes().is_none());
}

#[test]
fn the_held_out_part_is_stable_and_keeps_equal_records_together() {
    let line = |n: usize| format!("{{\"prompt\":\"{}\",\"completion\":\"c\"}}\n", n % 500);
    let lines: String = (0..1000).map(line).collect();
    let dataset = open("a.jsonl", &lines);
    let split = dataset.split(0.2).unwrap();
    assert_eq!(split.training.len() + split.held_out.len(), 1000);
    assert!(
        (150..250).contains(&split.held_out.len()),
        "{}",
        split.held_out.len()
    );
    for record in &split.held_out {
        assert!(split.held_out.contains(&((record + 500) % 1000)));
    }
    let larger = dataset.split(0.4).unwrap();
    assert!(
        split
            .held_out
            .iter()
            .all(|record| larger.held_out.contains(record))
    );
    let more = open(
        "a.jsonl",
        format!("{{\"prompt\":\"new\",\"completion\":\"c\"}}\n{lines}"),
    );
    let moved: Vec<usize> = split.held_out.iter().map(|record| record + 1).collect();
    let held: Vec<usize> = more.split(0.2).unwrap().held_out;
    assert!(held.iter().filter(|record| **record > 0).eq(&moved));
    assert!(dataset.split(0.0).unwrap().held_out.is_empty());
    assert!(dataset.split(1.0).unwrap().training.is_empty());
    // Frozen: a change of the rule would let held-out records leak into a later run's training.
    let first: Vec<bool> = (0..16)
        .map(|n| is_held_out(&text(&n.to_string()), 0.5))
        .collect();
    let frozen: Vec<bool> = HELD_OUT.iter().map(|held| *held == 1).collect();
    assert_eq!(first, frozen);
}

/// Of the texts "0" to "15" at one half; in Python:
/// `int.from_bytes(sha256(pack('<Q', len(t)) + t).digest()[:4], 'big') / 2**32 < 0.5`.
const HELD_OUT: [u8; 16] = [0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 1, 1, 0, 1, 0];

#[test]
fn progress_is_told_up_to_the_end_of_the_file() {
    let file = write("a.jsonl", "{\"text\":\"a\"}\n".repeat(10));
    let mut told = Vec::new();
    let dataset = Dataset::open_with(&file.path, OpenOptions::default(), &mut |bytes| {
        told.push(bytes)
    })
    .unwrap();
    assert_eq!(told, [130]);
    assert_eq!(dataset.bytes(), 130);
}

#[test]
fn a_record_does_not_print_its_text() {
    let shown = format!("{:?}", completion("my secret", "my answer"));
    assert_eq!(shown, "completion record of 18 bytes");
}

#[test]
fn a_record_knows_which_choice_it_is() {
    let choices = [" yes", " no"];
    let answer = |answer| completion("p", answer).choice(&choices);
    assert_eq!(
        [
            answer(" yes"),
            answer(" no"),
            answer("no\n"),
            answer(" maybe")
        ],
        [Some(0), Some(1), Some(1), None]
    );
    assert_eq!(completion("p", "a").choice(&[" a", "a "]), None);
    assert_eq!(text("yes").choice(&choices), None);
}
