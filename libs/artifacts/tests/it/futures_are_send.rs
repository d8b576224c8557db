//! Every call can run on any thread of the runtime: this compiles, or it does not.

use std::path::Path;

use artifacts::{Hub, ModelCache, Spool, Store, Transfer};
use domain::artifact::{ArtifactRef, Digest};
use domain::hub::Model;
use domain::id::JobId;

fn check<T: Send>(_: T) {}

#[test]
fn the_futures_of_all_calls_may_change_threads() {
    // Never called: what is checked is its types.
    #[expect(dead_code, reason = "the compiler is the test")]
    fn calls(
        (store, cache, spool): (&Store, &ModelCache, &Spool),
        (artifact, digest, path): (&ArtifactRef, &Digest, &Path),
        job: &JobId,
        (hub, model): (&Hub, &Model),
        transfer: &Transfer,
    ) {
        check(store.ready());
        check(store.exists("a"));
        check(store.sign(&[]));
        check(store.put_file("a", path, transfer));
        check(store.put_bytes("a", "x", transfer));
        check(store.get_file(artifact, path, 1, transfer));
        check(store.get_bytes(artifact, 1, transfer));
        check(store.look_up(artifact, transfer));
        check(store.usage("a"));
        check(store.delete_prefix("a"));
        check(store.push_model(path, transfer));
        check(store.list_models());
        check(store.model_manifest(digest));
        check(store.delete_model(digest));
        check(store.probe("a", std::num::NonZeroU64::MIN, 1, transfer));
        check(cache.fetch(store, digest, transfer));
        check(hub.pin(model));
        check(cache.fetch_hub(hub, model, transfer));
        check(cache.used_bytes());
        check(spool.ensure(job, store, artifact, transfer));
        check(spool.remove(job, artifact));
        check(spool.forget(job));
    }
}
