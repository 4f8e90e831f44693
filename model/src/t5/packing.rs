//! Batches without their padding: the rows of all samples behind each other.
//!
//! Real batches are half padding, and attention's scores are more than that. On the CPU, where sublayers are ours
//! ([`unimse_torch_ext::sublayer`]), no row of it is computed: stacks work on `[rows, d_model]`, and attention knows where samples begin.
//! Known as unpadding (`ModernBERT`, arXiv 2412.13663) or variable-length attention (`FlashAttention`'s `varlen`).

use std::sync::Arc;

use tch::Tensor;

/// Where the rows of `B` samples of up to `L` positions lie, padded and packed.
#[derive(Debug)]
pub struct Packing {
    /// Where each sample's rows begin, and where the last one's end.
    starts: Arc<[i64]>,
    /// `[rows]`, the place of each in a flattened `[B, L]`.
    places: Tensor,
    /// `[rows]`, whose each is.
    samples: Tensor,
    /// `L`.
    length: i64,
}

impl Packing {
    /// For `mask [B, L]`, whose rows are not 0 up to a sample's length. `None` if a sample has no positions at all, or gaps.
    pub fn of(mask: &Tensor) -> Option<Self> {
        let length = mask.size()[1];
        let filled = Vec::<bool>::try_from(mask.ne(0).view(-1)).ok()?;
        let (mut starts, mut places, mut samples) = (vec![0], Vec::new(), Vec::new());
        for (sample, filled) in filled.chunks(length.max(1) as usize).enumerate() {
            let own = filled.iter().take_while(|&&filled| filled).count();
            if own == 0 || filled[own..].contains(&true) {
                return None;
            }
            places.extend((0..own as i64).map(|position| sample as i64 * length + position));
            samples.extend(std::iter::repeat_n(sample as i64, own));
            starts.push(places.len() as i64);
        }
        Some(Self {
            starts: starts.into(),
            places: Tensor::from_slice(&places),
            samples: Tensor::from_slice(&samples),
            length,
        })
    }

    /// Whether there is padding that is left out.
    pub fn saves(&self) -> bool {
        self.places.numel() < (self.batch() * self.length) as usize
    }

    /// Where each sample's rows begin, and where the last one's end.
    pub(super) fn starts(&self) -> Arc<[i64]> {
        Arc::clone(&self.starts)
    }

    /// Rows of the longest sample.
    pub(super) fn longest(&self) -> i64 {
        self.starts.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0)
    }

    fn batch(&self) -> i64 {
        self.starts.len() as i64 - 1
    }

    /// Takes the rows out of `padded [B, L]`.
    pub fn pack(&self, padded: &Tensor) -> Tensor {
        padded.reshape([-1]).index_select(0, &self.places)
    }

    /// Puts `rows [rows, d]` into `[B, L, d]`; padding is 0.
    pub fn unpack(&self, rows: &Tensor) -> Tensor {
        let width = rows.size()[1];
        let padded = rows.new_zeros([self.batch() * self.length, width], (rows.kind(), rows.device()));
        padded.index_copy(0, &self.places, rows).view([self.batch(), self.length, width])
    }

    /// Gives each row its sample's vector: `[rows, d]` of `[B, d]`.
    pub fn of_samples(&self, vectors: &Tensor) -> Tensor {
        vectors.index_select(0, &self.samples)
    }

    /// Adds up one number a row over the rows of each sample: `[B]` of `[rows]`.
    pub fn sum(&self, rows: &Tensor) -> Tensor {
        rows.new_zeros([self.batch()], (rows.kind(), rows.device())).index_add(0, &self.samples, rows)
    }

    /// Averages `rows [rows, d]` over each sample: `[B, d]`.
    pub fn mean(&self, rows: &Tensor) -> Tensor {
        let (batch, count) = (self.batch() as usize, rows.size()[0] as usize);
        let mut shares = vec![0_f32; batch * count];
        for (sample, ends) in self.starts.windows(2).enumerate() {
            let own = ends[0] as usize..ends[1] as usize;
            let share = 1.0 / own.len() as f32;
            shares[sample * count..][own].fill(share);
        }
        Tensor::from_slice(&shares).view([batch as i64, count as i64]).to_kind(rows.kind()).matmul(rows)
    }
}

/// The encoder's states without padding.
#[derive(Debug)]
pub struct Packed {
    /// `[rows, d_model]`.
    pub states: Tensor,
    /// Whose they are.
    pub packing: Packing,
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn mask(rows: &[&[i64]]) -> Tensor {
        Tensor::from_slice2(rows)
    }

    #[test]
    fn rows_go_out_of_the_padding_and_back() {
        let mask = mask(&[&[1, 1, 0, 0], &[1, 1, 1, 1], &[1, 0, 0, 0]]);
        let packing = Packing::of(&mask).unwrap();
        assert_eq!(&*packing.starts(), [0, 2, 6, 7]);
        let ids = Tensor::arange(12, (Kind::Int64, Device::Cpu)).view([3, 4]);
        assert_eq!(packing.pack(&ids), Tensor::from_slice(&[0_i64, 1, 4, 5, 6, 7, 8]));
        let rows = Tensor::randn([7, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let padded = packing.unpack(&rows);
        assert_eq!(padded.size(), [3, 4, 2]);
        let hidden = mask.eq(0).unsqueeze(2);
        assert_eq!(padded.masked_select(&hidden).abs().sum(Kind::Float).double_value(&[]), 0.0);
        let expected = crate::contrastive::masked_mean(&padded, &mask);
        assert!(packing.mean(&rows).allclose(&expected, 1e-6, 1e-6, false));
        assert_eq!(packing.of_samples(&Tensor::from_slice(&[3_i64, 5, 8])).sum(Kind::Int64).int64_value(&[]), 34);
        let sums = packing.sum(&rows.select(1, 0));
        assert!(sums.allclose(&padded.select(2, 0).sum_dim_intlist(1, false, Kind::Float), 1e-6, 1e-6, false));
    }

    #[test]
    fn there_is_none_where_a_sample_is_empty_or_has_gaps_and_no_use_without_padding() {
        for rows in [[[1, 0], [0, 0]], [[1, 0], [0, 1]]] {
            assert!(Packing::of(&mask(&rows.each_ref().map(|row| &row[..]))).is_none(), "{rows:?}");
        }
        assert!(!Packing::of(&mask(&[&[1, 1], &[1, 1]])).unwrap().saves());
        assert!(Packing::of(&mask(&[&[1, 1], &[1, 0]])).unwrap().saves());
    }
}
