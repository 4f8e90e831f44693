//! Pickles of the layout of MulT (yaohungt/Multimodal-Transformer), which UniMSE's `mosi_data_0610.pkl` and
//! `mosei_data_0610.pkl` share: `split -> vision (N, T, D), audio (N, T, D), labels, id (N, k)`, and for MulT `text`, which
//! is vectors of words, not words.
//!
//! `labels` is `(N, 1, 1)` with a score, `(N, 1, 7)` with the score first, or for IEMOCAP `(N, 4, 2)`: for each of four
//! emotions no and yes. `id` is bytes for MOSI, its first column `<video>_<clip>` or the video. The words come from a table
//! beside the pickle: matched by id where most ids agree, else row by row over train, valid and test, which is how
//! UniMSE matches MOSEI; then the scores of both must agree. Without a table, samples have no words.

use std::collections::BTreeMap;

use crate::error::{Error, Problem};
use crate::import::{Findings, ImportOptions};
use crate::read::features::Padding;
use crate::read::layout::find_split;
use crate::read::modality::{Modality, named};
use crate::read::pickle::{Cells, Document, Numbers, Value};
use crate::read::sentences::{Sentences, note_outside};
use crate::read::{Content, Dataset, Opened, Reader, Row, Source, ids, labels, one_pickle};
use crate::schema::{Labels, Polarity, Sample, Split, Task, Vocabulary};

mod matching;

use matching::Matching;

/// Scores of pickle and table that differ by more are different ones.
const SAME_SCORE: f32 = 1e-3;

/// Reads one pickle and perhaps one table of sentences.
pub(crate) struct MultReader {
    document: Document,
    source: Source,
    sentences: Option<Sentences>,
    padding: Padding,
    options: ImportOptions,
    splits: Vec<Split>,
    /// Whether labels are the four emotions of IEMOCAP.
    emotions: bool,
    findings: Findings,
}

impl MultReader {
    pub(crate) fn open(opened: Vec<Opened>, padding: Padding, options: &ImportOptions) -> Result<Self, Error> {
        let (mut tables, mut rest) = (Vec::new(), Vec::new());
        for file in opened {
            match file.content {
                Content::Table(table) => tables.push(table),
                _ => rest.push(file),
            }
        }
        let (source, document) = one_pickle(rest)?;
        let sentences = tables.first().map(Sentences::of).transpose()?;
        if let Some(second) = tables.get(1) {
            return Err(Error::Format {
                path: second.source.path.display().to_string(),
                problem: "it is the second table of sentences".to_owned(),
                hint: "give the one that belongs to the pickle".to_owned(),
            });
        }
        let splits: Vec<Split> =
            Split::ALL.into_iter().filter(|split| find_split(document.root(), *split).is_some()).collect();
        let mut reader = Self {
            document,
            source,
            sentences,
            padding,
            options: options.clone(),
            splits,
            emotions: false,
            findings: Findings::default(),
        };
        let emotions = reader.splits.first().map(|split| Ok::<_, Error>(reader.columns(*split)?.width == 8));
        reader.emotions = emotions.transpose()?.unwrap_or(false);
        Ok(reader)
    }

    fn columns(&self, split: Split) -> Result<Columns<'_>, Error> {
        let table = find_split(self.document.root(), split);
        let columns = table.ok_or_else(|| Problem::new("it is missing"));
        columns.and_then(|table| Columns::of(table, self.padding)).map_err(|problem| Error::Format {
            path: self.source.path.display().to_string(),
            problem: format!("split `{split}`: {}", problem.text),
            hint: problem.hint.unwrap_or_else(|| "the file does not have the layout of MulT".to_owned()),
        })
    }

    fn sample(&self, columns: &Columns<'_>, at: At, state: &mut State, bad: &mut u64) -> Result<Sample, Problem> {
        let At { split, row, id, sentence } = at;
        let own = self.labels(columns, row)?;
        let (text, labels) = match (&self.sentences, sentence) {
            (Some(sentences), Some(found)) => {
                let mut given = sentences.labels(found, &mut state.outside)?;
                if let (Some(own), Some(given)) = (own.score, given.score)
                    && (own - given).abs() > SAME_SCORE
                {
                    state.different.push(format!("{id}: {own} and {given}"));
                }
                given.score = given.score.or(own.score);
                given.polarity = given.polarity.or(own.polarity);
                given.emotions.extend(own.emotions);
                (sentences.rows[found].text.clone(), given)
            }
            (Some(sentences), None) => {
                let problem = format!("{} has no sentence of this id", sentences.file);
                let hint = "give the table that belongs to the pickle, or leave such rows out with --skip-bad";
                return Err(Problem::with_hint(problem, hint));
            }
            (None, _) => (String::new(), own),
        };
        let (dialogue, turn) = match ids::video_and_clip(&id) {
            Some((video, clip)) => (Some(video.to_owned()), clip.parse().ok()),
            None => (None, None),
        };
        Ok(Sample {
            acoustic: columns.audio.features(row, self.options.bad_features, bad)?,
            visual: columns.vision.features(row, self.options.bad_features, bad)?,
            id,
            split,
            text,
            context: None,
            speaker: None,
            dialogue,
            turn,
            labels,
        })
    }

    fn labels(&self, columns: &Columns<'_>, row: usize) -> Result<Labels, Problem> {
        let values = columns.labels.row(row)?;
        if self.emotions {
            let vocabulary = Vocabulary::iemocap4();
            let (pairs, _) = values.as_chunks::<2>();
            let present = vocabulary.classes.iter().zip(pairs).filter(|(_, [no, yes])| yes > no);
            let present: Vec<&String> = present.map(|(class, _)| class).collect();
            let [class] = present[..] else {
                let problem = format!("labels have {} of the 4 emotions, expected one", present.len());
                return Err(Problem::new(problem));
            };
            let emotions = BTreeMap::from([(vocabulary.name, class.clone())]);
            return Ok(Labels { emotions, ..Labels::default() });
        }
        let value = values.first().ok_or_else(|| Problem::new("labels are empty"))?;
        let score = labels::score("labels", f64::from(*value))?;
        Ok(Labels { polarity: Some(Polarity::from_score(score)), score: Some(score), ..Labels::default() })
    }
}

/// Where a sample comes from.
struct At {
    split: Split,
    row: usize,
    id: String,
    /// Its row in the table of sentences.
    sentence: Option<usize>,
}

/// What is noticed on the way.
#[derive(Default)]
struct State {
    /// Scores that differ between the pickle and the table.
    different: Vec<String>,
    /// Emotions outside of their vocabulary.
    outside: Vec<String>,
}

impl Reader for MultReader {
    fn dataset(&self) -> Dataset {
        let mut vocabularies = if self.emotions { vec![Vocabulary::iemocap4()] } else { Vec::new() };
        vocabularies.extend(self.sentences.iter().flat_map(Sentences::vocabularies));
        let task = if self.emotions { Task::Emotion } else { Task::Sentiment };
        Dataset { task, vocabularies, context: None, splits: self.splits.clone() }
    }

    fn for_each(&mut self, visit: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
        let mut findings = Findings::default();
        let mut state = State::default();
        let mut all = Vec::new();
        for &split in &self.splits {
            all.push((split, self.columns(split)?));
        }
        let ids: Vec<Vec<Result<String, Problem>>> = all.iter().map(|(split, columns)| columns.ids(*split)).collect();
        let matching = if let Some(sentences) = &self.sentences {
            Matching::find(&ids, sentences, &mut findings)
        } else {
            findings.note("the pickle has no words: give the CSV with video_id, clip_id and text beside it");
            Matching::default()
        };
        let mut number = 0;
        for ((split, columns), ids) in all.iter().zip(ids) {
            let split = *split;
            for (row, id) in ids.into_iter().enumerate() {
                let place = match &id {
                    Ok(id) => format!("{split}[{row}], id `{id}`"),
                    Err(_) => format!("{split}[{row}]"),
                };
                let mut bad_values = 0;
                let sample = id.and_then(|id| {
                    let at = At { split, row, id, sentence: matching.of(number) };
                    self.sample(columns, at, &mut state, &mut bad_values)
                });
                number += 1;
                visit(Row { file: self.source.name(), place, split, sample, bad_values })?;
            }
        }
        self.check_scores(&matching, &state, number)?;
        if let Some(sentences) = &self.sentences {
            findings.unmatched(
                format!("sentences of {} without features in {}, left out", sentences.file, self.source.name()),
                matching.unused(sentences).map(|row| sentences.rows[row].id()),
            );
        }
        findings
            .unmatched("scores that differ between the pickle and the table; the table's are taken", state.different);
        note_outside(&mut findings, state.outside);
        self.findings = findings;
        Ok(())
    }

    fn findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }
}

impl MultReader {
    /// Where rows are matched by their order, nothing but the scores tells whether the order is the same.
    fn check_scores(&self, matching: &Matching, state: &State, rows: usize) -> Result<(), Error> {
        if !matching.by_row || state.different.len() * 10 <= rows {
            return Ok(());
        }
        let first = state.different.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
        Err(Error::Format {
            path: self.source.path.display().to_string(),
            problem: format!(
                "{} of {rows} scores differ from those of the table in the same row: {first}",
                state.different.len()
            ),
            hint: "the table is not in the order of the pickle; give the one that was published with it".to_owned(),
        })
    }
}

/// The columns of a split, all of the same length.
struct Columns<'d> {
    rows: usize,
    id: Option<Cells<'d>>,
    labels: Numbers<'d>,
    /// The numbers in each row of `labels`.
    width: usize,
    audio: Modality<'d>,
    vision: Modality<'d>,
}

impl<'d> Columns<'d> {
    fn of(table: Value<'d>, padding: Padding) -> Result<Self, Problem> {
        let missing =
            |key: &str| Problem::new(format!("the key `{key}` is missing; it has `{}`", table.keys().join("`, `")));
        let labels = table.get("labels").ok_or_else(|| missing("labels"))?;
        let labels = labels.numbers()?.ok_or_else(|| Problem::new("labels: expected an array of numbers"))?;
        let shape = labels.shape().to_vec();
        let width = match shape[..] {
            [_] | [_, 1] | [_, 1, 1] => 1,
            [_, 7] | [_, 1, 7] => 7,
            [_, 4, 2] => 8,
            _ => {
                let problem = format!("labels have shape {shape:?}, expected (N, 1, 1), (N, 1, 7) or (N, 4, 2)");
                return Err(Problem::new(problem));
            }
        };
        let rows = shape[0] as usize;
        let id = match table.get("id") {
            Some(id) if !id.is_none() => Some(id.cells().map_err(|problem| named("id", problem))?),
            _ => None,
        };
        let audio = Modality::of(table, "audio", padding)?;
        let vision = Modality::of(table, "vision", padding)?;
        let lengths = [("id", id.as_ref().map(Cells::rows)), ("audio", audio.rows()), ("vision", vision.rows())];
        for (key, length) in lengths {
            if let Some(length) = length
                && length != rows
            {
                return Err(Problem::new(format!("`{key}` has {length} rows, `labels` has {rows}")));
            }
        }
        Ok(Self { rows, id, labels, width, audio, vision })
    }

    /// The id of each row: the first cell if that tells rows apart, else all cells, else the row's number.
    fn ids(&self, split: Split) -> Vec<Result<String, Problem>> {
        let Some(cells) = &self.id else { return (0..self.rows).map(|row| Ok(format!("{split}_{row}"))).collect() };
        let rows: Vec<Result<Vec<String>, Problem>> = (0..self.rows).map(|row| cells.row(row)).collect();
        let firsts = rows.iter().flatten().filter_map(|row| row.first());
        let different = firsts.collect::<std::collections::HashSet<_>>().len();
        let by_first = different == rows.len();
        let id =
            |cells: Vec<String>| if by_first { cells.into_iter().next().unwrap_or_default() } else { cells.join("_") };
        rows.into_iter().map(|cells| cells.map(id)).collect()
    }
}
