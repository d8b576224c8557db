use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Output};

use chassis::failpoint::{FOLDER_VARIABLE, Failpoint, NAME_VARIABLE, announce, hit};
use rustix::process::{Pid, Signal, kill_process};

use crate::child;

const TEST: &str = "failpoint::a_fail_point_kills_once_and_the_restarted_process_goes_on";

fn run(name: &str, folder: &Path) -> Output {
    child::command(TEST, "victim")
        .env(NAME_VARIABLE, name)
        .env(FOLDER_VARIABLE, folder)
        .output()
        .unwrap()
}

fn says(output: &Output, text: &str) -> bool {
    String::from_utf8_lossy(&output.stdout).contains(text)
}

#[test]
fn a_fail_point_kills_once_and_the_restarted_process_goes_on() {
    if child::role().is_some() {
        announce();
        hit(Failpoint::ApiSubmitAfterState);
        println!("past the other");
        hit(Failpoint::WorkerTrainAfterSeal);
        println!("past this");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = Failpoint::WorkerTrainAfterSeal.name();

    let killed = run(name, folder.path());
    assert_eq!(killed.status.signal(), Some(9), "{killed:?}");
    assert!(says(&killed, "past the other") && !says(&killed, "past this"));
    assert!(folder.path().join(name).exists());

    let restarted = run(name, folder.path());
    assert!(
        restarted.status.success() && says(&restarted, "past this"),
        "{restarted:?}"
    );

    let unknown = run("worker.no.such", folder.path());
    assert!(unknown.status.success(), "{unknown:?}");
}

#[test]
fn a_file_in_the_folder_arms_a_fail_point_once() {
    const TEST: &str = "failpoint::a_file_in_the_folder_arms_a_fail_point_once";
    if child::role().is_some() {
        hit(Failpoint::WorkerTrainAfterSeal);
        println!("past this");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let order = folder.path().join("worker.train.after_seal.kill");
    std::fs::write(&order, "").unwrap();
    let run = || {
        let mut command = child::command(TEST, "victim");
        command.env(FOLDER_VARIABLE, folder.path());
        command.output().unwrap()
    };

    let killed = run();
    assert_eq!(killed.status.signal(), Some(9), "{killed:?}");
    assert!(!order.exists());

    let restarted = run();
    assert!(says(&restarted, "past this"), "{restarted:?}");
}

/// The thread that comes there is not the main one, to which the kernel gives the signal.
#[test]
fn nothing_is_done_behind_a_fail_point_that_halts_before_the_process_is_let_go_on() {
    const TEST: &str =
        "failpoint::nothing_is_done_behind_a_fail_point_that_halts_before_the_process_is_let_go_on";
    const TURNS: usize = 100;
    let point = Failpoint::WorkerTrainAfterSeal;
    if child::role().is_some() {
        let folder = std::env::var(FOLDER_VARIABLE).unwrap();
        let turns = std::thread::spawn(move || {
            for turn in 0..TURNS {
                while !Path::new(&folder).join(format!("go.{turn}")).exists() {
                    std::thread::yield_now();
                }
                hit(point);
                std::fs::write(Path::new(&folder).join(format!("past.{turn}")), "").unwrap();
            }
        });
        turns.join().unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: String| folder.path().join(name);
    let mut command = child::command(TEST, "halted");
    command.env(FOLDER_VARIABLE, folder.path());
    let mut halted = Halted(command.spawn().unwrap());
    let (id, pid) = (halted.0.id(), Pid::from_child(&halted.0));
    let state = || {
        let about = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let behind = about.rsplit(')').next().unwrap();
        let state = behind.trim_start().chars().next().unwrap();
        assert_ne!(state, 'Z', "the child ended");
        state
    };
    for turn in 0..TURNS {
        std::fs::write(file(format!("{}.stop", point.name())), "").unwrap();
        std::fs::write(file(format!("go.{turn}")), "").unwrap();
        while state() != 'T' {
            std::thread::yield_now();
        }
        assert!(!file(format!("past.{turn}")).exists(), "in turn {turn}");
        kill_process(pid, Signal::CONT).unwrap();
        while !file(format!("past.{turn}")).exists() {
            // Behind the last turn it may end at once.
            if turn + 1 < TURNS {
                state();
            }
            std::thread::yield_now();
        }
    }
    assert!(halted.0.wait().unwrap().success());
}

/// A child that nobody lets go on if the test fails.
struct Halted(Child);

impl Drop for Halted {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
