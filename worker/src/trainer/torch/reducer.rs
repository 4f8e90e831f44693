//! Adds up the gradients of all ranks, bucket by bucket, while the last backward pass of a step still runs.
//!
//! As in PyTorch's DDP (Li et al., VLDB 2020): a bucket is sent when all its gradients are complete, and buckets go in the
//! same order on all ranks. Here the gradients lie in one flat tensor, so a bucket is a range of it and nothing is copied.
//! Where tch's backward blocks its thread, the sums are made on a second one.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};
use unimse_collectives::{Buffer, Collective, DType, DeviceBuffer, segment};
use unimse_core::job::ExitCause;
use unimse_core::spec::Precision;
use unimse_torch_ext::cuda::Stream;
use unimse_torch_ext::{hook, view};

use super::super::{Halt, failed, spans};
use super::device::{self, stream_handle};
use super::flat::Flat;

/// The size at which a bucket is full, in numbers: 25 MiB, as in DDP.
const BUCKET: usize = 25 << 18;

/// The buckets of a flat gradient.
#[derive(Debug)]
pub(super) struct Reducer {
    gradients: Tensor,
    buckets: Vec<Range<usize>>,
    progress: Arc<Progress>,
    wire: Wire,
    /// A rank gets the sums of its segment of each bucket only.
    scatters: bool,
    /// Kept for its effect: it takes the hooks off when the reducer goes.
    _hooks: hook::Hooks,
}

/// Which buckets are complete, as the hooks see it.
#[derive(Debug)]
struct Progress {
    /// The bucket of each parameter.
    bucket_of: Vec<usize>,
    /// Parameters of each bucket.
    sizes: Vec<usize>,
    /// Parameters of each bucket whose gradient is not complete.
    missing: Vec<AtomicUsize>,
    /// Takes the numbers of complete buckets; there only during a pass that is watched.
    complete: Mutex<Option<Sender<usize>>>,
}

impl Progress {
    fn finished(&self, parameter: usize) {
        let bucket = self.bucket_of[parameter];
        if self.missing[bucket].fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(sender) = &*self.complete.lock().unwrap_or_else(PoisonError::into_inner)
        {
            let _ = sender.send(bucket);
        }
    }

    /// Begins to watch a backward pass.
    fn watch(&self) -> Receiver<usize> {
        for (missing, size) in self.missing.iter().zip(&self.sizes) {
            missing.store(*size, Ordering::Release);
        }
        let (sender, receiver) = channel();
        *self.complete.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    fn unwatch(&self) {
        *self.complete.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Reducer {
    pub(super) fn new(flat: &Flat, wire: Wire) -> Result<Self, ExitCause> {
        Self::with_buckets_of(flat, BUCKET, wire)
    }

    pub(super) fn with_buckets_of(flat: &Flat, full: usize, wire: Wire) -> Result<Self, ExitCause> {
        let total = flat.gradients.numel();
        let mut starts = vec![0];
        let mut bucket_of = Vec::with_capacity(flat.entries.len());
        for entry in &flat.entries {
            if entry.start - starts[starts.len() - 1] >= full {
                starts.push(entry.start);
            }
            bucket_of.push(starts.len() - 1);
        }
        let ends = starts.iter().copied().skip(1).chain([total]);
        let buckets: Vec<Range<usize>> = starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect();
        let mut sizes = vec![0; buckets.len()];
        for &bucket in &bucket_of {
            sizes[bucket] += 1;
        }
        let missing = sizes.iter().map(|_| AtomicUsize::new(0)).collect();
        let progress = Arc::new(Progress { bucket_of, sizes, missing, complete: Mutex::default() });
        let seen = Arc::clone(&progress);
        let hooks = hook::Hooks::install(&flat.leaves, move |parameter| seen.finished(parameter)).map_err(failed)?;
        Ok(Self { gradients: flat.gradients.shallow_clone(), buckets, progress, wire, scatters: false, _hooks: hooks })
    }

    /// Gives each rank the sums of its segments only, which is what [`zero`](super::zero) needs.
    pub(super) fn scattering(self) -> Self {
        Self { scatters: true, ..self }
    }

    /// Where the buckets lie in the flat tensors.
    pub(super) fn ranges(&self) -> &[Range<usize>] {
        &self.buckets
    }

    /// Gives all ranks the segments of each: the second half of what scattering began.
    pub(super) fn gather(&self, flat: &Tensor, group: &mut dyn Collective) -> Result<(), Halt> {
        let _span = spans::span("all-gather");
        for range in &self.buckets {
            let mut part = flat.narrow(0, range.start as i64, range.len() as i64);
            gather(group, &mut part)?;
        }
        self.finish(group)
    }

    /// The number of buckets.
    pub(super) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Whether there is something to gain by adding up during the backward pass.
    pub(super) fn overlaps(&self, group: &dyn Collective) -> bool {
        group.world_size() > 1 && self.buckets.len() > 1
    }

    /// Runs `backward` and adds up the buckets over the ranks as they become complete; returns how long the sums took beyond it.
    pub(super) fn during(&self, group: &mut dyn Collective, backward: impl FnOnce()) -> Result<Duration, Halt> {
        let complete = self.progress.watch();
        let (views, way) = (self.views(), self.way());
        let stream = device::stream_of(&self.gradients).map_err(failed)?;
        let summed = std::thread::scope(|scope| {
            let summing = scope.spawn(move || {
                // Sums come after what this thread's backward pass has queued.
                let _entered = stream.map(Stream::enter).transpose().map_err(failed)?;
                sum_as_they_come(group, views, &complete, way)
            });
            backward();
            self.progress.unwatch();
            let computed = Instant::now();
            let summed = summing.join();
            (summed, computed.elapsed())
        });
        let (summed, exposed) = summed;
        summed.map_err(|_| failed("the thread that adds up gradients panicked"))??;
        Ok(exposed)
    }

    /// Adds up all buckets over the ranks.
    pub(super) fn all(&self, group: &mut dyn Collective) -> Result<(), Halt> {
        if group.world_size() == 1 {
            return Ok(());
        }
        self.views().into_iter().try_for_each(|mut view| sum(group, &mut view, self.way()))
    }

    fn way(&self) -> Way {
        Way { wire: self.wire, scatters: self.scatters }
    }

    /// Bytes that a rank gives to the sums of a step.
    pub(super) fn bytes(&self) -> u64 {
        self.gradients.numel() as u64 * self.wire.bytes()
    }

    /// Waits until the sums can be used.
    pub(super) fn finish(&self, group: &mut dyn Collective) -> Result<(), Halt> {
        match (self.gradients.device(), group.world_size() > 1, group.device()) {
            (Device::Cuda(_), true, Some(device)) => Ok(device.synchronize(stream_handle(&self.gradients))?),
            _ => Ok(()),
        }
    }

    fn views(&self) -> Vec<Tensor> {
        let view = |range: &Range<usize>| self.gradients.narrow(0, range.start as i64, range.len() as i64);
        self.buckets.iter().map(view).collect()
    }
}

/// Adds up buckets in their order, each as soon as it is complete, and the rest when nobody announces any more: parameters
/// that a pass does not reach are never announced.
fn sum_as_they_come(
    group: &mut dyn Collective,
    mut views: Vec<Tensor>,
    complete: &Receiver<usize>,
    way: Way,
) -> Result<(), Halt> {
    let mut ready = BTreeSet::new();
    let mut next = 0;
    for bucket in complete {
        ready.insert(bucket);
        while ready.remove(&next) {
            let _span = spans::span(format!("all-reduce bucket {next}"));
            sum(group, &mut views[next], way)?;
            next += 1;
        }
    }
    let _span = (next < views.len()).then(|| spans::span("all-reduce the rest"));
    views[next..].iter_mut().try_for_each(|view| sum(group, view, way))
}

/// How numbers travel between ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    F32,
    /// Half the bytes; sums are made in 32 bits.
    Bf16,
}

impl Wire {
    pub(super) fn of(precision: Precision) -> Self {
        match precision {
            Precision::Fp32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// What is done with a bucket.
#[derive(Clone, Copy, Debug)]
struct Way {
    wire: Wire,
    scatters: bool,
}

/// Adds up a contiguous f32 tensor over the ranks and waits for it; returns the bytes that this rank gave.
pub(super) fn add_up(group: &mut dyn Collective, tensor: &mut Tensor, wire: Wire) -> Result<u64, Halt> {
    let _span = spans::span("all-reduce");
    let bytes = tensor.numel() as u64 * wire.bytes();
    // A bucket at a time, so that what is rounded for the way stays small.
    for part in tensor.split(BUCKET as i64, 0) {
        sum(group, &mut part.shallow_clone(), Way { wire, scatters: false })?;
    }
    if tensor.device().is_cuda()
        && let Some(device) = group.device()
    {
        device.synchronize(stream_handle(tensor))?;
    }
    Ok(bytes)
}

/// Adds up one range over the ranks; on a GPU 32 bits are only enqueued.
fn sum(group: &mut dyn Collective, view: &mut Tensor, Way { wire, scatters }: Way) -> Result<(), Halt> {
    let even = view.numel().is_multiple_of(group.world_size() as usize);
    match (view::device_pointer(view), group.device()) {
        (None, _) => {
            let values = view::host_mut(view).map_err(failed)?;
            match wire {
                Wire::F32 if scatters => group.reduce_scatter(Buffer::F32(values))?,
                Wire::F32 => group.all_reduce(Buffer::F32(values))?,
                Wire::Bf16 => group.all_reduce_compressed(values, unimse_collectives::Wire::Bf16)?,
            }
            Ok(())
        }
        (Some(_), Some(device)) if wire == Wire::Bf16 => {
            let rounded = view.to_kind(Kind::BFloat16);
            device.enqueue_all_reduce(DeviceBuffer { dtype: DType::Bf16, ..device_buffer(&rounded) })?;
            // The copy back must come after the sum, which has a stream of its own.
            device.synchronize(stream_handle(view))?;
            view.copy_(&rounded);
            Ok(())
        }
        (Some(_), Some(device)) if scatters && even => Ok(device.enqueue_reduce_scatter(device_buffer(view))?),
        (Some(_), Some(device)) => Ok(device.enqueue_all_reduce(device_buffer(view))?),
        (Some(_), None) => Err(Halt::End(failed("the group of ranks cannot add up memory of a GPU"))),
    }
}

/// Gives all ranks each other's segments of one range.
fn gather(group: &mut dyn Collective, view: &mut Tensor) -> Result<(), Halt> {
    let (world, len) = (group.world_size(), view.numel());
    if view::device_pointer(view).is_none() {
        return Ok(group.all_gather(Buffer::F32(view::host_mut(view).map_err(failed)?))?);
    }
    if len.is_multiple_of(world as usize) {
        let device = group.device().ok_or_else(|| failed("the group of ranks cannot gather memory of a GPU"))?;
        return Ok(device.enqueue_all_gather(device_buffer(view))?);
    }
    // NCCL wants equal segments; these differ by one number.
    for rank in 0..world {
        let own = segment(len, world, rank);
        let part = view.narrow(0, own.start as i64, own.len() as i64);
        group.broadcast(rank, Buffer::Device(device_buffer(&part)))?;
    }
    Ok(())
}

/// Names the memory of a contiguous f32 tensor on a GPU, in the order of this thread's stream.
pub(super) fn device_buffer(tensor: &Tensor) -> DeviceBuffer {
    DeviceBuffer {
        ptr: tensor.data_ptr() as u64,
        len: tensor.numel(),
        dtype: DType::F32,
        stream: stream_handle(tensor),
    }
}

#[cfg(test)]
mod drawn;
#[cfg(test)]
mod tests {
    use tch::nn;
    use tch::nn::Module;
    use unimse_collectives::local;

    use super::*;

    struct Rank {
        _store: nn::VarStore,
        layers: Vec<nn::Linear>,
        flat: Flat,
        reducer: Reducer,
    }

    fn rank() -> Rank {
        let store = nn::VarStore::new(Device::Cpu);
        let path = store.root();
        let layers: Vec<nn::Linear> =
            (0..6).map(|place| nn::linear(&path / place, 8, 8, nn::LinearConfig::default())).collect();
        let flat = Flat::new(unimse_model::weights::parameters(&store), Device::Cpu).unwrap();
        let _ = flat.parameters.shallow_clone().fill_(0.25);
        let reducer = Reducer::with_buckets_of(&flat, 100, Wire::F32).unwrap();
        Rank { _store: store, layers, flat, reducer }
    }

    impl Rank {
        fn backward(&self, input: f64, layers: usize) {
            let input = Tensor::full([1, 8], input, (Kind::Float, Device::Cpu));
            self.layers[..layers].iter().fold(input, |x, layer| layer.forward(&x)).sum(Kind::Float).backward();
        }
    }

    #[test]
    fn overlapped_sums_are_those_of_sums_afterwards_even_when_some_parameters_have_no_gradient() {
        for layers in [6, 3] {
            let sums: Vec<Vec<f32>> = std::thread::scope(|scope| {
                let threads: Vec<_> = local::group(2, 1)
                    .into_iter()
                    .enumerate()
                    .map(|(place, mut group)| {
                        scope.spawn(move || {
                            let rank = rank();
                            assert!(rank.reducer.overlaps(&group) && rank.reducer.buckets.len() >= 3);
                            let during = || rank.backward(1.0 + place as f64, layers);
                            rank.reducer.during(&mut group, during).unwrap();
                            rank.reducer.finish(&mut group).unwrap();
                            view::host::<f32>(&rank.flat.gradients).unwrap().to_vec()
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(sums[0], sums[1]);
            let alone = rank();
            alone.backward(1.0, layers);
            alone.backward(2.0, layers);
            let expected = view::host::<f32>(&alone.flat.gradients).unwrap();
            for (sum, expected) in sums[0].iter().zip(expected) {
                assert!((sum - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{sum} {expected}");
            }
        }
    }

    #[test]
    fn buckets_cover_everything_once() {
        let rank = rank();
        let buckets = &rank.reducer.buckets;
        assert_eq!(buckets[0].start, 0);
        assert!(buckets.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(buckets[buckets.len() - 1].end, rank.flat.gradients.numel());
        assert_eq!(rank.reducer.progress.sizes.iter().sum::<usize>(), rank.flat.entries.len());
    }

    #[test]
    fn a_lost_peer_ends_the_overlapped_sum() {
        let mut group = local::group(2, 1);
        drop(group.pop());
        let rank = rank();
        let outcome = rank.reducer.during(&mut group[0], || rank.backward(1.0, 6));
        assert!(matches!(outcome, Err(Halt::Group(_))), "{outcome:?}");
    }
}
