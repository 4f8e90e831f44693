//! The device of a slot.

use tch::Device;
use unimse_core::job::ExitCause;
use unimse_core::worker::Slot;
use unimse_torch_ext::cuda;

/// Prepares libtorch for a slot and names its device; the agent has hidden all GPUs but the slot's own.
///
/// A GPU slot whose GPU cannot be used is an error: never a quiet fall-back to the processors.
pub(super) fn prepare(slot: &Slot) -> Result<Device, ExitCause> {
    match slot {
        Slot::Cpu { threads } => {
            tch::set_num_threads(i32::try_from(*threads).unwrap_or(i32::MAX));
            Ok(Device::Cpu)
        }
        Slot::Gpu { index, .. } => match cuda::load() {
            Ok(_) => Ok(Device::Cuda(0)),
            Err(reason) => {
                let hint = "check the driver with nvidia-smi and the installation with `unimse-worker gpu-check`";
                Err(ExitCause::NotStarted { message: format!("GPU {index} cannot be used: {reason}; hint: {hint}") })
            }
        },
    }
}
