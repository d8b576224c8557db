//! The URLs that are at hand: asked for in batches along the way of a transfer, and again before they
//! expire.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::grant::{BATCH, SignedUrl, Wanted};
use tokio::time::Instant;

use super::Fault;
use crate::sign::Signer;
use crate::transfer::tick;

/// URLs that are kept at most.
const KEPT: usize = 8 * BATCH;
/// A URL counts as expired a little earlier, a fifth of its time and at most this.
const MARGIN: Duration = Duration::from_secs(30);

/// What is signed and what will be needed next.
#[derive(Debug)]
pub(crate) struct Urls {
    signer: Arc<dyn Signer>,
    known: Mutex<Known>,
    /// Held while asking, so that parts on their way at the same time ask once.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    fresh: HashMap<Wanted, Fresh>,
    /// The transfer under way, in its order.
    ahead: Vec<Wanted>,
}

#[derive(Debug)]
struct Fresh {
    url: SignedUrl,
    until: Instant,
}

impl Urls {
    pub fn new(signer: Arc<dyn Signer>) -> Self {
        Self {
            signer,
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// What a transfer is going to need, in order: asked for together with what it needs first.
    pub fn expect(&self, ahead: Vec<Wanted>) {
        self.lock().ahead = ahead;
    }

    /// Storage did not take this URL.
    pub fn forget(&self, wanted: &Wanted) {
        self.lock().fresh.remove(wanted);
    }

    /// A URL that is good for a while.
    pub async fn get(&self, wanted: &Wanted) -> Result<SignedUrl, Fault> {
        if let Some(url) = self.lock().fresh(wanted) {
            return Ok(url);
        }
        let _alone = self.asking.lock().await;
        let batch = {
            let known = self.lock();
            // Whoever was before us may have asked for it.
            if let Some(url) = known.fresh(wanted) {
                return Ok(url);
            }
            known.batch(wanted)
        };
        let asked_at = tick();
        let signed = self.signer.sign(batch.clone()).await?;
        let url = signed.urls.first().cloned().ok_or(Fault::NoUrl)?;
        let good_for = signed.valid.saturating_sub(MARGIN.min(signed.valid / 5));
        let mut known = self.lock();
        known.make_room(asked_at);
        let fresh = signed.urls.into_iter().map(|url| {
            let until = asked_at + good_for;
            Fresh { url, until }
        });
        known.fresh.extend(batch.into_iter().zip(fresh));
        Ok(url)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Invariant: every change is one insertion, removal or replacement.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn fresh(&self, wanted: &Wanted) -> Option<SignedUrl> {
        let fresh = self.fresh.get(wanted)?;
        (tick() < fresh.until).then(|| fresh.url.clone())
    }

    /// This one, and what the transfer needs after it.
    fn batch(&self, wanted: &Wanted) -> Vec<Wanted> {
        let mut batch = vec![wanted.clone()];
        if let Some(place) = self.ahead.iter().position(|one| one == wanted) {
            let after = self.ahead.iter().skip(place + 1);
            batch.extend(after.take(BATCH - 1).cloned());
        }
        batch
    }

    fn make_room(&mut self, now: Instant) {
        self.fresh.retain(|_, fresh| now < fresh.until);
        if self.fresh.len() + BATCH > KEPT {
            self.fresh.clear();
        }
    }
}
