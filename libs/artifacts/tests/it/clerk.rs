//! Somebody who signs URLs, rightly or not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use artifacts::{SignError, Signed, Signer, Store};
use domain::grant::{SignedUrl, Wanted};
use futures::FutureExt;
use futures::future::BoxFuture;

/// Signs whatever it is asked for with the credentials of a store, as it is told to.
#[derive(Debug)]
pub struct Clerk {
    store: Store,
    asked: Mutex<Vec<Vec<Wanted>>>,
    /// What it says of how long a URL is good; absent: the truth.
    pub claims: Option<Duration>,
    /// Answers with a damaged signature before the first right one.
    pub forged: AtomicUsize,
    /// Questions that nobody answers before the first answer.
    pub away: AtomicUsize,
}

impl Clerk {
    pub fn of(store: &Store) -> Self {
        Self {
            store: store.clone(),
            asked: Mutex::default(),
            claims: None,
            forged: AtomicUsize::new(0),
            away: AtomicUsize::new(0),
        }
    }

    /// How many objects were asked for in each question so far.
    pub fn questions(&self) -> Vec<usize> {
        self.asked.lock().unwrap().iter().map(Vec::len).collect()
    }
}

fn count_down(left: &AtomicUsize) -> bool {
    let less = |left: usize| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        .is_ok()
}

impl Signer for Clerk {
    fn sign(&self, wanted: Vec<Wanted>) -> BoxFuture<'_, Result<Signed, SignError>> {
        async move {
            assert!(
                wanted.len() <= domain::grant::BATCH,
                "{} at once",
                wanted.len()
            );
            self.asked.lock().unwrap().push(wanted.clone());
            if count_down(&self.away) {
                return Err(SignError::Away("nobody is there".into()));
            }
            let mut signed = self.store.sign(&wanted).await.unwrap();
            if let Some(valid) = self.claims {
                signed.valid = valid;
            }
            if count_down(&self.forged) {
                for url in &mut signed.urls {
                    let text = url.reveal();
                    let (start, signature) = text.split_at(text.len() - 4);
                    let other = if signature == "0000" { "1111" } else { "0000" };
                    *url = SignedUrl::from(format!("{start}{other}"));
                }
            }
            Ok(signed)
        }
        .boxed()
    }
}
