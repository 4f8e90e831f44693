//! Which sentences are similar, by a sentence encoder: vectors of length 1 and one matrix product.

use std::collections::HashMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};
use unimse_data::sentences::SentenceTokenizer;
use unimse_data::universal::Similarity;
use unimse_model::{Pooling, SentenceEncoder};

use super::published;

/// Sentences that are encoded together; sorted by length, so that little is padding.
const BATCH: usize = 64;
/// Rows of the table of cosines that exist at once.
const ROWS: i64 = 1024;

/// A sentence encoder with the vectors that it made so far.
#[derive(Debug)]
pub struct Encoder {
    name: String,
    tokenizer: SentenceTokenizer,
    model: SentenceEncoder,
    /// The place of each sentence's vector in `vectors`.
    known: HashMap<String, usize>,
    vectors: Vec<Tensor>,
}

impl Encoder {
    /// Loads a BERT directory: `config.json`, `model.safetensors` or `pytorch_model.bin`, `tokenizer.json`.
    pub fn open(folder: &Path, pooling: Option<Pooling>, device: Device) -> Result<Self, String> {
        let published = published::open(folder)?;
        let mut hasher = blake3::Hasher::new();
        for path in &published.files {
            let fail = |error| format!("cannot read {}: {error}", path.display());
            hasher.update_reader(std::fs::File::open(path).map_err(fail)?).map_err(fail)?;
        }
        let encoder = SentenceEncoder::open(folder, published.weights, pooling, device)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let tokenizer =
            SentenceTokenizer::open(folder, encoder.longest() as usize).map_err(|error| error.to_string())?;
        let pooled = match encoder.pooling() {
            Pooling::Cls => "cls",
            Pooling::Pooler => "pooler",
            Pooling::Mean => "mean",
        };
        let own = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let name = format!("{own}, {pooled}, blake3 {}", &hasher.finalize().to_hex()[..16]);
        Ok(Self { name, tokenizer, model: encoder, known: HashMap::new(), vectors: Vec::new() })
    }

    /// The vectors `[n, hidden]` of sentences, on the CPU.
    fn vectors(&mut self, sentences: &[&str]) -> Result<Tensor, String> {
        let mut fresh: Vec<&str> =
            sentences.iter().copied().filter(|sentence| !self.known.contains_key(*sentence)).collect();
        fresh.sort_unstable_by_key(|sentence| (sentence.len(), *sentence));
        fresh.dedup();
        for batch in fresh.chunks(BATCH) {
            let tokens = self.tokenizer.encode(batch).map_err(|error| error.to_string())?;
            let matrix = |values: &[i64]| Tensor::from_slice(values).view([tokens.rows as i64, tokens.columns as i64]);
            let vectors = self.model.encode(&matrix(&tokens.ids), &matrix(&tokens.mask)).to_device(Device::Cpu);
            for (row, sentence) in (0..).zip(batch) {
                self.known.insert((*sentence).to_owned(), self.vectors.len());
                self.vectors.push(vectors.get(row));
            }
        }
        let rows: Vec<&Tensor> = sentences.iter().map(|sentence| &self.vectors[self.known[*sentence]]).collect();
        Ok(Tensor::stack(&rows, 0))
    }
}

impl Similarity for Encoder {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn nearest(&mut self, queries: &[&str], donors: &[&str]) -> Result<Vec<(usize, f32)>, String> {
        let donors = self.vectors(donors)?.transpose(0, 1).contiguous();
        let queries = self.vectors(queries)?;
        let mut nearest = Vec::with_capacity(queries.size()[0] as usize);
        for start in (0..queries.size()[0]).step_by(ROWS as usize) {
            let rows = queries.narrow(0, start, ROWS.min(queries.size()[0] - start));
            nearest.extend(first_largest(&rows.matmul(&donors)));
        }
        Ok(nearest)
    }
}

/// The place and the value of the largest number of each row. Among equals it is the first, which libtorch's documentation promises:
/// people say the same sentence many times.
fn first_largest(rows: &Tensor) -> Vec<(usize, f32)> {
    let finite = rows.to_kind(Kind::Float).nan_to_num(f64::from(f32::MIN), None, None);
    let (values, places) = finite.max_dim(1, false);
    let count = values.numel();
    let (mut numbers, mut columns) = (vec![0_f32; count], vec![0_i64; count]);
    values.copy_data(&mut numbers, count);
    places.copy_data(&mut columns, count);
    columns.into_iter().map(|column| column as usize).zip(numbers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_is_nearest() {
        let found = |rows: &[f32]| first_largest(&Tensor::from_slice(rows).unsqueeze(0))[0];
        assert_eq!(found(&[0.1, 0.9, 0.9, 0.2]), (1, 0.9));
        assert_eq!(found(&[f32::NAN, -1.0]), (1, -1.0));
        // Long rows go through vector instructions.
        for first in [0, 5, 63, 64, 700] {
            let row: Vec<f32> = (0..1000).map(|place| if place >= first { 0.5 } else { 0.25 }).collect();
            assert_eq!(found(&row), (first, 0.5));
        }
    }
}
