//! The state of a replica: what learns and what does not, in and out of checkpoints and over to peers.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{Device, Tensor, nn};
use unimse_checkpoint::{Dtype, TensorSpec};
use unimse_collectives::{Buffer, Collective};
use unimse_core::id::Rank;
use unimse_core::job::ExitCause;
use unimse_core::spec::Precision;
use unimse_model::{Config, UniMse, weights};
use unimse_torch_ext::cuda::{Event, Stream};
use unimse_torch_ext::view;

use super::super::super::{Copier, Halt, Read, failed, invalid};
use super::super::copies::Copies;
use super::super::description::init_folder;
use super::super::exact::Exact;
use super::super::flat::{Entry, Flat};
use super::super::graphs::Graphs;
use super::super::material::Material;
use super::super::powersgd::PowerSgd;
use super::super::reducer::{Reducer, Wire, device_buffer};
use super::super::rounds::Rounds;
use super::super::stored;
use super::super::zero::{self, Piece};
use super::super::{device, published, seeding, tuning};
use crate::protocol::Begin;

/// What the tensors of a checkpoint are called, for each of the flat tensors of the state.
const PREFIXES: [&str; 4] = ["", MOMENTS[0], MOMENTS[1], OUTER];
const MOMENTS: [&str; 2] = ["optimizer.exp_avg.", "optimizer.exp_avg_sq."];
/// Where ranks train in rounds.
const OUTER: &str = "optimizer.outer_momentum.";

/// A model whose parameters lie in a flat tensor.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) unimse: UniMse,
    /// What learns.
    pub(super) flat: Flat,
    /// What does not.
    pub(super) frozen: tuning::Named,
    pub(super) reducer: Reducer,
    /// Adds up the gradients where it can; the reducer does elsewhere.
    pub(super) exact: Option<Exact>,
    /// The ranks take steps of their own between agreements.
    pub(super) rounds: Option<Rounds>,
    /// Factors travel in place of gradients.
    pub(super) powersgd: Option<PowerSgd>,
    /// Recordings of its passes, if the job wants some.
    pub(super) graphs: Option<RefCell<Graphs>>,
    /// Nothing has changed since it was made from the job's seed.
    pub(super) fresh: bool,
    /// Where checkpoints are copied to.
    copies: Copies,
    /// The moments are shared out over so many ranks.
    shared_by: Option<u32>,
}

/// A tensor of a checkpoint.
enum Place {
    /// Which of the state's tensors, and the place of the parameter.
    Whole(usize, usize),
    /// A rank's part of one.
    Piece(usize, Piece),
    /// What does not learn.
    Frozen(usize),
}

impl Model {
    pub(super) fn new(begin: &Begin, config: &Config, material: &Material, device: Device) -> Result<Self, ExitCause> {
        let store = nn::VarStore::new(device);
        let unimse = seeding::seeded(begin.spec.train.seed, || UniMse::new(&store.root(), config));
        let mut unimse = unimse.map_err(invalid)?;
        unimse.set_activation_checkpointing(begin.spec.train.activation_checkpointing);
        if let Some(folder) = init_folder(&begin.spec) {
            let files = published::open(&folder).map_err(invalid)?;
            let report = weights::initialise_from_t5(&store, config, files.weights).map_err(invalid)?;
            tracing::info!(own = report.missing.len(), folder = %folder.display(), "pretrained weights loaded");
        }
        let buffers = weights::buffers(&store);
        standardise(&buffers, material).map_err(failed)?;
        let (learning, mut frozen) = tuning::split(weights::parameters(&store), begin.spec.model.trainable, config)?;
        frozen.extend(buffers);
        let train = &begin.spec.train;
        let sync = &train.sync;
        let shares = train.zero > 0;
        let flat = if shares { Flat::without_moments(learning, device) } else { Flat::new(learning, device) }?;
        let reducer = Reducer::new(&flat, Wire::of(sync.precision))?;
        let reducer = if shares { reducer.scattering() } else { reducer };
        let shards = u64::from(train.global_batch.div_ceil(train.micro_batch));
        let usual = (sync.every, sync.precision, sync.rank) == (1, Precision::Fp32, 0);
        let exact = Exact::of(&flat, reducer.buckets(), shards).filter(|_| usual);
        let (rounds, powersgd) = (Rounds::of(&flat, sync), PowerSgd::of(&flat, sync, train.seed));
        let shared_by = shares.then_some(1);
        Ok(Self {
            unimse,
            flat,
            frozen,
            reducer,
            exact,
            rounds,
            powersgd,
            graphs: (train.cuda_graphs && device.is_cuda()).then(|| RefCell::new(Graphs::new(device, 4))),
            fresh: true,
            copies: Copies::default(),
            shared_by,
        })
    }

    /// With ZeRO, keeps the moments of `rank` of `world` from now on; they begin with zeros.
    pub(super) fn take_part(&mut self, rank: Rank, world: u32) {
        if let Some(shared_by) = &mut self.shared_by {
            *shared_by = world;
            self.flat.keep(zero::own(self.reducer.ranges(), rank.0, world));
        }
    }

    /// Whether each rank has moments of its own.
    pub(super) fn shares_moments(&self) -> bool {
        self.shared_by.is_some()
    }

    /// The share of the parameters that learn.
    pub(super) fn learning_share(&self) -> f64 {
        let learning = self.flat.entries.iter().map(|entry| entry.len).sum::<usize>() as f64;
        learning / (learning + self.frozen.iter().map(|(_, tensor)| tensor.numel()).sum::<usize>() as f64)
    }

    /// The tensors that make the state, in the order of their prefixes.
    fn state(&self) -> Vec<&Tensor> {
        let Flat { parameters, averages, squares, .. } = &self.flat;
        [parameters, averages, squares].into_iter().chain(self.rounds.as_ref().map(|rounds| &rounds.momentum)).collect()
    }

    /// The state was replaced: what belonged to the one before is gone.
    fn replaced(&mut self) {
        self.fresh = false;
        if let Some(rounds) = &mut self.rounds {
            rounds.arrive();
        }
        if let Some(powersgd) = &mut self.powersgd {
            powersgd.forget();
        }
    }

    /// Takes the state from a checkpoint, a part at a time.
    pub(super) fn load(&mut self, read: &mut Read<'_>) -> Result<(), ExitCause> {
        self.replaced();
        let Self { flat, frozen, .. } = &*self;
        for (prefix, state) in PREFIXES.iter().zip(self.state()) {
            if MOMENTS.contains(prefix) {
                zero::fill(flat, prefix, state, read(&|name| zero::wants(flat, prefix, name))?)?;
                continue;
            }
            let named = |entry: &Entry| (format!("{prefix}{}", entry.name), entry.view(state));
            let mut wanted: BTreeMap<String, Tensor> = flat.entries.iter().map(named).collect();
            if prefix.is_empty() {
                wanted.extend(frozen.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())));
            }
            let mut found = read(&|name| wanted.contains_key(name))?;
            for (name, mut own) in wanted {
                if *prefix == OUTER && !found.contains_key(&name) {
                    // The job that wrote it did not train in rounds.
                    let _ = own.f_zero_().map_err(failed)?;
                    continue;
                }
                let tensor = found.remove(&name).ok_or_else(|| stored::missing(&name))?;
                let tensor = stored::tensor(&name, &tensor, &own.size())?;
                tch::no_grad(|| own.f_copy_(&tensor)).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Takes the state from the memory of a peer, or gives it.
    pub(super) fn receive(&mut self, root: Rank, group: &mut dyn Collective) -> Result<(), Halt> {
        self.replaced();
        // Shared moments are those of the receiver: there is nothing to receive but zeros.
        let state = if self.shares_moments() { vec![&self.flat.parameters] } else { self.state() };
        let state = state.into_iter().chain(self.frozen.iter().map(|(_, tensor)| tensor));
        for mut tensor in state.map(Tensor::shallow_clone) {
            if tensor.device().is_cuda() {
                group.broadcast(root.0, Buffer::Device(device_buffer(&tensor)))?;
            } else {
                group.broadcast(root.0, Buffer::F32(view::host_mut(&mut tensor).map_err(failed)?))?;
            }
        }
        Ok(())
    }

    /// Tells apart states of different parameters.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        let frozen = self.frozen.iter().map(|(_, tensor)| tensor.view(-1));
        for tensor in std::iter::once(self.flat.parameters.shallow_clone()).chain(frozen) {
            let (total, piece) = (tensor.numel() as i64, 16 << 20);
            for start in (0..total).step_by(piece as usize) {
                let part = tensor.narrow(0, start, piece.min(total - start)).to_device(Device::Cpu);
                if let Ok(bytes) = view::bytes(&part) {
                    hasher.update(bytes);
                }
            }
        }
        u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
    }

    /// What a checkpoint holds; the same on all ranks.
    fn places(&self) -> Vec<Place> {
        let Model { flat, frozen, reducer, shared_by, .. } = self;
        let whole = |state: usize| (0..flat.entries.len()).map(move |entry| Place::Whole(state, entry));
        let mut places: Vec<Place> = whole(0).collect();
        for state in 1..self.state().len() {
            match shared_by {
                Some(world) => {
                    let pieces = Piece::all(&flat.entries, reducer.ranges(), *world);
                    places.extend(pieces.into_iter().map(|piece| Place::Piece(state, piece)));
                }
                None => places.extend(whole(state)),
            }
        }
        places.extend((0..frozen.len()).map(Place::Frozen));
        places
    }

    /// Names the tensors of a checkpoint, and who must write them if it cannot be just anybody.
    pub(super) fn tensors(&self) -> Vec<(TensorSpec, Option<Rank>)> {
        let spec = |name: String, shape: &[i64]| TensorSpec {
            name,
            dtype: Dtype::F32,
            shape: shape.iter().map(|&size| size as usize).collect(),
        };
        let entries = &self.flat.entries;
        let named = |place: &Place| match place {
            Place::Whole(state, entry) => {
                (spec(format!("{}{}", PREFIXES[*state], entries[*entry].name), &entries[*entry].shape), None)
            }
            Place::Piece(state, piece) => (piece.spec(PREFIXES[*state], entries), Some(piece.owner)),
            Place::Frozen(place) => {
                let (name, tensor) = &self.frozen[*place];
                (spec(name.clone(), &tensor.size()), None)
            }
        };
        self.places().iter().map(named).collect()
    }

    /// What copies some of these tensors, on any thread.
    pub(super) fn copier(&self, places: &[usize]) -> Copier {
        let Model { flat, frozen, .. } = self;
        let (state, all) = (self.state(), self.places());
        let tensor = |&place: &usize| match &all[place] {
            Place::Whole(whole, entry) => flat.entries[*entry].view(state[*whole]),
            Place::Piece(whole, piece) => {
                let (own, at) = flat.kept(piece.range.clone()).next().expect("a rank writes its own pieces");
                state[*whole].narrow(0, at as i64, own.len() as i64)
            }
            Place::Frozen(place) => frozen[*place].1.detach(),
        };
        let tensors: Vec<Tensor> = places.iter().map(tensor).collect();
        let copies = self.copies.clone();
        // On a GPU beside the next passes, which may be recorded meanwhile, and behind what is queued now.
        let beside = device::stream_of(&flat.parameters).and_then(|stream| {
            let beside = |stream: Stream| Ok((stream.another()?, Event::after(stream)?));
            stream.map(beside).transpose()
        });
        Box::new(move || {
            let enter = |(stream, event): (Stream, Event)| stream.wait_for(&event).and_then(|()| stream.enter());
            let _entered = beside.and_then(|beside| beside.map(enter).transpose()).map_err(failed)?;
            copies.of(&tensors)
        })
    }
}

/// Fills the model's standardisation from the training data.
fn standardise(buffers: &[(String, Tensor)], material: &Material) -> Result<(), tch::TchError> {
    for (name, mean, scale) in material.standards() {
        for (part, values) in [("mean", mean), ("scale", scale)] {
            let wanted = format!("{name}.{part}");
            if let Some((_, buffer)) = buffers.iter().find(|(known, _)| *known == wanted) {
                buffer.shallow_clone().f_copy_(&Tensor::from_slice(&values))?;
            }
        }
    }
    Ok(())
}
