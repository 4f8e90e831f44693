//! Ranks as processes with a GPU each, over NVIDIA's NCCL.
//!
//! The libraries are found at run time: `libcuda.so.1` from the driver, and `libnccl.so.2`, the one that libtorch uses if
//! libtorch's CUDA half was loaded before. Without them [`available`] says why, and nothing else changes.
//!
//! A communicator stands beside a control group (usually [`tcp`](crate::tcp)), over which NCCL's id is passed on, all calls
//! on host memory are made, and the death of a peer is noticed while the GPU waits for it. NCCL is used in its non-blocking
//! mode, so that no call of ours ever hangs in it and an abort from another thread is safe.
//!
//! Calls on device memory are not compared between ranks: where they differ, they end at the time limit.
#![expect(unsafe_code, reason = "NCCL and the CUDA driver are C libraries")]

mod communicator;
mod cuda;
mod library;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use communicator::{Shared, Verb};
use cuda::{Device, Event, Stream};
use library::Nccl as Library;

use crate::abort::Abort;
use crate::{
    AbortHandle, Buffer, Collective, DEFAULT_TIMEOUT, DeviceBuffer, DeviceCollective, Error, Group, Result, Wire,
};

/// How long the host polls the GPU eagerly before it sleeps between polls.
const EAGER: Duration = Duration::from_micros(200);
/// The sleep between polls after that.
const NAP: Duration = Duration::from_micros(50);
/// How often the peers are probed while the GPU works.
const PROBE_EVERY: Duration = Duration::from_millis(10);

/// Says why NCCL cannot be used on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("NCCL is not available: {0}")]
pub struct Unavailable(pub(crate) String);

impl Unavailable {
    /// What the loader said about `name`; its reason hides behind "dlopen failed".
    fn of(name: &str, error: &libloading::Error) -> Self {
        let reason = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        Self(format!("{name}: {reason}"))
    }
}

/// Whether this machine has a CUDA driver, a GPU and NCCL.
pub fn available() -> Result<(), Unavailable> {
    cuda::driver()?;
    Library::get()?;
    Ok(())
}

/// The number of GPUs that this process sees.
pub fn device_count() -> Result<u32, Unavailable> {
    Ok(cuda::driver()?.device_count)
}

/// Forms the communicator of the group that `control` stands for, on one GPU of this process.
pub fn connect(mut control: Box<dyn Collective>, device: u32, timeout: Duration) -> Result<Nccl> {
    let missing = |error: Unavailable| Error::Device { attempted: "load NCCL", message: error.0 };
    let device = Device::open(cuda::driver().map_err(missing)?, device)?;
    let library = Library::get().map_err(missing)?;
    let group = control.group();
    control.set_timeout(timeout);

    let mut id = if group.rank == 0 { library.unique_id()?.to_vec() } else { Vec::new() };
    control.broadcast_bytes(0, &mut id)?;
    let id: library::UniqueId = id
        .as_slice()
        .try_into()
        .map_err(|_| Error::Protocol { rank: 0, what: format!("its NCCL id has {} bytes", id.len()) })?;

    let current = device.enter()?;
    let shared = Arc::new(Shared::begin(library, group, &id, control.abort_handle())?);
    let mut nccl = Nccl {
        group,
        stream: Stream::new(&device)?,
        before: Event::new(&device)?,
        after: Event::new(&device)?,
        device: Arc::clone(&device),
        shared,
        control,
        timeout: DEFAULT_TIMEOUT,
    };
    drop(current);
    nccl.wait("form the communicator", timeout, |nccl| nccl.shared.is_idle())?;
    nccl.control.set_timeout(nccl.timeout);
    tracing::debug!(generation = group.generation, rank = group.rank, "communicator formed");
    Ok(nccl)
}

/// A rank that has a GPU.
#[derive(Debug)]
pub struct Nccl {
    group: Group,
    /// Ours, so that sums run beside libtorch's kernels.
    stream: Stream,
    /// Orders our stream after the caller's.
    before: Event,
    /// Tells when our stream has finished.
    after: Event,
    device: Arc<Device>,
    shared: Arc<Shared>,
    control: Box<dyn Collective>,
    timeout: Duration,
}

impl Nccl {
    /// Enqueues a call on our stream, after all that the buffer's stream holds now.
    fn enqueue(&mut self, verb: Verb, buffer: DeviceBuffer) -> Result<()> {
        self.shared.check()?;
        if buffer.len == 0 {
            return Ok(());
        }
        let device = Arc::clone(&self.device);
        let _current = device.enter()?;
        device.check_address(buffer.ptr)?;
        self.before.record(buffer.stream)?;
        self.stream.wait_for(&self.before)?;
        self.shared.enqueue(verb, buffer, &self.stream)?;
        // In non-blocking mode the first calls may still be connecting when they return.
        let timeout = self.timeout;
        self.wait("enqueue the call", timeout, |nccl| nccl.shared.is_idle())
    }

    /// Polls until `done`, watching the peers, the abort flag and the time.
    fn wait(
        &mut self,
        attempted: &'static str,
        timeout: Duration,
        mut done: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let started = Instant::now();
        let mut probed = started;
        loop {
            match done(self) {
                Ok(true) => return self.shared.check(),
                Ok(false) => {}
                Err(error) => return Err(self.fail(error)),
            }
            let now = Instant::now();
            if now - probed >= PROBE_EVERY {
                probed = now;
                if let Err(error) = self.control.probe() {
                    return Err(self.fail(error));
                }
            }
            if now - started >= timeout {
                let rank = (self.group.rank + 1) % self.group.world_size;
                return Err(self.fail(Error::Timeout { operation: attempted, rank, after: timeout }));
            }
            if now - started < EAGER {
                thread::yield_now();
            } else {
                thread::sleep(NAP);
            }
        }
    }

    /// Ends the group: kernels that wait for peers are stopped, and the peers find this rank lost.
    fn fail(&self, error: Error) -> Error {
        self.shared.fail(error)
    }

    /// NCCL's segments are all of one length.
    fn check_divides(&self, operation: &'static str, buffer: &DeviceBuffer) -> Result<()> {
        let (len, world) = (buffer.len, self.group.world_size);
        if len.is_multiple_of(world as usize) {
            return Ok(());
        }
        Err(Error::Unsupported { operation, what: format!("{len} elements of device memory on {world} ranks") })
    }

    fn on_device(&mut self, verb: Verb, buffer: DeviceBuffer) -> Result<()> {
        self.enqueue(verb, buffer)?;
        self.synchronize(buffer.stream)
    }
}

impl Collective for Nccl {
    fn group(&self) -> Group {
        self.group
    }

    fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
        self.control.set_timeout(timeout);
    }

    fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(Arc::clone(&self.shared) as Arc<dyn Abort>)
    }

    fn all_reduce(&mut self, buffer: Buffer<'_>) -> Result<()> {
        match buffer {
            Buffer::Device(device) => self.on_device(Verb::Sum, device),
            host => self.shared.check().and_then(|()| self.control.all_reduce(host)),
        }
    }

    /// On host memory; a GPU's is rounded by its owner, who gives `all_reduce` the bf16 buffer.
    fn all_reduce_compressed(&mut self, values: &mut [f32], wire: Wire) -> Result<()> {
        self.shared.check()?;
        self.control.all_reduce_compressed(values, wire)
    }

    fn reduce_scatter(&mut self, buffer: Buffer<'_>) -> Result<()> {
        match buffer {
            Buffer::Device(device) => {
                self.check_divides("reduce_scatter", &device)?;
                self.on_device(Verb::ReduceScatter, device)
            }
            host => self.shared.check().and_then(|()| self.control.reduce_scatter(host)),
        }
    }

    fn all_gather(&mut self, buffer: Buffer<'_>) -> Result<()> {
        match buffer {
            Buffer::Device(device) => {
                self.check_divides("all_gather", &device)?;
                self.on_device(Verb::AllGather, device)
            }
            host => self.shared.check().and_then(|()| self.control.all_gather(host)),
        }
    }

    fn broadcast(&mut self, root: u32, buffer: Buffer<'_>) -> Result<()> {
        match buffer {
            Buffer::Device(_) if root >= self.group.world_size => {
                Err(Error::Unsupported { operation: "broadcast", what: format!("root {root}") })
            }
            Buffer::Device(device) => self.on_device(Verb::Broadcast { root }, device),
            host => self.shared.check().and_then(|()| self.control.broadcast(root, host)),
        }
    }

    fn broadcast_bytes(&mut self, root: u32, bytes: &mut Vec<u8>) -> Result<()> {
        self.shared.check()?;
        self.control.broadcast_bytes(root, bytes)
    }

    fn all_gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.shared.check()?;
        self.control.all_gather_bytes(bytes)
    }

    fn barrier(&mut self) -> Result<()> {
        self.shared.check()?;
        self.control.barrier()
    }

    fn probe(&mut self) -> Result<()> {
        self.shared.check()?;
        self.control.probe().map_err(|error| self.fail(error))
    }

    fn device(&mut self) -> Option<&mut dyn DeviceCollective> {
        Some(self)
    }
}

impl DeviceCollective for Nccl {
    fn enqueue_all_reduce(&mut self, buffer: DeviceBuffer) -> Result<()> {
        self.enqueue(Verb::Sum, buffer)
    }

    fn enqueue_reduce_scatter(&mut self, buffer: DeviceBuffer) -> Result<()> {
        self.check_divides("reduce_scatter", &buffer)?;
        self.enqueue(Verb::ReduceScatter, buffer)
    }

    fn enqueue_all_gather(&mut self, buffer: DeviceBuffer) -> Result<()> {
        self.check_divides("all_gather", &buffer)?;
        self.enqueue(Verb::AllGather, buffer)
    }

    /// The host waits too: what the caller enqueues next (the optimiser) must not run on sums of a broken group.
    fn synchronize(&mut self, stream: u64) -> Result<()> {
        self.shared.check()?;
        let device = Arc::clone(&self.device);
        let _current = device.enter()?;
        self.after.record(self.stream.handle())?;
        let timeout = self.timeout;
        self.wait("synchronize", timeout, |nccl| Ok(nccl.shared.is_idle()? && nccl.after.is_reached()?))?;
        self.after.order(stream)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if let Ok(_current) = self.device.enter() {
            self.shared.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_gpu_says_what_is_missing() {
        if let Err(reason) = available() {
            let text = reason.to_string();
            assert!(text.starts_with("NCCL is not available: "), "{text}");
            assert!(text.contains("libcuda.so.1") || text.contains("GPU") || text.contains("libnccl.so.2"), "{text}");
            assert_eq!(available(), Err(reason), "the answer does not change");

            let control = crate::local::group(1, 1).remove(0);
            let error = connect(Box::new(control), 0, Duration::from_secs(1)).unwrap_err();
            assert!(error.to_string().starts_with("could not load NCCL: "), "{error}");
        }
    }
}
