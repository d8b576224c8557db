//! The wire itself: everything that is said, lost or said twice. No role may do that, so a user is
//! added to the fleet's NATS server who may.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::{Client, ConnectOptions, HeaderMap, Subscriber};
use rustix::process::Signal;
use serde_json::Value;
use testkit::wait;

use crate::{Fleet, procs};

const USER: &str = "eavesdropper";
const ANSWER: Duration = Duration::from_secs(10);

/// Somebody who hears and says everything.
#[derive(Debug, Clone)]
pub struct Wire {
    client: Client,
    jetstream: jetstream::Context,
}

impl Wire {
    /// Adds the user and connects.
    pub async fn tap(fleet: &Fleet) -> Self {
        let file = fleet.state().join("config/nats.conf");
        let text = std::fs::read_to_string(&file).expect("the server's configuration");
        let password = chassis::clock::random_token();
        let user = format!("users: [\n    {{ user: {USER:?}, password: {password:?} }}\n");
        let more = text.replacen("users: [\n", &user, 1);
        assert_ne!(text, more, "the configuration has no users");
        std::fs::write(&file, more).expect("the configuration is written");
        procs::signal(fleet.pid("nats"), Signal::HUP);
        let url = fleet.nats_url();
        let client = wait::some("the new user is let in", ANSWER, async || {
            let options =
                ConnectOptions::new().user_and_password(USER.to_owned(), password.clone());
            options.connect(&url).await.ok()
        });
        let client = client.await;
        let jetstream = jetstream::new(client.clone());
        Self { client, jetstream }
    }

    /// Hears a subject.
    pub async fn hear(&self, subject: &str) -> Subscriber {
        let heard = self.client.subscribe(subject.to_owned()).await;
        let heard = heard.expect("a subscription");
        self.client.flush().await.expect("the server answers");
        heard
    }

    /// Says something, whatever becomes of it: a stream may refuse what it has.
    pub async fn say(&self, subject: &str, headers: HeaderMap, payload: Vec<u8>) -> bool {
        let sent = self
            .jetstream
            .publish_with_headers(subject.to_owned(), headers, payload.into())
            .await;
        match sent {
            Ok(stored) => stored.await.is_ok(),
            Err(_) => false,
        }
    }

    /// Says what no stream keeps.
    pub async fn shout(&self, subject: &str, headers: HeaderMap, payload: Vec<u8>) {
        let sent = self
            .client
            .publish_with_headers(subject.to_owned(), headers, payload.into())
            .await;
        sent.expect("the server answers");
    }

    /// Removes messages from a stream; returns how many.
    pub async fn lose(&self, stream: &str, subject: &str) -> u64 {
        let stream = self.jetstream.get_stream(stream).await.expect("the stream");
        let purged = stream.purge().filter(subject).await.expect("a purge");
        purged.purged
    }

    /// How many messages of a subject a stream holds.
    pub async fn held(&self, stream: &str, subject: &str) -> usize {
        use futures::TryStreamExt;
        let stream = self.jetstream.get_stream(stream).await.expect("the stream");
        let info = stream
            .info_with_subjects(subject)
            .await
            .expect("its subjects");
        let all: Vec<(String, usize)> = info.try_collect().await.expect("its subjects");
        all.iter().map(|(_, count)| count).sum()
    }

    /// The keys of a bucket that contain a text.
    pub async fn keys(&self, bucket: &str, text: &str) -> Vec<String> {
        use futures::TryStreamExt;
        let store = self.jetstream.get_key_value(bucket).await;
        let keys = store.expect("the bucket").keys().await;
        let all: Vec<String> = keys.expect("keys").try_collect().await.expect("keys");
        all.into_iter().filter(|key| key.contains(text)).collect()
    }

    /// A stored value.
    pub async fn value(&self, bucket: &str, key: &str) -> Value {
        let store = self
            .jetstream
            .get_key_value(bucket)
            .await
            .expect("the bucket");
        let bytes = store.get(key).await.expect("an answer").expect("a value");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// Overwrites a stored value.
    pub async fn overwrite(&self, bucket: &str, key: &str, value: &Value) {
        let store = self
            .jetstream
            .get_key_value(bucket)
            .await
            .expect("the bucket");
        let text = value.to_string();
        store.put(key, text.into()).await.expect("a write");
    }
}
