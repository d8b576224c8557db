//! Models named `hf://…`: on the command line, and in a job whose sites each fetch it themselves. The Hub is a
//! stand-in that speaks its protocol.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::hub::{Fault, Hub};
use tests::command::{Ended, fedpipe, fedpipe_with};
use tests::job::{job, with};
use tests::{Fleet, Setup, Site};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LATER: &str = "fedcba9876543210fedcba9876543210fedcba98";
const WEIGHTS: &str = "model.safetensors";
const END: Duration = Duration::from_secs(90);

struct Bench {
    folder: TempDir,
    hub: Hub,
    data: String,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        testkit::model::tiny(&folder.path().join("model"), 1).unwrap();
        let hub = Hub::serve("org/tiny", COMMIT, &folder.path().join("model"))
            .await
            .unwrap();
        let mails = testkit::data::mails(folder.path(), "a", 24, 1).unwrap();
        let data = mails.train.display().to_string();
        Self { folder, hub, data }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn train(&self, model: &str, out: &str, token: &str) -> Ended {
        let out = self.path(out);
        let arguments = [
            "train",
            "--model",
            model,
            "--data",
            &self.data,
            "--out",
            &out,
            "--steps",
            "2",
            "--threads",
            "1",
            "--sequence-length",
            "96",
            "--json",
        ];
        let (hub, cache) = (self.hub.url(), self.path("cache"));
        let environment = [
            ("HF_ENDPOINT", hub.as_str()),
            ("HF_TOKEN", token),
            ("XDG_CACHE_HOME", &cache),
        ];
        fedpipe_with(&arguments, &environment).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_of_the_hub_trains_as_the_same_model_in_a_folder_does() {
    let bench = Bench::new().await;
    bench.hub.ask_for("hf_right");
    let refused = bench.train("hf://org/tiny", "none", "").await;
    refused.failed(&["cannot fetch hf://org/tiny@main", "(401)", "set HF_TOKEN"]);
    bench.hub.fail(WEIGHTS, Fault::BreakAfter(10_000));
    let of_hub = bench.train("hf://org/tiny", "hub", "hf_right").await;
    assert!(
        of_hub.err.contains(&format!("hf://org/tiny@{COMMIT}: ")),
        "{of_hub:?}"
    );
    let of_hub = of_hub.json();
    let of_folder = bench.train(&bench.path("model"), "folder", "").await.json();
    assert_eq!(of_hub["sha256"], of_folder["sha256"]);
    assert_eq!(bench.hub.fetched(WEIGHTS), ["", "bytes=10000-"]);
    let config = fs::read_to_string(bench.path("hub/adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["base_model_name_or_path"], "org/tiny");
    // It is here, so nobody is asked; and what is spoiled on its way is no model.
    let asked = bench.hub.asked().len();
    let pinned = format!("hf://org/tiny@{COMMIT}");
    let _ = bench.train(&pinned, "again", "").await.good();
    assert_eq!(bench.hub.asked().len(), asked);
    bench.hub.set_revision("main", LATER);
    bench.hub.fail(WEIGHTS, Fault::Spoiled);
    let spoiled = bench.train("hf://org/tiny", "none", "hf_right").await;
    spoiled.failed(&["model.safetensors of hf://org/tiny@fedcba", "is corrupt"]);
    assert!(!Path::new(&bench.path("none")).exists());
    bench
        .train("hf://tiny", "none", "")
        .await
        .misused(&["hf://org/name@revision"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_s_sites_fetch_the_commit_that_its_branch_was_at_and_only_if_their_policy_lets_them()
{
    let bench = Bench::new().await;
    let setup = Setup {
        sites: vec![
            Site::new("a"),
            Site::new("b"),
            Site::new("c").line("policy = { allow_hub = [\"org/other\"] }"),
        ],
        environment: vec![("HF_ENDPOINT", bench.hub.url())],
        ..Setup::sites(0)
    };
    let fleet = Fleet::start(&setup).await;
    let of_hub = with(
        job(&fleet.model()),
        "model",
        json!({"source": "hf://org/tiny"}),
    );
    let id = fleet
        .api()
        .submit(&with(
            of_hub.clone(),
            "data",
            json!({"dataset": "mail", "sites": ["a", "b"]}),
        ))
        .await;
    // Whatever becomes of the branch now is nothing to this job.
    bench.hub.set_revision("main", LATER);
    let done = fleet.api().ended(&id, END).await;
    assert_eq!(done["phase"], "succeeded", "{done:#}");
    assert_eq!(
        done["spec"]["model"]["source"],
        format!("hf://org/tiny@{COMMIT}")
    );
    let weights: Vec<String> = (bench.hub.asked().into_iter())
        .filter(|asked| asked.line.starts_with("HEAD") && asked.line.ends_with(WEIGHTS))
        .map(|asked| asked.line)
        .collect();
    assert_eq!(
        weights,
        vec![format!("HEAD /org/tiny/resolve/{COMMIT}/{WEIGHTS}"); 2],
        "each site once"
    );

    let page = bench.path("job.html");
    let address = fs::read_to_string(fleet.state().join("run/api.address")).unwrap();
    let api = format!("http://{}", address.trim());
    let drawn = fedpipe(&["report", &id, "--api", &api, "-o", &page]).await;
    let _ = drawn.good();
    let page = fs::read_to_string(page).unwrap();
    assert!(
        page.contains("loss by round") && page.contains("training loss</td><td>2</td>"),
        "{page}"
    );

    let closed = with(of_hub, "data", json!({"dataset": "mail", "sites": ["c"]}));
    let id = fleet.api().submit(&closed).await;
    let failed = fleet.api().ended(&id, END).await;
    let cause = failed["cause"].to_string();
    assert!(
        cause.contains("policy_refused") && cause.contains("policy.allow_hub"),
        "{failed}"
    );
}
