//! Metrics as tables, CSV and JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use unimse_core::id::Step;
use unimse_proto::client::MetricPoint;

use super::amount::number;
use super::table::{Column, Table};
use super::time::rfc3339;

/// Series by name, each in the order of its steps.
pub(crate) fn series(points: &[MetricPoint]) -> BTreeMap<&str, Vec<&MetricPoint>> {
    let mut series: BTreeMap<&str, Vec<&MetricPoint>> = BTreeMap::new();
    for point in points {
        series.entry(&point.name).or_default().push(point);
    }
    for points in series.values_mut() {
        points.sort_by_key(|point| point.step);
    }
    series
}

/// Keeps the last values of each metric.
pub(crate) fn last(points: &[MetricPoint], count: usize) -> Vec<MetricPoint> {
    let kept: Vec<MetricPoint> = series(points)
        .into_values()
        .flat_map(|points| points[points.len().saturating_sub(count)..].to_vec())
        .cloned()
        .collect();
    kept
}

/// Sets the newest value of each metric below each other, with how it moved and where it was best seen.
pub(crate) fn newest(points: &[MetricPoint]) -> Table {
    let mut table = Table::new([
        ("metric", Column::Left),
        ("step", Column::Right),
        ("value", Column::Right),
        ("least", Column::Right),
        ("most", Column::Right),
        ("values", Column::Right),
    ]);
    for (name, points) in series(points) {
        let Some(newest) = points.last() else { continue };
        let finite = || points.iter().map(|point| point.value).filter(|value| value.is_finite());
        table.row([
            name.to_owned().into(),
            newest.step.to_string().into(),
            number(newest.value).into(),
            finite().reduce(f64::min).map_or_else(|| "-".to_owned(), number).into(),
            finite().reduce(f64::max).map_or_else(|| "-".to_owned(), number).into(),
            points.len().to_string().into(),
        ]);
    }
    table
}

/// Sets steps below each other, with a column for each metric.
pub(crate) fn by_step(points: &[MetricPoint]) -> Table {
    let series = series(points);
    let mut steps: BTreeMap<Step, BTreeMap<&str, f64>> = BTreeMap::new();
    for (&name, points) in &series {
        for point in points {
            steps.entry(point.step).or_default().insert(name, point.value);
        }
    }
    let names: Vec<&str> = series.keys().copied().collect();
    let mut table =
        Table::new(std::iter::once(("step", Column::Right)).chain(names.iter().map(|&name| (name, Column::Right))));
    for (step, values) in steps {
        let cells = names.iter().map(|name| values.get(name).map_or_else(String::new, |&value| number(value)).into());
        table.row(std::iter::once(step.to_string().into()).chain(cells));
    }
    table
}

/// Writes one value a row, with all digits.
pub(crate) fn csv(points: &[MetricPoint]) -> String {
    let mut text = String::from("name,step,value,generation,at\n");
    for point in points {
        let name = &point.name;
        // Names are made by our trainers, but a dataset's name is in them.
        let name =
            if name.contains([',', '"', '\n']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.clone() };
        let at = rfc3339(point.at).unwrap_or_default();
        let _ = writeln!(text, "{name},{},{},{},{at}", point.step, point.value, point.generation);
    }
    text
}

#[cfg(test)]
mod tests {
    use unimse_core::id::Generation;
    use unimse_core::time::Timestamp;

    use super::*;

    fn point(name: &str, step: u64, value: f64) -> MetricPoint {
        MetricPoint { name: name.into(), step: Step(step), value, generation: Generation(1), at: Timestamp(0) }
    }

    fn points() -> Vec<MetricPoint> {
        vec![
            point("train/loss", 2, 1.5),
            point("train/loss", 1, 2.0),
            point("valid/mae", 2, 0.5),
            point("train/loss", 3, f64::NAN),
        ]
    }

    fn plain(table: &Table) -> String {
        anstream::adapter::strip_str(&table.render(None)).to_string()
    }

    #[test]
    fn the_newest_values_come_with_their_range() {
        let expected = "\
METRIC      STEP   VALUE   LEAST    MOST  VALUES
train/loss     3     nan   1.500   2.000       3
valid/mae      2  0.5000  0.5000  0.5000       1
";
        assert_eq!(plain(&newest(&points())), expected);
    }

    #[test]
    fn steps_without_a_value_stay_empty() {
        let expected = "\
STEP  TRAIN/LOSS  VALID/MAE
   1       2.000
   2       1.500     0.5000
   3         nan
";
        assert_eq!(plain(&by_step(&points())), expected);
    }

    #[test]
    fn csv_has_all_digits_and_survives_odd_names() {
        let text = csv(&[point("valid/a,b/mae", 7, 0.1 + 0.2)]);
        assert_eq!(
            text,
            "name,step,value,generation,at\n\"valid/a,b/mae\",7,0.30000000000000004,1,1970-01-01T00:00:00.000Z\n"
        );
    }

    #[test]
    fn the_last_values_are_those_of_the_last_steps() {
        let kept = last(&points(), 1);
        assert_eq!(kept.iter().map(|point| point.step.0).collect::<Vec<_>>(), [3, 2]);
    }
}
