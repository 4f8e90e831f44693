//! Every file in configs/ is valid, as the command line sees it.

use crate::harness::{program, ran, workspace};

#[test]
fn every_example_is_valid() {
    let mut files = Vec::new();
    for folder in ["configs/jobs", "configs/sweeps"] {
        let entries = std::fs::read_dir(workspace().join(folder)).expect("the folder is there").flatten();
        files
            .extend(entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "yaml")));
    }
    assert!(files.len() >= 5, "{files:?}");
    let mut command = program("unimse");
    command.arg("validate").args(&files);
    let validated = ran(command);
    assert_eq!(validated.code, 0, "{}{}", validated.out, validated.err);
}
