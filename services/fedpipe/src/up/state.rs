//! The state folder: who may use it, its passwords, and where its files lie.
//!
//! One `fedpipe up` uses a folder at a time. Each child holds the folder's lock as well (as its
//! standard input), so that a new `up` waits until the children of one that was killed are gone.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use contract::permission::Role;
use toml::{Table, Value};

/// The folder if nobody names another.
pub const DEFAULT: &str = "fedpipe-state";

/// How long the children of a killed `up` may take to leave.
const LOCK_WAIT: Duration = Duration::from_secs(15);

/// Between two looks at the lock.
const LOCK_LOOK: Duration = Duration::from_millis(50);

/// An open state folder.
pub struct State {
    folder: PathBuf,
    /// Held as long as it is open, here or in a child.
    pub lock: File,
    passwords: BTreeMap<String, String>,
}

impl State {
    /// Opens the folder for this process alone; it is made if it is missing.
    pub async fn open(folder: &Path) -> anyhow::Result<Self> {
        let shown = folder.display();
        let made = || -> std::io::Result<PathBuf> {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            let folder = folder.canonicalize()?;
            for name in ["config", "logs", "run", "nats", "objects", "workers"] {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(folder.join(name))?;
            }
            Ok(folder)
        };
        let folder = made().with_context(|| format!("cannot use the state folder {shown}"))?;
        let lock = lock(&folder).await?;
        let passwords = match fs::read(folder.join("passwords.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .context("STATE/passwords.json cannot be read; delete it to make new ones")?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).context("STATE/passwords.json cannot be read"),
        };
        Ok(Self {
            folder,
            lock,
            passwords,
        })
    }

    /// A path inside the folder.
    pub fn path(&self, inner: impl AsRef<Path>) -> PathBuf {
        self.folder.join(inner)
    }

    /// The password of a role: the one it had before, or a new one, which is kept.
    pub fn password(&mut self, role: &Role) -> anyhow::Result<String> {
        if let Some(password) = self.passwords.get(&role.user()) {
            return Ok(password.clone());
        }
        let password = chassis::clock::random_token();
        self.passwords.insert(role.user(), password.clone());
        let text = serde_json::to_string_pretty(&self.passwords)?;
        self.write("passwords.json", &text)?;
        Ok(password)
    }

    /// Writes a file that nobody else may read, whole or not at all.
    pub fn write(&self, inner: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(inner);
        let aside = path.with_extension("new");
        let written = || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&aside)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&aside, &path)
        };
        written().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Decides where objects lie and keeps it for `fedpipe model`: the given file's word, or the folder `objects`.
    pub fn keep_storage(&mut self, file: Option<&Path>) -> anyhow::Result<()> {
        let table = match file {
            Some(file) => storage_file(file)?,
            None => {
                let url = format!("file://{}", self.path("objects").display());
                Table::from_iter([("url".to_owned(), Value::String(url))])
            }
        };
        self.write("storage.toml", &toml::to_string(&table)?)?;
        Ok(())
    }

    /// Where objects lie, as configuration files say it, secrets included.
    pub fn storage(&self) -> anyhow::Result<Table> {
        storage_file(&self.path("storage.toml"))
    }
}

/// Where objects lie, by the state folder of an `up` that ran or runs.
pub fn storage_of(state: &Path) -> anyhow::Result<artifacts::Config> {
    let path = state.join("storage.toml");
    if !path.exists() {
        bail!(
            "no storage is known: {} is missing. Next: start `fedpipe up`, or give --storage FILE or --state DIR",
            path.display()
        );
    }
    Ok(storage_file(&path)?.try_into()?)
}

/// Reads a file that says where objects lie, and refuses what nobody could open.
pub fn storage_file(path: &Path) -> anyhow::Result<Table> {
    let read = || -> anyhow::Result<Table> {
        let table: Table = toml::from_str(&fs::read_to_string(path)?)?;
        artifacts::Store::open(&table.clone().try_into()?)?;
        Ok(table)
    };
    read().with_context(|| format!("cannot use the storage file {}", path.display()))
}

async fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)?;
    let watch = chassis::clock::Stopwatch::start();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
            Err(TryLockError::WouldBlock) if watch.seconds() > LOCK_WAIT.as_secs_f64() => bail!(
                "another `fedpipe up` uses {}. Next: stop it, or choose another folder with --state",
                folder.display()
            ),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    async fn open(folder: &Path) -> State {
        State::open(folder).await.unwrap()
    }

    #[tokio::test]
    async fn passwords_are_kept_and_nobody_else_may_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let password = open(folder.path()).await.password(&Role::Api).unwrap();
        let mut state = open(folder.path()).await;
        assert_eq!(state.password(&Role::Api).unwrap(), password);
        assert_ne!(state.password(&Role::Planner).unwrap(), password);
        let mode = fs::metadata(state.path("passwords.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn objects_lie_in_the_folder_unless_a_file_says_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = open(folder.path()).await;
        assert!(storage_of(folder.path()).is_err());
        state.keep_storage(None).unwrap();
        let url = storage_of(folder.path()).unwrap().url;
        assert!(
            url.starts_with("file:///") && url.ends_with("/objects"),
            "{url}"
        );
        let file = folder.path().join("s3.toml");
        fs::write(&file, "url = \"s3://b\"\nendpoint = \"http://127.0.0.1:1\"\nallow_http = true\naccess_key = \"a\"\nsecret_key = \"s\"").unwrap();
        state.keep_storage(Some(&file)).unwrap();
        assert_eq!(state.storage().unwrap()["secret_key"].as_str(), Some("s"));
        fs::write(&file, "url = \"ftp://b\"").unwrap();
        assert!(state.keep_storage(Some(&file)).is_err());
    }
}
