//! Models: pushed as folders or files, fetched by digest into a bounded cache.

use artifacts::{Error, ModelCache, ModelRef, PART_BYTES, Transfer};
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, MIB, content, slow, until};

async fn push(backend: &Backend, seed: u64, bytes: usize) -> ModelRef {
    let path = backend.file(&format!("model{seed}/weights.bin"), &content(seed, bytes));
    backend.file(&format!("model{seed}/config.json"), b"{}");
    let folder = path.parent().unwrap();
    backend
        .store
        .push_model(folder, &Transfer::default())
        .await
        .unwrap()
}

fn cache(backend: &Backend, limit_bytes: u64) -> ModelCache {
    ModelCache::open(&backend.path("cache"), limit_bytes).unwrap()
}

pub async fn a_folder_comes_back_as_it_was_pushed(backend: &Backend) {
    let weights = content(1, 8 * MIB + 5);
    backend.file("model/config.json", b"{}");
    backend.file("model/shards/1.safetensors", &weights);
    backend.file("model/.git/HEAD", b"hidden");
    backend.file("model/empty", b"");
    let (first, again) = (Transfer::default(), Transfer::default());
    let model = backend
        .store
        .push_model(&backend.path("model"), &first)
        .await
        .unwrap();
    assert_eq!(
        model.files,
        ["config.json", "empty", "shards/1.safetensors"]
    );
    assert_eq!(model.bytes, 2 + weights.len() as u64);
    assert_eq!(first.moved(), model.bytes);
    assert_eq!(
        backend
            .store
            .push_model(&backend.path("model"), &again)
            .await
            .unwrap(),
        model
    );
    assert_eq!(again.moved(), 0);
    let prefix = format!("models/{}/", model.digest.hex());
    assert!(
        backend
            .keys()
            .await
            .iter()
            .all(|key| key.starts_with(&prefix))
    );
    assert!(
        backend
            .store
            .exists(&format!("{prefix}manifest"))
            .await
            .unwrap()
    );

    let other = push(backend, 9, 10).await;
    let mut expected = [model.clone(), other.clone()];
    expected.sort_by(|a, b| a.digest.cmp(&b.digest));
    assert_eq!(backend.owner.list_models().await.unwrap(), expected);

    let transfer = Transfer::default();
    let cache = cache(backend, 64 * MIB as u64);
    let fetched = cache
        .fetch(&backend.store, &model.digest, &transfer)
        .await
        .unwrap();
    assert!(std::fs::read(fetched.path().join("shards/1.safetensors")).unwrap() == weights);
    assert_eq!(
        std::fs::read(fetched.path().join("config.json")).unwrap(),
        b"{}"
    );
    cache
        .fetch(&backend.store, &model.digest, &transfer)
        .await
        .unwrap();
    assert_eq!(transfer.moved(), model.bytes, "fetched twice");

    backend.owner.delete_model(&model.digest).await.unwrap();
    assert_eq!(backend.owner.list_models().await.unwrap(), [other]);
}

pub async fn a_single_file_is_fetched_as_a_file(backend: &Backend) {
    let path = backend.file("tiny.gguf", b"GGUF");
    let transfer = Transfer::default();
    let model = backend.store.push_model(&path, &transfer).await.unwrap();
    let cache = cache(backend, 1000);
    let fetched = cache
        .fetch(&backend.store, &model.digest, &transfer)
        .await
        .unwrap();
    assert_eq!(fetched.path().file_name().unwrap(), "tiny.gguf");
    assert_eq!(std::fs::read(fetched.path()).unwrap(), b"GGUF");
}

pub async fn the_least_recently_used_model_goes_first_and_one_in_use_stays(backend: &Backend) {
    let [a, b, c] = [
        push(backend, 1, 398).await,
        push(backend, 2, 398).await,
        push(backend, 3, 398).await,
    ];
    let cache = cache(backend, 1000);
    let transfer = Transfer::default();
    let fetch = |model: &ModelRef| {
        let (cache, digest, store, transfer) = (
            cache.clone(),
            model.digest.clone(),
            backend.store.clone(),
            transfer.clone(),
        );
        async move { cache.fetch(&store, &digest, &transfer).await }
    };
    let moves = async |model: &ModelRef| {
        let before = transfer.moved();
        drop(fetch(model).await.unwrap());
        transfer.moved() > before
    };
    assert!(moves(&a).await);
    assert!(moves(&b).await);
    assert!(!moves(&a).await, "a is still there");
    assert!(moves(&c).await, "b is dropped for c: a was used after it");
    assert!(!moves(&a).await);
    assert!(moves(&b).await, "c is dropped for b");

    let (using_a, using_b) = (fetch(&a).await.unwrap(), fetch(&b).await.unwrap());
    let error = fetch(&c).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::NoRoom {
                needed: 400,
                used: 800,
                ..
            }
        ),
        "{error:?}"
    );
    drop(using_a);
    fetch(&c).await.unwrap();
    assert!(
        using_b.path().join("weights.bin").exists(),
        "in use and gone"
    );
    assert!(cache.used_bytes().await.unwrap() < 1000 + 100);

    let huge = push(backend, 4, 1001).await;
    assert!(matches!(fetch(&huge).await, Err(Error::TooLarge { .. })));
}

pub async fn fetching_the_same_model_at_the_same_time_moves_it_once(backend: &Backend) {
    let model = push(backend, 1, 9 * MIB).await;
    let transfer = Transfer::default();
    // Two values, as two processes that share the folder would have.
    let (one, two) = (
        cache(backend, 64 * MIB as u64),
        cache(backend, 64 * MIB as u64),
    );
    let both = tokio::join!(
        one.fetch(&backend.store, &model.digest, &transfer),
        two.fetch(&backend.store, &model.digest, &transfer),
    );
    assert_eq!(both.0.unwrap().path(), both.1.unwrap().path());
    assert_eq!(transfer.moved(), model.bytes);
}

pub async fn an_interrupted_model_resumes(backend: &Backend) {
    let model = push(backend, 1, 40 * MIB).await;
    let cache = cache(backend, 64 * MIB as u64);
    let cancel = CancellationToken::new();
    let first = slow(&cancel);
    let partial = backend.path("cache").join(format!(
        "{}.partial/weights.bin.partial",
        model.digest.hex()
    ));
    let (stopped, ()) = tokio::join!(cache.fetch(&backend.store, &model.digest, &first), async {
        until(|| crate::backend::length(&partial) >= PART_BYTES).await;
        cancel.cancel();
    });
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    let kept = crate::backend::length(&partial) / PART_BYTES * PART_BYTES;
    let second = Transfer::default();
    cache
        .fetch(&backend.store, &model.digest, &second)
        .await
        .unwrap();
    // config.json (2 bytes) was complete too.
    assert_eq!(second.moved(), model.bytes - kept - 2);
}

pub async fn a_model_that_was_never_pushed_is_not_found(backend: &Backend) {
    let digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
    let error = cache(backend, 1000)
        .fetch(&backend.store, &digest, &Transfer::default())
        .await;
    assert!(matches!(error, Err(Error::NotFound { .. })), "{error:?}");
    assert_eq!(backend.owner.list_models().await.unwrap(), []);
}
