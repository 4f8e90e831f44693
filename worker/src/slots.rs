//! The places of this machine where trainers can run.

use std::process::Command;

use unimse_collectives::nccl;
use unimse_core::worker::Slot;

/// Which slots an agent offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Every GPU, or one CPU slot where there is none.
    Automatic,
    /// Every GPU.
    AllGpus,
    /// The first GPUs, this many.
    Gpus(u32),
    /// This many CPU slots, which share the processors.
    Cpus(u32),
}

/// Finds the slots; fails with a hint if there are not as many as wanted.
pub fn find(wanted: Wanted, processors: u32) -> Result<Vec<Slot>, String> {
    match wanted {
        Wanted::Cpus(count) => Ok(cpus(count, processors)),
        Wanted::Automatic => match gpus() {
            Ok(gpus) if !gpus.is_empty() => Ok(gpus),
            _ => Ok(cpus(1, processors)),
        },
        Wanted::AllGpus => match gpus()? {
            gpus if gpus.is_empty() => {
                Err("no GPU was found; hint: use --slots N to train on the processors".to_owned())
            }
            gpus => Ok(gpus),
        },
        Wanted::Gpus(count) => {
            let mut gpus = gpus()?;
            if (gpus.len() as u32) < count {
                return Err(format!("{count} GPUs are wanted, {} were found; hint: use --gpus all", gpus.len()));
            }
            gpus.truncate(count as usize);
            Ok(gpus)
        }
    }
}

fn cpus(count: u32, processors: u32) -> Vec<Slot> {
    let threads = (processors / count.max(1)).max(1);
    vec![Slot::Cpu { threads }; count as usize]
}

/// The GPUs that the CUDA driver shows; their names and sizes come from nvidia-smi where it is there.
pub fn gpus() -> Result<Vec<Slot>, String> {
    // The driver alone: the libraries that training needs belong to libtorch, and a trainer finds them.
    let count = nccl::device_count().map_err(|reason| format!("no GPU can be used: {reason}"))?;
    let known = Command::new("nvidia-smi")
        .args(["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map(|output| parse(&String::from_utf8_lossy(&output.stdout)))
        .unwrap_or_default();
    let slot = |index: u32| {
        let (name, memory_bytes) = known.get(index as usize).cloned().unwrap_or_else(|| ("CUDA device".to_owned(), 0));
        Slot::Gpu { index, name, memory_bytes }
    };
    Ok((0..count).map(slot).collect())
}

/// Reads lines of `name, mebibytes`.
fn parse(csv: &str) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let (name, memory) = line.rsplit_once(',')?;
        let mebibytes: u64 = memory.trim().parse().unwrap_or(0);
        Some((name.trim().to_owned(), mebibytes << 20))
    };
    csv.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_slots_share_the_processors() {
        assert_eq!(find(Wanted::Cpus(3), 8), Ok(vec![Slot::Cpu { threads: 2 }; 3]));
        assert_eq!(find(Wanted::Cpus(4), 2), Ok(vec![Slot::Cpu { threads: 1 }; 4]));
    }

    #[test]
    fn names_and_sizes_are_read_from_nvidia_smi() {
        let text = "NVIDIA H100 80GB HBM3, 81559\nOdd, name, [N/A]\n";
        assert_eq!(parse(text), [("NVIDIA H100 80GB HBM3".to_owned(), 81_559 << 20), ("Odd, name".to_owned(), 0)]);
    }
}
