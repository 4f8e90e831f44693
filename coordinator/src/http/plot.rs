//! A curve as inline SVG: one line, a faint grid, the ends of both axes labelled. Colours come from the page's style.

use std::fmt::Write;

use unimse_proto::client::MetricPoint;

use super::text;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 160.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 22.0;

/// One curve, ready to be drawn.
#[derive(Debug, PartialEq)]
pub(super) struct Plot {
    pub(super) name: String,
    /// The newest value.
    pub(super) last: String,
    /// Paths in a view box of [`Plot::view_box`]; a gap where a value is no number.
    pub(super) line: String,
    /// Where a curve of a single point is.
    pub(super) dot: Option<(String, String)>,
    pub(super) rows: Vec<Row>,
    pub(super) columns: Vec<Column>,
}

/// A horizontal grid line.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) y: String,
    pub(super) label: String,
}

/// A label below.
#[derive(Debug, PartialEq)]
pub(super) struct Column {
    pub(super) x: String,
    pub(super) label: String,
    pub(super) anchor: &'static str,
}

impl Plot {
    #[expect(clippy::unused_self, reason = "a template asks the plot")]
    pub(super) fn view_box(&self) -> String {
        format!("0 0 {WIDTH} {HEIGHT}")
    }

    #[expect(clippy::unused_self, reason = "a template asks the plot")]
    pub(super) fn right(&self) -> f64 {
        WIDTH - RIGHT
    }

    /// Draws the points of one curve, in order of their steps; none when there is nothing to draw.
    pub(super) fn of(name: &str, points: &[MetricPoint]) -> Option<Self> {
        let finite = || points.iter().filter(|point| point.value.is_finite());
        let (first, last) = (finite().next()?, finite().next_back()?);
        let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| {
            (low.min(point.value), high.max(point.value))
        });
        // A flat curve runs through the middle.
        let (low, high) =
            if high > low { (low, high) } else { (low - 0.5 * low.abs().max(1.0), high + 0.5 * high.abs().max(1.0)) };
        let (from, to) = (first.step.0 as f64, last.step.0 as f64);
        let x = |step: u64| {
            LEFT + (WIDTH - LEFT - RIGHT) * if to > from { (step as f64 - from) / (to - from) } else { 0.5 }
        };
        let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low);
        let mut line = String::new();
        let mut pen = 'M';
        for point in points {
            if point.value.is_finite() {
                let _infallible = write!(line, "{pen}{:.1} {:.1}", x(point.step.0), y(point.value));
                pen = 'L';
            } else {
                pen = 'M';
            }
        }
        let single = finite().nth(1).is_none();
        let dot = single.then(|| (format!("{:.1}", x(last.step.0)), format!("{:.1}", y(last.value))));
        let rows = [low, low + (high - low) / 2.0, high];
        let column = |step: u64, anchor| Column { x: format!("{:.1}", x(step)), label: format!("step {step}"), anchor };
        let columns = if single {
            vec![column(last.step.0, "middle")]
        } else {
            vec![column(first.step.0, "start"), column(last.step.0, "end")]
        };
        Some(Self {
            name: name.to_owned(),
            last: text::value(&last.value),
            line,
            dot,
            rows: rows.map(|value| Row { y: format!("{:.1}", y(value)), label: text::value(&value) }).into(),
            columns,
        })
    }
}

/// Splits points that come by name and step into curves; those that people look at first come first.
pub(super) fn plots(points: &[MetricPoint]) -> Vec<Plot> {
    let mut plots: Vec<Plot> =
        points.chunk_by(|a, b| a.name == b.name).filter_map(|curve| Plot::of(&curve[0].name, curve)).collect();
    plots.sort_by_key(|plot| prominence(&plot.name));
    plots
}

/// The loss, then the other sums of training, validation, what tells of the machines, and time.
fn prominence(name: &str) -> u8 {
    match name.split_once('/') {
        Some(("train", "loss")) => 0,
        Some(("train", _)) => 1,
        Some(("time", _)) => 4,
        Some((group, _)) if group.starts_with("valid") => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use unimse_core::id::{Generation, Step};
    use unimse_core::time::Timestamp;

    use super::*;

    fn curve(values: &[f64]) -> Vec<MetricPoint> {
        let point = |(step, &value)| MetricPoint {
            name: "train/loss".to_owned(),
            step: Step(step),
            value,
            generation: Generation(1),
            at: Timestamp(0),
        };
        (1..).zip(values).map(point).collect()
    }

    #[test]
    fn the_loss_comes_first_and_times_last() {
        let named = |name: &str| MetricPoint { name: name.to_owned(), ..curve(&[1.0]).remove(0) };
        let points = ["throughput/samples", "time/data", "train/ce", "train/loss", "valid/score"].map(named);
        let names: Vec<String> = plots(&points).into_iter().map(|plot| plot.name).collect();
        assert_eq!(names, ["train/loss", "train/ce", "valid/score", "throughput/samples", "time/data"]);
    }

    #[test]
    fn a_curve_spans_the_plot_from_its_lowest_to_its_highest_point() {
        let plot = Plot::of("x", &curve(&[4.0, 2.0, 0.0])).unwrap();
        assert_eq!(plot.line, "M56.0 8.0L304.0 73.0L552.0 138.0");
        assert_eq!(plot.rows.iter().map(|row| row.label.as_str()).collect::<Vec<_>>(), ["0", "2", "4"]);
        assert_eq!(plot.last, "0");
    }

    #[test]
    fn odd_curves_draw_without_nonsense() {
        let plot = Plot::of("x", &curve(&[1.0, f64::NAN, 3.0])).unwrap();
        assert_eq!(plot.line, "M56.0 138.0M552.0 8.0", "a gap, not a line across it");
        let flat = Plot::of("x", &curve(&[2.0, 2.0])).unwrap();
        assert_eq!(flat.line, "M56.0 73.0L552.0 73.0");
        let single = Plot::of("x", &curve(&[0.0])).unwrap();
        assert_eq!(single.dot, Some(("304.0".to_owned(), "73.0".to_owned())));
        assert!(Plot::of("x", &curve(&[f64::INFINITY])).is_none());
        assert!(Plot::of("x", &[]).is_none());
    }
}
