//! `unimse doctor`: is everything there that a job will need?

mod coordinator;
mod machine;

use owo_colors::{OwoColorize, Style};
use serde::Serialize;

use crate::args::{DoctorArgs, Format};
use crate::context::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::output;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// All is well.
    Ok,
    /// Could not be looked at from here.
    Skip,
    /// Works, but may disappoint.
    Warn,
    /// Does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) verdict: Verdict,
    pub(super) what: String,
    pub(super) hint: Option<String>,
}

impl Check {
    pub(super) fn new(verdict: Verdict, what: impl Into<String>) -> Self {
        Self { verdict, what: what.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub(crate) async fn run(context: &Context, args: DoctorArgs) -> Result<Exit> {
    let mut checks = machine::checks(context);
    checks.extend(coordinator::checks(context).await);
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    match args.output.format {
        Format::Json => output::print(&output::document(&[
            ("healthy", (failed == 0).into()),
            ("checks", serde_json::to_value(&checks).expect("checks are plain data")),
        ]))?,
        Format::Table => output::print(&render(&checks))?,
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::Failure })
}

fn render(checks: &[Check]) -> String {
    let lines = checks.iter().map(|check| {
        let (word, style) = match check.verdict {
            Verdict::Ok => ("ok", Style::new().green()),
            Verdict::Skip => ("skip", Style::new().dimmed()),
            Verdict::Warn => ("warn", Style::new().yellow()),
            Verdict::Fail => ("FAIL", Style::new().red().bold()),
        };
        let hint = check.hint.as_ref().map_or_else(String::new, |hint| format!("      hint: {hint}\n"));
        format!("{}{}  {}\n{hint}", word.style(style), " ".repeat(4 - word.len()), check.what)
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_stand_below_what_they_are_about() {
        let checks = [
            Check::new(Verdict::Ok, "coordinator http://lab1:7800"),
            Check::new(Verdict::Fail, "libtorch is not found").hint("pip install 'torch==2.11.*'"),
        ];
        let text = anstream::adapter::strip_str(&render(&checks)).to_string();
        assert_eq!(
            text,
            "ok    coordinator http://lab1:7800\nFAIL  libtorch is not found\n      hint: pip install 'torch==2.11.*'\n"
        );
    }
}
