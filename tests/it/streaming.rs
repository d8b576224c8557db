//! Files of records larger than the memory there is: they are streamed, and never read into it.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// What the process may use, in KiB: what the tiny model's training takes anyway, and a part of any file below.
const LIMIT_KIB: u64 = 160_000;

/// Two steps on these records in this order, in a process that may use so much memory.
fn train(folder: &Path, data: &Path, order: &str) -> Output {
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
        .args(["--sequence-length", "64", "--order", order]);
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
    good(&train(folder.path(), &data, "file"));
    // A line that breaks off at the end, as of a file that is still being written, is counted and hinders nobody.
    let mut file = OpenOptions::new().append(true).open(&data).unwrap();
    file.write_all(b"{\"prompt\":\"").unwrap();
    drop(file);
    let said = good(&train(folder.path(), &data, "shuffle"));
    assert!(said.contains("bad_json 1"), "{said}");
}

/// The bounds of docs/models.md: what is held of a record is where it begins, its class and its place in the order.
#[test]
fn a_record_takes_a_few_bytes_of_memory_however_it_is_drawn() {
    // Beyond a power of two, where what grows by doubling has the most to spare.
    let (few, many) = (1000, (1 << 18) + 1);
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    testkit::model::tiny(&model, 1).unwrap();
    let file = |count: usize| -> PathBuf {
        let path = folder.path().join(format!("{count}.jsonl"));
        let mut file = BufWriter::new(File::create(&path).unwrap());
        for number in 0..count {
            file.write_all(record(number, 20).as_bytes()).unwrap();
        }
        file.flush().unwrap();
        path
    };
    let files = [few, many].map(file);
    for (how, most) in [
        (["--order", "file"], 10),
        (["--order", "shuffle"], 10),
        (["--order", "balanced"], 16),
        (["--held-out-share", "0.005"], 32),
    ] {
        let [less, more] = files.each_ref().map(|data| -> u64 {
            let mut command = Command::new(tests::fleet::binary());
            command.args(["train", "--steps", "1", "--threads", "1", "--json"]);
            command.args(["--sequence-length", "64"]).args(how);
            command.arg("--model").arg(&model).arg("--data").arg(data);
            let output = command.arg("--out").arg(folder.path().join("out"));
            let output = output.output().unwrap();
            good(&output);
            let said: Value = serde_json::from_slice(&output.stdout).unwrap();
            said["peak_memory_bytes"].as_u64().unwrap()
        });
        let each = more.saturating_sub(less) as f64 / many as f64;
        // Less than an index has: it would not be in it.
        assert!(each > 1.0, "{how:?}: {each} bytes of a record");
        assert!(each <= f64::from(most), "{how:?}: {each} bytes of a record");
    }
}

#[test]
fn a_line_larger_than_memory_is_passed_over_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("train.jsonl");
    with_hole(&data, 1 << 30);
    let said = good(&train(folder.path(), &data, "file"));
    assert!(said.contains("too_long 1 (line 2)"), "{said}");
}

/// 10 GiB, read once from end to end.
#[test]
#[ignore = "reads 10 GiB"]
fn a_file_of_ten_gigabytes_is_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("train.jsonl");
    with_hole(&data, 10 << 30);
    let said = good(&train(folder.path(), &data, "shuffle"));
    assert!(said.contains("too_long 1 (line 2)"), "{said}");
}
