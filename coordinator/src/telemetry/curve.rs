//! Thins a curve for the eye: the first, the last, and of each stretch the lowest and the highest point stay.

use unimse_proto::client::MetricPoint;

/// Keeps about `most` of the points of one curve, which come in order of their steps.
pub(super) fn thin(points: Vec<MetricPoint>, most: usize) -> Vec<MetricPoint> {
    let stretches = most.saturating_sub(2) / 2;
    if points.len() <= most || stretches == 0 {
        return points;
    }
    let last = points.len() - 1;
    let mut keep = vec![0, last];
    for stretch in 0..stretches {
        let (start, end) = (1 + stretch * (last - 1) / stretches, 1 + (stretch + 1) * (last - 1) / stretches);
        let by_value = |a: &usize, b: &usize| points[*a].value.total_cmp(&points[*b].value);
        keep.extend((start..end).min_by(by_value));
        keep.extend((start..end).max_by(by_value));
    }
    keep.sort_unstable();
    keep.dedup();
    let mut wanted = keep.into_iter().peekable();
    let kept = points.into_iter().enumerate().filter(|(place, _)| wanted.next_if_eq(place).is_some());
    kept.map(|(_, point)| point).collect()
}

#[cfg(test)]
mod tests {
    use unimse_core::id::{Generation, Step};
    use unimse_core::time::Timestamp;

    use super::*;

    fn curve(values: impl IntoIterator<Item = f64>) -> Vec<MetricPoint> {
        let point = |(step, value)| MetricPoint {
            name: "train/loss".to_owned(),
            step: Step(step),
            value,
            generation: Generation(1),
            at: Timestamp(step),
        };
        (0..).zip(values).map(point).collect()
    }

    #[test]
    fn a_thinned_curve_keeps_its_ends_and_its_spikes() {
        let mut values: Vec<f64> = (0..10_000).map(|step| f64::from(step).sqrt()).collect();
        values[4321] = 1e9;
        values[8765] = f64::NAN;
        values[17] = -5.0;
        let thinned = thin(curve(values), 200);
        assert!(thinned.len() <= 200 && thinned.len() > 100, "{}", thinned.len());
        let steps: Vec<u64> = thinned.iter().map(|point| point.step.0).collect();
        assert!(steps.is_sorted());
        for step in [0, 17, 4321, 8765, 9999] {
            assert!(steps.contains(&step), "step {step} is gone");
        }
    }

    #[test]
    fn a_short_curve_stays_as_it_is() {
        for most in [0, 1, 3, 10] {
            assert_eq!(thin(curve([1.0, 2.0, 3.0]), most).len(), 3);
        }
    }
}
