//! Identities, on a whole fleet: what `fedpipe admin` makes is enough to run a job over TLS, and to put a
//! site out again.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use testkit::wait;
use tests::command::fedpipe;
use tests::job::{scored, with};
use tests::secured::{CONTROL, Secured};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const END: Duration = Duration::from_secs(90);

/// All that the server says to somebody who speaks without TLS.
async fn in_the_clear(url: &str) -> String {
    let address = url.trim_start_matches("tls://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let hello = b"CONNECT {\"verbose\":true}\r\nPING\r\n";
    stream.write_all(hello).await.unwrap();
    let mut heard = Vec::new();
    let whole = stream.read_to_end(&mut heard);
    // The server may break the connection off.
    let _ = wait::in_time("the server has enough of it", END, whole).await;
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test]
async fn a_job_runs_over_tls_with_keys_and_permissions_that_admin_made_and_a_revoked_site_is_out() {
    let fleet = Secured::start(&["a", "b"]).await;
    for name in CONTROL.iter().copied().chain(["worker-a", "worker-b"]) {
        let text = fleet.configuration(name);
        assert!(
            text.contains("tls://") && !text.contains("password"),
            "{text}"
        );
        assert!(!text.contains("http://"), "{text}");
        let signs = text.contains("secret_key");
        assert_eq!(signs, ["api", "aggregator"].contains(&name), "{text}");
    }
    let said = in_the_clear(&fleet.nats_url).await;
    assert!(said.starts_with("INFO") && !said.contains("PONG"), "{said}");

    let digest = fleet.push_model().await;
    let job = with(
        scored(fleet.path("model").as_ref()),
        "model",
        json!({"digest": digest}),
    );
    let id = fleet.api().submit(&job).await;
    fleet.api().succeeded(&id, END).await;
    let rounds = fleet.api().rounds(&id).await;
    for round in &rounds[1..] {
        assert_eq!(round["workers"].as_array().unwrap().len(), 2, "{round:#}");
    }

    fleet.revoke("worker-b").await;
    let liveness = async || {
        let answer = fleet.api().ask(Method::GET, "/v1/workers", None).await?;
        let items = answer.body["items"].as_array()?.clone();
        Some(items.iter().map(|one| one["liveness"].clone()).collect())
    };
    wait::until(
        "the revoked site is away and the other is not",
        END,
        async || {
            let found: Option<Vec<Value>> = liveness().await;
            found == Some(vec![json!("alive"), json!("unreachable")])
        },
    )
    .await;
    let said = wait::some("the revoked site is told what to do", END, async || {
        let log = fleet.log("worker-b");
        log.contains("add-worker").then_some(log)
    });
    said.await;
}

fn mode(path: &str) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_sites_credentials_are_made_once_shown_once_and_end_in_files_of_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (keys, users) = (path("keys"), path("users.toml"));

    let shown = fedpipe(&["admin", "add-worker", "mail-1", "--json"])
        .await
        .json();
    let seed = shown["seed"].as_str().unwrap();
    assert!(seed.starts_with("SU"), "{shown:#}");
    assert_eq!(shown["inbox_prefix"], "_INBOX_worker-mail-1");
    let block = shown["block"].as_str().unwrap();
    assert!(block.contains(shown["public_key"].as_str().unwrap()));
    assert!(block.contains("fedpipe.v1.report.mail-1.>") && !block.contains(seed));

    let to_files = [
        "admin",
        "add-worker",
        "mail-1",
        "--output",
        &keys,
        "--users",
        &users,
    ];
    let said = fedpipe(&to_files).await.good();
    let (seed_file, block_file) = (
        format!("{keys}/worker-mail-1.nk"),
        format!("{keys}/worker-mail-1.conf"),
    );
    assert_eq!(
        (mode(&seed_file), mode(&block_file), mode(&keys)),
        (0o600, 0o600, 0o700)
    );
    let kept = std::fs::read_to_string(&seed_file).unwrap();
    assert!(
        kept.starts_with("SU") && !said.contains(kept.trim()),
        "{said}"
    );

    // A name that is taken keeps its key.
    fedpipe(&to_files).await.failed(&["worker-mail-1 already"]);
    let again = ["admin", "add-worker", "mail-1", "--output", &keys];
    fedpipe(&again).await.failed(&["is there already"]);
    assert_eq!(std::fs::read_to_string(&seed_file).unwrap(), kept);

    // A site that made its key itself sends the public half.
    let public = shown["public_key"].as_str().unwrap();
    let sent = [
        "admin",
        "add-worker",
        "mail-2",
        "--key",
        public,
        "--users",
        &users,
        "--json",
    ];
    let sent = fedpipe(&sent).await.json();
    assert_eq!(
        (&sent["seed"], &sent["public_key"]),
        (&Value::Null, &json!(public))
    );
    let config = fedpipe(&["admin", "nats-config", "--users", &users]).await;
    assert!(config.err.contains("in the clear"), "{config:?}");
    let config = config.good();
    assert!(
        config.contains("fedpipe.v1.report.mail-2.>") && !config.contains(kept.trim()),
        "{config}"
    );

    fedpipe(&["admin", "add-worker", "Mail 1"])
        .await
        .misused(&["Mail 1"]);
    fedpipe(&["admin", "add-worker", "a", "--key", seed])
        .await
        .misused(&["public key"]);
    fedpipe(&["admin", "add-service", "worker"])
        .await
        .misused(&["possible values: api"]);
    let only_half = [
        "admin",
        "nats-config",
        "--users",
        &users,
        "--certificate-file",
        "x",
    ];
    fedpipe(&only_half).await.misused(&["--key-file"]);
}
