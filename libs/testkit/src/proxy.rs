//! A network between a test and a server that the test can break: slow, still, lossy, cut.
//!
//! It forwards TCP to one address and knows nothing of what it forwards. Connections of NATS or S3
//! survive what the real ones would: a pause holds bytes back, a black hole swallows them, a lost
//! answer is one that the server gave and nobody got, a cut closes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the network does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Slow(Duration),
    Paused,
    Swallowing,
    Unanswered,
    Cut,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

impl Mode {
    /// Whether bytes that go this way are lost.
    fn loses(self, way: Way) -> bool {
        self == Self::Swallowing || (self == Self::Unanswered && way == Way::ToClient)
    }
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    /// Raised to close the connections there are.
    generation: u64,
    /// Close them when so many bytes have passed in all.
    cut_at: Option<u64>,
    /// The proxy was dropped.
    over: bool,
}

#[derive(Debug)]
struct Shared {
    state: watch::Sender<State>,
    passed: AtomicU64,
}

/// A proxy in front of one server. It ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens on a free loopback port and forwards to `target`.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = State {
            mode: Mode::Open,
            generation: 0,
            cut_at: None,
            over: false,
        };
        let shared = Arc::new(Shared {
            state: watch::Sender::new(state),
            passed: AtomicU64::new(0),
        });
        tokio::spawn(listen(listener, target, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    /// Where to connect instead of to the server.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that have passed so far, both ways together.
    #[must_use]
    pub fn passed_bytes(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }

    /// Everything passes again. Connections into a black hole are closed: they have lost bytes.
    pub fn open(&self) {
        self.shared.state.send_modify(|state| {
            if matches!(state.mode, Mode::Swallowing | Mode::Unanswered) {
                state.generation += 1;
            }
            state.mode = Mode::Open;
        });
    }

    /// Each piece of data waits so long before it passes.
    pub fn slow(&self, delay: Duration) {
        self.set(Mode::Slow(delay));
    }

    /// Connections stand and nothing passes; what is sent meanwhile passes after [`Proxy::open`].
    pub fn pause(&self) {
        self.set(Mode::Paused);
    }

    /// Connections stand and what is sent is lost.
    pub fn swallow(&self) {
        self.set(Mode::Swallowing);
    }

    /// Connections stand, what is sent to the server arrives, and its answers are lost: what was asked
    /// for is done, and nobody learns of it.
    pub fn lose_answers(&self) {
        self.set(Mode::Unanswered);
    }

    /// Closes all connections, and new ones at once, until [`Proxy::open`].
    pub fn cut(&self) {
        self.shared.state.send_modify(|state| {
            state.generation += 1;
            state.mode = Mode::Cut;
        });
    }

    /// Closes all connections once, when so many more bytes have passed; new ones are served.
    pub fn cut_after(&self, bytes: u64) {
        let at = self.passed_bytes() + bytes;
        self.shared
            .state
            .send_modify(|state| state.cut_at = Some(at));
    }

    fn set(&self, mode: Mode) {
        self.shared.state.send_modify(|state| state.mode = mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state.send_modify(|state| state.over = true);
    }
}

async fn listen(listener: TcpListener, target: SocketAddr, shared: Arc<Shared>) {
    let mut over = shared.state.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = over.wait_for(|state| state.over) => return,
        };
        if let Ok((client, _)) = accepted {
            tokio::spawn(connection(client, target, Arc::clone(&shared)));
        }
    }
}

/// One connection, until either side closes it or the network does.
async fn connection(client: TcpStream, target: SocketAddr, shared: Arc<Shared>) {
    let mut state = shared.state.subscribe();
    let born = state.borrow().generation;
    let mut closed = shared.state.subscribe();
    let is_closed =
        move |state: &State| state.over || state.generation != born || state.mode == Mode::Cut;
    let forward = async {
        // A handshake over a network that is gone does not end.
        let passes =
            |state: &State| matches!(state.mode, Mode::Open | Mode::Slow(_) | Mode::Unanswered);
        if state.wait_for(passes).await.is_err() {
            return;
        }
        let Ok(server) = TcpStream::connect(target).await else {
            return;
        };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::join!(
            pump(from_client, to_server, Way::ToServer, &shared, born),
            pump(from_server, to_client, Way::ToClient, &shared, born)
        );
    };
    tokio::select! {
        () = forward => {}
        _ = closed.wait_for(is_closed) => {}
    }
}

/// Bytes one way; ends when the reader or the writer does.
async fn pump<R, W>(mut reader: R, mut writer: W, way: Way, shared: &Shared, born: u64)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut state = shared.state.subscribe();
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read) = reader.read(&mut buffer).await {
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else {
            break;
        };
        let held = state.wait_for(|state| state.mode != Mode::Paused).await;
        // A connection that is about to be closed passes nothing more: it may have lost what came before.
        let Ok((mode, generation)) = held.map(|state| (state.mode, state.generation)) else {
            break;
        };
        if generation != born {
            break;
        }
        match mode {
            lossy if lossy.loses(way) => continue,
            Mode::Slow(delay) => tokio::time::sleep(delay).await,
            _ => {}
        }
        if writer.write_all(piece).await.is_err() {
            return;
        }
        shared.count(read);
    }
    // The other way may go on.
    let _ = writer.shutdown().await;
}

impl Shared {
    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let passed = self.passed.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.state.send_if_modified(|state| {
            let due = state.cut_at.is_some_and(|at| passed >= at);
            if due {
                state.cut_at = None;
                state.generation += 1;
            }
            due
        });
    }
}
