//! What applies to every command: a flag wins over the environment, which wins over the default.

use std::fmt;

use clap::ArgMatches;
use clap::parser::ValueSource;

use crate::args::{DEFAULT_COORDINATOR, Global};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Typed on the command line.
    Flag,
    /// A `UNIMSE_*` variable.
    Environment,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "--coordinator",
            Self::Environment => "UNIMSE_COORDINATOR",
            Self::Default => "the default",
        })
    }
}

/// The settings of one run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// URL of the coordinator.
    pub(crate) coordinator: String,
    /// Who named it.
    pub(crate) coordinator_origin: Origin,
    /// Say only results and errors.
    pub(crate) quiet: bool,
    /// How much of the program's own log goes to stderr.
    pub(crate) verbose: u8,
}

impl Default for Settings {
    /// As if nothing was typed.
    fn default() -> Self {
        Self {
            coordinator: DEFAULT_COORDINATOR.to_owned(),
            coordinator_origin: Origin::Default,
            quiet: false,
            verbose: 0,
        }
    }
}

impl Settings {
    /// Joins what was typed with what clap found in the environment.
    pub(crate) fn new(global: &Global, matches: &ArgMatches) -> Self {
        let coordinator_origin = match innermost_source(matches, "coordinator") {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => Origin::Environment,
            _ => Origin::Default,
        };
        Self {
            coordinator: with_scheme(&global.coordinator),
            coordinator_origin,
            quiet: global.quiet,
            verbose: global.verbose,
        }
    }
}

/// Finds who set a global argument; clap notes it at the subcommand where it was typed.
fn innermost_source(matches: &ArgMatches, id: &str) -> Option<ValueSource> {
    let here = matches.value_source(id);
    let below = matches
        .subcommand()
        .and_then(|(_, below)| below.try_contains_id(id).is_ok().then(|| innermost_source(below, id)).flatten());
    below.max(here)
}

/// People type `lab1:7800` and mean `http://lab1:7800`.
pub(crate) fn with_scheme(text: &str) -> String {
    let text = text.trim().trim_end_matches('/');
    if text.contains("://") { text.to_owned() } else { format!("http://{text}") }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::args::Cli;

    fn settings(line: &[&str]) -> Settings {
        let matches = Cli::command().try_get_matches_from(line).expect("a good command line");
        let cli = Cli::from_arg_matches(&matches).expect("as defined");
        Settings::new(&cli.global, &matches)
    }

    #[test]
    fn a_flag_is_known_as_one_wherever_it_stands() {
        for line in [["unimse", "--coordinator", "lab1:7800", "ps"], ["unimse", "ps", "--coordinator", "lab1:7800"]] {
            let settings = settings(&line);
            assert_eq!(settings.coordinator, "http://lab1:7800");
            assert_eq!(settings.coordinator_origin, Origin::Flag);
        }
        let nested = settings(&["unimse", "ckpt", "ls", "j-1", "--coordinator=http://x:1/"]);
        assert_eq!((nested.coordinator.as_str(), nested.coordinator_origin), ("http://x:1", Origin::Flag));
    }

    #[test]
    fn without_a_word_it_is_this_machine() {
        // The variable may be set where the tests run; then its value is the right answer.
        let settings = settings(&["unimse", "ps"]);
        match settings.coordinator_origin {
            Origin::Default => assert_eq!(settings.coordinator, DEFAULT_COORDINATOR),
            other => assert_eq!(other, Origin::Environment),
        }
    }
}
