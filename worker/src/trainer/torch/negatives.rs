//! Contrastive negatives from the whole global batch, whatever the micro-batch and the world size.
//!
//! As in GradCache (Gao et al. 2021, arXiv 2101.06983): first every micro-shard runs through the encoder alone, without a graph, and
//! the few unit vectors that the losses compare go to all ranks. Their losses and the gradients at these vectors are the same
//! everywhere and cheap. Then each micro-shard runs as usual, with the same dropout, and the product of its vectors with those
//! gradients takes the place of its contrastive loss: its gradient is the exact one, and no graph outlives its micro-shard.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use unimse_collectives::Collective;
use unimse_model::contrastive::{Side, Views};
use unimse_torch_ext::view;

use super::super::{Halt, failed};

/// One micro-shard's part of the losses over the whole batch.
#[derive(Debug)]
pub(super) struct Part {
    /// `[n, b, dim]`, the gradient of the weighted losses at the text's vectors.
    queries: Tensor,
    /// `[b, dim]` each.
    keys: [Option<Tensor>; 2],
    /// Sums of the unweighted losses of its samples as anchors: text-acoustic, text-visual.
    pub(super) sums: [Tensor; 2],
}

impl Part {
    /// Stands for the contrastive losses in what backward starts from; only its gradient means something.
    pub(super) fn objective(&self, views: &Views) -> Tensor {
        let product = |one: &Tensor, other: &Tensor| (one * other.to_device(one.device())).sum(Kind::Float);
        let mut total = product(&views.queries, &self.queries);
        for (side, gradient) in [&views.acoustic, &views.visual].into_iter().zip(&self.keys) {
            if let Some((side, gradient)) = side.as_ref().zip(gradient.as_ref()) {
                total += product(&side.keys, gradient);
            }
        }
        total
    }
}

/// Exchanges the vectors of this rank's micro-shards, each with the place of its first sample in the global batch; returns each one's part.
pub(super) fn exchange(
    own: &[(u64, Views)],
    [acoustic, visual]: [f64; 2],
    temperature: f64,
    group: &mut dyn Collective,
) -> Result<Vec<Part>, Halt> {
    let sizes = own.first().map(|(_, views)| Sizes::of(views));
    let mut message = Vec::new();
    for (first, views) in own {
        let rows = rows(views);
        let width = rows.size()[1] as usize;
        let numbers = view::host::<f32>(&rows).map_err(failed)?.to_vec();
        for (place, row) in (*first..).zip(numbers.chunks(width)) {
            message.extend_from_slice(&place.to_le_bytes());
            message.extend(row.iter().flat_map(|number| number.to_le_bytes()));
        }
    }
    let width = sizes.as_ref().map_or(0, Sizes::width);
    let all = group.all_gather_bytes(&message)?;
    let Some(sizes) = sizes else { return Ok(Vec::new()) };
    let mut by_place: BTreeMap<u64, Vec<f32>> = BTreeMap::new();
    for line in all.iter().flat_map(|bytes| bytes.chunks(8 + 4 * width)) {
        let Some((place, numbers)) = line.split_first_chunk::<8>() else { continue };
        let numbers = numbers.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        by_place.insert(u64::from_le_bytes(*place), numbers.collect());
    }
    let places: Vec<u64> = by_place.keys().copied().collect();
    let numbers: Vec<f32> = by_place.into_values().flatten().collect();
    let whole = sizes.views(&Tensor::from_slice(&numbers).view([places.len() as i64, width as i64]));
    let leaves: Vec<Tensor> = std::iter::once(&whole.queries)
        .chain([&whole.acoustic, &whole.visual].into_iter().flatten().map(|side| &side.keys))
        .map(|leaf| leaf.set_requires_grad(true))
        .collect();
    let (of_acoustic, of_visual) = whole.losses(temperature);
    let total = of_acoustic.sum(Kind::Float) * acoustic + of_visual.sum(Kind::Float) * visual;
    let gradients = Tensor::f_run_backward(&[&total], &leaves, false, false).map_err(failed)?;
    let mut keys = gradients[1..].iter();
    let keys = [&whole.acoustic, &whole.visual].map(|side| side.as_ref().and_then(|_| keys.next()));
    let part = |(first, views): &(u64, Views)| {
        let start = places.partition_point(|place| place < first) as i64;
        let length = views.queries.size()[1];
        Part {
            queries: gradients[0].narrow(1, start, length),
            keys: keys.map(|keys| keys.map(|keys| keys.narrow(0, start, length))),
            sums: [&of_acoustic, &of_visual].map(|losses| losses.narrow(0, start, length).detach().sum(Kind::Float)),
        }
    };
    Ok(own.iter().map(part).collect())
}

/// How the vectors of a sample lie in a row.
#[derive(Debug)]
struct Sizes {
    blocks: i64,
    dim: i64,
    acoustic: bool,
    visual: bool,
}

impl Sizes {
    fn of(views: &Views) -> Self {
        let size = views.queries.size();
        Self { blocks: size[0], dim: size[2], acoustic: views.acoustic.is_some(), visual: views.visual.is_some() }
    }

    fn width(&self) -> usize {
        let sides = i64::from(self.acoustic) + i64::from(self.visual);
        (self.blocks * self.dim + sides * (self.dim + 1)) as usize
    }

    /// The inverse of [`rows`].
    fn views(&self, rows: &Tensor) -> Views {
        let batch = rows.size()[0];
        let mut start = 0;
        let mut take = |width: i64| {
            start += width;
            rows.narrow(1, start - width, width).contiguous()
        };
        let queries = take(self.blocks * self.dim).view([batch, self.blocks, self.dim]).transpose(0, 1).contiguous();
        let mut side =
            |exists: bool| exists.then(|| Side { keys: take(self.dim).copy(), present: take(1).squeeze_dim(1).copy() });
        let (acoustic, visual) = (side(self.acoustic), side(self.visual));
        Views { queries, acoustic, visual }
    }
}

/// One row a sample, on the host: the text's vectors, then each side's vector and whether it is there.
fn rows(views: &Views) -> Tensor {
    let batch = views.queries.size()[1];
    let mut columns = vec![views.queries.transpose(0, 1).reshape([batch, -1])];
    for side in [&views.acoustic, &views.visual].into_iter().flatten() {
        columns.push(side.keys.shallow_clone());
        columns.push(side.present.unsqueeze(1));
    }
    Tensor::cat(&columns, 1).detach().to_kind(Kind::Float).to_device(Device::Cpu).contiguous()
}

#[cfg(test)]
mod tests {
    use unimse_collectives::local;

    use super::super::seeding::seeded;
    use super::*;

    /// Samples of which some lack a modality.
    fn batch(samples: i64) -> Views {
        seeded(5, || {
            let unit = |size: &[i64]| {
                let rows = Tensor::randn(size, (Kind::Float, Device::Cpu));
                let length = rows.norm_scalaropt_dim(2, -1, true);
                rows / length
            };
            let present = |every: i64| {
                Tensor::arange(samples, (Kind::Int64, Device::Cpu)).remainder(every).ne(0).to_kind(Kind::Float)
            };
            Views {
                queries: unit(&[2, samples, 4]),
                acoustic: Some(Side { keys: unit(&[samples, 4]), present: present(3) }),
                visual: Some(Side { keys: unit(&[samples, 4]), present: present(4) }),
            }
        })
    }

    fn part(whole: &Views, start: i64, length: i64) -> Views {
        let side = |side: &Option<Side>| {
            side.as_ref().map(|side| Side {
                keys: side.keys.narrow(0, start, length),
                present: side.present.narrow(0, start, length),
            })
        };
        Views {
            queries: whole.queries.narrow(1, start, length),
            acoustic: side(&whole.acoustic),
            visual: side(&whole.visual),
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_whole_batch_at_once_on_any_number_of_ranks() {
        let whole = batch(10);
        let [queries, sound, sight] =
            [&whole.queries, &whole.acoustic.as_ref().unwrap().keys, &whole.visual.as_ref().unwrap().keys]
                .map(|leaf| leaf.set_requires_grad(true));
        let (acoustic, visual) = whole.losses(0.2);
        let loss = acoustic.sum(Kind::Float) * 0.5 + visual.sum(Kind::Float) * 0.25;
        let expected = Tensor::run_backward(&[&loss], &[&queries, &sound, &sight], false, false);

        for world in [1, 2, 3] {
            let cuts: [(i64, i64); 5] = [(0, 2), (2, 3), (5, 1), (6, 2), (8, 2)];
            let groups = local::group(world, 1);
            let found: Vec<(i64, i64, Part)> = std::thread::scope(|scope| {
                let threads: Vec<_> = groups
                    .into_iter()
                    .enumerate()
                    .map(|(rank, mut group)| {
                        scope.spawn(move || {
                            let whole = batch(10);
                            let mine: Vec<(i64, i64)> = cuts.into_iter().skip(rank).step_by(world as usize).collect();
                            let own: Vec<(u64, Views)> = mine
                                .iter()
                                .map(|&(start, length)| (start as u64, part(&whole, start, length)))
                                .collect();
                            let parts = exchange(&own, [0.5, 0.25], 0.2, &mut group).unwrap();
                            mine.into_iter()
                                .zip(parts)
                                .map(|((start, length), part)| (start, length, part))
                                .collect::<Vec<_>>()
                        })
                    })
                    .collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(found.len(), cuts.len());
            for (start, length, part) in found {
                let close = |found: &Tensor, expected: Tensor| {
                    assert!(found.allclose(&expected, 1e-5, 1e-6, false), "{world} ranks: {found} {expected}");
                };
                close(&part.queries, expected[0].narrow(1, start, length));
                close(part.keys[0].as_ref().unwrap(), expected[1].narrow(0, start, length));
                close(part.keys[1].as_ref().unwrap(), expected[2].narrow(0, start, length));
                close(&part.sums[0], acoustic.narrow(0, start, length).sum(Kind::Float));
                close(&part.sums[1], visual.narrow(0, start, length).sum(Kind::Float));
            }
        }
    }
}
