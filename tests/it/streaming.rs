//! Files of records larger than the memory there is: they are streamed, and never read into it.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output};

/// What the process may use, in KiB: what the tiny model's training takes anyway, and a part of any file below.
const LIMIT_KIB: u64 = 160_000;

/// One step on these records, in a process that may use so much memory.
fn train(folder: &Path, data: &Path) -> Output {
    let model = folder.join("model");
    if !model.exists() {
        testkit::model::tiny(&model, 1).unwrap();
    }
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -d {LIMIT_KIB}; exec \"$0\" \"$@\"")])
        .arg(tests::fleet::binary())
        .arg("train")
        .arg("--model")
        .arg(model)
        .arg("--data")
        .arg(data)
        .arg("--out")
        .arg(folder.join("out"))
        .args(["--steps", "2", "--batch", "4", "--threads", "1"])
        .args(["--sequence-length", "64", "--order", "file"]);
    command.output().unwrap()
}

fn record(number: usize, bytes: usize) -> String {
    let padding = "word ".repeat(bytes / 5);
    format!("{{\"prompt\":\"mail {number} {padding}\",\"completion\":\" yes\"}}\n")
}

fn good(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// Records, a hole of so many bytes that is one line without an end, and records again.
fn with_hole(path: &Path, bytes: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(record(0, 20).as_bytes()).unwrap();
    let end = file.seek(SeekFrom::Current(bytes.cast_signed())).unwrap();
    assert!(end > bytes);
    file.write_all(b"\n").unwrap();
    for number in 1..8 {
        file.write_all(record(number, 20).as_bytes()).unwrap();
    }
}

#[test]
fn a_file_of_records_larger_than_memory_is_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("train.jsonl");
    let mut file = BufWriter::new(File::create(&data).unwrap());
    let (records, each) = (64_000, 4000);
    for number in 0..records {
        file.write_all(record(number, each).as_bytes()).unwrap();
    }
    file.flush().unwrap();
    drop(file);
    let bytes = fs::metadata(&data).unwrap().len();
    assert!(bytes > LIMIT_KIB * 1024 * 3 / 2, "{bytes}");
    good(&train(folder.path(), &data));
    // A line that breaks off at the end, as of a file that is still being written, is counted and hinders nobody.
    let mut file = OpenOptions::new().append(true).open(&data).unwrap();
    file.write_all(b"{\"prompt\":\"").unwrap();
    drop(file);
    let said = good(&train(folder.path(), &data));
    assert!(said.contains("bad_json 1"), "{said}");
}

#[test]
fn a_line_larger_than_memory_is_passed_over_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("train.jsonl");
    with_hole(&data, 1 << 30);
    let said = good(&train(folder.path(), &data));
    assert!(said.contains("too_long 1 (line 2)"), "{said}");
}

/// 10 GiB, read once from end to end.
#[test]
#[ignore = "reads 10 GiB"]
fn a_file_of_ten_gigabytes_is_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("train.jsonl");
    with_hole(&data, 10 << 30);
    let said = good(&train(folder.path(), &data));
    assert!(said.contains("too_long 1 (line 2)"), "{said}");
}
