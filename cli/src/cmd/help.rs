//! `unimse help [COMMAND|TOPIC]`.

use std::fmt::Write;

use clap::CommandFactory;

use crate::args::{Cli, HelpArgs};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;

const ENVIRONMENT: &str = "\
A flag wins over the environment, which wins over the default.

  UNIMSE_COORDINATOR     the coordinator to talk to (http://127.0.0.1:7800)
  UNIMSE_STATE           the state folder of `unimse up` (.unimse)
  UNIMSE_CHECKPOINTS     where `unimse up` keeps checkpoints (STATE/checkpoints)
  UNIMSE_WORKER          the program unimse-worker, in place of the one beside unimse
  UNIMSE_COORDINATOR_BIN the program unimse-coordinator, in place of the one beside unimse
  UNIMSE_LIBTORCH        a libtorch folder for the worker, in place of the one it was built with
  UNIMSE_LOG             what the program logs on stderr, such as debug or unimse_proto=trace
  AWS_*                  keys, region and endpoint of s3:// stores
  NO_COLOR               no colour, whatever the terminal
";

pub(crate) fn run(args: &HelpArgs) -> Result<Exit> {
    let text = match args.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["exit-codes"] => exit_codes(),
        ["environment"] => ENVIRONMENT.to_owned(),
        path => of_command(path)?,
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

fn exit_codes() -> String {
    Exit::ALL.iter().fold(String::new(), |mut text, exit| {
        let _ = writeln!(text, "{:>3}  {}", exit.code(), exit.meaning());
        text
    })
}

fn of_command(path: &[&str]) -> Result<String> {
    let mut command = Cli::command();
    command.build();
    let mut found = &mut command;
    for name in path {
        found = found.find_subcommand_mut(name).ok_or_else(|| Error::Usage {
            message: format!("there is no command or topic `{}`", path.join(" ")),
            hint: "`unimse --help` lists the commands; topics are exit-codes and environment".to_owned(),
        })?;
    }
    Ok(found.render_help().ansi().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_listed() {
        let text = exit_codes();
        assert_eq!(text.lines().count(), Exit::ALL.len());
        assert!(text.contains(" 12  the time given with --timeout is over\n"), "{text}");
    }

    #[test]
    fn help_of_a_nested_command_is_found_and_nonsense_is_not() {
        assert!(of_command(&["ckpt", "pull"]).is_ok_and(|text| text.contains("transformers")));
        assert!(of_command(&["nonsense"]).is_err_and(|error| error.exit() == Exit::Usage));
    }
}
