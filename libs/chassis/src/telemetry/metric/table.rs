//! `docs/metrics.md`.

use std::fmt::Write;

use super::{Kind, Label, Metric};
use crate::telemetry::{JOBS_SHOWN, SERIES_SHOWN, WORKERS_SHOWN};

/// The page about all metrics, in Markdown.
#[must_use]
pub fn metrics_table() -> String {
    let mut page = format!(
        "# Metrics\n\n\
         Generated from `libs/chassis/src/telemetry/metric` by `fedpipe metrics`; `./run check --fix` writes it.\n\n\
         Every process serves those of its row's *served by* at `/metrics`. The api speaks for workers too, whose\n\
         pages nobody outside of their site may read: what it says of them comes from their beats and reports\n\
         ([privacy](privacy.md)). Names are OpenTelemetry's semantic conventions where there is one (`http.server.*`,\n\
         `process.*`, `otel.sdk.*`); the exporter writes dots as underscores and appends the unit. A histogram ends in `_bucket`,\n\
         `_sum` and `_count` besides.\n\n\
         **Labels have bounds.** Metrics marked † name jobs or workers. Their series are replaced at each look, so what has\n\
         gone is gone, and there are at most {SERIES_SHOWN} of each: {JOBS_SHOWN} jobs (those that have not ended: whoever\n\
         stands still or is held up for longest, then the newest; then those that ended within the hour) and {WORKERS_SHOWN} workers (by name). What finds no room is counted in\n\
         `{left_out}`. All other labels take the values listed, or a small closed set (routes, phases, kinds).\n\n\
         Several api processes say the same of jobs, queues and workers: take `max by (…)`, not `sum`.\n\n\
         | name in Prometheus | name in OpenTelemetry | kind | unit | labels | served by | meaning |\n\
         |---|---|---|---|---|---|---|\n",
        left_out = Metric::SeriesLeftOut.prometheus_name(),
    );
    for metric in Metric::ALL {
        let mark = if metric.kind() == Kind::Shown {
            " †"
        } else {
            ""
        };
        let labels: Vec<String> = metric.labels().iter().map(label).collect();
        let served_by = match metric.served_by() {
            [] => "every process".to_owned(),
            services => services.join(", "),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{}`{mark} | `{}` | {} | `{}` | {} | {served_by} | {} |",
            metric.prometheus_name(),
            metric.name(),
            metric.kind(),
            metric.unit(),
            labels.join("; "),
            metric.description()
        );
    }
    page
}

fn label(label: &Label) -> String {
    let name = label.name.replace('.', "_");
    match label.values {
        [] => format!("`{name}`"),
        values => {
            let value = |value: &&'static str| if value.is_empty() { "(none)" } else { *value };
            let values: Vec<&str> = values.iter().map(value).collect();
            format!("`{name}`: {}", values.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_row_for_every_metric() {
        let page = metrics_table();
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        assert_eq!(rows.count(), Metric::ALL.len());
        let row = "| `fedpipe_transfer_bytes_total` | `fedpipe.transfer` | counter | `By` | `direction`: up, down | worker | ";
        assert!(page.contains(row), "{page}");
        assert!(page.contains("| `fedpipe_site_loss` † |"), "{page}");
    }
}
