//! The columns of a store, and the way of samples into and out of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::builder::{Float32Builder, Int32Builder, ListBuilder, StringBuilder, StructBuilder};
use arrow_array::{Array, ArrayRef, Float32Array, Int32Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};

use crate::schema::{Features, Labels, Metadata, Polarity, Sample};

/// The columns before the features; they stay in memory when a store is open.
pub(super) const HEAD_COLUMNS: usize = 13;

fn emotion_fields() -> Fields {
    Fields::from(vec![Field::new("vocabulary", DataType::Utf8, false), Field::new("class", DataType::Utf8, false)])
}

fn feature_item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, false))
}

/// Describes the columns; the metadata goes into the schema once it is known.
pub(super) fn schema(metadata: Option<String>) -> Schema {
    let emotion = Arc::new(Field::new("item", DataType::Struct(emotion_fields()), false));
    let fields = vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("split", DataType::Utf8, false),
        Field::new("text", DataType::Utf8, false),
        Field::new("context", DataType::Utf8, true),
        Field::new("speaker", DataType::Utf8, true),
        Field::new("dialogue", DataType::Utf8, true),
        Field::new("turn", DataType::Int32, true),
        Field::new("polarity", DataType::Utf8, true),
        Field::new("score", DataType::Float32, true),
        Field::new("emotions", DataType::List(emotion), false),
        // JSON, because it is read by people and rarely: {"meld": {"from": "meld/dia0_utt3", "similarity": 0.8}}.
        Field::new("filled", DataType::Utf8, true),
        Field::new("acoustic_frames", DataType::Int32, true),
        Field::new("visual_frames", DataType::Int32, true),
        Field::new("acoustic", DataType::List(feature_item()), true),
        Field::new("visual", DataType::List(feature_item()), true),
    ];
    let schema = Schema::new(fields);
    match metadata {
        Some(json) => schema.with_metadata(HashMap::from([(Metadata::KEY.to_owned(), json)])),
        None => schema,
    }
}

/// The number of buffers of an Arrow column of the types used here.
fn buffers_of(data_type: &DataType) -> usize {
    match data_type {
        DataType::Utf8 => 3,
        DataType::List(item) => 2 + buffers_of(item.data_type()),
        DataType::Struct(fields) => 1 + fields.iter().map(|field| buffers_of(field.data_type())).sum::<usize>(),
        _ => 2,
    }
}

/// The index, among a batch's buffers, of the first buffer after the head columns.
pub(super) fn first_feature_buffer() -> usize {
    schema(None).fields().iter().take(HEAD_COLUMNS).map(|field| buffers_of(field.data_type())).sum()
}

/// The indexes of the buffers that hold the values of `acoustic` and `visual`.
pub(super) fn value_buffers() -> (usize, usize) {
    let first = first_feature_buffer();
    // A list has validity and offsets, its items validity and values.
    (first + 3, first + 7)
}

/// Collects samples until there are enough for a batch.
pub(super) struct BatchBuilder {
    id: StringBuilder,
    split: StringBuilder,
    text: StringBuilder,
    context: StringBuilder,
    speaker: StringBuilder,
    dialogue: StringBuilder,
    turn: Int32Builder,
    polarity: StringBuilder,
    score: Float32Builder,
    emotions: ListBuilder<StructBuilder>,
    filled: StringBuilder,
    acoustic: FeatureBuilder,
    visual: FeatureBuilder,
    rows: usize,
    bytes: usize,
}

struct FeatureBuilder {
    frames: Int32Builder,
    values: ListBuilder<Float32Builder>,
}

impl FeatureBuilder {
    fn new() -> Self {
        Self { frames: Int32Builder::new(), values: ListBuilder::new(Float32Builder::new()).with_field(feature_item()) }
    }

    fn push(&mut self, features: Option<&Features>) -> usize {
        let Some(features) = features else {
            self.frames.append_null();
            self.values.append_null();
            return 0;
        };
        self.frames.append_value(features.frames() as i32);
        self.values.values().append_slice(features.data());
        self.values.append(true);
        size_of_val(features.data())
    }
}

impl BatchBuilder {
    pub(super) fn new() -> Self {
        let fields = emotion_fields();
        let emotion = Arc::new(Field::new("item", DataType::Struct(fields.clone()), false));
        let columns = StructBuilder::new(fields, vec![Box::new(StringBuilder::new()), Box::new(StringBuilder::new())]);
        Self {
            id: StringBuilder::new(),
            split: StringBuilder::new(),
            text: StringBuilder::new(),
            context: StringBuilder::new(),
            speaker: StringBuilder::new(),
            dialogue: StringBuilder::new(),
            turn: Int32Builder::new(),
            polarity: StringBuilder::new(),
            score: Float32Builder::new(),
            emotions: ListBuilder::new(columns).with_field(emotion),
            filled: StringBuilder::new(),
            acoustic: FeatureBuilder::new(),
            visual: FeatureBuilder::new(),
            rows: 0,
            bytes: 0,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// About the bytes that the batch will take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, sample: &Sample) {
        self.id.append_value(&sample.id);
        self.split.append_value(sample.split.as_str());
        self.text.append_value(&sample.text);
        self.context.append_option(sample.context.as_deref());
        self.speaker.append_option(sample.speaker.as_deref());
        self.dialogue.append_option(sample.dialogue.as_deref());
        self.turn.append_option(sample.turn);
        self.polarity.append_option(sample.labels.polarity.map(Polarity::as_str));
        self.score.append_option(sample.labels.score);
        for (vocabulary, class) in &sample.labels.emotions {
            let entry = self.emotions.values();
            for (column, value) in [vocabulary, class].into_iter().enumerate() {
                let builder = entry.field_builder::<StringBuilder>(column);
                builder.expect("both fields are built as strings").append_value(value);
            }
            entry.append(true);
        }
        self.emotions.append(true);
        let filled = &sample.labels.filled;
        self.filled.append_option((!filled.is_empty()).then(|| serde_json::to_string(filled).unwrap_or_default()));
        self.bytes += self.acoustic.push(sample.acoustic.as_ref()) + self.visual.push(sample.visual.as_ref());
        self.bytes += sample.text.len() + sample.context.as_ref().map_or(0, String::len) + 128;
        self.rows += 1;
    }

    /// Makes the batch and starts the next one.
    pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            Arc::new(self.split.finish()),
            Arc::new(self.text.finish()),
            Arc::new(self.context.finish()),
            Arc::new(self.speaker.finish()),
            Arc::new(self.dialogue.finish()),
            Arc::new(self.turn.finish()),
            Arc::new(self.polarity.finish()),
            Arc::new(self.score.finish()),
            Arc::new(self.emotions.finish()),
            Arc::new(self.filled.finish()),
            Arc::new(self.acoustic.frames.finish()),
            Arc::new(self.visual.frames.finish()),
            Arc::new(self.acoustic.values.finish()),
            Arc::new(self.visual.values.finish()),
        ];
        self.rows = 0;
        self.bytes = 0;
        RecordBatch::try_new(Arc::new(schema(None)), columns)
    }
}

/// The text and label columns of one batch.
pub(super) struct Head {
    pub(super) id: StringArray,
    pub(super) split: StringArray,
    pub(super) text: StringArray,
    pub(super) context: StringArray,
    pub(super) speaker: StringArray,
    pub(super) dialogue: StringArray,
    pub(super) turn: Int32Array,
    polarity: StringArray,
    score: Float32Array,
    emotions: ListArray,
    filled: StringArray,
    pub(super) acoustic_frames: Int32Array,
    pub(super) visual_frames: Int32Array,
}

impl Head {
    /// Takes the first [`HEAD_COLUMNS`] columns of a batch; `None` if they are of other types.
    pub(super) fn of(batch: &RecordBatch) -> Option<Self> {
        fn column<T: Array + Clone + 'static>(batch: &RecordBatch, index: usize) -> Option<T> {
            batch.columns().get(index)?.as_any().downcast_ref::<T>().cloned()
        }
        Some(Self {
            id: column(batch, 0)?,
            split: column(batch, 1)?,
            text: column(batch, 2)?,
            context: column(batch, 3)?,
            speaker: column(batch, 4)?,
            dialogue: column(batch, 5)?,
            turn: column(batch, 6)?,
            polarity: column(batch, 7)?,
            score: column(batch, 8)?,
            emotions: column(batch, 9)?,
            filled: column(batch, 10)?,
            acoustic_frames: column(batch, 11)?,
            visual_frames: column(batch, 12)?,
        })
    }

    /// The labels of a row; an unknown polarity word counts as no polarity, and `check` reports it.
    pub(super) fn labels(&self, row: usize) -> Labels {
        let polarity = text_at(&self.polarity, row).and_then(|word| word.parse().ok());
        let score = self.score.is_valid(row).then(|| self.score.value(row));
        let filled = text_at(&self.filled, row).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        Labels { polarity, score, emotions: self.emotions(row), filled }
    }

    /// The polarity as it is written.
    pub(super) fn polarity_word(&self, row: usize) -> Option<&str> {
        text_at(&self.polarity, row)
    }

    fn emotions(&self, row: usize) -> BTreeMap<String, String> {
        let entries = self.emotions.value(row);
        let Some(entries) = entries.as_any().downcast_ref::<StructArray>() else { return BTreeMap::new() };
        let strings = |index: usize| entries.column(index).as_any().downcast_ref::<StringArray>();
        let (Some(names), Some(classes)) = (strings(0), strings(1)) else { return BTreeMap::new() };
        let pairs = names.iter().zip(classes.iter());
        pairs.filter_map(|(name, class)| Some((name?.to_owned(), class?.to_owned()))).collect()
    }
}

/// The text of a row, if it has one.
pub(super) fn text_at(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

/// The number of a row, if it has one.
pub(super) fn number_at(column: &Int32Array, row: usize) -> Option<i32> {
    column.is_valid(row).then(|| column.value(row))
}
