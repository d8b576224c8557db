//! What a command shows while it goes on: an answer piece by piece, one answer before the next question, a bar in a terminal and
//! plain lines where there is none.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use serde_json::Value;
use testkit::wait;
use tests::fleet::binary;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// Far beyond what an answer of the tiny model takes.
const SOON: Duration = Duration::from_secs(60);
/// Writes that a pipe holds while nobody reads, where it keeps them apart (pipe(7), `O_DIRECT`).
const HELD: usize = 16;
const STEPS: &str = "8";

/// Runs the command that it is given in a terminal of 80 columns, and writes what appears there.
const TERMINAL: &str = r#"
import fcntl, os, pty, struct, sys, termios

pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    try:
        shown = os.read(terminal, 65536)
    except OSError:
        break
    if not shown:
        break
    sys.stdout.buffer.write(shown)
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

fn tiny(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    testkit::model::tiny(&model, 1).unwrap();
    model
}

fn good(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whoever has the first of more writes than a pipe holds knows that the last was not made yet.
#[test]
fn an_answer_appears_while_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    let generate = || {
        let mut command = Command::new(binary());
        command.args(["generate", "--prompt", "Say:", "--tokens", "120"]);
        command.args(["--temperature", "1", "--seed", "1", "--threads", "1"]);
        command.arg("--model").arg(&model);
        command
    };
    let whole = generate().output().unwrap();
    good(&whole);

    let (mut shown, pipe) = std::io::pipe().unwrap();
    fcntl_setfl(&pipe, OFlags::DIRECT).unwrap();
    let mut child = generate().stdout(pipe).spawn().unwrap();
    let (mut pieces, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = shown.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        pieces.push(buffer[..read].to_vec());
        let ended = child.try_wait().unwrap();
        assert!(pieces.len() > 1 || ended.is_none(), "it had ended before");
    }
    assert!(child.wait().unwrap().success());
    assert!(pieces.len() > 2 + HELD, "{} pieces", pieces.len());
    assert_eq!(pieces.concat(), whole.stdout);
}

/// A file of prompts is read as far as the next of them, so whoever asks may wait for an answer first.
#[tokio::test]
async fn a_prompt_is_answered_before_the_next_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = tokio::process::Command::new(binary())
        .args(["generate", "--prompts", "/dev/stdin", "--json"])
        .args(["--tokens", "6", "--threads", "1", "--model"])
        .arg(tiny(folder.path()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut asked = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut texts = Vec::new();
    for (number, prompt) in ["one", "two", "{\"prompt\":\"one\"}"].iter().enumerate() {
        asked.write_all(prompt.as_bytes()).await.unwrap();
        asked.write_all(b"\n").await.unwrap();
        let answer = wait::in_time("the answer is there", SOON, answers.next_line()).await;
        let answer: Value = serde_json::from_str(&answer.unwrap().unwrap()).unwrap();
        assert_eq!(answer["line"], number + 1);
        texts.push(answer["text"].clone());
    }
    assert_eq!(texts[0], texts[2]);
    assert_ne!(texts[0], texts[1]);
    drop(asked);
    let ended = wait::in_time("the command ends", SOON, child.wait()).await;
    assert!(ended.unwrap().success());
}

/// `fedpipe train` with scores of held-out records, by this program.
fn train(mut command: Command, folder: &Path, more: &[&str]) -> Output {
    let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/records.jsonl");
    command
        .args(["train", "--steps", STEPS, "--batch", "2", "--threads", "1"])
        .args(["--sequence-length", "96", "--held-out-share", "0.25"])
        .args(["--evaluate-every", "4"])
        .args(more)
        .arg("--model")
        .arg(tiny(folder))
        .arg("--data")
        .arg(records)
        .arg("--out")
        .arg(folder.join("out"));
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn in_a_terminal_a_bar_shows_loss_speed_memory_and_the_time_that_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL]).arg(binary());
    command.env("TERM", "xterm");
    let shown = good(&train(command, folder.path(), &[]));
    // A line above the bar fills its own, so that the bar stands behind it.
    let drawn: Vec<&str> = shown
        .split(['\r', '\n', '\x1b'])
        .filter_map(|line| line.get(line.find(['█', '░'])?..))
        .collect();
    let figures = ["█", "/8  loss ", " tokens/s  ", "iB  ", " left"];
    let is_whole = |line: &&str| figures.iter().all(|part| line.contains(part));
    assert!(drawn.iter().any(is_whole), "{shown:?}");
    let widest = drawn.iter().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?} columns: {shown:?}");
    for scored in ["after 0 steps", "after 4 steps", "after 8 steps"] {
        let line = format!("{scored}: held-out loss ");
        assert!(shown.contains(&line), "{line:?} is not in {shown:?}");
    }
    assert!(!shown.contains("step 1/8"), "{shown:?}");
    assert!(shown.contains("adapter sha256:"), "{shown:?}");
}

#[test]
fn without_a_terminal_each_step_is_a_plain_line() {
    let folder = tempfile::tempdir().unwrap();
    let output = train(Command::new(binary()), folder.path(), &[]);
    let shown = good(&output);
    assert_eq!(output.stderr, b"");
    assert!(!shown.contains(['\r', '\x1b']), "{shown:?}");
    let steps = shown.lines().filter(|line| line.starts_with("step "));
    let steps: Vec<Vec<&str>> = steps.map(|line| line.split("  ").collect()).collect();
    assert_eq!(steps.len(), 8, "{shown}");
    for (number, parts) in steps.iter().enumerate() {
        let [step, loss, speed, memory, left] = parts[..] else {
            panic!("{parts:?}");
        };
        assert_eq!(step, format!("step {}/8", number + 1));
        let figure = |text: &str, unit: &str| {
            let figure = text.replace(unit, "").trim().parse::<f64>();
            assert!(figure.is_ok_and(|figure| figure >= 0.0), "{text:?}");
        };
        figure(loss, "loss");
        figure(speed, "tokens/s");
        figure(memory, "MiB");
        assert!(left.ends_with(" left"), "{left:?}");
    }
    assert_eq!(shown.matches("held-out loss").count(), 3, "{shown}");
    assert!(shown.lines().last().unwrap().contains("adapter sha256:"));

    // Nor are there any beside JSON.
    let output = train(Command::new(binary()), folder.path(), &["--json"]);
    let said: Value = serde_json::from_str(&good(&output)).unwrap();
    assert_eq!((&said["steps"], output.stderr), (&8.into(), Vec::new()));
}
