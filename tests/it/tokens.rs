//! Tokens of the API: made by `fedpipe admin`, shown to a real api.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use testkit::wait;
use tests::command::fedpipe;
use tests::fleet::binary;
use tokio::process::{Child, Command};

const SOON: Duration = Duration::from_secs(20);

/// An api with these tables in its configuration, whose NATS is away: what it knows of jobs is nothing.
async fn api(folder: &Path, tables: &str) -> (Child, String) {
    let address = folder.join("address");
    let objects = folder.join("objects");
    let config = format!(
        "listen = \"127.0.0.1:0\"\naddress_file = {address:?}\n[nats]\nurl = \"nats://127.0.0.1:1\"\n\
         [storage]\nurl = \"file://{}\"\n{tables}",
        objects.display()
    );
    let file = folder.join("api.toml");
    std::fs::write(&file, config).unwrap();
    let child = Command::new(binary())
        .args(["api", "--config"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let listens = wait::some("the api listens", SOON, async || {
        std::fs::read_to_string(&address).ok()
    });
    let url = format!("http://{}", listens.await.trim());
    (child, url)
}

#[tokio::test]
async fn a_token_that_admin_made_lets_in_as_far_as_its_role_goes() {
    let folder = tempfile::tempdir().unwrap();
    let dashboard = ["admin", "add-token", "dashboard", "--role", "viewer"];
    let said = fedpipe(&dashboard).await.good();
    let mut lines = said.lines();
    let viewer = lines.find(|line| line.starts_with("fedpipe_")).unwrap();
    let tokens = folder.path().join("tokens").display().to_string();
    let alice = [
        "admin",
        "add-token",
        "alice",
        "--role",
        "submitter",
        "--output",
        &tokens,
    ];
    let written = fedpipe(&alice).await.good();
    let submitter = std::fs::read_to_string(format!("{tokens}/alice.token")).unwrap();
    let submitter = submitter.trim();
    assert!(submitter.starts_with("fedpipe_"), "{submitter}");
    assert!(!written.contains(submitter), "{written}");
    fedpipe(&alice).await.failed(&["is there already"]);
    let root = ["admin", "add-token", "x", "--role", "root"];
    fedpipe(&root).await.misused(&["possible values: viewer"]);

    let table = |said: &str| format!("[[tokens]]{}", said.split("[[tokens]]").nth(1).unwrap());
    let tables = table(&said) + &table(&written);
    assert!(!tables.contains(viewer), "{tables}");
    let (_api, url) = api(folder.path(), &tables).await;
    let list = async |token: &str| {
        let list = ["job", "list", "--json", "--api", &url, "--token", token];
        fedpipe(&list).await
    };
    for token in [viewer, submitter] {
        assert_eq!(list(token).await.json(), serde_json::json!([]));
    }
    let none = ["job", "list", "--api", &url];
    fedpipe(&none).await.failed(&["Bearer", "add-token"]);
    let guessed = list("fedpipe_00000000000000000000000000000000").await;
    guessed.failed(&["none of those"]);
    let on = |what: &'static str, token: &str| {
        let job = "job_0000000000000001";
        ["job", what, job, "--api", &url, "--token", token].map(str::to_owned)
    };
    let refused = fedpipe(&on("cancel", viewer)).await;
    refused.failed(&["role `submitter`", "`dashboard` has `viewer`"]);
    let refused = fedpipe(&on("delete", submitter)).await;
    refused.failed(&["role `admin`", "`alice` has `submitter`"]);
}
