//! `fedpipe up`: supervises everything on one machine as child processes.
//!
//! Promises: a child that dies is started again under the same name; a signal ends services first and
//! NATS last; nothing outlives this process, even if it is killed; the state folder is enough to go on.
//! Does not: run any service inside this process, or restart a machine's worth of fleet elsewhere.

mod backoff;
mod board;
mod children;
mod fleet;
mod health;
mod log;
mod nats;
mod port;
mod state;
mod supervise;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use fleet::Fleet;
pub use state::{DEFAULT as DEFAULT_STATE, storage_file, storage_of};

use board::{Board, Notice};
use state::State;
use supervise::Supervisor;

/// Notices that may wait to be printed.
const NOTICES: usize = 256;

/// What `up` is told.
pub struct Options {
    /// The workers.
    pub fleet: Fleet,
    /// Folder of everything that is kept.
    pub state: PathBuf,
    /// Address of the API.
    pub listen: SocketAddr,
    /// What API requests must show.
    pub token: Option<String>,
    /// The idle knob.
    pub idle: Duration,
    /// File that says where objects lie; absent: in the state folder.
    pub storage: Option<PathBuf>,
    /// The nats-server program, if it need not be searched.
    pub nats_server: Option<PathBuf>,
    /// What services log.
    pub log: String,
    /// Lines of JSON instead of a table.
    pub json: bool,
}

/// Runs until it is told to stop.
pub async fn run(mut options: Options) -> anyhow::Result<()> {
    let stop = chassis::signals::stop_on_signals()?;
    chassis::signals::follow_parent()?;
    let program = nats::find(options.nats_server.as_deref())?;
    let mut state = State::open(&options.state).await?;
    state.keep_storage(options.storage.as_deref())?;
    if options.listen.port() == 0 {
        // Chosen once, so that the API comes back where its clients look for it.
        options.listen.set_port(port::keep(&state, "api")?);
    }
    let (notices, inbox) = mpsc::channel(NOTICES);
    let supervisor = Supervisor::new(&state, notices)?;

    let (after, nats_tracker) = (CancellationToken::new(), TaskTracker::new());
    let server = nats::start(&mut state, &program, &options.fleet, &supervisor).await?;
    let url = server.url.clone();
    nats_tracker.spawn(
        supervisor
            .clone()
            .keep(server.child, Some(server.process), after.clone()),
    );

    let children = children::all(&options, &mut state, &url)?;
    let tracker = TaskTracker::new();
    for child in children.clone() {
        tracker.spawn(supervisor.clone().keep(child, None, stop.clone()));
    }
    drop(supervisor);
    let board = Board::new(options.json, &state, url);
    let shown = show(board, inbox, &children, &state, &stop).await;

    // Also when printing failed: children stop in order, NATS last, because they take leave through it.
    stop.cancel();
    finish(&tracker).await;
    after.cancel();
    finish(&nats_tracker).await;
    shown
}

async fn finish(tracker: &TaskTracker) {
    tracker.close();
    tracker.wait().await;
}

/// Shows the table once all is ready, then what dies and is restarted, until told to stop.
async fn show(
    mut board: Board,
    mut inbox: mpsc::Receiver<Notice>,
    children: &[children::Child],
    state: &State,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let ready = health::wait(children, state);
    tokio::pin!(ready);
    let mut waiting = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return board.stopped(),
            report = &mut ready, if waiting => {
                waiting = false;
                board.ready(report)?;
            }
            Some(notice) = inbox.recv() => board.note(notice)?,
        }
    }
}
