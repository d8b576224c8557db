//! A stand-in for the Hugging Face Hub and the storage behind it, that a test can break.
//!
//! It holds one repository and answers what the Hub answers to whoever fetches models: which commit a revision
//! is and which files it has; small files after a redirect within itself, named by git's digest; large ones
//! (weights) after a redirect to another address, named by their SHA-256 before; all of it in ranges. The
//! address of the storage is refused to whoever shows the token there: it is none of its business.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Longest head of a request.
const HEAD_BYTES: usize = 16 << 10;

/// What goes wrong with one answer that carries a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status, and nothing of the file.
    Status(u16),
    /// The connection ends after so many bytes of a longer answer.
    BreakAfter(usize),
    /// A whole answer, of only so many bytes.
    Short(usize),
    /// The last byte is another.
    Spoiled,
    /// All of it, whatever range was asked for.
    NoRange,
    /// Another range than was asked for.
    OtherRange,
    /// No answer at all, for as long as the stand-in lives.
    Silent,
}

/// A request, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Whether it came to the storage behind the Hub.
    pub storage: bool,
    /// `GET /path`.
    pub line: String,
    /// What it asked for, `bytes=7-`.
    pub range: Option<String>,
    /// What it showed.
    pub authorization: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    repository: String,
    revisions: BTreeMap<String, String>,
    /// Every commit that there was: a branch that moves takes none away.
    commits: BTreeSet<String>,
    files: BTreeMap<String, Vec<u8>>,
    token: Option<String>,
    faults: Vec<(String, Fault)>,
    asked: Vec<Asked>,
}

/// The stand-in. It ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Hub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _over: watch::Sender<()>,
}

struct Server {
    state: Arc<Mutex<State>>,
    /// Where large files are, as the Hub tells; none for the storage itself.
    storage: Option<SocketAddr>,
}

impl Hub {
    /// Serves the files of a folder (not of those below it) as `repository`, whose branch `main` is at `commit`.
    ///
    /// # Errors
    /// If a file cannot be read, or no port is free.
    pub async fn serve(repository: &str, commit: &str, folder: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                files.insert(name.into_owned(), fs::read(&path)?);
            }
        }
        let state = Arc::new(Mutex::new(State {
            repository: repository.to_owned(),
            revisions: BTreeMap::from([("main".to_owned(), commit.to_owned())]),
            commits: BTreeSet::from([commit.to_owned()]),
            files,
            ..State::default()
        }));
        let (over, ends) = watch::channel(());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let storage = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, behind) = (listener.local_addr()?, storage.local_addr()?);
        for (listener, storage) in [(listener, Some(behind)), (storage, None)] {
            let state = Arc::clone(&state);
            let server = Arc::new(Server { state, storage });
            tokio::spawn(server.accept(listener, ends.clone()));
        }
        let _over = over;
        Ok(Self {
            address,
            state,
            _over,
        })
    }

    /// What to set as `HF_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on only who shows this token is answered.
    pub fn ask_for(&self, token: &str) {
        self.lock().token = Some(token.to_owned());
    }

    /// Moves a branch or a tag.
    pub fn set_revision(&self, name: &str, commit: &str) {
        let mut state = self.lock();
        state.commits.insert(commit.to_owned());
        state.revisions.insert(name.to_owned(), commit.to_owned());
    }

    /// Replaces a file, whatever the commit.
    pub fn set_file(&self, name: &str, content: Vec<u8>) {
        self.lock().files.insert(name.to_owned(), content);
    }

    /// What goes wrong with the next answer that carries this file, after those that were said before.
    pub fn fail(&self, file: &str, fault: Fault) {
        self.lock().faults.push((file.to_owned(), fault));
    }

    /// Every request so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    /// The ranges of the requests for this file's content, in order; empty for all of it.
    #[must_use]
    pub fn fetched(&self, file: &str) -> Vec<String> {
        let end = format!("/{file}");
        let asked = self.asked();
        let content = asked.iter().filter(|asked| {
            asked.line.starts_with("GET")
                && asked.line.ends_with(&end)
                && !asked.line.contains("/resolve/")
        });
        content
            .map(|asked| asked.range.clone().unwrap_or_default())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are sent before the connection ends.
    sent: usize,
}

impl Answer {
    fn new(status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8>) -> Self {
        let sent = body.len();
        Self {
            status,
            headers,
            body,
            sent,
        }
    }

    fn refused(status: u16, words: &str) -> Self {
        Self::new(
            status,
            vec![("X-Error-Message", words.to_owned())],
            Vec::new(),
        )
    }
}

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener, mut ends: watch::Receiver<()>) {
        loop {
            tokio::select! {
                // An error: the stand-in was dropped.
                _ = ends.changed() => return,
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { return };
                    let (server, mut ends) = (Arc::clone(&self), ends.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            _ = ends.changed() => {}
                            _ = server.converse(stream) => {}
                        }
                    });
                }
            }
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let line = lines
            .next()
            .unwrap_or_default()
            .trim_end_matches(" HTTP/1.1")
            .to_owned();
        let header = |name: &str| {
            let named = head.lines().filter_map(|line| line.split_once(": "));
            named
                .filter(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
                .next()
        };
        let asked = Asked {
            storage: self.storage.is_none(),
            line,
            range: header("range"),
            authorization: header("authorization"),
        };
        let Some(answer) = self.answer(&asked) else {
            return std::future::pending().await;
        };
        let mut text = format!(
            "HTTP/1.1 {} .\r\nContent-Length: {}\r\nConnection: close\r\n",
            answer.status,
            answer.body.len()
        );
        for (name, value) in &answer.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        stream.write_all(text.as_bytes()).await?;
        if !asked.line.starts_with("HEAD") {
            let sent = answer.body.get(..answer.sent).unwrap_or(&answer.body);
            stream.write_all(sent).await?;
        }
        stream.shutdown().await
    }

    /// None: silence.
    fn answer(&self, asked: &Asked) -> Option<Answer> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.push(asked.clone());
        let path = asked.line.split_once(' ').map_or("", |(_, path)| path);
        let Some(storage) = self.storage else {
            if asked.authorization.is_some() {
                return Some(Answer::refused(400, "two ways to prove who asks"));
            }
            return state.content(asked, path.trim_start_matches("/large/"));
        };
        let shown = asked
            .authorization
            .as_deref()
            .and_then(|shown| shown.strip_prefix("Bearer "));
        if state.token.is_some() && state.token.as_deref() != shown {
            return Some(Answer::refused(401, "Invalid username or password."));
        }
        if let Some(cached) = path.strip_prefix("/api/resolve-cache/") {
            return state.content(asked, cached.split_once('/').map_or("", |(_, file)| file));
        }
        let repository = state.repository.clone();
        if let Some(revision) = path.strip_prefix(&format!("/api/models/{repository}/revision/")) {
            return Some(state.revision(revision));
        }
        match path
            .strip_prefix(&format!("/{repository}/resolve/"))
            .and_then(|rest| rest.split_once('/'))
        {
            Some((revision, file)) => Some(state.resolve(revision, file, storage)),
            None => Some(Answer::refused(404, "Repository not found")),
        }
    }
}

impl State {
    fn commit(&self, revision: &str) -> Option<String> {
        self.revisions
            .get(revision)
            .or_else(|| self.commits.get(revision))
            .cloned()
    }

    fn revision(&self, revision: &str) -> Answer {
        let Some(commit) = self.commit(revision) else {
            return Answer::refused(404, "Invalid rev id");
        };
        let files: Vec<_> = (self.files.keys())
            .map(|name| serde_json::json!({ "rfilename": name }))
            .collect();
        let body = serde_json::json!({ "id": self.repository, "sha": commit, "siblings": files });
        Answer::new(200, Vec::new(), body.to_string().into_bytes())
    }

    fn resolve(&self, revision: &str, file: &str, storage: SocketAddr) -> Answer {
        let (Some(commit), Some(content)) = (self.commit(revision), self.files.get(file)) else {
            return Answer::refused(404, "Entry not found");
        };
        let mut headers = vec![("X-Repo-Commit", commit.clone())];
        if is_large(file) {
            headers.push(("X-Linked-Size", content.len().to_string()));
            headers.push((
                "X-Linked-Etag",
                format!("\"{}\"", hex::encode(Sha256::digest(content))),
            ));
            headers.push(("ETag", "\"of-the-pointer\"".to_owned()));
            headers.push(("Location", format!("http://{storage}/large/{file}")));
            Answer::new(302, headers, b"Found".to_vec())
        } else {
            headers.push(("Location", format!("/api/resolve-cache/{commit}/{file}")));
            Answer::new(307, headers, b"Temporary Redirect".to_vec())
        }
    }

    fn content(&mut self, asked: &Asked, file: &str) -> Option<Answer> {
        let Some(mut body) = self.files.get(file).cloned() else {
            return Some(Answer::refused(404, "Entry not found"));
        };
        let mut headers = Vec::new();
        if !is_large(file) {
            let mut blob = Sha1::new_with_prefix(format!("blob {}\0", body.len()));
            blob.update(&body);
            headers.push(("ETag", format!("\"{}\"", hex::encode(blob.finalize()))));
        }
        let place = self.faults.iter().position(|(named, _)| named == file);
        let place = place.filter(|_| asked.line.starts_with("GET"));
        let fault = place.map(|place| self.faults.remove(place).1);
        match fault {
            Some(Fault::Silent) => return None,
            Some(Fault::Status(status)) => {
                return Some(Answer::refused(status, "as the test asked for"));
            }
            Some(Fault::Spoiled) => {
                if let Some(last) = body.last_mut() {
                    *last ^= 1;
                }
            }
            Some(Fault::Short(bytes)) => body.truncate(bytes),
            _ => {}
        }
        let range = asked
            .range
            .as_deref()
            .filter(|_| fault != Some(Fault::NoRange));
        let from = range.and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
        let mut answer = match from {
            None => Answer::new(200, headers, body),
            Some(from) if from >= body.len() => Answer::new(416, headers, Vec::new()),
            Some(from) => {
                let total = body.len();
                let said = if fault == Some(Fault::OtherRange) {
                    from + 1
                } else {
                    from
                };
                headers.push((
                    "Content-Range",
                    format!("bytes {said}-{}/{total}", total - 1),
                ));
                Answer::new(206, headers, body.split_off(from))
            }
        };
        if let Some(Fault::BreakAfter(bytes)) = fault {
            answer.sent = bytes.min(answer.sent);
        }
        Some(answer)
    }
}

/// What the Hub keeps outside of git.
fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".gguf")
}
