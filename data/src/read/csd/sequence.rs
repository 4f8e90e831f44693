//! One computational sequence in its HDF5 file.
//!
//! The crate `hdf5-reader` decodes HDF5: it is pure Rust, checks every bound, resolves no external links unless asked to,
//! and reads the features of one video at a time.

use std::collections::{BTreeMap, HashMap};

use hdf5_reader::group::Group;
use hdf5_reader::{Datatype, Hdf5File, OpenOptions};

use crate::error::{Error, Problem};
use crate::read::Source;
use crate::read::tracks::Side;

const CUT_SHORT: &str = "it may have been cut short; download it again";
/// The most bytes of one array: an hour of 1000 features at 100 Hz.
const MAX_ARRAY: usize = 2 << 30;

/// What a sequence has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Words,
    Labels,
    Acoustic,
    Visual,
    /// Vectors of words.
    Vectors,
}

/// A sequence whose data are still in the file.
pub(super) struct Sequence {
    pub(super) file: String,
    pub(super) role: Role,
    /// Each key's group, found once: looking a name up reads the whole list of names.
    entries: HashMap<String, Group>,
    /// The keys of each video: the video itself, or `video[0]`, `video[1]`, ... after alignment.
    keys: BTreeMap<String, Vec<String>>,
}

/// The entries of one key.
pub(super) struct Entries<T> {
    /// Start and end of each entry in seconds.
    pub(super) intervals: Vec<[f64; 2]>,
    pub(super) values: Vec<T>,
    /// Whether no entry starts or ends before an earlier one.
    in_order: bool,
}

impl<T> Entries<T> {
    /// Keeps the order of the file: the numbers of utterances are places in the labels.
    fn of(intervals: Vec<[f64; 2]>, values: Vec<T>) -> Self {
        let in_order = intervals.is_sorted_by(|one, other| one[0] <= other[0] && one[1] <= other[1]);
        Self { intervals, values, in_order }
    }

    /// The entries that overlap a time, found fast where they are in the order of time.
    pub(super) fn overlapping(&self, [start, end]: [f64; 2]) -> impl Iterator<Item = &T> {
        let (mut from, mut to) = (0, self.intervals.len());
        if self.in_order {
            to = self.intervals.partition_point(|entry| entry[0] < end);
            from = self.intervals.partition_point(|entry| entry[1] <= start).min(to);
        }
        let entries = self.intervals[from..to].iter().zip(&self.values[from..to]);
        entries.filter(move |(entry, _)| entry[0] < end && entry[1] > start).map(|(_, value)| value)
    }
}

impl Sequence {
    pub(super) fn open(source: &Source) -> Result<Self, Error> {
        source.open()?;
        let format = |problem: String, hint: &str| Error::Format {
            path: source.path.display().to_string(),
            problem,
            hint: hint.to_owned(),
        };
        let damaged = |cause: hdf5_reader::error::Error| format(format!("cannot read HDF5: {cause}"), CUT_SHORT);
        // Every array is read once: a cache of them would grow with the file.
        let options = OpenOptions::default().with_max_read_bytes(MAX_ARRAY).with_chunk_cache_bytes(0);
        let file = Hdf5File::open_with_options(&source.path, options).map_err(damaged)?;
        let (told, length) = (file.superblock().eof_address, file.storage().len());
        if told > length {
            // What was cut off may be needed or not; a file that is not whole is not trusted.
            return Err(format(format!("it has {length} bytes, its start tells of {told}"), CUT_SHORT));
        }
        let root = file.root_group().map_err(damaged)?;
        let (names, _) = root.member_names().map_err(damaged)?;
        let [name] = &names[..] else {
            return Err(format(
                format!("it has {} root groups, a computational sequence has one", names.len()),
                "give .csd files of the CMU-MultimodalSDK",
            ));
        };
        let data = root.group(name).and_then(|sequence| sequence.group("data")).map_err(damaged)?;
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut entries = HashMap::new();
        for entry in data.groups().map_err(damaged)? {
            let key = entry.name().to_owned();
            keys.entry(video_of(&key).to_owned()).or_default().push(key.clone());
            entries.insert(key, entry);
        }
        for keys in keys.values_mut() {
            keys.sort_by_key(|key| number_of(key));
        }
        let first = keys.values().flatten().find_map(|key| entries.get(key));
        let first = first.ok_or_else(|| format("it has no data".to_owned(), "download it again"))?;
        let is_text = first.dataset("features").map_err(damaged)?;
        let is_text = matches!(is_text.dtype(), Datatype::String { .. } | Datatype::VarLen { .. });
        let role = role_of(name, is_text).or_else(|| role_of(&source.name(), is_text)).ok_or_else(|| {
            let problem =
                format!("the sequence `{name}` is neither words nor labels, and its name is of no known modality");
            format(problem, "put `acoustic` or `visual` into the file's name")
        })?;
        Ok(Self { file: source.name(), role, entries, keys })
    }

    /// The keys of a video, in order.
    pub(super) fn keys_of(&self, video: &str) -> &[String] {
        self.keys.get(video).map_or(&[], Vec::as_slice)
    }

    pub(super) fn videos(&self) -> Vec<String> {
        self.keys.keys().cloned().collect()
    }

    fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The words of a key; of a key that is not there, none.
    pub(super) fn words(&self, key: &str) -> Result<Entries<String>, Problem> {
        if !self.has(key) {
            return Ok(Entries::of(Vec::new(), Vec::new()));
        }
        let values = self.read(key, |entry| entry.dataset("features")?.read_strings())?;
        self.entries(key, values)
    }

    /// The vectors of a key and their length; of a key that is not there, none.
    pub(super) fn vectors(&self, key: &str) -> Result<Entries<Vec<f32>>, Problem> {
        if !self.has(key) {
            return Ok(Entries::of(Vec::new(), Vec::new()));
        }
        let (dim, values) = self.numbers(key, "features")?;
        self.entries(
            key,
            values.chunks_exact(dim.max(1)).map(|row| row.iter().map(|value| *value as f32).collect()).collect(),
        )
    }

    fn entries<T>(&self, key: &str, values: Vec<T>) -> Result<Entries<T>, Problem> {
        let (width, numbers) = self.numbers(key, "intervals")?;
        let intervals = numbers.as_chunks::<2>().0.to_vec();
        if width != 2 || intervals.len() != values.len() {
            let problem =
                format!("{}: `{key}` has {} features and {} intervals", self.file, values.len(), intervals.len());
            return Err(Problem::new(problem));
        }
        Ok(Entries::of(intervals, values))
    }

    /// The numbers of a dataset and the length of its rows.
    fn numbers(&self, key: &str, name: &str) -> Result<(usize, Vec<f64>), Problem> {
        let read = self.read(key, |entry| {
            let dataset = entry.dataset(name)?;
            let width = dataset.shape().iter().skip(1).product::<u64>() as usize;
            // Read so that nothing is kept: the crate holds on to what its other ways have read.
            let values: Vec<f64> = match dataset.dtype() {
                Datatype::FloatingPoint { size: 4, .. } => {
                    dataset.read_array_uncached::<f32>()?.iter().copied().map(f64::from).collect()
                }
                Datatype::FloatingPoint { size: 8, .. } => {
                    dataset.read_array_uncached::<f64>()?.iter().copied().collect()
                }
                Datatype::FixedPoint { size: 4, signed: true, .. } => {
                    dataset.read_array_uncached::<i32>()?.iter().copied().map(f64::from).collect()
                }
                Datatype::FixedPoint { size: 8, signed: true, .. } => {
                    dataset.read_array_uncached::<i64>()?.iter().map(|value| *value as f64).collect()
                }
                other => return Ok(Err(format!("{other:?}"))),
            };
            Ok(Ok((width, values)))
        })?;
        read.map_err(|dtype| Problem::new(format!("{}: `{key}/{name}` is of type {dtype}", self.file)))
    }

    fn read<T>(&self, key: &str, read: impl Fn(&Group) -> hdf5_reader::error::Result<T>) -> Result<T, Problem> {
        let entry = self.entries.get(key).ok_or_else(|| Problem::new(format!("{}: there is no `{key}`", self.file)))?;
        read(entry)
            .map_err(|cause| Problem::with_hint(format!("{}: `{key}`: {cause}", self.file), "download the file again"))
    }
}

fn role_of(name: &str, is_text: bool) -> Option<Role> {
    let lower = name.to_ascii_lowercase();
    if is_text {
        return Some(Role::Words);
    }
    if lower.contains("label") || lower.contains("opinion") {
        return Some(Role::Labels);
    }
    if lower.contains("vectors") || lower.contains("glove") {
        return Some(Role::Vectors);
    }
    Side::of_name(name).map(|side| match side {
        Side::Acoustic => Role::Acoustic,
        Side::Visual => Role::Visual,
    })
}

/// The video of a key that may have a number in brackets.
pub(super) fn video_of(key: &str) -> &str {
    key.strip_suffix(']').and_then(|key| key.rsplit_once('[')).map_or(key, |(video, _)| video)
}

fn number_of(key: &str) -> u32 {
    let number = key.strip_suffix(']').and_then(|key| key.rsplit_once('[')).map(|(_, number)| number.parse());
    number.and_then(Result::ok).unwrap_or(0)
}
