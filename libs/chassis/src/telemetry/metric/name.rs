//! From OpenTelemetry's name and unit to the name in Prometheus, as the exporter writes it.

use super::Kind;

/// The whole name: dots become underscores, the unit and a counter's `total` go behind.
pub(super) fn prometheus(name: &str, unit: &str, kind: Kind) -> String {
    let mut full = name.replace('.', "_");
    if let Some(suffix) = suffix(unit) {
        full.push('_');
        full.push_str(suffix);
    }
    if kind == Kind::Counter {
        full.push_str("_total");
    }
    full
}

/// What a unit adds to a name; counts in braces add nothing.
fn suffix(unit: &str) -> Option<&'static str> {
    match unit {
        "s" => Some("seconds"),
        "By" => Some("bytes"),
        "1" => Some("ratio"),
        _ if unit.ends_with("/s") => Some("per_second"),
        _ => None,
    }
}
