//! ZeRO stage 1 (Rajbhandari et al. 2020, arXiv 1910.02054): each rank keeps the moments of its share of the parameters.
//!
//! Of every bucket of gradients a rank gets the sums of its [`segment`] only, makes the update there, and the ranks give each other the
//! new parameters: as many bytes as an all-reduce, cut in two. Sums are those of an all-reduce to the bit, and so is the update; only
//! the norm for clipping is added up in another order. Moments go into checkpoints as pieces of tensors, named by their range, so
//! that another number of ranks, or a job without ZeRO, can go on from them.
//!
//! A rank that is lost takes its moments with it: a new generation begins with the last checkpoint.

use std::collections::BTreeMap;
use std::ops::Range;

use tch::Tensor;
use unimse_checkpoint::{Dtype, Tensor as Stored, TensorSpec};
use unimse_collectives::{Buffer, Collective, segment};
use unimse_core::id::Rank;
use unimse_core::job::ExitCause;

use super::super::{Halt, failed, invalid};
use super::flat::{Entry, Flat};
use super::stored;

/// The ranges whose moments `rank` of `world` keeps.
pub(super) fn own(buckets: &[Range<usize>], rank: u32, world: u32) -> Vec<Range<usize>> {
    let share = |bucket: &Range<usize>| {
        let own = segment(bucket.len(), world, rank);
        bucket.start + own.start..bucket.start + own.end
    };
    buckets.iter().map(share).filter(|own| !own.is_empty()).collect()
}

/// The norm of all gradients, of which each rank holds the sums of its own ranges.
pub(super) fn norm(flat: &Flat, group: &mut dyn Collective) -> Result<f64, Halt> {
    let mut squares = [0.0];
    for own in &flat.own {
        let part = flat.gradients.narrow(0, own.start as i64, own.len() as i64);
        squares[0] += f64::try_from(part.norm()).map_err(failed)?.powi(2);
    }
    group.all_reduce(Buffer::F64(&mut squares))?;
    Ok(squares[0].sqrt())
}

/// A part of a moment in a checkpoint, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) owner: Rank,
    /// The place of its parameter among the entries.
    pub(super) entry: usize,
    /// Its numbers in the flat tensors.
    pub(super) range: Range<usize>,
}

impl Piece {
    /// All pieces of `world` ranks, in an order that all of them know.
    pub(super) fn all(entries: &[Entry], buckets: &[Range<usize>], world: u32) -> Vec<Self> {
        let mut pieces = Vec::new();
        for rank in 0..world {
            for own in own(buckets, rank, world) {
                let first = entries.partition_point(|entry| entry.range().end <= own.start);
                for (entry, found) in entries.iter().enumerate().skip(first) {
                    let range = own.start.max(found.start)..own.end.min(found.range().end);
                    if found.start >= own.end {
                        break;
                    }
                    if !range.is_empty() {
                        pieces.push(Self { owner: Rank(rank), entry, range });
                    }
                }
            }
        }
        pieces
    }

    /// As a checkpoint has it: `optimizer.exp_avg.shared.weight[0:4096]`, counted in the flattened tensor.
    pub(super) fn spec(&self, prefix: &str, entries: &[Entry]) -> TensorSpec {
        let Entry { name, start, .. } = &entries[self.entry];
        let (from, to) = (self.range.start - start, self.range.end - start);
        TensorSpec { name: format!("{prefix}{name}[{from}:{to}]"), dtype: Dtype::F32, shape: vec![self.range.len()] }
    }
}

/// The name of the whole tensor, and which of its numbers, where a name is that of a piece.
fn part_of(name: &str) -> (&str, Option<Range<usize>>) {
    let range = |text: &str| {
        let (from, to) = text.strip_suffix(']')?.split_once(':')?;
        Some(from.parse().ok()?..to.parse().ok()?)
    };
    match name.rsplit_once('[').and_then(|(whole, text)| Some((whole, range(text)?))) {
        Some((whole, range)) => (whole, Some(range)),
        None => (name, None),
    }
}

/// Whether a tensor of a checkpoint holds anything of the moment that is called `prefix` and a parameter's name.
pub(super) fn wants(flat: &Flat, prefix: &str, name: &str) -> bool {
    let (whole, part) = part_of(name);
    let Some(name) = whole.strip_prefix(prefix) else { return false };
    let Some(entry) = flat.entries.iter().find(|entry| entry.name == name) else { return false };
    let part = part.unwrap_or(0..entry.len);
    flat.kept(entry.start + part.start..entry.start + part.end).next().is_some()
}

/// Fills `moment`, whose ranges are those of `flat.own`, from whole tensors and pieces.
pub(super) fn fill(
    flat: &Flat,
    prefix: &str,
    moment: &Tensor,
    found: impl IntoIterator<Item = (String, Stored)>,
) -> Result<(), ExitCause> {
    let mut filled: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, tensor) in found {
        let (whole, part) = part_of(&name);
        let entry = whole.strip_prefix(prefix).and_then(|name| flat.entries.iter().find(|entry| entry.name == name));
        let Some(entry) = entry else { continue };
        let size = part.as_ref().map_or_else(|| entry.shape.clone(), |part| vec![part.len() as i64]);
        let part = part.unwrap_or(0..entry.len);
        if part.end > entry.len {
            return Err(invalid(format!(
                "tensor `{name}` of the checkpoint goes beyond the {} numbers it has",
                entry.len
            )));
        }
        let values = stored::tensor(&name, &tensor, &size)?.view(-1);
        let from = entry.start + part.start;
        for (own, at) in flat.kept(from..entry.start + part.end) {
            let source = values.narrow(0, (own.start - from) as i64, own.len() as i64);
            let mut into = moment.narrow(0, at as i64, own.len() as i64);
            tch::no_grad(|| into.f_copy_(&source)).map_err(failed)?;
            *filled.entry(&entry.name).or_default() += own.len();
        }
    }
    for entry in &flat.entries {
        let wanted: usize = flat.kept(entry.range()).map(|(own, _)| own.len()).sum();
        if filled.get(entry.name.as_str()).copied().unwrap_or(0) < wanted {
            return Err(stored::missing(&format!("{prefix}{}", entry.name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
