//! The device of a slot.

use tch::{Device, Tensor};
use unimse_core::job::ExitCause;
use unimse_core::worker::Slot;
use unimse_torch_ext::cuda::{self, Entered, Stream};
use unimse_torch_ext::{Error, warn_once};

/// Prepares libtorch for a slot and names its device; the agent has hidden all GPUs but the slot's own.
///
/// A GPU slot whose GPU cannot be used is an error: never a quiet fall-back to the processors.
pub(super) fn prepare(slot: &Slot) -> Result<Device, ExitCause> {
    warn_once();
    match slot {
        Slot::Cpu { threads } => {
            tch::set_num_threads(i32::try_from(*threads).unwrap_or(i32::MAX));
            Ok(Device::Cpu)
        }
        Slot::Gpu { index, .. } => match cuda::load() {
            Ok(_) => own_stream(0)
                .map(|()| Device::Cuda(0))
                .map_err(|error| ExitCause::NotStarted { message: format!("GPU {index} cannot be used: {error}") }),
            Err(reason) => {
                let hint = "check the driver with nvidia-smi and the installation with `unimse-worker gpu-check`";
                Err(ExitCause::NotStarted { message: format!("GPU {index} cannot be used: {reason}; hint: {hint}") })
            }
        },
    }
}

/// Lets this thread work in a stream of its own on a GPU, for the rest of its life: the default stream cannot be recorded, and waits
/// for copies that others make.
pub(super) fn own_stream(device: u32) -> Result<(), Error> {
    warn_once();
    Stream::of_pool(device)?.enter().map(Entered::stay)
}

/// The stream that this thread works in on the GPU where a tensor is.
pub(super) fn stream_of(tensor: &Tensor) -> Result<Option<Stream>, Error> {
    match tensor.device() {
        Device::Cuda(index) => Stream::current(index as u32).map(Some),
        _ => Ok(None),
    }
}

/// What other systems call it; 0, the default stream, where there is none.
pub(super) fn stream_handle(tensor: &Tensor) -> u64 {
    match tensor.device() {
        Device::Cuda(index) => Stream::current_handle(index as u32).unwrap_or(0),
        _ => 0,
    }
}
