//! `GET /`: a page that shows jobs, one job live, and the fleet, for people without a terminal.
//!
//! Put together of the files in `page/`, which are built into the binary; it loads nothing from anywhere and
//! reads the public API only, with the token that its reader types in. Its security policy lets exactly this
//! script and this style run, by their digests, and lets nothing else in: no text that the API shows can
//! become code.

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const SHELL: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// In the order in which they run: one script, whose parts see what stands before them.
const SCRIPTS: [&str; 8] = [
    include_str!("page/head.js"),
    include_str!("page/api.js"),
    include_str!("page/words.js"),
    include_str!("page/elements.js"),
    include_str!("page/chart.js"),
    include_str!("page/lists.js"),
    include_str!("page/job.js"),
    include_str!("page/main.js"),
];

static PAGE: LazyLock<String> = LazyLock::new(|| {
    SHELL
        .replacen("/* page.css */", STYLE, 1)
        .replacen("/* page.js */", &SCRIPTS.concat(), 1)
});

static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        digest("script"),
        digest("style")
    );
    // Invariant: the policy is made of ASCII; without it nothing would run, which is safe.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// A page that shows jobs, one job live, and the fleet; it asks its reader for a token.
#[utoipa::path(
    get, path = "/", tag = "documentation",
    responses((status = 200, description = "A page for people; it reads this API", body = String, content_type = "text/html")),
)]
pub async fn page() -> Response {
    let named = HeaderName::from_static;
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (named("content-security-policy"), POLICY.clone()),
        (
            named("x-content-type-options"),
            HeaderValue::from_static("nosniff"),
        ),
        (named("x-frame-options"), HeaderValue::from_static("DENY")),
        (
            named("referrer-policy"),
            HeaderValue::from_static("no-referrer"),
        ),
        (
            named("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ),
    ];
    (headers, PAGE.as_str()).into_response()
}

/// The source expression of the one element with this name, by what stands between its tags.
fn digest(element: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let inner = PAGE
        .split_once(&open)
        .and_then(|(_, rest)| rest.split_once(&close))
        .map_or("", |(inner, _)| inner);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(inner)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_one_style_and_loads_nothing() {
        for element in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
        }
        assert!(!PAGE.contains("/* page."), "a part is not in its place");
        let namespace = "http://www.w3.org/2000/svg";
        let others = PAGE.replace(namespace, "");
        for part in [
            "http:",
            "https:",
            "src=",
            "@import",
            "url(",
            "<link",
            "innerHTML",
            "style=",
            "onclick",
            "eval(",
        ] {
            assert!(!others.contains(part), "{part}");
        }
    }

    #[tokio::test]
    async fn its_policy_lets_exactly_its_own_script_and_style_run() {
        let response = page().await;
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .expect("text");
        let script = PAGE
            .split("<script>")
            .nth(1)
            .and_then(|rest| rest.split("</script>").next())
            .expect("a script");
        let hash = STANDARD.encode(Sha256::digest(script));
        assert!(
            policy.contains(&format!("script-src 'sha256-{hash}';")),
            "{policy}"
        );
        assert!(
            !policy.contains("unsafe") && policy.starts_with("default-src 'none'"),
            "{policy}"
        );
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
}
