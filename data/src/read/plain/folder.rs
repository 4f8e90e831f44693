//! The folders of `.npy` files beside a table.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Problem};
use crate::import::Findings;
use crate::read::features::Padding;
use crate::read::modality::features_of;
use crate::read::pickle::Document;
use crate::read::tracks::Side;
use crate::read::{BadFeatures, Source};
use crate::schema::Features;

/// The files beside a table.
pub(super) struct Folder {
    root: PathBuf,
    sides: [Option<PathBuf>; 2],
    used: HashSet<PathBuf>,
}

impl Folder {
    pub(super) fn beside(table: &Source) -> Result<Self, Error> {
        let root = table.path.parent().map(Path::to_owned).unwrap_or_default();
        let find = |side: Side| -> Result<Option<PathBuf>, Error> {
            let names: &[&str] = match side {
                Side::Acoustic => &["acoustic", "audio"],
                Side::Visual => &["visual", "video", "vision"],
            };
            let found: Vec<PathBuf> = names.iter().map(|name| root.join(name)).filter(|path| path.is_dir()).collect();
            if let [first, second, ..] = &found[..] {
                return Err(Error::Format {
                    path: second.display().to_string(),
                    problem: format!("{} is there too, with the same modality", first.display()),
                    hint: "keep one folder a modality".to_owned(),
                });
            }
            Ok(found.into_iter().next())
        };
        let sides = [find(Side::Acoustic)?, find(Side::Visual)?];
        Ok(Self { root, sides, used: HashSet::new() })
    }

    /// The features of an id, from the file that the table names or from the one named by the id.
    pub(super) fn features(
        &mut self,
        side: Side,
        id: &str,
        named: Option<&str>,
        policy: BadFeatures,
        bad: &mut u64,
    ) -> Result<Option<Features>, Problem> {
        let path = match (named, &self.sides[side as usize]) {
            (Some(name), _) => self.root.join(inside(name)?),
            (None, Some(folder)) => folder.join(inside(&format!("{id}.npy"))?),
            (None, None) => return Ok(None),
        };
        if named.is_none() && !path.exists() {
            return Ok(None);
        }
        let told = |problem: &dyn std::fmt::Display| Problem::new(format!("{}: {problem}", path.display()));
        // The error of a file that cannot be opened names it already.
        let file = Source::new(&path).open().map_err(|error| Problem::new(error.to_string()))?;
        let document = Document::npy(Box::new(file)).map_err(|error| told(&error.fault))?;
        let features = features_of(side.as_str(), Some(document.root()), Padding::None, policy, bad);
        let features = features.map_err(|problem| Problem { text: told(&problem.text).text, ..problem })?;
        self.used.insert(path);
        Ok(features)
    }

    /// Lists the files that no row asked for.
    pub(super) fn report(&self, findings: &mut Findings) {
        for folder in self.sides.iter().flatten() {
            let Ok(entries) = folder.read_dir() else { continue };
            let is_npy = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "npy");
            let files = entries.flatten().map(|entry| entry.path()).filter(is_npy);
            let mut unused: Vec<String> =
                files.filter(|path| !self.used.contains(path)).map(|path| path.display().to_string()).collect();
            unused.sort();
            findings.unmatched("files that no row of the table has, left out", unused);
        }
    }
}

/// A path that stays in the folder of the table: it comes from a file of somebody else.
fn inside(name: &str) -> Result<&Path, Problem> {
    let path = Path::new(name);
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if is_plain { Ok(path) } else { Err(Problem::new(format!("`{name}` leads out of the folder of the table"))) }
}
