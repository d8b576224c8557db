use std::process::Stdio;

use chassis::signals::{PARENT_VARIABLE, follow_parent, run_until, stop_on_signals};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::child::{self, Running};

const SIGNALS: &str = "signals::the_first_signal_cancels_and_the_same_again_exits_at_once";
const ORPHAN: &str = "signals::a_child_stops_in_order_when_its_parent_is_killed";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn the_first_signal_cancels_and_the_same_again_exits_at_once() {
    if child::role().is_some() {
        runtime().block_on(async {
            let token = stop_on_signals().unwrap();
            println!("\nready");
            let stopped = run_until(&token, std::future::pending::<()>()).await;
            assert_eq!(stopped, None);
            println!("\ncancelled");
            std::future::pending::<()>().await;
        });
    }
    for (sent, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut running = Running::start(&mut child::command(SIGNALS, "service"));
        running.expect_line("ready");
        running.send(sent);
        running.expect_line("cancelled");
        running.send(sent);
        assert_eq!(running.expect_end().code(), Some(code));
    }
}

#[test]
fn a_supervisors_sigterm_after_ctrl_c_and_hangups_are_no_insistence() {
    const TEST: &str = "signals::a_supervisors_sigterm_after_ctrl_c_and_hangups_are_no_insistence";
    if child::role().is_some() {
        runtime().block_on(async {
            let token = stop_on_signals().unwrap();
            let mut terminate = signal(SignalKind::terminate()).unwrap();
            let mut hangup = signal(SignalKind::hangup()).unwrap();
            println!("\nready");
            token.cancelled().await;
            println!("\ncancelled");
            loop {
                tokio::select! {
                    _ = terminate.recv() => println!("\nterminate seen"),
                    _ = hangup.recv() => println!("\nhangup seen"),
                }
            }
        });
    }
    let mut running = Running::start(&mut child::command(TEST, "service"));
    running.expect_line("ready");
    running.send(Signal::INT);
    running.expect_line("cancelled");
    for _ in 0..2 {
        running.send(Signal::HUP);
        running.expect_line("hangup seen");
    }
    running.send(Signal::TERM);
    running.expect_line("terminate seen");
    running.send(Signal::INT);
    assert_eq!(running.expect_end().code(), Some(130));
}

fn serve_until_the_parent_dies() {
    runtime().block_on(async {
        let token = stop_on_signals().unwrap();
        follow_parent().unwrap();
        println!("\nready");
        token.cancelled().await;
        println!("\nstopped");
    });
}

#[test]
fn a_child_stops_in_order_when_its_parent_is_killed() {
    match child::role().as_deref() {
        Some("service") => serve_until_the_parent_dies(),
        Some(_) => {
            let mut service = child::command(ORPHAN, "service")
                .env(PARENT_VARIABLE, std::process::id().to_string())
                .stdout(Stdio::inherit())
                .spawn()
                .unwrap();
            service.wait().unwrap();
        }
        None => {
            let mut parent = Running::start(&mut child::command(ORPHAN, "supervisor"));
            parent.expect_line("ready");
            parent.send(Signal::KILL);
            parent.expect_line("stopped");
            parent.expect_end();
        }
    }
}

#[test]
fn a_child_whose_parent_died_before_it_looked_stops_too() {
    // As if process 1 had started it: that is not who its parent is now.
    let mut orphan = Running::start(child::command(ORPHAN, "service").env(PARENT_VARIABLE, "1"));
    orphan.expect_line("stopped");
    assert!(orphan.expect_end().success());
}
