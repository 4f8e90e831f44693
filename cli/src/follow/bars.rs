//! One moving line a job, on a terminal.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use unimse_core::view::JobView;

use crate::render::amount::number;
use crate::render::job::eta;

/// The bars at the bottom of the screen, by the number of the job.
#[derive(Debug)]
pub(super) struct Bars {
    all: MultiProgress,
    bars: BTreeMap<usize, ProgressBar>,
}

impl Bars {
    /// Draws nothing yet.
    pub(super) fn new() -> Self {
        Self { all: MultiProgress::new(), bars: BTreeMap::new() }
    }

    /// Runs something that prints, with the bars out of its way.
    pub(super) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.all.suspend(print)
    }

    /// Brings the bar of a job up to date.
    pub(super) fn show(&mut self, index: usize, view: &JobView) {
        let all = &self.all;
        let bar = self.bars.entry(index).or_insert_with(|| {
            let bar = all.add(ProgressBar::no_length());
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        match view.total_steps {
            Some(total) => {
                bar.set_style(style("{prefix}  {bar:24.green/dim}  {msg}"));
                bar.set_length(total);
            }
            None => bar.set_style(style("{prefix}  {spinner}  {msg}")),
        }
        bar.set_prefix(view.id.to_string());
        bar.set_position(view.step.0);
        bar.set_message(message(view));
    }

    /// Takes the bars off the screen.
    pub(super) fn clear(&mut self) {
        for bar in self.bars.values() {
            bar.finish_and_clear();
        }
        self.bars.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are well-formed").progress_chars("━╸━")
}

/// Says in a few words what a bar cannot.
fn message(view: &JobView) -> String {
    let total = view.total_steps.map_or_else(String::new, |total| format!("/{total}"));
    let mut parts = vec![format!("{}{total}", view.step)];
    match (&view.progress, view.state.as_str()) {
        (Some(progress), "running") => {
            parts.push(format!("loss {}", number(progress.loss)));
            parts.push(format!("{} samples/s", number(progress.samples_per_second)));
            if view.eta_seconds.is_some() {
                parts.push(format!("eta {}", eta(view)));
            }
        }
        (_, state) => parts.push(state.to_owned()),
    }
    parts.push(format!("gen {}", view.generation));
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::job::tests::running;

    #[test]
    fn the_message_has_what_people_look_for() {
        assert_eq!(message(&running()), "12400/50000  loss 1.234  86.40 samples/s  eta 2h10m  gen 2");
        let queued = JobView { state: "queued".into(), total_steps: None, ..running() };
        assert_eq!(message(&queued), "12400  queued  gen 2");
    }

    #[test]
    fn both_templates_are_well_formed() {
        let mut bars = Bars::new();
        bars.show(0, &running());
        bars.show(0, &JobView { total_steps: None, ..running() });
        bars.clear();
        assert!(bars.bars.is_empty());
    }
}
