//! Every bench that makes promises, one after another, and one table of the promises at the end.

use anyhow::{Result, bail};

use super::host::Host;
use super::report::{Record, Report};
use super::{BENCHES, Bench, goals, keep, measure, write};
use crate::talk;
use crate::workspace::Workspace;

pub(super) const NAME: &str = "all";
pub(super) const ABOUT: &str = "all of these but golden, then one table of the goals (arguments go to train)";

/// In this order: a bench that is disturbed by what the others leave in memory and on the disk comes early.
const ORDER: [&str; 5] = ["allreduce", "train", "checkpoint", "decode", "coordinator"];

/// Runs them; goals that are missed are named and are no failure, a bench that does not run is one.
pub(super) fn run(workspace: &Workspace, rest: &[String]) -> Result<()> {
    let mut records = Vec::new();
    let mut failed = Vec::new();
    for bench in benches() {
        talk::say("Measuring", bench.name);
        let arguments = if bench.name == "train" { rest } else { &[] };
        let measured = measure(workspace, bench, arguments).and_then(|found| {
            keep(workspace, bench.name, found.clone())?;
            Ok(found)
        });
        match measured {
            Ok(found) => records.extend(named_for(bench.name, found)),
            Err(error) => {
                talk::error(&error);
                failed.push(bench.name);
            }
        }
    }
    anstream::println!("{}", goals::table(&records));
    for name in goals::missed(&records) {
        talk::warn("Missed", name);
    }
    write(workspace, &Report { bench: NAME, host: Host::find(workspace), records })?;
    if !failed.is_empty() {
        bail!("{} did not run to the end", failed.join(" and "));
    }
    Ok(())
}

fn benches() -> impl Iterator<Item = Bench> {
    ORDER.iter().filter_map(|name| BENCHES.iter().find(|bench| bench.name == *name)).copied()
}

/// Numbers of several benches stand side by side, so each says where it is from.
fn named_for(bench: &str, mut records: Vec<Record>) -> Vec<Record> {
    for record in &mut records {
        record.name = format!("{bench}: {}", record.name);
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bench_has_its_turn() {
        assert_eq!(benches().map(|bench| bench.name).collect::<Vec<_>>(), ORDER);
        assert_eq!(BENCHES.len(), ORDER.len());
    }

    #[test]
    fn a_number_says_which_bench_it_is_from() {
        let records = named_for("train", vec![Record::new("step", 5.0, "ms")]);
        assert_eq!(records[0].name, "train: step");
    }
}
