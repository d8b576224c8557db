//! One chart as SVG: axes, curves, a legend. The same curves give the same text, and nothing in it is loaded
//! from elsewhere.

use std::fmt::Write as _;

use super::axis::Axis;
use super::curves::{Along, Curve, Kind, Measure};

/// The whole chart, in pixels.
pub const WIDTH: f64 = 640.0;
/// Its height without the legend.
const HEIGHT: f64 = 330.0;
/// A row of the legend.
const ROW: f64 = 18.0;
/// Left of the axes, right of them, above, below.
const MARGIN: (f64, f64, f64, f64) = (64.0, 20.0, 34.0, 46.0);
/// A curve with at most so many points shows each.
const DOTS: usize = 60;

/// Okabe and Ito's colours, which people tell apart who see fewer of them.
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

/// Curves of one measure along one thing.
#[derive(Debug)]
pub struct Chart<'a> {
    measure: Measure,
    along: Along,
    curves: Vec<&'a Curve>,
}

impl<'a> Chart<'a> {
    /// A chart for each measure along each thing, in a fixed order.
    pub fn all(curves: &'a [Curve]) -> Vec<Self> {
        let mut kinds: Vec<_> = curves
            .iter()
            .map(|curve| (curve.along, curve.measure))
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        let chart = |(along, measure)| Self {
            measure,
            along,
            curves: curves
                .iter()
                .filter(|curve| (curve.along, curve.measure) == (along, measure))
                .collect(),
        };
        kinds.into_iter().map(chart).collect()
    }

    /// What it shows, in words.
    pub fn title(&self) -> String {
        format!("{} by {}", self.measure.name(), self.along.name())
    }

    /// Its curves, in order.
    pub fn curves(&self) -> &[&'a Curve] {
        &self.curves
    }

    /// With its legend, in pixels.
    pub fn height(&self) -> f64 {
        HEIGHT + ROW * self.curves.len() as f64
    }

    /// The chart as the content of an `<svg>`, its upper left corner at the origin.
    pub fn draw(&self) -> String {
        let places = self
            .curves
            .iter()
            .flat_map(|curve| &curve.points)
            .map(|point| point.0);
        let figures = self
            .curves
            .iter()
            .flat_map(|curve| &curve.points)
            .map(|point| point.1);
        let (x, y) = (Axis::over(places, true), Axis::over(figures, false));
        let mut out = String::new();
        self.draw_axes(&mut out, &x, &y);
        // Invariant: writing into a String does not fail.
        for (index, curve) in self.curves.iter().enumerate() {
            let colour = COLOURS.get(index % COLOURS.len()).unwrap_or(&"#000000");
            let style = style(curve, index);
            let at = |point: &(f64, f64)| (across(&x, point.0), up(&y, point.1));
            let line: Vec<String> = curve
                .points
                .iter()
                .map(|point| {
                    let (left, top) = at(point);
                    format!("{left:.2},{top:.2}")
                })
                .collect();
            let _ = writeln!(
                out,
                r#"<polyline points="{}" fill="none" stroke="{colour}" {style}/>"#,
                line.join(" ")
            );
            if curve.points.len() <= DOTS {
                for point in &curve.points {
                    let (left, top) = at(point);
                    let says = format!(
                        "{}, {} {}: {}",
                        label(curve),
                        self.along.name(),
                        number(point.0),
                        number(point.1)
                    );
                    let _ = writeln!(
                        out,
                        r#"<circle cx="{left:.2}" cy="{top:.2}" r="2.5" fill="{colour}"><title>{}</title></circle>"#,
                        escape(&says)
                    );
                }
            }
            let top = HEIGHT + ROW * (index as f64 + 0.5);
            let (from, to) = (MARGIN.0, MARGIN.0 + 28.0);
            let _ = writeln!(
                out,
                r#"<line x1="{from}" y1="{top}" x2="{to}" y2="{top}" stroke="{colour}" {style}/>"#
            );
            let _ = writeln!(
                out,
                r#"<text x="{}" y="{}">{}</text>"#,
                to + 8.0,
                top + 4.0,
                escape(&label(curve))
            );
        }
        out
    }

    fn draw_axes(&self, out: &mut String, x: &Axis, y: &Axis) {
        let (left, right) = (MARGIN.0, WIDTH - MARGIN.1);
        let (top, bottom) = (MARGIN.2, HEIGHT - MARGIN.3);
        let middle = (left + right) / 2.0;
        let _ = writeln!(
            out,
            r#"<text x="{middle}" y="18" text-anchor="middle" font-weight="bold">{}</text>"#,
            self.title()
        );
        for (figure, text) in y.marks() {
            let at = up(y, figure);
            let _ = writeln!(
                out,
                r##"<line x1="{left}" y1="{at:.2}" x2="{right}" y2="{at:.2}" stroke="#dddddd"/>"##
            );
            let _ = writeln!(
                out,
                r#"<text x="{}" y="{:.2}" text-anchor="end">{text}</text>"#,
                left - 8.0,
                at + 4.0
            );
        }
        for (place, text) in x.marks() {
            let at = across(x, place);
            let _ = writeln!(
                out,
                r##"<line x1="{at:.2}" y1="{bottom}" x2="{at:.2}" y2="{}" stroke="#444444"/>"##,
                bottom + 5.0
            );
            let _ = writeln!(
                out,
                r#"<text x="{at:.2}" y="{}" text-anchor="middle">{text}</text>"#,
                bottom + 18.0
            );
        }
        let _ = writeln!(
            out,
            r##"<path d="M{left},{top} V{bottom} H{right}" fill="none" stroke="#444444"/>"##
        );
        let _ = writeln!(
            out,
            r#"<text x="{middle}" y="{}" text-anchor="middle">{}</text>"#,
            bottom + 36.0,
            self.along.name()
        );
    }
}

/// All charts below each other, as a file of its own.
pub fn svg(charts: &[Chart<'_>]) -> String {
    let height: f64 = charts.iter().map(|chart| chart.height() + ROW).sum();
    let mut out = open(height);
    let mut top = 0.0;
    for chart in charts {
        let _ = writeln!(
            out,
            "<g transform=\"translate(0,{top})\">\n{}</g>",
            chart.draw()
        );
        top += chart.height() + ROW;
    }
    out.push_str("</svg>\n");
    out
}

/// The beginning of an `<svg>` of this height.
pub fn open(height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    )
}

/// Where a place is, in pixels from the left.
fn across(axis: &Axis, place: f64) -> f64 {
    MARGIN.0 + axis.share(place) * (WIDTH - MARGIN.0 - MARGIN.1)
}

/// Where a figure is, in pixels from above.
fn up(axis: &Axis, figure: f64) -> f64 {
    let (top, bottom) = (MARGIN.2, HEIGHT - MARGIN.3);
    bottom - axis.share(figure) * (bottom - top)
}

/// Held-out figures are whole lines, what was seen in training is broken, a site's is thin; and so is told apart
/// where there are more curves than colours.
fn style(curve: &Curve, index: usize) -> String {
    let width = if curve.kind == Kind::Site { 1 } else { 2 };
    let dash = match (curve.kind, index / COLOURS.len()) {
        (Kind::HeldOut, 0) => String::new(),
        (Kind::HeldOut, again) => format!(" stroke-dasharray=\"{} 2\"", 12 * again),
        (_, again) => format!(" stroke-dasharray=\"{} 3\"", 5 + 3 * again),
    };
    format!("stroke-width=\"{width}\"{dash}")
}

/// What the legend calls a curve.
pub fn label(curve: &Curve) -> String {
    let averaged = match curve.averaged {
        1 => String::new(),
        many => format!(" (means of {many} steps)"),
    };
    format!("{}: {}{averaged}", curve.source, curve.name)
}

/// A number for people: as short as it is, at most six digits after the point.
pub fn number(number: f64) -> String {
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text in XML.
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed in XML, however they are written.
            c if c.is_control() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::curves::read;
    use super::*;

    #[test]
    fn points_are_where_their_numbers_are() {
        let curves = read(
            "run",
            "{\"step\":0,\"loss\":3}\n{\"step\":1,\"loss\":2}\n{\"step\":2,\"loss\":1}\n",
        )
        .unwrap();
        let charts = Chart::all(&curves);
        let drawn = charts.first().unwrap().draw();
        // The axes go from 1 to 3 both ways: the first point is at the upper left, the last at the lower right,
        // and the one between in the middle of 64…620 and 34…284.
        assert!(
            drawn.contains("points=\"64.00,34.00 342.00,159.00 620.00,284.00\""),
            "{drawn}"
        );
        assert!(
            drawn.contains("<title>run: training loss, step 2: 2</title>"),
            "{drawn}"
        );
        assert!(drawn.contains("text-anchor=\"end\">1.5</text>"), "{drawn}");
        assert!(drawn.contains("loss by step"));
    }

    #[test]
    fn each_measure_along_each_thing_has_its_chart_and_the_same_curves_the_same_text() {
        let round = |round: u32, loss: f64, right: f64| serde_json::json!({ "round": round, "evaluation": { "loss": loss, "balanced_accuracy": right } });
        let rounds = serde_json::json!([round(0, 2.0, 0.5), round(1, 1.0, 0.9)]).to_string();
        let mut curves = read("a", "{\"step\":0,\"loss\":3}").unwrap();
        curves.extend(read("b", &rounds).unwrap());
        curves.extend(read("c", &rounds).unwrap());
        let charts = Chart::all(&curves);
        let titles: Vec<String> = charts.iter().map(Chart::title).collect();
        assert_eq!(
            titles,
            [
                "loss by round",
                "balanced accuracy by round",
                "loss by step"
            ]
        );
        assert_eq!(svg(&charts), svg(&Chart::all(&curves)));
        let both = charts.first().unwrap();
        assert_eq!(both.curves().len(), 2);
        assert!(
            both.draw().contains("b: held-out loss") && both.draw().contains("c: held-out loss")
        );
    }

    #[test]
    fn a_name_is_text_and_nothing_else() {
        let curves = read("<script>\"&'\u{1}", "{\"step\":0,\"loss\":3}").unwrap();
        let text = svg(&Chart::all(&curves));
        assert!(!text.contains("<script"), "{text}");
        assert!(text.contains("&lt;script&gt;&quot;&amp;&#39;\u{FFFD}: training loss"));
        assert_eq!(
            (number(2.50), number(3.0), number(1.0 / 3.0)),
            ("2.5".into(), "3".into(), "0.333333".into())
        );
    }
}
