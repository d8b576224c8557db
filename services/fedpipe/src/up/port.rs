//! Ports that stay the same over restarts.
//!
//! They lie below the range from which the kernel takes ports for outgoing connections, because a
//! client that reconnects could otherwise be given the very port that a server is about to take again.

use std::net::TcpListener;

use anyhow::bail;

use super::state::State;

/// Ports to choose from.
const PORTS: std::ops::Range<u64> = 20_000..32_000;

/// Ports that are tried.
const ATTEMPTS: u32 = 100;

/// The port that this server had before, if it is free; otherwise a free one, which is kept.
pub fn keep(state: &State, server: &str) -> anyhow::Result<u16> {
    let file = format!("run/{server}.port");
    let before = std::fs::read_to_string(state.path(&file))
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let random = (0..ATTEMPTS).filter_map(|_| random());
    let others = others(state, &file);
    let fits = |port: &u16| !others.contains(port) && is_free(*port);
    let Some(port) = before.into_iter().chain(random).find(fits) else {
        bail!("no port is free on 127.0.0.1");
    };
    state.write(&file, &port.to_string())?;
    Ok(port)
}

/// Ports that other servers of this state keep: they may not listen yet.
fn others(state: &State, own: &str) -> Vec<u16> {
    let folder = std::fs::read_dir(state.path("run"));
    let files = folder.into_iter().flatten().flatten();
    let others = files.map(|entry| entry.path()).filter(|path| {
        path.extension().is_some_and(|kind| kind == "port") && *path != state.path(own)
    });
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    others.filter_map(read).collect()
}

fn random() -> Option<u16> {
    let span = PORTS.end - PORTS.start;
    u16::try_from(PORTS.start + chassis::clock::random_bits() % span).ok()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_kept_until_somebody_else_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).await.unwrap();
        let port = keep(&state, "x").unwrap();
        assert_eq!(keep(&state, "x").unwrap(), port);
        let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let other = keep(&state, "x").unwrap();
        assert_ne!(other, port);
        assert!(PORTS.contains(&other.into()));
        drop(taken);
    }

    #[tokio::test]
    async fn two_servers_that_do_not_listen_yet_never_have_one_port() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).await.unwrap();
        let port = keep(&state, "x").unwrap();
        state.write("run/y.port", &port.to_string()).unwrap();
        assert_ne!(keep(&state, "y").unwrap(), port);
        assert_eq!(keep(&state, "x").unwrap(), port);
    }
}
