//! A headless Chromium on one page, driven through its debugging pipe.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{tool, wait};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long the browser may take for one command; the first starts it.
const ANSWER: Duration = Duration::from_secs(60);

/// The pipe's two ends are the descriptors 3 and 4 of the browser's.
const PIPED: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >&2";

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    _child: Child,
    _folder: TempDir,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    /// What the page's console was told by the browser: errors, and what the security policy refused.
    pub complaints: Vec<String>,
}

/// Why there is none on this machine, if `./run test` said so: then a test that needs one says that it is
/// skipped. Without a reason a browser that is missing is a failure.
#[must_use]
pub fn missing() -> Option<String> {
    std::env::var("FEDPIPE_TEST_NO_BROWSER").ok()
}

impl Browser {
    /// Starts one with an empty page of this width, in light or dark.
    pub async fn open(width: u32, scheme: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the browser");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let place = tool::folder().join("chromium");
        let program = place.join("chrome");
        assert!(
            program.is_file(),
            "{} is missing: `./run test` fetches it; FEDPIPE_TEST_NO_BROWSER=reason does without",
            program.display()
        );
        let mut child = Command::new("sh")
            .args(["-c", PIPED])
            .arg(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-zygote"])
            .args(["--disable-dev-shm-usage", "--disable-background-networking"])
            .args([
                "--no-first-run",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .env("LD_LIBRARY_PATH", place.join("lib"))
            .env("HOME", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the browser is started");
        let input = child.stdin.take().expect("its input is piped");
        let output = child.stdout.take().expect("its output is piped");
        let mut browser = Self {
            _child: child,
            _folder: folder,
            input,
            output: BufReader::new(output),
            session: None,
            last: 0,
            complaints: Vec::new(),
        };
        browser.prepare(width, scheme).await;
        browser
    }

    async fn prepare(&mut self, width: u32, scheme: &str) {
        let made = self
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let target = json!({"targetId": made["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", target).await;
        let session = attached["sessionId"].as_str().expect("a session");
        self.session = Some(session.to_owned());
        for domain in [
            "Page.enable",
            "Runtime.enable",
            "Log.enable",
            "Network.enable",
        ] {
            self.call(domain, json!({})).await;
        }
        let size = json!({"width": width, "height": 1400, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// Goes to an address.
    pub async fn visit(&mut self, url: &str) {
        let gone = self.call("Page.navigate", json!({"url": url})).await;
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
    }

    /// Cuts it off from the network, or lets it back in.
    pub async fn offline(&mut self, offline: bool) {
        let all = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        self.call("Network.emulateNetworkConditions", all).await;
    }

    /// Types where the cursor is.
    pub async fn type_in(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// What an expression of the page's language is worth.
    ///
    /// # Panics
    /// If it throws.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", asked).await;
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    ///
    /// # Panics
    /// If it does not become so; what the page shows then is in the message.
    pub async fn until(&mut self, what: &str, within: Duration, expression: &str) {
        let asked = async {
            wait::until(what, within + ANSWER, async || {
                self.evaluate(expression).await == true
            })
            .await;
        };
        if tokio::time::timeout(within, asked).await.is_err() {
            let shown = self.evaluate("document.body.innerText").await;
            let complaints = self.complaints.join("\n");
            panic!("not within {within:?}: {what}\n{shown}\n{complaints}");
        }
    }

    /// Writes a picture of the whole page.
    pub async fn picture(&mut self, path: &Path) {
        let how = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", how).await;
        let data = picture["data"].as_str().expect("a picture");
        let bytes = STANDARD.decode(data).expect("a picture in base64");
        std::fs::write(path, bytes).expect("the picture is written");
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input
            .write_all(&bytes)
            .await
            .expect("the browser hears");
        self.input.flush().await.expect("the browser hears");
        let what = format!("the browser answers {method}");
        wait::in_time(&what, ANSWER, self.answer()).await
    }

    /// The answer to the last command; what else the browser says is looked at on the way.
    async fn answer(&mut self) -> Value {
        loop {
            let mut bytes = Vec::new();
            self.output
                .read_until(0, &mut bytes)
                .await
                .expect("the browser speaks");
            assert!(bytes.pop().is_some(), "the browser has ended");
            let mut said: Value = serde_json::from_slice(&bytes).expect("JSON");
            if said["id"] == self.last {
                assert!(said["error"].is_null(), "{said}");
                return said["result"].take();
            }
            match said["method"].as_str() {
                Some("Log.entryAdded") => {
                    let entry = &said["params"]["entry"];
                    self.complaints
                        .push(format!("{}: {}", entry["source"], entry["text"]));
                }
                Some("Runtime.exceptionThrown") => {
                    self.complaints.push(said["params"].to_string());
                }
                _ => {}
            }
        }
    }
}
