//! Batches ahead of time: a thread reads, encodes and pads the next steps' micro-shards while the present one is computed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use unimse_core::id::Rank;
use unimse_core::job::ExitCause;
use unimse_core::shard::{Cursor, DataOrder};
use unimse_data::Error as DataError;
use unimse_data::batch::{Batch as Arrays, BatchOptions, collate};
use unimse_data::schema::Sample;
use unimse_model::Labels;

use super::super::invalid;
use super::material::{Material, Words};

/// Steps that are prepared ahead.
const AHEAD: usize = 2;

/// One micro-shard as arrays.
#[derive(Debug)]
pub(super) struct Shard {
    /// Its number in the global batch.
    pub(super) index: u32,
    pub(super) samples: Vec<u64>,
    pub(super) arrays: Arrays,
    pub(super) targets: Vec<Vec<i64>>,
    /// In the words of the model's schema.
    pub(super) labels: Vec<Labels>,
}

impl Shard {
    /// Tokens of inputs and targets, padding not counted.
    pub(super) fn tokens(&self) -> u64 {
        let inputs = self.arrays.input.mask.iter().filter(|&&mask| mask != 0).count();
        (inputs + self.targets.iter().map(Vec::len).sum::<usize>()) as u64
    }

    /// Tokens of input and target of each sample, padding not counted.
    pub(super) fn lengths(&self) -> impl Iterator<Item = (usize, usize)> {
        let columns = self.arrays.input.mask.len() / self.targets.len().max(1);
        let inputs = self.arrays.input.mask.chunks(columns.max(1));
        inputs.map(|mask| mask.iter().filter(|&&mask| mask != 0).count()).zip(self.targets.iter().map(Vec::len))
    }
}

/// The stream of one rank's micro-shards.
#[derive(Debug)]
pub(super) struct Feed {
    material: Arc<Material>,
    order: DataOrder,
    stream: Option<Stream>,
}

#[derive(Debug)]
struct Stream {
    /// The step that comes next, and for whom.
    next: (Cursor, Rank, u32),
    steps: Receiver<Result<Vec<Shard>, DataError>>,
}

impl Feed {
    pub(super) fn new(material: Arc<Material>, order: DataOrder) -> Self {
        Self { material, order, stream: None }
    }

    /// The micro-shards of a rank for the step after `cursor`. Steps that follow one another come from what was prepared.
    pub(super) fn next(&mut self, cursor: Cursor, rank: Rank, world: u32) -> Result<Vec<Shard>, ExitCause> {
        let wanted = (cursor, rank, world);
        if self.stream.as_ref().is_none_or(|stream| stream.next != wanted) {
            self.stream = Some(self.start(cursor, rank, world));
        }
        let stream = self.stream.as_mut().expect("it was started above");
        let step = stream
            .steps
            .recv()
            .map_err(|_| invalid("the thread that prepares batches is gone; its panic is in the log"))?;
        stream.next.0 = self.order.batch(cursor).next;
        step.map_err(invalid)
    }

    fn start(&self, cursor: Cursor, rank: Rank, world: u32) -> Stream {
        let (sender, steps) = sync_channel(AHEAD);
        let (material, order) = (Arc::clone(&self.material), self.order);
        let prepare = move || prepare(&material, order, cursor, (rank, world), &sender);
        thread::Builder::new().name("feed".to_owned()).spawn(prepare).expect("the system has room for one more thread");
        Stream { next: (cursor, rank, world), steps }
    }
}

/// Prepares step after step until nobody wants them any more, or one fails.
fn prepare(
    material: &Material,
    order: DataOrder,
    mut cursor: Cursor,
    (rank, world): (Rank, u32),
    sender: &SyncSender<Result<Vec<Shard>, DataError>>,
) {
    loop {
        let mut batch = order.batch(cursor);
        cursor = batch.next;
        material.sort(&mut batch.samples);
        let shards =
            batch.for_rank(rank, world).map(|shard| self::shard(material, shard.index, shard.samples)).collect();
        let failed = Result::<Vec<Shard>, DataError>::is_err(&shards);
        if sender.send(shards).is_err() || failed {
            return;
        }
    }
}

fn shard(material: &Material, index: u32, samples: &[u64]) -> Result<Shard, DataError> {
    let read: Vec<Sample> =
        samples.iter().map(|&sample| material.train.sample(sample as usize)).collect::<Result<_, _>>()?;
    let arrays = arrays(&material.vocabulary, &material.options, &read)?;
    let targets = read.iter().map(|sample| material.vocabulary.target_ids(&sample.labels)).collect();
    let labels = read.iter().map(|sample| material.vocabulary.labels(&sample.labels)).collect();
    Ok(Shard { index, samples: samples.to_vec(), arrays, targets, labels })
}

/// Pads samples into arrays; the targets in words are those of the grammar.
pub(super) fn arrays(words: &Words, options: &BatchOptions, samples: &[Sample]) -> Result<Arrays, DataError> {
    let target = |labels: &unimse_data::schema::Labels| words.schema().render(&words.labels(labels));
    let samples: Vec<&Sample> = samples.iter().collect();
    collate(&samples, &words.tokenizer, options, &target)
}
