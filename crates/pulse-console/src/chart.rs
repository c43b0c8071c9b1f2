//! Charts as inline SVG. Coordinates are attributes, so that no inline style is needed.

use maud::{Markup, html};

/// Height of the plot's bottom and top, in pixels of the SVG.
const BOTTOM: f64 = 142.0;
const TOP: f64 = 16.0;
/// Width of the stretched part.
const WIDTH: f64 = 600.0;
/// Maximum number of rows in the table of values.
const ROWS: usize = 12;

/// One line of a chart.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// `l1` is the measure, `l2` what it is compared with, `l3` the 99th percentile.
    pub(crate) class: &'static str,
    /// One for each time.
    pub(crate) values: Vec<f64>,
}

/// A chart of lines over time.
pub(crate) struct Chart<'a> {
    /// Unique on the page.
    pub(crate) id: &'a str,
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    /// Texts of the times, one for each value.
    pub(crate) times: Vec<String>,
    pub(crate) lines: Vec<Line>,
    pub(crate) format: fn(f64) -> String,
}

/// The distance of two lines of the grid, so that five of them reach `max`.
fn step(max: f64) -> f64 {
    if max <= 0.0 {
        return 1.0;
    }
    let wanted = (max / 5.0).max(0.001);
    let power = 10_f64.powf(wanted.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(|factor| factor * power >= wanted * 0.999_999);
    factor.unwrap_or(10.0) * power
}

/// The `d` of a path through the values.
fn path(values: &[f64], top_value: f64) -> String {
    let last = values.len().saturating_sub(1).max(1) as f64;
    let point = |(index, value): (usize, &f64)| {
        let (x, y) = (index as f64 * WIDTH / last, y(*value, top_value));
        format!("{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' })
    };
    values.iter().enumerate().map(point).collect()
}

fn y(value: f64, top_value: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * (value / top_value).clamp(0.0, 1.0)
}

impl Chart<'_> {
    pub(crate) fn render(&self) -> Markup {
        let max = self.lines.iter().flat_map(|line| &line.values).copied().fold(0.0, f64::max);
        let step = step(max);
        let grid: Vec<f64> = (0..=5).map(|line| f64::from(line) * step).collect();
        let now = |line: &Line| line.values.last().map_or_else(|| "–".into(), |value| (self.format)(*value));
        let summary: Vec<String> = self.lines.iter().map(|line| format!("{} {}", line.name, now(line))).collect();
        html! {
            div.chart {
                h3 { b { (self.title) } " " small.dim { (self.unit) } }
                p.key {
                    @for line in &self.lines {
                        span {
                            svg viewBox="0 0 16 8" aria-hidden="true" { path class={ "l " (line.class) } d="M0 4h16" {} }
                            (line.name) " " b { (now(line)) }
                        }
                    }
                }
                div.plots {
                    svg.yax aria-hidden="true" {
                        @for value in &grid {
                            text x="100%" y=(format!("{:.0}", y(*value, 5.0 * step) + 4.0)) text-anchor="end" { ((self.format)(*value)) }
                        }
                    }
                    svg.plot role="img" aria-labelledby=(self.id) {
                        title id=(self.id) { (self.title) ", " (self.unit) ". Now " (summary.join(", ")) "." }
                        @for value in &grid {
                            @let y = format!("{:.0}", y(*value, 5.0 * step));
                            line class=(if *value == 0.0 { "g0" } else { "g" }) x2="100%" y1=(y) y2=(y) {}
                        }
                        svg width="100%" height="164" viewBox="0 0 600 164" preserveAspectRatio="none" {
                            @for line in &self.lines { path class={ "l " (line.class) } d=(path(&line.values, 5.0 * step)) {} }
                        }
                        @if let (Some(first), Some(last)) = (self.times.first(), self.times.last()) {
                            text x="0%" y="158" { (first) }
                            text x="100%" y="158" text-anchor="end" { (last) }
                        }
                    }
                }
                (self.values())
            }
        }
    }

    /// The values as a table, for those who cannot see the lines.
    fn values(&self) -> Markup {
        let every = self.times.len().div_ceil(ROWS).max(1);
        html! {
            details.more {
                summary { "Values" }
                table.t {
                    thead { tr { th scope="col" { "Time" } @for line in &self.lines { th.r scope="col" { (line.name) } } } }
                    tbody {
                        @for (index, time) in self.times.iter().enumerate().step_by(every) {
                            tr { td { (time) } @for line in &self.lines { td.r { (line.values.get(index).map_or_else(String::new, |value| (self.format)(*value))) } } }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_has_round_steps_that_reach_the_maximum() {
        for (max, expected) in [(0.0, 1.0), (5.0, 1.0), (241.0, 50.0), (12_000.0, 2_500.0), (11.0, 2.5), (30.0, 10.0)] {
            let step = step(max);
            assert!((step - expected).abs() < 1e-9 && step * 5.0 >= max, "{max}: {step}");
        }
    }

    #[test]
    fn path_spans_the_plot() {
        assert_eq!(path(&[0.0, 10.0, 5.0], 10.0), "M0.0 142.0L300.0 16.0L600.0 79.0");
        assert_eq!(path(&[3.0], 10.0).split(' ').next(), Some("M0.0"));
        assert_eq!(path(&[], 10.0), "");
    }

    #[test]
    fn text_in_a_chart_is_escaped() {
        let line = Line { name: "a", class: "l1", values: vec![1.0] };
        let chart = Chart {
            id: "c",
            title: "<b>",
            unit: "&",
            times: vec!["<i>".into()],
            lines: vec![line],
            format: |value| format!("{value}"),
        };
        let html = chart.render().into_string();
        assert!(!html.contains("<i>") && html.contains("&lt;b&gt;"), "{html}");
    }
}
