//! How far the model is from PyTorch: the numbers of the golden tests in one table.
//!
//! The tests compare with fixtures that transformers and a PyTorch model made (`model/tests/golden/*.py`), and print a line a number.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::report::Record;
use crate::workspace::Workspace;

pub(super) const NAME: &str = "golden";
pub(super) const ABOUT: &str = "distance of states, losses, gradients and updates from transformers and PyTorch";

/// Parts of the names of the tests that compare.
const TESTS: [&str; 5] =
    ["are_those_of", "is_that_of_the_equations", "five_steps_end_where_pytorch_does", "generation", "nearly_the_same"];

/// Runs the tests and takes the largest difference of each kind.
pub(super) fn measure(workspace: &Workspace) -> Result<Vec<Record>> {
    let mut command = workspace.cargo(&["test", "--workspace", "--lib", "--test", "golden", "--"]);
    command.args(["--nocapture", "--test-threads", "1"]).args(TESTS).stdout(Stdio::piped());
    let output = command.spawn().and_then(std::process::Child::wait_with_output).context("run the golden tests")?;
    ensure!(output.status.success(), "a golden test failed; hint: cargo xtask test -p unimse-model golden");
    Ok(records(&String::from_utf8_lossy(&output.stdout)))
}

fn records(text: &str) -> Vec<Record> {
    let mut worst: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    // libtest puts the name of the test before the first line.
    for line in text.lines().filter_map(|line| line.split_once("golden ").map(|(_, rest)| rest)) {
        let mut words = line.split(' ');
        let (Some(fixture), Some(kind), Some(error), Some(bound)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let (Ok(error), Ok(bound)) = (error.parse::<f64>(), bound.parse::<f64>()) else { continue };
        let name = format!("{}: {}", fixture.trim_end_matches(".safetensors"), kind.replace(['-', '_'], " "));
        let entry = worst.entry(name).or_insert((0.0, bound));
        entry.0 = entry.0.max(error);
    }
    let record = |(name, (error, bound)): (String, (f64, f64))| Record {
        budget: Some(bound),
        ..Record::new(name, error, "relative")
    };
    worst.into_iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_each_kind_is_told() {
        let text = "running 2 tests\ntest a ... golden t5.safetensors gradients 1e-7 1e-4\ngolden t5.safetensors gradients 3e-6 1e-4\n\
                    golden t5.safetensors encoder-states 2e-7 1e-5\nok\n";
        let found: Vec<(String, f64, Option<f64>)> =
            records(text).into_iter().map(|record| (record.name, record.value, record.budget)).collect();
        assert_eq!(
            found,
            [("t5: encoder states".to_owned(), 2e-7, Some(1e-5)), ("t5: gradients".to_owned(), 3e-6, Some(1e-4))]
        );
    }
}
