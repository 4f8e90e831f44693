//! Which sentences are similar, by a sentence encoder: vectors of length 1 and one matrix product.

use std::collections::HashMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};
use unimse_data::sentences::SentenceTokenizer;
use unimse_data::universal::Similarity;
use unimse_model::{Pooling, SentenceEncoder};

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
    /// Loads a BERT directory: `config.json`, `model.safetensors`, `tokenizer.json`.
    pub fn open(folder: &Path, pooling: Option<Pooling>, device: Device) -> Result<Self, String> {
        let path = folder.join("model.safetensors");
        let file = std::fs::File::open(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let encoder =
            SentenceEncoder::open(folder, pooling, device).map_err(|error| format!("{}: {error}", folder.display()))?;
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
            let cosines = rows.matmul(&donors).to_kind(Kind::Float).contiguous();
            let width = cosines.size()[1] as usize;
            let mut values = vec![0_f32; cosines.numel()];
            cosines.copy_data(&mut values, cosines.numel());
            // Not libtorch's argmax, which does not promise the first of equals: people say the same sentence many times.
            nearest.extend(values.chunks(width).map(first_largest));
        }
        Ok(nearest)
    }
}

fn first_largest(row: &[f32]) -> (usize, f32) {
    row.iter().copied().enumerate().fold((0, f32::MIN), |best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_is_nearest() {
        assert_eq!(first_largest(&[0.1, 0.9, 0.9, 0.2]), (1, 0.9));
        assert_eq!(first_largest(&[f32::NAN, -1.0]), (1, -1.0));
    }
}
