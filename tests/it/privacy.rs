//! What leaves a site: figures, never a word of its records.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use tests::job::scored;
use tests::{Fleet, Setup, Site, Wire};

const END: Duration = Duration::from_secs(60);
/// Stands in every record of site b, and nowhere else.
const SECRET: &str = "quetzalcoatl";

/// Site b's records, each with the secret; so are two lines that cannot be read.
fn secret_records(folder: &Path) -> PathBuf {
    let mails = testkit::data::mails(folder, "b", 24, 1).unwrap();
    let text = std::fs::read_to_string(&mails.train).unwrap();
    let mut marked = text.replace("\\nSpam?", &format!(" {SECRET}\\nSpam?"));
    assert_eq!(marked.matches(SECRET).count(), 24);
    marked.push_str(&format!("{{\"prompt\": \"{SECRET}\n{SECRET}\n"));
    std::fs::write(&mails.train, marked).unwrap();
    mails.train
}

fn holds_secret(bytes: &[u8]) -> bool {
    let mut windows = bytes.windows(SECRET.len());
    windows.any(|window| window == SECRET.as_bytes())
}

/// Every file of the folder, and how many hold the secret.
fn leaks(folder: &Path, leaking: &mut Vec<PathBuf>) -> usize {
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            seen += leaks(&path, leaking);
        } else if let Ok(bytes) = std::fs::read(&path) {
            seen += 1;
            leaking.extend(holds_secret(&bytes).then_some(path));
        }
    }
    seen
}

#[tokio::test]
async fn no_word_of_a_record_is_said_stored_or_logged() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Setup::sites(2);
    setup.sites[1] = Site {
        train: Some(secret_records(folder.path())),
        ..Site::new("b")
    };
    // Whatever is logged at all, is.
    setup.arguments = vec!["--log".to_owned(), "debug".to_owned()];
    let fleet = Fleet::start(&setup).await;
    let wire = Wire::tap(&fleet).await;
    let mut heard = wire.hear(">").await;
    let id = fleet.api().submit(&scored(&fleet.model())).await;
    let mut said = 0;
    let ended = fleet.api().succeeded(&id, END);
    let listening = async {
        while let Some(message) = heard.next().await {
            said += 1;
            let leaks = holds_secret(&message.payload);
            assert!(!leaks, "said on {}", message.subject);
        }
    };
    tokio::select! {
        _ = ended => {}
        () = listening => panic!("the wire fell silent"),
    }
    assert!(said > 50, "only {said} messages were heard");

    let report = fleet.api().report(&id).await;
    assert!(!report.to_string().contains(SECRET));
    let mut leaking = Vec::new();
    let seen = leaks(&fleet.state(), &mut leaking);
    assert!(seen > 50, "only {seen} files were read");
    assert!(leaking.is_empty(), "{leaking:?}");
}
