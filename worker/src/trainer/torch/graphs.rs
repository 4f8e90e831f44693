//! Passes over micro-shards whose shapes come again, recorded as CUDA graphs.
//!
//! A small micro-shard of a large model keeps the GPU busy for less time than the host needs to tell it the thousands of things to do.
//! So passes of shapes that were seen twice are recorded, forward to backward, and replayed from then on: one call. All that differs
//! between them lies in tensors that stay: the batch, what its losses are divided by, and the parts of the loss that come out.
//! Gradients are added to the flat ones, which stay as well; random numbers follow the generators as they stand at a replay.

use std::collections::HashMap;

use tch::{Device, Kind, Tensor};
use unimse_model::Batch;
use unimse_torch_ext::cuda::{self, copy_queued, graph};

use super::super::{Halt, failed, invalid};
use super::tensors;

/// Passes of the same shapes before one is recorded: libtorch chooses kernels and takes its workspaces in them.
const BEFORE: u32 = 2;
/// Recordings that are kept; passes of other shapes run as without any.
const MOST: usize = 96;

/// What the losses of a micro-shard are multiplied with and divided by, on its device.
#[derive(Debug)]
pub(super) struct Shares {
    /// Target tokens of the global batch, weighted; a number.
    pub(super) tokens: Tensor,
    /// Its samples; a number.
    pub(super) samples: Tensor,
    /// `[B]`, the weight of each sample; none where all are 1.
    pub(super) weights: Option<Tensor>,
}

impl Shares {
    /// For a global batch of so many tokens and samples, without weights.
    pub(super) fn of((tokens, samples): (f64, f64), device: Device) -> Self {
        let number = |value: f64| tensors::placed(&Tensor::from(value as f32), device);
        Self { tokens: number(tokens), samples: number(samples), weights: None }
    }

    /// The same for a micro-shard whose samples have these weights.
    pub(super) fn weighted(&self, weights: Option<&[f32]>) -> Self {
        let device = self.tokens.device();
        let weights = weights.map(|weights| tensors::placed(&Tensor::from_slice(weights), device));
        Self { tokens: self.tokens.shallow_clone(), samples: self.samples.shallow_clone(), weights }
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        [&self.tokens, &self.samples].into_iter().chain(&self.weights)
    }

    fn copy(&self) -> Self {
        let weights = self.weights.as_ref().map(Tensor::copy);
        Self { tokens: self.tokens.copy(), samples: self.samples.copy(), weights }
    }
}

/// The recordings of a model; they go when the model goes, whose memory they know by its addresses.
#[derive(Debug)]
pub(super) struct Graphs {
    device: Device,
    /// Numbers that a pass returns.
    parts: i64,
    pool: Option<graph::Pool>,
    known: HashMap<Vec<i64>, Known>,
    replays: u64,
}

#[derive(Debug)]
enum Known {
    Seen(u32),
    Recorded(Box<Recorded>),
}

#[derive(Debug)]
struct Recorded {
    batch: Batch,
    shares: Shares,
    /// What the pass returns.
    parts: Tensor,
    /// None on the CPU, which does it all again: so tests see what is copied where.
    graph: Option<graph::Graph>,
}

impl Graphs {
    /// For passes that return `parts` numbers.
    pub(super) fn new(device: Device, parts: i64) -> Self {
        Self { device, parts, pool: None, known: HashMap::new(), replays: 0 }
    }

    /// Does a pass by replaying it, if it is recorded or now can be, and returns its parts of the loss, which stay until the next pass;
    /// returns nothing if it has to be done as usual.
    ///
    /// `pass` goes from the batch to complete gradients. It is called while it is recorded, and on the CPU each time.
    pub(super) fn pass(
        &mut self,
        batch: &Batch,
        shares: &Shares,
        pass: impl Fn(&Batch, &Shares) -> Result<Tensor, Halt>,
    ) -> Result<Option<Tensor>, Halt> {
        let Self { device, parts, pool, .. } = self;
        let shapes = shapes(batch, shares);
        let recorded = self.known.values().filter(|known| matches!(known, Known::Recorded(_))).count();
        let known = self.known.entry(shapes).or_insert(Known::Seen(0));
        match known {
            Known::Recorded(_) => {}
            Known::Seen(times) if *times < BEFORE || recorded >= MOST => {
                *times += 1;
                return Ok(None);
            }
            Known::Seen(_) => {
                let parts = Tensor::zeros([*parts], (Kind::Float, *device));
                tracing::info!(recordings = recorded + 1, "the passes of one more shape are replayed from now on");
                *known = Known::Recorded(Box::new(Recorded::new(batch, shares, parts, pool, &pass)?));
            }
        }
        let Known::Recorded(recorded) = known else { return Ok(None) };
        self.replays += 1;
        recorded.replay(batch, shares, &pass).map(Some)
    }

    /// Passes that were replayed.
    pub(super) fn replays(&self) -> u64 {
        self.replays
    }
}

impl Recorded {
    fn new(
        batch: &Batch,
        shares: &Shares,
        parts: Tensor,
        pool: &mut Option<graph::Pool>,
        pass: &impl Fn(&Batch, &Shares) -> Result<Tensor, Halt>,
    ) -> Result<Self, Halt> {
        let device = parts.device();
        let batch = batch.map(&|tensor| tensors::to_device_for_good(tensor, device));
        let shares = shares.copy();
        if !device.is_cuda() {
            return Ok(Self { batch, shares, parts, graph: None });
        }
        let pool = if let Some(pool) = pool {
            *pool
        } else {
            // Recordings have memory of their own: what ordinary passes keep for the next is not needed beside it.
            cuda::release_memory().map_err(failed)?;
            *pool.insert(graph::Pool::new().map_err(failed)?)
        };
        let mut outcome = Ok(());
        let graph = graph::Graph::record(pool, || {
            outcome = pass(&batch, &shares)
                .and_then(|found| copy_queued(&parts, &found).map_err(|error| failed(error).into()));
        });
        outcome?;
        let graph = graph.map_err(|error| {
            invalid(format!("a pass cannot be recorded as a CUDA graph: {error}; hint: set train.cuda_graphs to false"))
        })?;
        Ok(Self { batch, shares, parts, graph: Some(graph) })
    }

    fn replay(
        &self,
        batch: &Batch,
        shares: &Shares,
        pass: &impl Fn(&Batch, &Shares) -> Result<Tensor, Halt>,
    ) -> Result<Tensor, Halt> {
        let own = self.batch.tensors().into_iter().chain(self.shares.tensors());
        for (own, given) in own.zip(batch.tensors().into_iter().chain(shares.tensors())) {
            copy_queued(own, given).map_err(failed)?;
        }
        match &self.graph {
            Some(graph) => graph.replay().map_err(failed)?,
            None => copy_queued(&self.parts, &pass(&self.batch, &self.shares)?).map_err(failed)?,
        }
        Ok(self.parts.shallow_clone())
    }
}

/// What a recording depends on: passes with equal shapes do the same on other numbers.
fn shapes(batch: &Batch, shares: &Shares) -> Vec<i64> {
    let (acoustic, visual) = (batch.inputs.acoustic.parts.len(), batch.inputs.visual.parts.len());
    let kinds = [acoustic as i64, visual as i64, i64::from(shares.weights.is_some())];
    let sizes = batch.tensors().into_iter().flat_map(|tensor| {
        let size = tensor.size();
        std::iter::once(size.len() as i64).chain(size)
    });
    kinds.into_iter().chain(sizes).collect()
}

#[cfg(test)]
mod tests {
    use tch::nn;
    use unimse_model::{Config, Inputs, Modality, ModalityPart, Preset, UniMse, weights};

    use super::super::flat::Flat;
    use super::super::seeding::seeded;
    use super::*;

    struct Rank {
        model: UniMse,
        flat: Flat,
        _store: nn::VarStore,
    }

    fn rank() -> Rank {
        let mut config: Config = Preset::Tiny.config();
        (config.t5.vocab_size, config.t5.num_layers, config.t5.num_decoder_layers) = (40, 2, Some(2));
        (config.unimse.fusion.layers, config.unimse.contrastive.layers) = (1, 1);
        (config.unimse.acoustic.dims, config.unimse.visual.dims) = (vec![3], vec![2]);
        let store = nn::VarStore::new(Device::Cpu);
        let model = seeded(1, || UniMse::new(&store.root(), &config)).unwrap();
        let flat = Flat::new(weights::parameters(&store), Device::Cpu).unwrap();
        Rank { model, flat, _store: store }
    }

    /// Four samples, of which some have sound; every seed has other numbers, lengths and samples.
    fn batch(seed: u64, columns: i64) -> Batch {
        seeded(seed, || {
            let ids = |columns| Tensor::randint_low(3, 40, [4, columns], (Kind::Int64, Device::Cpu));
            let features = |rows: &[i64], width| ModalityPart {
                rows: Tensor::from_slice(rows),
                features: Tensor::randn([rows.len() as i64, 5, width], (Kind::Float, Device::Cpu)),
                lengths: Tensor::randint_low(1, 6, [rows.len() as i64], (Kind::Int64, Device::Cpu)),
            };
            let other = (seed % 4) as i64;
            let lengths = Tensor::randint_low(1, columns + 1, [4, 1], (Kind::Int64, Device::Cpu));
            let inputs = Inputs {
                input_ids: ids(columns),
                attention_mask: Tensor::arange(columns, (Kind::Int64, Device::Cpu))
                    .lt_tensor(&lengths)
                    .to_kind(Kind::Int64),
                acoustic: Modality { parts: vec![features(&[other, (other + 1) % 4], 3)] },
                visual: Modality::uniform(
                    Tensor::randn([4, 5, 2], (Kind::Float, Device::Cpu)),
                    Tensor::full([4], 5, (Kind::Int64, Device::Cpu)),
                ),
            };
            Batch { inputs, targets: ids(6), answers: None }
        })
    }

    impl Rank {
        fn pass(&self, batch: &Batch, Shares { tokens, samples, weights }: &Shares) -> Result<Tensor, Halt> {
            let output = self.model.forward(batch, true).map_err(invalid)?;
            let weights = weights.as_ref().expect("all of these passes have weights");
            let loss = self.model.loss_over(&output, tokens, samples) + (output.nll * weights).sum(Kind::Float);
            loss.backward();
            Ok(Tensor::stack(&[loss.detach(), tokens.shallow_clone()], 0))
        }
    }

    #[test]
    fn a_replay_is_the_pass_on_what_it_was_given() {
        tch::set_num_threads(1);
        let (mut recording, mut usual) = (rank(), rank());
        let mut graphs = Graphs::new(Device::Cpu, 2);
        let mut replayed = Vec::new();
        for (place, columns) in [7, 7, 5, 7, 7, 5, 5, 7].into_iter().enumerate() {
            let seed = place as u64 + 10;
            let (batch, place) = (batch(seed, columns), place as f32);
            let shares = Shares::of((20.0 + f64::from(place), 4.0), Device::Cpu);
            let shares = shares.weighted(Some(&[1.0, 0.5, place, 2.0]));
            recording.flat.clear();
            usual.flat.clear();
            let expected = seeded(seed, || usual.pass(&batch, &shares)).unwrap();
            let found =
                seeded(seed, || graphs.pass(&batch, &shares, |batch, shares| recording.pass(batch, shares))).unwrap();
            replayed.push(found.is_some());
            let found = found.unwrap_or_else(|| seeded(seed, || recording.pass(&batch, &shares)).unwrap());
            assert_eq!(found, expected);
            assert_eq!(recording.flat.gradients, usual.flat.gradients);
            assert!(f64::try_from(usual.flat.gradients.norm()).unwrap() > 0.0);
            recording.flat.set_cleared(false);
            usual.flat.set_cleared(false);
        }
        // The third pass of a shape is the first that is replayed.
        assert_eq!(replayed, [false, false, false, true, true, false, true, true]);
        assert_eq!(graphs.replays(), 4);
    }

    #[test]
    fn passes_of_other_parts_are_others() {
        let shares = Shares::of((1.0, 1.0), Device::Cpu);
        let whole = batch(1, 5);
        let mut silent = batch(1, 5);
        silent.inputs.visual.parts.append(&mut silent.inputs.acoustic.parts);
        let mut moved = batch(1, 5);
        let part = moved.inputs.acoustic.parts.remove(0);
        moved.inputs.visual.parts.insert(0, part);
        let all = [
            shapes(&whole, &shares),
            shapes(&silent, &shares),
            shapes(&moved, &shares),
            shapes(&whole, &shares.weighted(Some(&[1.0; 4]))),
        ];
        assert!(all.iter().enumerate().all(|(place, one)| all[..place].iter().all(|other| one != other)));
        assert_eq!(shapes(&whole, &shares), shapes(&batch(2, 5), &shares));
    }
}
