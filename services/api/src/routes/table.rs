//! The routes and the least role of each as `docs/api.md`, made from the OpenAPI document.

use std::fmt::Write as _;

use serde_json::Value;

const HEAD: &str = "# The API: routes and roles

Generated from the routes; edits are lost. The whole description is [openapi.json](openapi.json), and `/docs` of a running api.

A request below `/v1`, or for `/metrics`, shows a token (`Authorization: Bearer …`), which has a role: `viewer`, `submitter` or `admin`; each
may do what those before it may. Without a token, or with one that nobody made: 401. With one whose role is not enough: 403, and `detail` names the role
that is. An api without any token configured serves its own machine alone, and lets it do everything.

| route | least role | |
|---|---|---|
";

/// `docs/api.md`.
#[must_use]
pub fn routes_markdown() -> String {
    // Invariant: the document is plain data; a test writes it.
    let document = serde_json::to_value(super::openapi::document()).unwrap_or_default();
    let mut text = HEAD.to_owned();
    let paths = document.pointer("/paths").and_then(Value::as_object);
    for (path, operations) in paths.into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let words = |pointer: &str| operation.pointer(pointer).and_then(Value::as_str);
            let role = words("/security/0/token/0");
            let role = role.map_or_else(|| "none".to_owned(), |role| format!("`{role}`"));
            let summary = words("/summary").unwrap_or_default();
            let method = method.to_uppercase();
            // Invariant: writing to a String cannot fail.
            let _ = writeln!(text, "| `{method} {path}` | {role} | {summary} |");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_row_and_what_asks_for_no_token_says_so() {
        let text = routes_markdown();
        for (method, path, role) in crate::access::ROUTES {
            let row = format!("| `{method} {path}` | `{}` | ", role.name());
            assert!(text.contains(&row), "{row}");
        }
        assert!(text.contains("| `GET /healthz` | none | "), "{text}");
        assert!(
            !text.contains(" |  |"),
            "a route without a summary:\n{text}"
        );
    }
}
