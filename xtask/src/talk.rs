//! What people see: calm lines on stderr in cargo's own shape, a spinner only on a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::OwoColorize;

/// How often a long task says on a plain stream that it is still alive.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Prints a line: a verb at cargo's width, then the text.
pub(crate) fn say(verb: &str, text: &str) {
    let verb = format!("{verb:>12}");
    anstream::eprintln!("{} {text}", verb.green().bold());
}

/// Prints a line about something that deserves a look but is no failure.
pub(crate) fn warn(verb: &str, text: &str) {
    let verb = format!("{verb:>12}");
    anstream::eprintln!("{} {text}", verb.yellow().bold());
}

/// Prints a failure with all its causes.
pub(crate) fn error(error: &anyhow::Error) {
    anstream::eprintln!("{} {error:#}", "error:".red().bold());
}

/// Writes a duration as people say it.
pub(crate) fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds @ 1..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// Progress of something that takes a while and whose end is not known.
#[derive(Debug)]
pub(crate) struct Progress {
    verb: &'static str,
    bar: Option<ProgressBar>,
    begun: Instant,
    spoken: Instant,
}

impl Progress {
    /// Says what begins.
    pub(crate) fn begin(verb: &'static str, text: &str) -> Self {
        say(verb, text);
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{prefix:>12} {spinner} {msg}").expect("the template is well formed");
            let bar = ProgressBar::new_spinner().with_style(style).with_prefix("");
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { verb, bar, begun: Instant::now(), spoken: Instant::now() }
    }

    /// Says how far it is: at once on a terminal, every half minute elsewhere.
    pub(crate) fn update(&mut self, text: &str) {
        let text = format!("{text}, {}", seconds(self.begun.elapsed()));
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None if self.spoken.elapsed() >= HEARTBEAT => {
                say(self.verb, &text);
                self.spoken = Instant::now();
            }
            None => {}
        }
    }

    /// Ends it and tells how long it took.
    pub(crate) fn end(self) -> Duration {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.begun.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let texts = [320, 5_900, 59_999, 60_000, 754_000].map(|millis| seconds(Duration::from_millis(millis)));
        assert_eq!(texts, ["320 ms", "5 s", "59 s", "1 min 0 s", "12 min 34 s"]);
    }
}
