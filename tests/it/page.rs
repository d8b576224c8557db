//! The web page, in a real browser, on a real fleet.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::browser::Browser;
use tests::job::{scored, with};
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

#[tokio::test]
async fn the_page_shows_a_job_live_to_whoever_types_a_viewers_token() {
    let mut setup = Setup::sites(2);
    setup.sites[0] = Site::new("a").line("throttle_tokens_per_second = 400");
    let fleet = Fleet::start(&setup).await;
    let job = scored(&fleet.model());
    let job = with(job, "name", json!("<img src=x onerror=alert(1)>"));
    let job = with(job, "rounds", json!({"count": 3, "quorum": "all"}));
    let id = fleet.api().submit(&job).await;
    let digest = hex::encode(Sha256::digest(TOKEN));
    let table =
        format!("[[tokens]]\nname = \"viewer\"\nrole = \"viewer\"\nsha256 = \"{digest}\"\n");
    fleet.ask_for_tokens(&table).await;

    let address = std::fs::read_to_string(fleet.state().join("run/api.address")).unwrap();
    let mut browser = Browser::open(1100, "light").await;
    browser.visit(&format!("http://{}/", address.trim())).await;
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
    assert_eq!(
        texts(&mut browser, "main a").await,
        ["<img src=x onerror=alert(1)>"]
    );
    assert_eq!(browser.evaluate("document.images.length").await, 0);
    browser
        .evaluate("document.querySelector('main a').click()")
        .await;

    // Nobody touches the page until the job has ended.
    browser
        .until(
            "events are told live",
            END,
            "document.querySelectorAll('#events li').length > 3",
        )
        .await;
    let ended = "document.querySelector('h1 .pill')?.textContent === 'succeeded'";
    browser.until("the job's end is shown", END, ended).await;
    let drawn = "document.querySelectorAll('svg[aria-label^=\"loss\"] .line.main').length === 1 && document.querySelectorAll('svg[aria-label^=\"accuracy\"] circle.main').length === 4";
    browser
        .until("both curves have every round", SOON, drawn)
        .await;
    assert_eq!(texts(&mut browser, "[data-site] > b").await, ["a", "b"]);
    let bars = texts(&mut browser, "[data-site=a] .words").await;
    assert_eq!(
        bars.iter()
            .filter(|words| words.contains("planned"))
            .count(),
        3,
        "{bars:?}"
    );
    let events = texts(&mut browser, "#events .pill").await;
    for name in [
        "submitted",
        "planned",
        "opened",
        "merged",
        "evaluated",
        "finished",
    ] {
        assert!(
            events.iter().any(|event| event == name),
            "{name} of {events:?}"
        );
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
    if let Some(path) = std::env::var_os("FEDPIPE_TEST_PICTURE") {
        browser.picture(path.as_ref()).await;
    }

    narrow_and_dark(&address, &id).await;
}

async fn narrow_and_dark(address: &str, id: &str) {
    let mut browser = Browser::open(360, "dark").await;
    let page = format!("http://{}/", address.trim());
    browser.visit(&page).await;
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
