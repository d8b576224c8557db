//! `GET /v1/jobs/{id}/adapter`: the trained adapter as one archive that unpacks into a folder that
//! Hugging Face PEFT loads, or as a file for llama.cpp; or the model with the adapter in its weights.
//!
//! It is fetched and verified as a whole before the first byte leaves: a client never gets half an
//! adapter under a good status. It passes through a file, so that memory does not grow with it.

mod gguf_lora;
mod model;
mod whole;

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::artifact::{ArtifactRef, Digest};
use domain::id::JobId;
use domain::job::{Job, Phase};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::io::ReaderStream;

use super::openapi::Refusals;
use super::report::unfinished;
use crate::extract::{JobPath, Params};
use crate::problem::{Kind, Problem};
use crate::state::App;

/// Header with the digest of `adapter_model.safetensors`.
const SHA256: &str = "fedpipe-adapter-sha256";
/// Largest `adapter_config.json`, in bytes.
const CONFIG_BYTES: u64 = 1 << 20;
/// Bytes read from the file at once.
const CHUNK_BYTES: usize = 64 << 10;
/// A tar archive is made of blocks of this size.
const BLOCK: u64 = 512;

/// Query of an adapter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterQuery {
    format: Option<String>,
}

/// What is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Peft,
    GgufLora,
    Merged,
    Gguf,
}

impl Format {
    const ALL: [Self; 4] = [Self::Peft, Self::GgufLora, Self::Merged, Self::Gguf];

    /// Its name in queries, and after `fedpipe export --to`.
    const fn name(self) -> &'static str {
        match self {
            Self::Peft => "peft",
            Self::GgufLora => "gguf-lora",
            Self::Merged => "merged",
            Self::Gguf => "gguf",
        }
    }
}

/// Hands out a finished job's adapter, for Hugging Face PEFT or llama.cpp, or the model with the adapter in its weights.
///
/// The archive holds `adapter_config.json` and `adapter_model.safetensors`; that of `merged` a folder for Hugging Face transformers.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/adapter", tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        ("format" = Option<String>, Query, description = "`peft`, the archive, if absent; `gguf-lora` for llama.cpp's `--lora`. `merged` (an archive) and `gguf` (a file) are the model with the adapter in its weights: made here if the model lies in storage and fits the service's memory, one at a time, else by `fedpipe export`"),
    ),
    responses(
        (status = 200, description = "The archive; `Fedpipe-Adapter-Sha256` is the digest of `adapter_model.safetensors`, of `merged` that of `model.safetensors`, of `gguf-lora` and `gguf` that of the file", content_type = "application/x-tar",
            headers(("Fedpipe-Adapter-Sha256" = String, description = "`sha256:…` of `adapter_model.safetensors`, of `model.safetensors`, or of the file"))),
        (status = 400, description = "There is no such format here", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has not succeeded, or its model cannot be read here, or does not fit; or this release cannot read it", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn adapter(
    State(app): State<App>,
    JobPath(id): JobPath,
    Params(query): Params<AdapterQuery>,
) -> Result<Response, Problem> {
    let format = format(query.format.as_deref())?;
    let job = app.stored(&id).await?;
    let Phase::Succeeded {
        adapter, config, ..
    } = &job.phase
    else {
        return Err(unfinished(&id, &job.phase, "adapter"));
    };
    let config = app
        .objects()
        .get_bytes(config, CONFIG_BYTES, &artifacts::Transfer::default())
        .await?;
    match format {
        Format::Peft => peft(&app, &id, adapter, config).await,
        Format::GgufLora => lora(&app, &job, adapter, config).await,
        Format::Merged | Format::Gguf => whole::answer(&app, &job, format, (adapter, config)).await,
    }
}

fn format(asked: Option<&str>) -> Result<Format, Problem> {
    let Some(asked) = asked else {
        return Ok(Format::Peft);
    };
    let found = Format::ALL.into_iter().find(|own| own.name() == asked);
    found.ok_or_else(|| {
        let shown: String = asked.chars().take(40).collect();
        let detail = format!("there is no format {shown:?}: use peft, gguf-lora, merged or gguf");
        Problem::new(Kind::BadRequest, detail)
    })
}

async fn fetch(app: &App, adapter: &ArtifactRef, to: &Path, limit: u64) -> Result<(), Problem> {
    let transfer = artifacts::Transfer::default();
    app.objects()
        .get_file(adapter, to, limit, &transfer)
        .await?;
    Ok(())
}

async fn peft(
    app: &App,
    id: &JobId,
    adapter: &ArtifactRef,
    config: Bytes,
) -> Result<Response, Problem> {
    let folder = tempfile::tempdir().map_err(|error| local(&error))?;
    let path = folder.path().join("adapter");
    fetch(app, adapter, &path, app.limits().adapter_bytes).await?;
    // The open file outlives its name: nothing is left behind however the answer ends.
    let file = File::open(&path).await.map_err(|error| local(&error))?;
    let (length, archive) = archive(config, adapter.bytes, file).map_err(|error| local(&error))?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{id}-adapter.tar\""),
        ),
    ];
    let digest = [(SHA256, adapter.sha256.to_string())];
    Ok((headers, digest, Body::from_stream(archive)).into_response())
}

async fn lora(
    app: &App,
    job: &Job,
    adapter: &ArtifactRef,
    config: Bytes,
) -> Result<Response, Problem> {
    let model::Stored { config: model, .. } =
        model::stored(app, &job.spec.model, Format::GgufLora).await?;
    let folder = tempfile::tempdir().map_err(|error| local(&error))?;
    let (from, to) = (folder.path().join("adapter"), folder.path().join("gguf"));
    let limit = gguf_lora::LIMIT_BYTES.min(app.limits().adapter_bytes);
    fetch(app, adapter, &from, limit).await?;
    let (name, made) = (job.id.to_string(), to.clone());
    let turn = turn(app.computing()).await?;
    let work = move || {
        // Kept even if nobody waits for the end any more.
        let _turn = turn;
        gguf_lora::convert(&from, &config, &model, &name, &made)?;
        let file = std::fs::File::open(&made).map_err(|error| local(&error))?;
        let digest = digest_of(&file).map_err(|error| local(&error))?;
        let length = file.metadata().map_err(|error| local(&error))?.len();
        Ok::<_, Problem>((digest, length))
    };
    let ended = tokio::task::spawn_blocking(work).await;
    let (digest, length) =
        ended.map_err(|_| Problem::new(Kind::Internal, "the conversion did not end"))??;
    let file = File::open(&to).await.map_err(|error| local(&error))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{}-adapter.gguf\"", job.id),
        ),
    ];
    let body = Body::from_stream(ReaderStream::with_capacity(file, CHUNK_BYTES));
    Ok((headers, [(SHA256, digest.to_string())], body).into_response())
}

/// Waits until nobody else computes here: memory that is promised to one is not promised to another.
async fn turn(computing: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
    let turn = computing.acquire_owned().await;
    turn.map_err(|_| Problem::new(Kind::Internal, "nothing is computed here any more"))
}

/// The digest of a whole file.
fn digest_of(mut file: &std::fs::File) -> io::Result<Digest> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        let count = file.read(&mut buffer)?;
        match buffer.get(..count) {
            Some(read) if !read.is_empty() => hasher.update(read),
            _ => return Ok(Digest::from_bytes(&hasher.finalize().into())),
        }
    }
}

/// Trouble with this machine's own disk.
fn local(error: &io::Error) -> Problem {
    tracing::warn!(
        error = bus::drive::error_chain(error),
        "adapter cannot pass through a file"
    );
    Problem::new(
        Kind::Unavailable,
        "this service has no room for the adapter on its disk: an operator looks at its temporary folder",
    )
}

/// The archive and its length. The same adapter gives the same bytes.
fn archive(
    config: Bytes,
    adapter_bytes: u64,
    adapter: File,
) -> io::Result<(u64, impl Stream<Item = io::Result<Bytes>> + use<>)> {
    let config_bytes = config.len() as u64;
    let length = [config_bytes, adapter_bytes].map(|bytes| BLOCK + bytes.next_multiple_of(BLOCK));
    let before = [
        header_of("adapter_config.json", config_bytes)?,
        config,
        zeros(padding(config_bytes)),
        header_of("adapter_model.safetensors", adapter_bytes)?,
    ];
    let after = [zeros(padding(adapter_bytes)), zeros(2 * BLOCK)];
    let content = ReaderStream::with_capacity(adapter, CHUNK_BYTES);
    let archive = stream::iter(before.map(Ok))
        .chain(content)
        .chain(stream::iter(after.map(Ok)));
    Ok((length.iter().sum::<u64>() + 2 * BLOCK, archive))
}

fn header_of(name: &str, bytes: u64) -> io::Result<Bytes> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

const fn padding(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK) - bytes
}

fn zeros(bytes: u64) -> Bytes {
    // Invariant: at most two blocks.
    vec![0; usize::try_from(bytes).unwrap_or_default()].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use std::io::Write;

    async fn check(config: &[u8], adapter: &[u8]) {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(adapter).expect("written");
        io::Seek::rewind(&mut file).expect("rewound");
        let bytes = Bytes::copy_from_slice(config);
        let (length, stream) =
            archive(bytes, adapter.len() as u64, File::from_std(file)).expect("an archive");
        let parts: Vec<Bytes> = stream.try_collect().await.expect("reads");
        let whole = parts.concat();
        assert_eq!(whole.len() as u64, length);
        let mut archive = tar::Archive::new(whole.as_slice());
        let mut found = Vec::new();
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            found.push((name, content));
        }
        assert_eq!(
            found,
            [
                ("adapter_config.json".to_owned(), config.to_vec()),
                ("adapter_model.safetensors".to_owned(), adapter.to_vec()),
            ]
        );
    }

    #[tokio::test]
    async fn the_archive_unpacks_into_both_files_whatever_their_lengths() {
        check(b"{}", &[7; 100_000]).await;
        check(&[b'x'; 512], &[7; 1024]).await;
        check(b"", b"").await;
    }
}
