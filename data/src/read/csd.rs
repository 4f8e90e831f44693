//! Computational sequences of the CMU-MultimodalSDK: one `.csd` (HDF5) a modality, as MOSI and MOSEI are distributed.
//!
//! Each file has one root group, the sequence, with `data/<video>/features` `(T, D)` and `data/<video>/intervals`
//! `(T, 2)` in seconds. Which sequence has words, labels, sound or sight is told by its contents and its name. Give the
//! words (`TimestampedWords`), the labels, at most one sequence of sound and one of sight, and the standard folds
//! (`cmu_mosi_std_folds.py` or `cmu_mosei_std_folds.py` of the SDK), which are lists of videos and are read as data.
//!
//! Each interval of the labels is an utterance, `video[0]`, `video[1]`, ... A word belongs to the utterance that has its
//! middle, pauses (`sp`) to none. Each word's features are the mean of the frames that overlap it, zeros if there are
//! none, as the SDK's `align` has it with its mean as the collapse function. Sequences that were aligned before, whose
//! keys are `video[0]`, are taken as they are. The score is the first label value; emotions of MOSEI are intensities,
//! not classes, and are not read.

use std::collections::BTreeMap;

use crate::error::{Error, Problem};
use crate::import::{Findings, ImportOptions};
use crate::read::{BadFeatures, Content, Dataset, Opened, Reader, Row, ids, labels};
use crate::schema::{Labels, Polarity, Sample, Split, Task};

mod align;
pub(crate) mod folds;
mod sequence;

use align::{Clip, clips};
use folds::Folds;
use sequence::{Role, Sequence};

/// Reads the sequences of one dataset, video after video.
pub(crate) struct CsdReader {
    words: Sequence,
    labels: Sequence,
    sides: [Option<Sequence>; 2],
    folds: Folds,
    bad_features: BadFeatures,
    findings: Findings,
}

impl CsdReader {
    pub(crate) fn open(opened: Vec<Opened>, options: &ImportOptions) -> Result<Self, Error> {
        let paths = opened.iter().map(Opened::path).collect::<Vec<_>>().join(", ");
        let missing = |what: &str, hint: &str| Error::Format {
            path: paths.clone(),
            problem: format!("none of the files has {what}"),
            hint: hint.to_owned(),
        };
        let mut findings = Findings::default();
        let mut known: BTreeMap<Role, Sequence> = BTreeMap::new();
        let mut folds = None;
        for file in opened {
            match file.content {
                Content::Folds(read) => folds = Some(read),
                Content::Hdf5 => {
                    let sequence = Sequence::open(&file.source)?;
                    if sequence.role == Role::Vectors {
                        findings
                            .note(format!("{} has vectors of words, which are not used: the words are", sequence.file));
                    } else if let Some(earlier) = known.get(&sequence.role) {
                        return Err(Error::Format {
                            path: file.source.path.display().to_string(),
                            problem: format!("it has the same modality as {}", earlier.file),
                            hint: "give one sequence a modality".to_owned(),
                        });
                    } else {
                        known.insert(sequence.role, sequence);
                    }
                }
                Content::Pickle(_) | Content::Table(_) => {
                    return Err(Error::Format {
                        path: file.source.path.display().to_string(),
                        problem: "it is no .csd file".to_owned(),
                        hint: "give .csd files and the standard folds only".to_owned(),
                    });
                }
            }
        }
        let mut take = |role| known.remove(&role);
        let words = take(Role::Words).ok_or_else(|| missing("words", "give CMU_MOSEI_TimestampedWords.csd too"))?;
        let labels = take(Role::Labels).ok_or_else(|| missing("labels", "give CMU_MOSEI_Labels.csd too"))?;
        let folds = folds.ok_or_else(|| {
            missing("the standard folds", "give cmu_mosei_std_folds.py or cmu_mosi_std_folds.py of the SDK too")
        })?;
        let sides = [take(Role::Acoustic), take(Role::Visual)];
        Ok(Self { words, labels, sides, folds, bad_features: options.bad_features, findings })
    }

    fn sample(split: Split, video: &str, clip: Clip) -> Result<Sample, Problem> {
        let score = clip.labels.first().ok_or_else(|| Problem::new("the labels are empty"))?;
        let score = labels::score("the first label", f64::from(*score))?;
        let [acoustic, visual] = clip.features;
        let turn = ids::video_and_clip(&clip.id).and_then(|(_, clip)| clip.parse().ok());
        Ok(Sample {
            id: clip.id,
            split,
            text: clip.words.join(" "),
            context: None,
            speaker: None,
            dialogue: Some(video.to_owned()),
            turn,
            labels: Labels { polarity: Some(Polarity::from_score(score)), score: Some(score), ..Labels::default() },
            acoustic,
            visual,
        })
    }
}

impl Reader for CsdReader {
    fn dataset(&self) -> Dataset {
        Dataset { task: Task::Sentiment, vocabularies: Vec::new(), context: None, splits: Split::ALL.to_vec() }
    }

    fn for_each(&mut self, visit: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
        let mut findings = std::mem::take(&mut self.findings);
        let (mut wordless, mut silent) = (Vec::new(), [Vec::new(), Vec::new()]);
        let mut found = std::collections::HashSet::new();
        for split in Split::ALL {
            for video in self.folds.of(split) {
                let keys = self.labels.keys_of(video);
                if !keys.is_empty() {
                    found.insert(video.clone());
                }
                for key in keys {
                    let file = self.labels.file.clone();
                    let clips = match clips(key, &self.words, &self.labels, &self.sides, self.bad_features) {
                        Ok(clips) => clips,
                        Err(problem) => {
                            let place = format!("{split}, `{key}`");
                            visit(Row { file, place, split, sample: Err(problem), bad_values: 0 })?;
                            continue;
                        }
                    };
                    for clip in clips {
                        let place = format!("{split}, `{}`", clip.id);
                        if clip.words.is_empty() {
                            wordless.push(clip.id.clone());
                        }
                        for (silent, features) in silent.iter_mut().zip(&clip.features) {
                            if features.is_none() {
                                silent.push(clip.id.clone());
                            }
                        }
                        let bad_values = clip.bad_values;
                        let sample = Self::sample(split, video, clip);
                        visit(Row { file: file.clone(), place, split, sample, bad_values })?;
                    }
                }
            }
        }
        let labelled = self.labels.videos();
        findings.unmatched(
            format!("videos of the folds without labels in {}", self.labels.file),
            Split::ALL
                .into_iter()
                .flat_map(|split| self.folds.of(split))
                .filter(|video| !found.contains(*video))
                .cloned(),
        );
        findings.unmatched(
            format!("videos of {} that are in no fold, left out", self.labels.file),
            labelled.into_iter().filter(|video| !found.contains(video)),
        );
        findings.unmatched(format!("utterances without words in {}, stored without", self.words.file), wordless);
        for (side, silent) in self.sides.iter().zip(silent) {
            if let Some(side) = side {
                findings.unmatched(format!("utterances without features in {}, stored without", side.file), silent);
            }
        }
        self.findings = findings;
        Ok(())
    }

    fn findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }
}
