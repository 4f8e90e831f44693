//! The few numbers that ranks add up at every step besides gradients.
//!
//! They travel as f32: sums of losses need no more, counts and digest lanes are exact below 2^24 (see `core::shard`).

use unimse_collectives::Collective;
use unimse_core::job::ExitCause;
use unimse_core::shard::{Batch, Digest};

use super::{Halt, Sums, failed};

const LOSS: usize = 0;
const CE: usize = 1;
const ACOUSTIC: usize = 2;
const VISUAL: usize = 3;
const SAMPLES: usize = 4;
const TOKENS: usize = 5;
const TERAFLOPS: usize = 6;
const PEAK: usize = 7;
const DIGEST: usize = 8;
const UPLOADED: usize = DIGEST + Digest::LANES;
const UPLOAD_FAILED: usize = UPLOADED + 1;
const STOP: usize = UPLOADED + 2;
const COUNT: usize = UPLOADED + 3;

/// What a rank says of itself at a step, besides its sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// Its part of the checkpoint that is being written is in the store.
    pub(super) uploaded: bool,
    /// Writing its part has failed for good.
    pub(super) upload_failed: bool,
    /// It was asked to save and stop.
    pub(super) stop: bool,
}

/// What all ranks together said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Totals {
    pub(super) loss: f64,
    pub(super) ce: f64,
    pub(super) contrastive_acoustic: f64,
    pub(super) contrastive_visual: f64,
    /// Tokens of inputs and targets; a number that people read, so its last digits may be rounded.
    pub(super) tokens: f64,
    /// Floating-point operations of the step, in units of 10^12.
    pub(super) teraflops: f64,
    /// Operations a second that all slots could do, in the same units; 0 where a slot's is not known.
    pub(super) peak: f64,
    pub(super) digest: Digest,
    /// All parts of the checkpoint are in the store.
    pub(super) uploaded: bool,
    pub(super) upload_failed: bool,
    pub(super) stop: bool,
}

/// Adds up the numbers of all ranks, and checks that together they consumed exactly the batch.
pub(super) fn exchange(group: &mut dyn Collective, batch: &Batch, sums: &Sums, flags: Flags) -> Result<Totals, Halt> {
    let mut lanes = pack(sums, flags);
    group.all_reduce(lanes.as_mut_slice().into())?;
    unpack(&lanes, group.world_size(), batch).map_err(Halt::End)
}

fn pack(sums: &Sums, flags: Flags) -> [f32; COUNT] {
    let mut lanes = [0.0; COUNT];
    lanes[LOSS] = sums.loss as f32;
    lanes[CE] = sums.ce as f32;
    lanes[ACOUSTIC] = sums.contrastive_acoustic as f32;
    lanes[VISUAL] = sums.contrastive_visual as f32;
    lanes[SAMPLES] = sums.samples as f32;
    lanes[TOKENS] = sums.tokens as f32;
    lanes[TERAFLOPS] = (sums.flops / 1e12) as f32;
    // One that is not known makes the sum none.
    lanes[PEAK] = sums.peak.map_or(f32::NAN, |peak| (peak / 1e12) as f32);
    lanes[DIGEST..UPLOADED].copy_from_slice(&sums.digest.lanes());
    lanes[UPLOADED] = f32::from(u8::from(flags.uploaded));
    lanes[UPLOAD_FAILED] = f32::from(u8::from(flags.upload_failed));
    lanes[STOP] = f32::from(u8::from(flags.stop));
    lanes
}

fn unpack(lanes: &[f32; COUNT], world: u32, batch: &Batch) -> Result<Totals, ExitCause> {
    let step = batch.next.step;
    let consumed = lanes[SAMPLES];
    let expected = batch.expected_digest();
    let digest = Digest::from_reduced(&lanes[DIGEST..UPLOADED]);
    if consumed != batch.samples.len() as f32 || digest != Some(expected) {
        return Err(failed(format!(
            "the ranks consumed {consumed} samples (digest {}) for step {step}, not the {} of its global batch (digest {}); hint: \
             the ranks disagree about the data; this is a bug, please report it with the job file",
            digest.map_or_else(|| "unreadable".to_owned(), hex),
            batch.samples.len(),
            hex(expected),
        )));
    }
    Ok(Totals {
        loss: f64::from(lanes[LOSS]),
        ce: f64::from(lanes[CE]),
        contrastive_acoustic: f64::from(lanes[ACOUSTIC]),
        contrastive_visual: f64::from(lanes[VISUAL]),
        tokens: f64::from(lanes[TOKENS]),
        teraflops: f64::from(lanes[TERAFLOPS]),
        peak: if lanes[PEAK].is_finite() { f64::from(lanes[PEAK]) } else { 0.0 },
        digest: expected,
        uploaded: lanes[UPLOADED] == world as f32,
        upload_failed: lanes[UPLOAD_FAILED] > 0.0,
        stop: lanes[STOP] > 0.0,
    })
}

/// A digest in 16 hexadecimal letters.
pub(super) fn hex(digest: Digest) -> String {
    let [a, b, c, d] = digest.0;
    format!("{a:04x}{b:04x}{c:04x}{d:04x}")
}

#[cfg(test)]
mod tests {
    use unimse_core::id::Rank;
    use unimse_core::shard::{Cursor, DataOrder};

    use super::*;

    fn batch() -> Batch {
        DataOrder::new(7, 100, 10, 3).expect("a good order").batch(Cursor::START)
    }

    /// What each rank of a world would say, added up.
    fn summed(world: u32, flags: impl Fn(u32) -> Flags) -> [f32; COUNT] {
        let batch = batch();
        let mut total = [0.0; COUNT];
        for rank in 0..world {
            let samples: Vec<u64> =
                batch.for_rank(Rank(rank), world).flat_map(|shard| shard.samples.to_vec()).collect();
            let digest = samples.iter().copied().collect();
            let sums = Sums { loss: 0.5, samples: samples.len() as u64, digest, ..Sums::default() };
            for (total, own) in total.iter_mut().zip(pack(&sums, flags(rank))) {
                *total += own;
            }
        }
        total
    }

    #[test]
    fn all_ranks_together_account_for_the_batch() {
        for world in 1..=5 {
            let totals =
                unpack(&summed(world, |_| Flags::default()), world, &batch()).expect("everything was consumed");
            assert_eq!(totals.loss, 0.5 * f64::from(world));
            assert_eq!((totals.uploaded, totals.upload_failed, totals.stop), (false, false, false));
        }
    }

    #[test]
    fn a_sample_too_few_or_twice_is_refused() {
        let mut lanes = summed(2, |_| Flags::default());
        lanes[SAMPLES] -= 1.0;
        let error = unpack(&lanes, 2, &batch()).expect_err("one is missing").to_string();
        assert!(error.contains("9 samples") && error.contains("hint:"), "{error}");
        let mut lanes = summed(2, |_| Flags::default());
        lanes[DIGEST + 2] += 1.0;
        assert!(unpack(&lanes, 2, &batch()).is_err(), "another sample in place of one");
    }

    #[test]
    fn an_upload_counts_when_all_are_done_and_a_stop_when_one_wants_it() {
        let one = |rank| Flags { uploaded: rank == 0, stop: rank == 1, ..Flags::default() };
        let totals = unpack(&summed(2, one), 2, &batch()).expect("consumed");
        assert!(!totals.uploaded && totals.stop);
        let all = |_| Flags { uploaded: true, ..Flags::default() };
        assert!(unpack(&summed(2, all), 2, &batch()).expect("consumed").uploaded);
    }

    #[test]
    fn digests_are_sixteen_letters() {
        assert_eq!(hex(Digest([0, 1, 0xab, 0xffff])), "0000000100abffff");
    }
}
