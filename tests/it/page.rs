//! The web page, in a real browser, on a real fleet.

use std::path::Path;
use std::time::Duration;

use chassis::failpoint::Failpoint;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::browser::{self, Browser};
use tests::job::{scored, with};
use tests::points::Fate;
use tests::{Fleet, Setup, Site};

const SOON: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(120);

/// A viewer's.
const TOKEN: &str = "a-viewers-token-of-a-test";

async fn type_token(browser: &mut Browser, token: &str) {
    browser
        .until(
            "it asks for a token",
            SOON,
            "!!document.querySelector('input[type=password]')",
        )
        .await;
    browser
        .evaluate("document.querySelector('input').focus()")
        .await;
    browser.type_in(token).await;
    browser
        .evaluate("document.querySelector('form button').click()")
        .await;
}

/// Texts of all elements that a selector finds.
async fn texts(browser: &mut Browser, selector: &str) -> Vec<String> {
    let all = format!("[...document.querySelectorAll({selector:?})].map(one => one.textContent)");
    let found = browser.evaluate(&all).await;
    serde_json::from_value(found).unwrap()
}

/// How far the page is wider than the window.
const OVERFLOW: &str = "document.documentElement.scrollWidth - innerWidth";

/// Whether the button that forgets the token is there.
const FORGET_IS_SHOWN: &str = "!document.querySelector('#forget').hidden";

/// A name that would be code, if anybody took it for markup.
const NAME: &str = "<script>alert(1)</script><img src=x onerror=alert(1)>";

#[tokio::test]
async fn the_page_shows_a_job_live_to_whoever_types_a_viewers_token() {
    if let Some(why) = browser::missing() {
        eprintln!("SKIPPED: the web page in a browser: {why}");
        return;
    }
    let mut setup = Setup::sites(2);
    // Nobody is given up for standing still while the browser looks.
    setup.idle = Duration::from_secs(20);
    setup.sites[0] = Site::new("a").line("throttle_tokens_per_second = 400");
    let fleet = Fleet::start(&setup).await;
    let mut browser = Browser::open(1280, "light").await;
    nothing_yet(&mut browser, &address(&fleet)).await;

    let job = with(scored(&fleet.model()), "name", json!(NAME));
    let job = with(job, "rounds", json!({"count": 3, "quorum": "all"}));
    // It waits for its plan until the browser has come to its page.
    let planned = Failpoint::PlannerPlanAfterPlanStored;
    fleet.points().arm(planned, Fate::Halted);
    let id = fleet.api().submit(&job).await;
    let digest = hex::encode(Sha256::digest(TOKEN));
    let table =
        format!("[[tokens]]\nname = \"viewer\"\nrole = \"viewer\"\nsha256 = \"{digest}\"\n");
    fleet.ask_for_tokens(&table).await;

    // It may come back at another port.
    assert_eq!(fleet.api().get("/v1/jobs").await.status, 401);
    let address = address(&fleet);
    browser.visit(&format!("{address}?with-tokens")).await;
    type_token(&mut browser, "not-the-token-of-anybody").await;
    let refused = "document.querySelector('#main').innerText.includes('none of those')";
    browser
        .until("a wrong token is refused", SOON, refused)
        .await;
    // The browser itself notes that a request was refused.
    browser.complaints.clear();

    type_token(&mut browser, TOKEN).await;
    let listed = format!("!!document.querySelector('a[href=\"#/jobs/{id}\"]')");
    browser.until("the job is listed", SOON, &listed).await;
    // A name is a text, whatever it looks like.
    assert_eq!(texts(&mut browser, "main a").await, [NAME]);
    browser
        .evaluate("document.querySelector('main a').click()")
        .await;
    fleet.points().reached(planned, Fate::Halted, END).await;
    says_whom_it_waits_for(&mut browser, &fleet).await;
    ends_live(&mut browser).await;
    assert_eq!(browser.evaluate("document.images.length").await, 0);
    assert_eq!(browser.evaluate("document.scripts.length").await, 1);
    assert_eq!(browser.complaints, Vec::<String>::new());
    if let Some(path) = std::env::var_os("FEDPIPE_TEST_PICTURE") {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        browser.picture(&workspace.join(path)).await;
    }
    trouble_is_said(&mut browser).await;
    narrow_and_dark(&address, &id).await;
}

fn address(fleet: &Fleet) -> String {
    let address = std::fs::read_to_string(fleet.state().join("run/api.address")).unwrap();
    format!("http://{}/", address.trim())
}

/// Whoever has no job yet is told the next command.
async fn nothing_yet(browser: &mut Browser, address: &str) {
    browser.visit(address).await;
    let told = "!!document.querySelector('#main')?.innerText.includes('fedpipe job submit')";
    browser.until("the next command is told", SOON, told).await;
    assert_eq!(browser.evaluate(FORGET_IS_SHOWN).await, false);
}

/// While the slow site trains and the other has answered, it is the one that is named.
async fn says_whom_it_waits_for(browser: &mut Browser, fleet: &Fleet) {
    // Of the two it is a that stands in its training, for as long as it is looked at.
    let trains = Failpoint::WorkerTrainAfterFirstStep;
    fleet.halt("worker-b");
    fleet.points().arm(trains, Fate::Halted);
    fleet.go_on("planner");
    fleet.points().reached(trains, Fate::Halted, END).await;
    fleet.go_on("worker-b");
    let named = "(told => told.length === 1 && told[0].startsWith('a: training'))([...document.querySelectorAll('#why li')].map(one => one.textContent))";
    browser.until("the slow site is named", END, named).await;
    let ended = "!!document.querySelector('#why code')";
    assert_eq!(browser.evaluate(ended).await, false);
    assert_eq!(texts(browser, "#why b").await, ["a: "]);
    fleet.go_on("worker-a");
}

/// Nobody touches the page until the job has ended.
async fn ends_live(browser: &mut Browser) {
    let told = "document.querySelectorAll('#events li').length > 3";
    browser.until("events are told live", END, told).await;
    let ended = "document.querySelector('h1 .pill')?.textContent === 'succeeded'";
    browser.until("the job's end is shown", END, ended).await;
    let drawn = "document.querySelectorAll('svg[aria-label^=\"loss\"] .main .line').length === 1 && document.querySelectorAll('svg[aria-label^=\"accuracy\"] .main circle').length === 4";
    browser
        .until("both curves have every round", SOON, drawn)
        .await;
    assert_eq!(texts(browser, "h1").await, [format!("{NAME} succeeded")]);
    let steps = texts(browser, ".track .done").await;
    assert_eq!(steps.len(), 5, "{steps:?}");
    assert_eq!(texts(browser, "[data-site] > b").await, ["a", "b"]);
    let bars = texts(browser, "[data-site=a] .words").await;
    let both = bars.iter().filter(|words| words.contains(", planned "));
    assert_eq!(both.count(), 3, "{bars:?}");
    let events = texts(browser, "#events .pill").await;
    for name in [
        "submitted",
        "planned",
        "opened",
        "merged",
        "evaluated",
        "finished",
    ] {
        let heard = events.iter().filter(|event| *event == name).count();
        assert!(heard > 0, "{name} of {events:?}");
    }
    let command = texts(browser, "#why code").await;
    assert!(
        command[0].starts_with("fedpipe job adapter job_"),
        "{command:?}"
    );
}

/// An api that does not answer is said above everything, and unsaid once it does.
async fn trouble_is_said(browser: &mut Browser) {
    browser.evaluate("location.hash = '#/'").await;
    let listed = "!!document.querySelector('td a')";
    browser.until("jobs are listed", SOON, listed).await;
    browser.offline(true).await;
    let said = "!document.querySelector('#trouble').hidden && document.querySelector('#trouble').innerText.includes('does not answer')";
    browser.until("it says so", SOON, said).await;
    browser.offline(false).await;
    let unsaid = "document.querySelector('#trouble').hidden";
    browser.until("it says so no longer", SOON, unsaid).await;
    let missing = "location.hash = '#/jobs/job_0000000000000000'";
    browser.evaluate(missing).await;
    let said = "document.querySelector('h1')?.innerText === 'Not found'";
    browser.until("there is no such job", SOON, said).await;
}

async fn narrow_and_dark(address: &str, id: &str) {
    let mut browser = Browser::open(390, "dark").await;
    browser.visit(address).await;
    type_token(&mut browser, TOKEN).await;
    browser
        .until("jobs are listed", SOON, "!!document.querySelector('td a')")
        .await;
    assert_eq!(browser.evaluate(OVERFLOW).await, 0);
    browser
        .evaluate(&format!("location.hash = '#/jobs/{id}'"))
        .await;
    browser
        .until(
            "the job is shown",
            SOON,
            "!!document.querySelector('[data-site=b]')",
        )
        .await;
    assert_eq!(browser.evaluate(OVERFLOW).await, 0);
    let ground = browser
        .evaluate("getComputedStyle(document.body).backgroundColor")
        .await;
    assert_eq!(ground, "rgb(20, 23, 26)");
    browser.evaluate("location.hash = '#/fleet'").await;
    let alive = "[...document.querySelectorAll('td .pill')].filter(one => one.textContent === 'alive').length === 2";
    browser.until("the fleet is shown", SOON, alive).await;
    assert_eq!(browser.evaluate(OVERFLOW).await, 0);

    // The policy is the server's, and holds: no code but the page's own.
    let injected = "new Promise(done => { addEventListener('securitypolicyviolation', event => done(event.effectiveDirective)); const one = document.createElement('script'); try { one.text = 'window.injected = 1'; } catch { return done('refused'); } document.head.append(one); })";
    let stopped = browser.evaluate(injected).await;
    assert_ne!(stopped, Value::Null);
    assert_eq!(
        browser.evaluate("typeof window.injected").await,
        "undefined"
    );
    browser
        .evaluate("document.querySelector('#forget').click()")
        .await;
    assert_eq!(browser.evaluate("sessionStorage.length").await, 0);
    browser
        .until(
            "it asks again",
            SOON,
            "!!document.querySelector('input[type=password]')",
        )
        .await;
}
