//! What a slot could compute at most: the denominator of the model FLOPs utilisation (MFU).

use std::time::Instant;

use tch::{Kind, Tensor};
use unimse_core::spec::Precision;
use unimse_core::worker::Slot;

/// Dense matrix products of GPUs in TFLOP/s, fp32 without TF32 and bf16, as the makers' data sheets have them; the first name that is
/// part of a device's wins. None where the device has no such arithmetic.
const GPUS: [(&str, f64, Option<f64>); 12] = [
    ("H200", 67.0, Some(989.0)),
    ("H100 PCIe", 51.0, Some(756.0)),
    ("H100", 67.0, Some(989.0)),
    ("A100", 19.5, Some(312.0)),
    ("L40S", 91.6, Some(362.0)),
    ("L4", 30.3, Some(121.0)),
    ("A40", 37.4, Some(149.7)),
    ("A10G", 35.0, Some(70.0)),
    ("A10", 31.2, Some(125.0)),
    ("RTX 4090", 82.6, Some(165.2)),
    ("RTX 3090", 35.6, Some(71.0)),
    ("V100", 15.7, None),
];

/// Side of the matrices that are multiplied to find out what processors can do.
const SIDE: i64 = 512;

/// Returns the most operations a second of a slot; `None` for a GPU that is not listed.
///
/// Processors are measured: four products of a kind that fits their caches, some ten milliseconds, in fp32 whatever the precision.
pub(super) fn peak(slot: &Slot, precision: Precision) -> Option<f64> {
    match slot {
        Slot::Gpu { name, .. } => of_gpu(name, precision),
        Slot::Cpu { .. } => {
            let matrix = Tensor::ones([SIDE, SIDE], (Kind::Float, tch::Device::Cpu));
            let times = (0..4).map(|_| {
                let began = Instant::now();
                let _product = matrix.matmul(&matrix);
                began.elapsed()
            });
            times.min().map(|time| 2.0 * (SIDE as f64).powi(3) / time.as_secs_f64())
        }
    }
}

fn of_gpu(name: &str, precision: Precision) -> Option<f64> {
    // "L4" is part of "L40S", which stands before it, and of "L40", which is not listed.
    let part =
        |known: &str| name.split([' ', '-']).any(|word| word == known) || (known.contains(' ') && name.contains(known));
    let (_, fp32, bf16) = GPUS.iter().find(|(known, ..)| part(known))?;
    let tera = match precision {
        Precision::Fp32 => Some(*fp32),
        Precision::Bf16 => *bf16,
    };
    tera.map(|tera| tera * 1e12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_known_by_name() {
        assert_eq!(of_gpu("NVIDIA H100 80GB HBM3", Precision::Bf16), Some(989e12));
        assert_eq!(of_gpu("NVIDIA H100 PCIe", Precision::Bf16), Some(756e12));
        assert_eq!(of_gpu("NVIDIA A100-SXM4-40GB", Precision::Fp32), Some(19.5e12));
        assert_eq!(of_gpu("NVIDIA GeForce RTX 4090", Precision::Bf16), Some(165.2e12));
        assert_eq!(of_gpu("Tesla V100-SXM2-16GB", Precision::Bf16), None, "it has no bf16");
        assert_eq!(of_gpu("NVIDIA L40", Precision::Bf16), None, "it is neither an L4 nor an L40S");
    }

    #[test]
    fn processors_are_measured() {
        tch::set_num_threads(1);
        let found = peak(&Slot::Cpu { threads: 1 }, Precision::Fp32).unwrap();
        assert!(found > 1e8 && found < 1e13, "{found:e}");
    }
}
