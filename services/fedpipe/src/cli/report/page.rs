//! A page with the charts, and the numbers below them. It is one file, without scripts, and loads nothing.

use std::fmt::Write as _;

use super::chart::{self, Chart, escape, label, number};

const STYLE: &str = "body{font:14px sans-serif;margin:2em;color:#222}h1{font-size:20px}\
.charts{display:flex;flex-wrap:wrap;gap:1em}table{border-collapse:collapse;margin:1em 0}\
td,th{border:1px solid #ccc;padding:2px 8px;text-align:right}th:first-child,td:first-child{text-align:left}";

/// The page.
pub fn html(title: &str, charts: &[Chart<'_>]) -> String {
    let title = escape(title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<div class=\"charts\">\n"
    );
    // Invariant: writing into a String does not fail.
    for chart in charts {
        let _ = writeln!(out, "{}{}</svg>", chart::open(chart.height()), chart.draw());
    }
    out.push_str("</div>\n");
    for chart in charts {
        out.push_str(&table(chart));
    }
    out.push_str("</body>\n</html>\n");
    out
}

/// Where each curve begins and ends, and what was best.
fn table(chart: &Chart<'_>) -> String {
    let mut out = format!(
        "<table>\n<tr><th>{}</th><th>points</th><th>first</th><th>last</th><th>lowest</th><th>highest</th></tr>\n",
        chart.title()
    );
    for curve in chart.curves() {
        let figures = || curve.points.iter().map(|point| point.1);
        let cells = [
            figures().next(),
            figures().next_back(),
            figures().min_by(f64::total_cmp),
            figures().max_by(f64::total_cmp),
        ];
        let cells =
            cells.map(|figure| format!("<td>{}</td>", figure.map(number).unwrap_or_default()));
        let (name, points) = (escape(&label(curve)), curve.points.len());
        let _ = writeln!(
            out,
            "<tr><td>{name}</td><td>{points}</td>{}</tr>",
            cells.concat()
        );
    }
    out.push_str("</table>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::super::curves::read;
    use super::*;

    #[test]
    fn a_page_shows_the_numbers_and_loads_nothing() {
        let curves = read(
            "run",
            "{\"step\":0,\"loss\":3}\n{\"step\":1,\"loss\":1}\n{\"step\":2,\"loss\":2}\n",
        )
        .unwrap();
        let charts = Chart::all(&curves);
        let page = html("a < b", &charts);
        assert!(
            page.contains(
                "<td>run: training loss</td><td>3</td><td>3</td><td>2</td><td>1</td><td>3</td>"
            ),
            "{page}"
        );
        assert!(page.contains("<title>a &lt; b</title>"));
        let elsewhere = ["<script", "src=", "href=", "url(", "@import"];
        assert!(elsewhere.iter().all(|word| !page.contains(word)), "{page}");
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert_eq!(page, html("a < b", &charts));
    }
}
