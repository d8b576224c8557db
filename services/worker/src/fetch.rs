//! Bringing what a task names to this machine: models and merged adapters.

use std::fs;
use std::path::{Path, PathBuf};

use artifacts::Transfer;
use artifacts::tensors;
use chassis::failpoint::{self, Failpoint};
use chassis::telemetry::{self, Metric, SpanName};
use contract::message::task::ModelRef;
use domain::artifact::{ArtifactRef, Digest};
use domain::cause::Trouble;
use domain::fleet::Stage;
use domain::hub;
use domain::zeroth::Walk;

use crate::catch_up;
use crate::compute::ModelFiles;
use crate::durable;
use crate::emphasis;
use crate::errand::Errand;
use crate::failure::{Failure, explain};

/// The model's files: where the site says they are, or through the cache from storage or the Hub.
///
/// # Errors
/// If the policy does not admit the path, or storage does not have the model.
pub async fn model(running: &Errand) -> Result<ModelFiles, Failure> {
    let site = &running.site;
    match (&running.head.model, running.head.model.hub()) {
        (ModelRef::Path(_), Some(model)) => of_hub(running, &model).await,
        (ModelRef::Path(source), None) => {
            let admitted = site.config.policy.admit_path(source);
            let path = admitted.map_err(|refusal| Failure::of(Trouble::PolicyRefused, &refusal))?;
            Ok(ModelFiles::own(path))
        }
        (ModelRef::Digest(digest), _) => {
            if let Some(path) = site.config.models.get(digest) {
                return Ok(ModelFiles::own(path.clone()));
            }
            running.stage(Stage::Downloading, 0);
            let _span = telemetry::within(running.trace, SpanName::Download, &[]);
            let transfer = running.transfer();
            let fetched = running.patiently(Trouble::ModelUnusable, || {
                site.cache.fetch(&running.store, digest, &transfer)
            });
            let cached = fetched.await?;
            arrived(&transfer);
            Ok(cached.into())
        }
    }
}

/// A model of the Hub: asked from there, not from storage, and only if the site lets the job.
async fn of_hub(running: &Errand, model: &hub::Model) -> Result<ModelFiles, Failure> {
    let site = &running.site;
    let admitted = site.config.policy.admit_hub(model);
    admitted.map_err(|refusal| Failure::of(Trouble::PolicyRefused, &refusal))?;
    running.stage(Stage::Downloading, 0);
    let _span = telemetry::within(running.trace, SpanName::Download, &[]);
    let transfer = running.transfer();
    let fetched = running.patiently(Trouble::ModelUnusable, || {
        site.cache.fetch_hub(&site.hub, model, &transfer)
    });
    let cached = fetched.await?;
    arrived(&transfer);
    Ok(cached.into())
}

/// A model is here.
fn arrived(transfer: &Transfer) {
    telemetry::count(
        Metric::TransferBytes,
        transfer.moved(),
        &[("direction", "down")],
    );
    failpoint::hit(Failpoint::WorkerModelAfterFetch);
}

/// The merged adapter of a round as a local file, and how many bytes were moved for it. The one of the last
/// task is kept: scoring and the next round name the same, and zeroth-order rounds are replayed from it.
///
/// # Errors
/// If storage does not give it.
pub async fn adapter(
    running: &Errand,
    global: &ArtifactRef,
    walk: Option<(&Walk, u32)>,
) -> Result<(PathBuf, u64), Failure> {
    let site = &running.site;
    let folder = site.config.state_dir.join("global");
    let path = catch_up::file(&folder, &global.sha256);
    if let Some((walk, round)) = walk
        && !path.exists()
    {
        replay(running, &folder, global, walk, round).await?;
    }
    let name = format!("{}.safetensors", global.sha256.hex());
    running
        .aside(move |_| {
            keep_only(&folder, &name).map_err(|error| Failure::of(Trouble::DiskFull, &error))
        })
        .await?;
    // A file has its name only after it was verified.
    if path.exists() {
        return Ok((path, 0));
    }
    running.stage(Stage::Downloading, global.bytes);
    let _span = telemetry::within(running.trace, SpanName::Download, &[]);
    let (transfer, limit) = (running.transfer(), site.config.adapter_bytes.0);
    let fetched = running.patiently(Trouble::StorageUnavailable, || {
        running.store.get_file(global, &path, limit, &transfer)
    });
    fetched.await?;
    telemetry::count(
        Metric::TransferBytes,
        transfer.moved(),
        &[("direction", "down")],
    );
    Ok((path, transfer.moved()))
}

/// As [`adapter`], and the digest of the file as it is read back from the disk. Where sites share their directions
/// nobody does one site's steps again, so that what a damaged file led to would be taken for the site's: such a
/// file is fetched anew, once.
///
/// # Errors
/// As [`adapter`]; if the file is damaged again.
pub async fn verified(
    running: &Errand,
    global: &ArtifactRef,
    walk: (&Walk, u32),
) -> Result<(PathBuf, u64, Digest), Failure> {
    let (path, moved) = adapter(running, global, Some(walk)).await?;
    if let Some(found) = whole(running, &path, global).await? {
        return Ok((path, moved, found));
    }
    let (path, again) = adapter(running, global, None).await?;
    let found = whole(running, &path, global).await?;
    let found = found.ok_or_else(|| {
        let detail = "the merged adapter's file was fetched anew and is damaged again; \
             look at the disk under state_dir";
        Failure::new(Trouble::Internal, detail)
    })?;
    Ok((path, moved + again, found))
}

/// The digest of an adapter's file if it is the one that is asked for; otherwise the file goes.
async fn whole(
    running: &Errand,
    path: &Path,
    asked: &ArtifactRef,
) -> Result<Option<Digest>, Failure> {
    let (path, asked) = (path.to_owned(), asked.sha256.clone());
    let look = move |_: &_| {
        let found = keep_if(&path, &asked);
        found.map_err(|error| Failure::of(Trouble::DiskFull, &error))
    };
    running.aside(look).await
}

/// The digest of a file if it is this one; a file of another, or one that cannot be read, is removed.
fn keep_if(path: &Path, asked: &Digest) -> std::io::Result<Option<Digest>> {
    let why = match tensors::digest(path) {
        Ok(found) if found == *asked => return Ok(Some(found)),
        Ok(found) => format!("its digest is {found}"),
        Err(error) => explain(&error),
    };
    tracing::warn!(%asked, why, "the adapter's file is damaged, it goes");
    durable::remove(path)?;
    Ok(None)
}

/// Makes the adapter from an earlier one that is still here, if the log allows it and it is cheaper than
/// fetching it.
async fn replay(
    running: &Errand,
    folder: &Path,
    global: &ArtifactRef,
    walk: &Walk,
    round: u32,
) -> Result<(), Failure> {
    let way = match catch_up::way(folder, walk, round) {
        Ok(Some(way)) if way.is_masked() => match mask(running, walk).await? {
            Some((adapter, _)) => way.masked(adapter),
            None => return Ok(()),
        },
        Ok(Some(way)) => way,
        Ok(None) => return Ok(()),
        Err(broken) => {
            tracing::warn!(%broken, round, "the scalar log is not whole, the adapter is fetched");
            return Ok(());
        }
    };
    let limit = running.site.config.bandwidth();
    let measured = running.site.download_bytes_per_second();
    let rate = limit.map(|limit| limit.get() as f64).or(measured);
    running.stage(Stage::Loading, 0);
    let global = global.clone();
    let made = running.compute(move |_, running| way.take(running, &global, rate));
    if made.await? {
        failpoint::hit(Failpoint::WorkerCatchUpAfterReplay);
    }
    Ok(())
}

/// The adapter that the mask of a task's rounds goes by, and how many bytes were moved for it; it is kept apart from the
/// merged ones as long as tasks name it.
///
/// # Errors
/// If storage does not give it.
pub async fn mask(running: &Errand, walk: &Walk) -> Result<Option<(PathBuf, u64)>, Failure> {
    let Some(masked) = &walk.mask else {
        return Ok(None);
    };
    let state = &running.site.config.state_dir;
    let (folder, merged) = (state.join("mask"), state.join("global"));
    let path = catch_up::file(&folder, &masked.adapter.sha256);
    let name = format!("{}.safetensors", masked.adapter.sha256.hex());
    let (own, into) = (emphasis::beside(&merged, walk), path.clone());
    let asked = masked.adapter.sha256.clone();
    let disk = |error: std::io::Error| Failure::of(Trouble::DiskFull, &error);
    let prepare = move |_: &_| {
        keep_only(&folder, &name).map_err(disk)?;
        // A file has its name only when it is whole.
        if let Some(own) = own.filter(|_| !into.exists()) {
            let aside = into.with_extension("new");
            fs::copy(&own, &aside).map_err(disk)?;
            fs::rename(&aside, &into).map_err(disk)?;
        }
        if into.exists() {
            keep_if(&into, &asked).map_err(disk)?;
        }
        Ok(())
    };
    running.aside(prepare).await?;
    if path.exists() {
        return Ok(Some((path, 0)));
    }
    let (transfer, limit) = (running.transfer(), running.site.config.adapter_bytes.0);
    let fetched = running.patiently(Trouble::StorageUnavailable, || {
        let adapter = &masked.adapter;
        running.store.get_file(adapter, &path, limit, &transfer)
    });
    fetched.await?;
    let moved = transfer.moved();
    telemetry::count(Metric::TransferBytes, moved, &[("direction", "down")]);
    Ok(Some((path, moved)))
}

/// Removes every file of the folder but those that begin with `name`.
fn keep_only(folder: &Path, name: &str) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_kept_with_the_digest_that_is_asked_for_and_goes_with_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter");
        fs::write(&path, "whole").unwrap();
        let asked = tensors::digest(&path).unwrap();
        assert_eq!(keep_if(&path, &asked).unwrap(), Some(asked.clone()));
        fs::write(&path, "whale").unwrap();
        assert_eq!(keep_if(&path, &asked).unwrap(), None);
        assert!(!path.exists());
        assert_eq!(keep_if(&path, &asked).unwrap(), None, "there is none");
    }
}
