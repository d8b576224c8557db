//! Downloads a model's file to the cache folder before it is pushed; an interrupted download goes on.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use reqwest::header::{ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Response, StatusCode, Url};
use sha2::{Digest, Sha256};

use super::progress;

/// Attempts in all.
const ATTEMPTS: u32 = 5;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// How long a connection, and a silence, may take.
const SILENCE: Duration = Duration::from_secs(30);

/// Fetches an http(s) address; `None` if the source is no address.
pub async fn fetch(source: &str) -> anyhow::Result<Option<PathBuf>> {
    if !source.starts_with("http://") && !source.starts_with("https://") {
        return Ok(None);
    }
    let download = Download::new(Url::parse(source)?)?;
    let client = reqwest::Client::builder()
        .connect_timeout(SILENCE)
        .read_timeout(SILENCE)
        .build()?;
    for attempt in 1.. {
        match download.attempt(&client).await {
            Ok(()) => break,
            Err(error) if attempt < ATTEMPTS && is_passing(&error) => {
                crate::output::note(format!("{error:#}; going on in {} s", PAUSE.as_secs()));
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.context(format!("cannot download {source}"))),
        }
    }
    Ok(Some(download.file))
}

fn is_passing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<reqwest::Error>().is_some_and(|error| {
        error.status().is_none_or(|status| {
            status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
        })
    })
}

struct Download {
    url: Url,
    file: PathBuf,
    partial: PathBuf,
    /// What the server calls the version that `partial` holds the beginning of.
    version: PathBuf,
}

impl Download {
    fn new(url: Url) -> anyhow::Result<Self> {
        let name = file_name(&url)
            .with_context(|| format!("{url} does not end with the name of a file"))?;
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
        let key = hex(&Sha256::digest(url.as_str().as_bytes()));
        let folder = cache
            .context("no cache folder: set XDG_CACHE_HOME")?
            .join("fedpipe/downloads")
            .join(key);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self {
            url,
            file: folder.join(&name),
            partial: folder.join("partial"),
            version: folder.join("version"),
        })
    }

    async fn attempt(&self, client: &reqwest::Client) -> anyhow::Result<()> {
        let have = fs::metadata(&self.partial).map_or(0, |found| found.len());
        let mut request = client.get(self.url.clone());
        // Without the server's word that it is still the same version, two files would be mixed.
        if let (1.., Ok(version)) = (have, fs::read_to_string(&self.version)) {
            request = request
                .header(RANGE, format!("bytes={have}-"))
                .header(IF_RANGE, version);
        }
        let answer = request.send().await?.error_for_status()?;
        let goes_on = answer.status() == StatusCode::PARTIAL_CONTENT;
        let from = if goes_on {
            have
        } else {
            self.restart(answer.headers())?
        };
        let total = answer.content_length().map(|rest| from + rest);
        self.receive(answer, from, total).await?;
        fs::rename(&self.partial, &self.file)?;
        Ok(())
    }

    fn restart(&self, headers: &HeaderMap) -> anyhow::Result<u64> {
        File::create(&self.partial)?;
        // A weak tag does not promise the same bytes.
        let tag = headers
            .get(ETAG)
            .and_then(|tag| tag.to_str().ok())
            .filter(|tag| !tag.starts_with("W/"));
        let date = headers
            .get(LAST_MODIFIED)
            .and_then(|date| date.to_str().ok());
        match tag.or(date) {
            Some(version) => fs::write(&self.version, version)?,
            None => drop(fs::remove_file(&self.version)),
        }
        Ok(0)
    }

    async fn receive(&self, answer: Response, from: u64, total: Option<u64>) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.partial)?;
        let bar = progress("downloading", total.unwrap_or(0));
        let (mut body, mut have) = (answer.bytes_stream(), from);
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            file.write_all(&bytes)
                .context("the download cannot be kept")?;
            have += bytes.len() as u64;
            bar.set_position(have);
        }
        bar.finish_and_clear();
        ensure!(
            total.is_none_or(|total| total == have),
            "the download ended early"
        );
        if have == 0 {
            bail!("the file is empty");
        }
        Ok(())
    }
}

/// The last part of the path: a plain name, never a path.
fn file_name(url: &Url) -> Option<String> {
    let last = url.path_segments()?.next_back()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let legal = !last.is_empty() && last.chars().all(plain) && !last.starts_with('.');
    (legal && !matches!(last, "partial" | "version")).then(|| last.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_as_the_address_ends_and_never_as_a_path() {
        for (url, name) in [
            (
                "https://x.org/a/model.gguf?download=true",
                Some("model.gguf"),
            ),
            ("https://x.org/", None),
            ("https://x.org/a/..%2f..%2fetc", None),
            ("https://x.org/.hidden", None),
        ] {
            assert_eq!(
                file_name(&Url::parse(url).unwrap()).as_deref(),
                name,
                "{url}"
            );
        }
    }
}
