//! `GET /docs`: the OpenAPI document as a page that a person can read. It loads nothing from
//! anywhere and runs no script.

use std::fmt::Write as _;

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
code,pre{font:14px ui-monospace,monospace;background:#f3f3f3;padding:.1em .3em;border-radius:3px}pre{padding:1em;overflow:auto}\
h2{margin-top:3rem;border-bottom:1px solid #ccc}h3 code{font-size:1rem}table{border-collapse:collapse;width:100%}\
td{border-top:1px solid #ddd;padding:.3rem .6rem;vertical-align:top}td:first-child{white-space:nowrap}";

/// A page about this API.
#[utoipa::path(
    get, path = "/docs", tag = "documentation",
    responses((status = 200, description = "A page for people", body = String, content_type = "text/html")),
)]
pub async fn docs() -> Response {
    let document = serde_json::to_value(super::openapi::document()).unwrap_or_default();
    let policy = HeaderName::from_static("content-security-policy");
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (policy, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    (headers, page(&document)).into_response()
}

// Writing to a String cannot fail, so what `write!` returns is dropped throughout.
fn page(document: &Value) -> String {
    let title = text(at(document, "/info/title"));
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title} API</title><style>{STYLE}</style>\
         <h1>{title} {}</h1><p>{}</p><p>Machine-readable: <a href=\"/openapi.json\">/openapi.json</a></p>",
        text(at(document, "/info/version")),
        text(at(document, "/info/description")),
    );
    write_roles(&mut html, document);
    for tag in items(&document["tags"]) {
        let _ = write!(
            html,
            "<h2>{}</h2><p>{}</p>",
            text(&tag["name"]),
            text(&tag["description"])
        );
        for (path, operations) in fields(&document["paths"]) {
            for (method, operation) in fields(operations) {
                if items(&operation["tags"]).any(|one| *one == tag["name"]) {
                    write_operation(&mut html, path, method, operation);
                }
            }
        }
    }
    html.push_str("<h2>What is sent and answered</h2>");
    for (name, schema) in fields(at(document, "/components/schemas")) {
        write_schema(&mut html, name, schema);
    }
    html.push_str("</html>\n");
    html
}

/// Which role each route needs at least.
fn write_roles(html: &mut String, document: &Value) {
    html.push_str("<h2>Who may do what</h2><p>A token has a role: <code>viewer</code>, <code>submitter</code> or <code>admin</code>; each may do what those before it may. Without a token: 401. With one whose role is not enough: 403, with the role that is. Where no token is configured, this machine alone is served, and may do everything.</p><table>");
    for (path, operations) in fields(&document["paths"]) {
        for (method, operation) in fields(operations) {
            if let Some(role) = least_role(operation) {
                let (method, path) = (escape(&method.to_uppercase()), escape(path));
                let _ = write!(html, "<tr><td><code>{method} {path}</code><td>{role}");
            }
        }
    }
    html.push_str("</table>");
}

fn least_role(operation: &Value) -> Option<String> {
    at(operation, "/security/0/token/0").as_str().map(escape)
}

fn write_operation(html: &mut String, path: &str, method: &str, operation: &Value) {
    let (method, path) = (escape(&method.to_uppercase()), escape(path));
    let _ = write!(
        html,
        "<h3><code>{method} {path}</code></h3><p>{}</p>",
        text(&operation["summary"])
    );
    if operation["description"].is_string() {
        let _ = write!(html, "<p>{}</p>", text(&operation["description"]));
    }
    if let Some(role) = least_role(operation) {
        let _ = write!(html, "<p>Least role: <code>{role}</code></p>");
    }
    html.push_str("<table>");
    for parameter in items(&operation["parameters"]) {
        let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
        let says = text(&parameter["description"]);
        let _ = write!(html, "<tr><td><code>{name}</code> ({place})<td>{says}");
    }
    for (kind, body) in fields(at(operation, "/requestBody/content")) {
        let _ = write!(
            html,
            "<tr><td>body<td><code>{}</code> {}",
            escape(kind),
            link(&body["schema"])
        );
    }
    for (status, response) in fields(&operation["responses"]) {
        let _ = write!(
            html,
            "<tr><td>{}<td>{}",
            escape(status),
            text(&response["description"])
        );
        for (kind, body) in fields(&response["content"]) {
            let _ = write!(
                html,
                " <code>{}</code> {}",
                escape(kind),
                link(&body["schema"])
            );
        }
    }
    html.push_str("</table>");
}

fn write_schema(html: &mut String, name: &str, schema: &Value) {
    let name = escape(name);
    let _ = write!(
        html,
        "<h3 id=\"{name}\"><code>{name}</code></h3><p>{}</p><table>",
        text(&schema["description"])
    );
    for (field, about) in fields(&schema["properties"]) {
        let says = text(&about["description"]);
        let _ = write!(
            html,
            "<tr><td><code>{}</code><td>{says} {}",
            escape(field),
            link(about)
        );
    }
    html.push_str("</table>");
    let example = items(&schema["examples"])
        .next()
        .or_else(|| schema.get("example"));
    if let Some(example) = example {
        let pretty = serde_json::to_string_pretty(example).unwrap_or_default();
        let _ = write!(html, "<pre>{}</pre>", escape(&pretty));
    }
}

/// A link to the schema that a value refers to, itself or as one of several or of its items.
fn link(schema: &Value) -> String {
    let inner = |schema: &Value| schema["$ref"].as_str().map(str::to_owned);
    let found = inner(schema)
        .or_else(|| inner(&schema["items"]))
        .or_else(|| items(&schema["oneOf"]).find_map(inner));
    let name = found
        .as_deref()
        .and_then(|reference| reference.rsplit('/').next())
        .map(escape);
    name.map_or_else(String::new, |name| {
        format!("<a href=\"#{name}\">{name}</a>")
    })
}

/// A value inside another; null if there is none.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_every_path_and_every_schema_and_loads_nothing() {
        let document = serde_json::to_value(super::super::openapi::document()).expect("serializes");
        let page = page(&document);
        for (path, _) in fields(&document["paths"]) {
            assert!(page.contains(&escape(path)), "{path}");
        }
        for (name, _) in fields(&document["components"]["schemas"]) {
            assert!(page.contains(&format!("id=\"{name}\"")), "{name}");
        }
        for (method, path, role) in crate::access::ROUTES {
            let row = format!("<code>{method} {}</code><td>{}", escape(path), role.name());
            assert!(page.contains(&row), "{row}");
        }
        assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("http://"));
    }
}
