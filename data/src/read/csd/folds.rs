//! The standard folds of the CMU-MultimodalSDK: a Python file of three lists of videos, read as text and never run.

use crate::error::Error;
use crate::read::{Source, decode, first_bytes};
use crate::schema::Split;

const NAMES: [&str; 3] = ["standard_train_fold", "standard_valid_fold", "standard_test_fold"];
const MAX_FILE: u64 = 16 << 20;

/// The videos of each split.
#[derive(Debug)]
pub(crate) struct Folds {
    videos: [Vec<String>; 3],
}

/// Whether a file starts like one with the folds.
pub(crate) fn is_folds(start: &[u8]) -> bool {
    NAMES.iter().any(|name| start.windows(name.len()).any(|window| window == name.as_bytes()))
}

impl Folds {
    pub(crate) fn read(source: &Source) -> Result<Self, Error> {
        let bytes = first_bytes(&mut source.open()?, &source.path, MAX_FILE)?;
        let text = decode(&bytes);
        let list = |name: &str| {
            let rest = text.split_once(name)?.1.trim_start().strip_prefix('=')?.trim_start();
            let inside = rest.strip_prefix('[')?.split(']').next()?;
            let quoted = |word: &str| word.trim().trim_matches(['\'', '"']).to_owned();
            Some(inside.split(',').map(quoted).filter(|video| !video.is_empty()).collect::<Vec<_>>())
        };
        let mut videos = [const { Vec::new() }; 3];
        for (videos, name) in videos.iter_mut().zip(NAMES) {
            *videos = list(name).ok_or_else(|| Error::Format {
                path: source.path.display().to_string(),
                problem: format!("it has no list `{name}`"),
                hint: "give the file of standard folds as the SDK has it".to_owned(),
            })?;
        }
        Ok(Self { videos })
    }

    pub(crate) fn of(&self, split: Split) -> &[String] {
        &self.videos[split as usize]
    }
}
