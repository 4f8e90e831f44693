//! The rules of the house that a compiler does not check.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::harness::workspace;

fn metadata() -> cargo_metadata::Metadata {
    let manifest = workspace().join("Cargo.toml");
    cargo_metadata::MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata")
}

/// Names of the packages that each package of ours depends on, directly and not only for tests.
fn direct(metadata: &cargo_metadata::Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let ours = metadata.workspace_packages();
    let of = |package: &cargo_metadata::Package| {
        let normal = package.dependencies.iter().filter(|on| on.kind == cargo_metadata::DependencyKind::Normal);
        normal.map(|on| on.name.clone()).collect()
    };
    ours.into_iter().map(|package| (package.name.to_string(), of(package))).collect()
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&workspace().join(folder), &mut found);
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

const CRATES: [&str; 11] = [
    "checkpoint",
    "cli",
    "collectives",
    "coordinator",
    "core",
    "data",
    "model",
    "proto",
    "torch-ext",
    "worker",
    "xtask",
];

#[test]
fn dependencies_point_only_downwards() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("unimse-core", &[][..]),
        ("unimse-proto", &["unimse-core"]),
        ("unimse-checkpoint", &["unimse-core"]),
        ("unimse-data", &["unimse-core"]),
        ("unimse-torch-ext", &[]),
        ("unimse-collectives", &[]),
        ("unimse-model", &["unimse-torch-ext"]),
        ("unimse-coordinator", &["unimse-core", "unimse-proto", "unimse-checkpoint"]),
        (
            "unimse-worker",
            &[
                "unimse-core",
                "unimse-proto",
                "unimse-data",
                "unimse-checkpoint",
                "unimse-model",
                "unimse-collectives",
                "unimse-torch-ext",
            ],
        ),
        ("unimse-cli", &["unimse-core", "unimse-proto", "unimse-data", "unimse-checkpoint"]),
        ("xtask", &[]),
    ]);
    for (package, on) in direct(&metadata()) {
        let Some(allowed) = allowed.get(package.as_str()) else { continue };
        let ours: Vec<&String> = on.iter().filter(|name| name.starts_with("unimse-")).collect();
        for name in ours {
            assert!(allowed.contains(&name.as_str()), "{package} must not depend on {name}");
        }
    }
}

#[test]
fn the_core_knows_no_world() {
    let banned = ["tokio", "tonic", "prost", "tch", "object_store", "rusqlite", "reqwest", "getrandom"];
    let core = &direct(&metadata())["unimse-core"];
    for name in banned {
        assert!(!core.contains(name), "core must not depend on {name}");
    }
    let calls =
        ["std::fs", "std::net", "std::env", "Instant::now", "SystemTime", "thread::sleep", "std::process", "rand::rng"];
    for (path, text) in sources("core/src") {
        if path.file_name().is_some_and(|name| name == "tests.rs") {
            // Tests read the examples in configs/.
            continue;
        }
        for call in calls {
            assert!(!text.contains(call), "{} names {call}", path.display());
        }
    }
}

#[test]
fn libtorch_stays_out_of_coordinator_and_command_line() {
    let metadata = metadata();
    let graph = direct(&metadata);
    let nodes = &metadata.resolve.as_ref().expect("a resolved graph").nodes;
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (&package.id, package.name.to_string())).collect();
    for start in ["unimse-coordinator", "unimse-cli"] {
        assert!(graph.contains_key(start));
        let mut seen = BTreeSet::new();
        let mut open: Vec<_> = nodes.iter().filter(|node| names[&node.id] == start).collect();
        while let Some(node) = open.pop() {
            for on in &node.deps {
                let normal = on.dep_kinds.iter().any(|kind| kind.kind == cargo_metadata::DependencyKind::Normal);
                if normal && seen.insert(&on.pkg) {
                    open.extend(nodes.iter().find(|node| node.id == on.pkg));
                }
            }
        }
        let linked: Vec<&String> = seen.iter().map(|id| &names[*id]).collect();
        assert!(!linked.iter().any(|name| *name == "tch" || *name == "torch-sys"), "{start} links libtorch");
        assert!(!linked.iter().any(|name| name.starts_with("aws-lc")), "{start} links aws-lc");
    }
}

#[test]
fn the_wire_stops_at_proto() {
    for folder in CRATES.into_iter().filter(|folder| !["proto"].contains(folder)) {
        let on = &direct(&metadata())[&format!("{}{folder}", if folder == "xtask" { "" } else { "unimse-" })];
        assert!(!on.contains("prost"), "{folder} depends on prost");
    }
}

#[test]
fn checkpoints_are_bytes_and_data_are_plain_arrays() {
    let graph = direct(&metadata());
    for package in ["unimse-checkpoint", "unimse-data", "unimse-collectives"] {
        for name in ["tch", "tonic"] {
            assert!(!graph[package].contains(name), "{package} must not depend on {name}");
        }
    }
    for name in ["tokio", "tonic", "object_store", "unimse-core"] {
        assert!(!graph["unimse-model"].contains(name), "the model knows no {name}");
    }
}

#[test]
fn only_main_reads_the_environment_or_exits() {
    for folder in ["coordinator", "checkpoint", "core", "data", "model", "collectives", "proto"] {
        for (path, text) in sources(&format!("{folder}/src")) {
            if path.file_name().is_some_and(|name| name == "main.rs" || name == "tests.rs") {
                continue;
            }
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for call in ["env::var", "process::exit"] {
                assert!(!code.contains(call), "{} calls {call}", path.display());
            }
        }
    }
}

#[test]
fn unsafe_code_has_two_homes() {
    for folder in CRATES.into_iter().filter(|folder| !["collectives", "torch-ext"].contains(folder)) {
        for (path, text) in sources(&format!("{folder}/src")) {
            let offends =
                ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|word| text.contains(word));
            assert!(!offends, "{} has unsafe code", path.display());
        }
    }
}

#[test]
fn every_crate_inherits_the_lints() {
    for package in metadata().workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} has lints of its own", package.name);
    }
}

#[test]
fn files_stay_short_enough_to_read_and_say_what_they_are() {
    for folder in CRATES {
        for (path, text) in sources(&format!("{folder}/src")) {
            let lines = text.lines().count();
            assert!(lines <= 600, "{} has {lines} lines; split it by idea", path.display());
            let first = text.lines().next().unwrap_or_default();
            let test = path.file_name().is_some_and(|name| name == "tests.rs")
                || path.components().any(|part| part.as_os_str() == "tests");
            assert!(test || first.starts_with("//!"), "{} does not begin with what it is", path.display());
            assert!(
                path.file_name().is_some_and(|name| name != "mod.rs"),
                "{}: use foo.rs beside foo/",
                path.display()
            );
        }
    }
}

#[test]
fn the_map_names_every_folder() {
    let map = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for folder in CRATES.into_iter().chain(["configs", "tests", "docs"]) {
        assert!(map.contains(&format!("`{folder}/`")), "ARCHITECTURE.md does not name {folder}/");
    }
    for word in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Cargo.lock"] {
        assert!(workspace().join(word).is_file(), "{word} is missing");
    }
}
