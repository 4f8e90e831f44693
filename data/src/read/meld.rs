//! The CSV files of the official MELD release (declare-lab/MELD): one a split, columns found by name.
//!
//! Text may be UTF-8 or Windows-1252. The context of an utterance is made of the turns around it, in the order of
//! `Utterance_ID`, whose numbers have gaps. Ids are the names of the official clips: `dia0_utt3`.

use std::collections::{BTreeMap, HashSet};

use csv::ByteRecord;

use crate::error::{Error, Problem};
use crate::import::ImportOptions;
use crate::read::context::{Turn, join};
use crate::read::text::decode;
use crate::read::{Dataset, Reader, Row, Source, first_bytes};
use crate::schema::{ContextWindow, Labels, Sample, Split, Task, Vocabulary};

/// A file larger than this is not a MELD split, which has about one megabyte.
const MAX_FILE: u64 = 256 << 20;
const COLUMNS: [&str; 6] = ["Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"];

/// Whether a line is the header of a MELD file.
pub(crate) fn is_header(line: &[u8]) -> bool {
    let line = decode(line);
    let names: HashSet<&str> = line.trim_start_matches('\u{feff}').split(',').map(clean_name).collect();
    ["Utterance", "Dialogue_ID", "Utterance_ID"].iter().all(|name| names.contains(name))
}

fn clean_name(name: &str) -> &str {
    name.trim().trim_matches('"').trim()
}

/// Reads one or more files, each of one split.
pub(crate) struct MeldReader {
    sources: Vec<(Source, Split)>,
    window: ContextWindow,
    vocabulary: Vocabulary,
}

impl MeldReader {
    pub(crate) fn open(sources: &[Source], options: &ImportOptions) -> Result<Self, Error> {
        let mut known: Vec<(Source, Split)> = Vec::new();
        for source in sources {
            let split = source.split.or_else(|| split_of_name(&source.name())).ok_or_else(|| Error::Format {
                path: source.path.display().to_string(),
                problem: "the file's name does not tell its split".to_owned(),
                hint: format!("write train={0}, valid={0} or test={0}", source.path.display()),
            })?;
            if let Some((earlier, _)) = known.iter().find(|(_, known)| *known == split) {
                return Err(Error::Format {
                    path: source.path.display().to_string(),
                    problem: format!("split `{split}` is in {} already", earlier.path.display()),
                    hint: "give one file a split".to_owned(),
                });
            }
            known.push((source.clone(), split));
        }
        known.sort_by_key(|(_, split)| *split);
        Ok(Self { sources: known, window: options.context, vocabulary: Vocabulary::meld() })
    }
}

fn split_of_name(name: &str) -> Option<Split> {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    words.into_iter().find_map(|word| word.parse().ok())
}

impl Reader for MeldReader {
    fn dataset(&self) -> Dataset {
        Dataset { task: Task::Emotion, vocabularies: vec![self.vocabulary.clone()], context: Some(self.window) }
    }

    fn for_each(&mut self, visit: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
        for (source, split) in &self.sources {
            let table = Table::read(source)?;
            let dialogues = Dialogues::of(&table);
            for (index, line) in table.lines.iter().enumerate() {
                let place = format!("line {}, {}", line.number, line.name());
                let sample = dialogues.context(&table, index, self.window).and_then(|context| {
                    let labels = line.labels(&self.vocabulary)?;
                    line.sample(*split, labels, context)
                });
                visit(Row { file: source.name(), place, split: *split, sample, bad_values: 0 })?;
            }
        }
        Ok(())
    }
}

/// One utterance as it is in the file.
struct Line {
    number: u64,
    turn: Turn,
    emotion: String,
    sentiment: String,
    dialogue: String,
    utterance: String,
}

impl Line {
    fn name(&self) -> String {
        format!("dialogue {} utterance {}", self.dialogue, self.utterance)
    }

    fn labels(&self, vocabulary: &Vocabulary) -> Result<Labels, Problem> {
        let class = self.emotion.to_lowercase();
        if vocabulary.index_of(&class).is_none() {
            let classes = vocabulary.classes.join(", ");
            return Err(Problem::new(format!("Emotion is `{}`, not one of {classes}", self.emotion)));
        }
        let polarity = self.sentiment.parse().map_err(|problem| Problem::new(format!("Sentiment: {problem}")))?;
        let emotions = BTreeMap::from([(vocabulary.name.clone(), class)]);
        Ok(Labels { polarity: Some(polarity), score: None, emotions })
    }

    fn numbers(&self) -> Result<(u32, i32), Problem> {
        let dialogue: Option<u32> = self.dialogue.parse().ok();
        let utterance: Option<i32> = self.utterance.parse().ok().filter(|number| *number >= 0);
        dialogue.zip(utterance).ok_or_else(|| {
            Problem::new(format!("Dialogue_ID `{}`, Utterance_ID `{}`: not numbers", self.dialogue, self.utterance))
        })
    }

    fn sample(&self, split: Split, labels: Labels, context: String) -> Result<Sample, Problem> {
        let (dialogue, utterance) = self.numbers()?;
        Ok(Sample {
            id: format!("dia{dialogue}_utt{utterance}"),
            split,
            text: self.turn.text.clone(),
            context: Some(context),
            speaker: self.turn.speaker.clone(),
            dialogue: Some(dialogue.to_string()),
            turn: Some(utterance),
            labels,
            acoustic: None,
            visual: None,
        })
    }
}

/// All lines of a file.
struct Table {
    lines: Vec<Line>,
}

impl Table {
    fn read(source: &Source) -> Result<Self, Error> {
        let path = source.path.display().to_string();
        let mut file = source.open()?;
        let bytes = first_bytes(&mut file, &source.path, MAX_FILE + 1)?;
        let format = |problem: String, hint: &str| Error::Format { path: path.clone(), problem, hint: hint.to_owned() };
        if bytes.len() as u64 > MAX_FILE {
            return Err(format(format!("it has more than {MAX_FILE} bytes"), "a split of MELD has about one megabyte"));
        }
        let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(bytes.as_slice());
        let mut record = ByteRecord::new();
        let mut next = |record: &mut ByteRecord| {
            reader.read_byte_record(record).map_err(|cause| format(cause.to_string(), "the file is not valid CSV"))
        };
        next(&mut record)?;
        let header: Vec<String> = record.iter().map(decode).collect();
        let header: Vec<&str> = header.iter().map(|name| clean_name(name.trim_start_matches('\u{feff}'))).collect();
        let width = header.len();
        let mut columns = [0; COLUMNS.len()];
        for (column, name) in columns.iter_mut().zip(COLUMNS) {
            *column = header.iter().position(|found| *found == name).ok_or_else(|| {
                let problem = format!("the column `{name}` is missing; it has `{}`", header.join("`, `"));
                format(problem, "give the files *_sent_emo.csv of the official release")
            })?;
        }
        let mut lines = Vec::new();
        while next(&mut record)? {
            let number = record.position().map_or(0, csv::Position::line);
            if record.len() != width {
                let problem = format!("{} fields, the header has {width}", record.len());
                return Err(Problem::with_hint(problem, "a field with commas or quotes must be quoted")
                    .at(&source.name(), format!("line {number}"))
                    .into());
            }
            let field = |column: usize| decode(&record[columns[column]]).trim().to_owned();
            let speaker = Some(field(1)).filter(|name| !name.is_empty());
            lines.push(Line {
                number,
                turn: Turn { speaker, text: field(0) },
                emotion: field(2),
                sentiment: field(3),
                dialogue: field(4),
                utterance: field(5),
            });
        }
        Ok(Self { lines })
    }
}

/// The lines of each dialogue in the order of speaking.
struct Dialogues {
    /// Line indexes by dialogue; lines without proper numbers are in none.
    order: BTreeMap<u32, Vec<(i32, usize)>>,
}

impl Dialogues {
    fn of(table: &Table) -> Self {
        let mut order: BTreeMap<u32, Vec<(i32, usize)>> = BTreeMap::new();
        for (index, line) in table.lines.iter().enumerate() {
            if let Ok((dialogue, utterance)) = line.numbers() {
                order.entry(dialogue).or_default().push((utterance, index));
            }
        }
        for turns in order.values_mut() {
            turns.sort_unstable();
        }
        Self { order }
    }

    fn context(&self, table: &Table, index: usize, window: ContextWindow) -> Result<String, Problem> {
        let (dialogue, utterance) = table.lines[index].numbers()?;
        let turns = self.order.get(&dialogue).map_or(&[][..], Vec::as_slice);
        let current = turns.binary_search(&(utterance, index)).map_err(|_| Problem::new("it has no dialogue"))?;
        let from = current.saturating_sub(window.past);
        let to = current.saturating_add(window.future).saturating_add(1).min(turns.len());
        let near: Vec<&Turn> = turns[from..to].iter().map(|(_, line)| &table.lines[*line].turn).collect();
        Ok(join(&near, current - from, window))
    }
}
