//! What storage refuses when somebody lies.

use artifacts::manifest::MANIFEST_BYTES;
use artifacts::{Error, Retry, Transfer, manifest};
use domain::artifact::{ArtifactRef, Digest};

use crate::backend::{Backend, MIB, content};

/// Fetches to a file and into memory; both must fail alike, for good, and leave nothing.
#[track_caller]
fn refused(
    backend: &Backend,
    artifact: &ArtifactRef,
    limit: u64,
    expected: impl Fn(&Error) -> bool,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let transfer = Transfer::default();
        let out = backend.path("out");
        let to_file = backend
            .store
            .get_file(artifact, &out, limit, &transfer)
            .await
            .unwrap_err();
        let to_memory = backend
            .store
            .get_bytes(artifact, limit, &transfer)
            .await
            .unwrap_err();
        for error in [to_file, to_memory] {
            assert!(expected(&error), "{caller}: {error:?}");
            assert_eq!(error.retry(), Retry::Never, "{caller}");
        }
        assert!(!out.exists(), "{caller}");
    }
}

pub async fn a_corrupt_part_is_named_and_nothing_takes_its_place(backend: &Backend) {
    let whole = content(1, 8 * MIB + 100);
    let mut tail = whole[8 * MIB..].to_vec();
    let stored = backend
        .store
        .put_bytes("b", tail.clone(), &Transfer::default())
        .await
        .unwrap();
    let artifact = backend
        .store
        .put_bytes("a", whole, &Transfer::default())
        .await
        .unwrap();
    // A part is named by its digest, whatever artifact it belongs to.
    let part = format!("a/parts/{}", stored.sha256.hex());
    tail[50] ^= 1;
    backend.overwrite(&part, tail).await;
    refused(
        backend,
        &artifact,
        u64::MAX,
        |error| matches!(error, Error::Corrupt { key, .. } if *key == part),
    )
    .await;
}

pub async fn a_part_of_another_length_is_refused(backend: &Backend) {
    let artifact = backend
        .store
        .put_bytes("a", "hello", &Transfer::default())
        .await
        .unwrap();
    let part = format!("a/parts/{}", artifact.sha256.hex());
    for lie in ["hell", "hello!"] {
        backend.overwrite(&part, lie).await;
        refused(
            backend,
            &artifact,
            100,
            |error| matches!(error, Error::WrongLength { key, expected: 5, .. } if *key == part),
        )
        .await;
    }
    // A writer of the same content finds out too, instead of sealing it.
    let artifact = backend
        .store
        .put_bytes("b", "hello", &Transfer::default())
        .await
        .unwrap();
    backend.owner.delete_prefix("b").await.unwrap();
    let part = format!("b/parts/{}", artifact.sha256.hex());
    backend.overwrite(&part, "hell").await;
    let error = backend
        .store
        .put_bytes("b", "hello", &Transfer::default())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::WrongLength {
                expected: 5,
                found: 4,
                ..
            }
        ),
        "{error:?}"
    );
}

pub async fn a_manifest_that_lies_is_refused(backend: &Backend) {
    let artifact = backend
        .store
        .put_bytes("a", "hello", &Transfer::default())
        .await
        .unwrap();
    let other = backend
        .store
        .put_bytes("a", "olleh", &Transfer::default())
        .await
        .unwrap();
    let hex = artifact.sha256.hex();
    let part = format!(r#"{{"sha256":"sha256:{hex}","bytes":5}}"#);
    let file = |path: &str, bytes: u64, parts: &str| {
        let sha256 = format!("sha256:{hex}");
        format!(
            r#"{{"version":1,"files":[{{"path":"{path}","sha256":"{sha256}","bytes":{bytes},"parts":[{parts}]}}]}}"#
        )
    };
    let manifest = |e: &Error, text: &str| match e {
        Error::Manifest { source, .. } => format!("{source:?}").starts_with(text),
        _ => false,
    };
    for (lie, name) in [
        ("not a manifest".to_owned(), "Unreadable"),
        (file("../../etc/passwd", 5, &part), "Path"),
        (file("/etc/passwd", 5, &part), "Path"),
        (file("content", 5, ""), "Sum"),
        (file("content", 5, &part.replace(":5", ":0")), "Part"),
        (
            file("content", 9_000_000, &part.replace(":5", ":9000000")),
            "Part",
        ),
        (
            file("content", 5, &part).replace("{\"version", " {\"version"),
            "NotCanonical",
        ),
        (file("content", 5, &part).replace(":1,", ":2,"), "Version"),
    ] {
        backend.overwrite(&artifact.key, lie.clone()).await;
        refused(backend, &artifact, 100, |error| manifest(error, name)).await;
    }
    // Valid, and of other content of the same length.
    let theirs = file("content", 5, &part).replace(hex, other.sha256.hex());
    backend.overwrite(&artifact.key, theirs).await;
    refused(backend, &artifact, 100, |error| manifest(error, "Other")).await;
    // It is there, and not what it should be.
    assert!(backend.store.exists(&artifact.key).await.unwrap());
    let looked = backend
        .store
        .look_up(&artifact, &Transfer::default())
        .await
        .unwrap_err();
    assert!(manifest(&looked, "Other"), "{looked:?}");
    // Longer than any manifest: it is not read.
    backend
        .overwrite(&artifact.key, vec![b' '; MANIFEST_BYTES as usize + 1])
        .await;
    refused(backend, &artifact, 100, |error| {
        matches!(error, Error::TooLarge { .. })
    })
    .await;
}

pub async fn what_is_above_the_limit_is_refused_before_a_byte_moves(backend: &Backend) {
    let transfer = Transfer::default();
    let artifact = backend
        .store
        .put_bytes("a", content(2, 1000), &Transfer::default())
        .await
        .unwrap();
    let huge = ArtifactRef {
        bytes: 10_000_000_000,
        ..artifact.clone()
    };
    let small = ArtifactRef {
        bytes: 10,
        ..artifact.clone()
    };
    let out = backend.path("out");
    for (artifact, limit) in [(&artifact, 999), (&huge, 9_000_000), (&small, 999)] {
        let error = backend
            .store
            .get_file(artifact, &out, limit, &transfer)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    }
    let error = backend
        .store
        .get_file(&small, &out, 1000, &transfer)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::WrongLength {
                expected: 10,
                found: 1000,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(transfer.moved(), 0);
    assert!(!out.exists() && !backend.path("out.partial").exists());
    backend
        .store
        .get_file(&artifact, &out, 1000, &transfer)
        .await
        .unwrap();
}

pub async fn parts_that_are_right_do_not_make_a_wrong_whole_right(backend: &Backend) {
    let artifact = backend
        .store
        .put_bytes("a", "hello", &Transfer::default())
        .await
        .unwrap();
    let claimed: Digest = format!("sha256:{}", "cd".repeat(32)).parse().unwrap();
    let part = manifest::Part {
        sha256: artifact.sha256,
        bytes: 5,
    };
    let (path, bytes) = ("content".to_owned(), 5);
    let file = manifest::File {
        path,
        sha256: claimed.clone(),
        bytes,
        parts: vec![part],
    };
    let lie = manifest::Manifest::new(vec![file])
        .unwrap()
        .to_bytes()
        .unwrap();
    let key = format!("a/{}.manifest", claimed.hex());
    backend.overwrite(&key, lie).await;
    let reference = ArtifactRef {
        key,
        sha256: claimed.clone(),
        bytes,
    };
    refused(
        backend,
        &reference,
        u64::MAX,
        |error| matches!(error, Error::Corrupt { expected, .. } if *expected == claimed),
    )
    .await;
    assert!(
        !backend.path("out.partial").exists(),
        "nothing of it can be kept"
    );
}

pub async fn a_prefix_that_could_escape_is_refused(backend: &Backend) {
    let transfer = Transfer::default();
    for prefix in ["", "..", "../a", "a/../b", "/a", "a//b", "a b"] {
        let error = backend
            .store
            .put_bytes(prefix, "x", &transfer)
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::InvalidKey { .. }),
            "{prefix}: {error:?}"
        );
        let error = backend.owner.delete_prefix(prefix).await.unwrap_err();
        assert!(
            matches!(error, Error::InvalidKey { .. }),
            "{prefix}: {error:?}"
        );
    }
    let real = backend.store.put_bytes("a", "x", &transfer).await.unwrap();
    let escaping = ArtifactRef {
        key: "a/../../x.manifest".into(),
        ..real
    };
    refused(backend, &escaping, 100, |error| {
        matches!(error, Error::InvalidKey { .. })
    })
    .await;
}

pub async fn a_missing_artifact_is_not_found(backend: &Backend) {
    let artifact = backend
        .store
        .put_bytes("a", "hello", &Transfer::default())
        .await
        .unwrap();
    let missing = ArtifactRef {
        key: "b/x.manifest".into(),
        ..artifact.clone()
    };
    refused(
        backend,
        &missing,
        100,
        |e| matches!(e, Error::NotFound { key } if key == "b/x.manifest"),
    )
    .await;
    // A seal on parts that are gone.
    backend.owner.delete_prefix("a/parts").await.unwrap();
    refused(
        backend,
        &artifact,
        100,
        |e| matches!(e, Error::NotFound { key } if key.contains("parts")),
    )
    .await;
}
