//! Mean and deviation of feature values in one pass (Welford 1962), in 64 bits.

use crate::schema::{Features, Statistics};

/// What is known of the frames so far.
#[derive(Debug, Default)]
pub(super) struct Moments {
    frames: u64,
    mean: Vec<f64>,
    /// Sums of squared distances from the mean.
    squares: Vec<f64>,
}

impl Moments {
    /// Counts all frames of a sample, whose width is that of the earlier ones.
    pub(super) fn add(&mut self, features: Option<&Features>) {
        let Some(features) = features else { return };
        self.mean.resize(features.dim(), 0.0);
        self.squares.resize(features.dim(), 0.0);
        for frame in features.data().chunks(features.dim()) {
            self.frames += 1;
            let count = self.frames as f64;
            for ((mean, squares), &value) in self.mean.iter_mut().zip(&mut self.squares).zip(frame) {
                let before = f64::from(value) - *mean;
                *mean += before / count;
                *squares += before * (f64::from(value) - *mean);
            }
        }
    }

    /// Gives the statistics of the population; none if there were no frames.
    pub(super) fn finish(&self) -> Option<Statistics> {
        let deviation = |squares: &f64| (squares / self.frames as f64).sqrt() as f32;
        (self.frames > 0).then(|| Statistics {
            frames: self.frames,
            mean: self.mean.iter().map(|&mean| mean as f32).collect(),
            deviation: self.squares.iter().map(deviation).collect(),
        })
    }
}

impl Statistics {
    /// Joins the statistics of several datasets with vectors of the same width, as if their frames were one dataset's.
    pub fn pooled<'s>(all: impl IntoIterator<Item = &'s Self>) -> Option<Self> {
        let mut pooled: Option<Moments> = None;
        for one in all {
            let own = Moments {
                frames: one.frames,
                mean: one.mean.iter().map(|&mean| f64::from(mean)).collect(),
                squares: one.deviation.iter().map(|&d| f64::from(d).powi(2) * one.frames as f64).collect(),
            };
            pooled = Some(match pooled {
                None => own,
                Some(before) if before.mean.len() == own.mean.len() => before.join(&own),
                Some(before) => before,
            });
        }
        pooled?.finish()
    }
}

impl Moments {
    /// Chan, Golub and LeVeque 1979.
    fn join(self, other: &Self) -> Self {
        let (one, two) = (self.frames as f64, other.frames as f64);
        let all = (one + two).max(1.0);
        let values = self.mean.iter().zip(&other.mean).zip(self.squares.iter().zip(&other.squares));
        let (mean, squares) =
            values.map(|((a, b), (s, t))| (a + (b - a) * two / all, s + t + (b - a).powi(2) * one * two / all)).unzip();
        Self { frames: self.frames + other.frames, mean, squares }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(frames: &[[f32; 2]]) -> Statistics {
        let mut moments = Moments::default();
        for part in frames.chunks(2) {
            moments.add(Features::try_new(part.len(), 2, part.concat()).as_ref());
        }
        moments.finish().unwrap()
    }

    #[test]
    fn means_and_deviations_are_those_of_all_frames() {
        let found = statistics(&[[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]);
        assert_eq!((found.frames, found.mean.as_slice()), (3, [2.0, 5.0].as_slice()));
        assert!((found.deviation[0] - (2.0_f32 / 3.0).sqrt()).abs() < 1e-6);
        assert_eq!(found.deviation[1], 0.0);
        assert_eq!(Moments::default().finish(), None);
    }

    #[test]
    fn pooled_statistics_are_those_of_the_frames_together() {
        let (one, two) = ([[1.0, -4.0], [2.0, 0.5]], [[10.0, 1.0], [4.0, 2.0], [-3.0, 8.0]]);
        let together = statistics(&[one.as_slice(), two.as_slice()].concat());
        let pooled = Statistics::pooled([&statistics(&one), &statistics(&two)]).unwrap();
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&pooled.mean, &together.mean) && close(&pooled.deviation, &together.deviation));
        assert_eq!(Statistics::pooled([]), None);
    }
}
