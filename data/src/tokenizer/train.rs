//! Training a Unigram tokenizer so that the same corpus gives the same bytes.
//!
//! The trainer of the `tokenizers` crate sums floats in the order of a hash map and of threads, and gives scores to rare
//! characters in the order of a hash set. Here the words come sorted, in one thread, and those scores are given out again
//! in the order of the characters.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{NFKC, NormalizerWrapper, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    SplitDelimiterBehavior, Tokenizer as Inner,
};

use super::SPECIAL;
use crate::error::Error;

/// How to train a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerOptions {
    /// Tokens at most, the special ones included, the extra ones not.
    pub vocabulary: usize,
    /// Words of labels, each of which becomes a piece of its own.
    pub words: Vec<String>,
    /// The number of `<extra_id_N>` tokens at the end, which T5 has 100 of and `UniMSE` needs none of.
    pub extra_ids: usize,
}

impl Default for TokenizerOptions {
    fn default() -> Self {
        let words = ["positive", "negative", "neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"];
        Self { vocabulary: 8000, words: words.map(str::to_owned).to_vec(), extra_ids: 0 }
    }
}

/// Characters that numbers and the fields of targets are written with.
const TARGET_CHARACTERS: &str = "0123456789-.,";
const SPACE: char = '▁';
/// Decimals of a piece's score: enough to segment by, few enough to hide the last bits of a platform's logarithm.
const SCORE_SCALE: f64 = 1e6;
/// How much more each rare character's score is than the last one's, in the trainer.
const RARE_STEP: f64 = 1e-4;

pub(super) fn train<T: AsRef<str>>(
    texts: impl IntoIterator<Item = T>,
    options: &TokenizerOptions,
) -> Result<Inner, Error> {
    let normalizer = normalizer().map_err(|cause| failed(&cause.to_string()))?;
    let cutter = Cutter { normalizer: normalizer.clone(), pre_tokenizer: pre_tokenizer() };
    let words = cutter.count(texts).map_err(|cause| failed(&cause.to_string()))?;
    let labels = cutter.cut_labels(&options.words).map_err(|cause| failed(&cause.to_string()))?;
    let pieces = train_pieces(words, &labels, options)?;
    let model = Unigram::from(pieces, Some(2), false).map_err(|cause| failed(&cause.to_string()))?;
    let mut tokenizer = Inner::new(model);
    let template = TemplateProcessing::builder()
        .try_single("$A </s>")
        .and_then(|template| template.try_pair("$A </s> $B </s>"))
        .map_err(|cause| failed(&cause))?
        .special_tokens(vec![("</s>", 1)])
        .build()
        .map_err(|cause| failed(&cause.to_string()))?;
    tokenizer.with_normalizer(Some(normalizer)).map_err(|cause| failed(&cause.to_string()))?;
    tokenizer
        .with_pre_tokenizer(Some(pre_tokenizer()))
        .with_post_processor(Some(template))
        .with_decoder(Some(DecoderWrapper::Metaspace(metaspace())));
    // T5 numbers them downwards, so that <extra_id_0> is the last token.
    let extra = (0..options.extra_ids).rev().map(|index| format!("<extra_id_{index}>"));
    let special = SPECIAL.into_iter().map(str::to_owned).chain(extra);
    let special: Vec<AddedToken> = special.map(|token| AddedToken::from(token, true)).collect();
    tokenizer.add_special_tokens(special).map_err(|cause| failed(&cause.to_string()))?;
    Ok(tokenizer)
}

fn failed(problem: &str) -> Error {
    Error::Tokenizer {
        problem: format!("cannot train: {problem}"),
        hint: "use a larger --vocabulary, or more text".to_owned(),
    }
}

/// NFKC, and one space for many, as `SentencePiece` does for T5.
fn normalizer() -> tokenizers::Result<NormalizerWrapper> {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    let ends = Replace::new(ReplacePattern::Regex(r"^ | $".to_owned()), "")?;
    Ok(Normalizers::new(vec![NFKC.into(), spaces.into(), ends.into()]).into())
}

fn metaspace() -> Metaspace {
    Metaspace::new(SPACE, PrependScheme::Always, true)
}

/// Words by spaces; punctuation and each digit for themselves, so that fields of targets never run into each other.
fn pre_tokenizer() -> PreTokenizerWrapper {
    PreTokenizers::new(vec![
        metaspace().into(),
        Punctuation::new(SplitDelimiterBehavior::Isolated).into(),
        Digits::new(true).into(),
    ])
    .into()
}

/// Cuts texts into the units that pieces are made of.
struct Cutter {
    normalizer: NormalizerWrapper,
    pre_tokenizer: PreTokenizerWrapper,
}

impl Cutter {
    fn cut(&self, text: &str) -> tokenizers::Result<Vec<String>> {
        let mut normalized = NormalizedString::from(text);
        self.normalizer.normalize(&mut normalized)?;
        let mut cut = PreTokenizedString::from(normalized);
        self.pre_tokenizer.pre_tokenize(&mut cut)?;
        let words = cut.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        Ok(words.into_iter().map(|(word, _, _)| word.to_owned()).filter(|word| !word.is_empty()).collect())
    }

    fn count<T: AsRef<str>>(&self, texts: impl IntoIterator<Item = T>) -> tokenizers::Result<BTreeMap<String, u32>> {
        let mut words: BTreeMap<String, u32> = BTreeMap::new();
        for text in texts {
            // The marks of context are tokens of their own, not text.
            for part in text.as_ref().split("</s>") {
                for word in self.cut(part)? {
                    let count = words.entry(word).or_default();
                    *count = count.saturating_add(1);
                }
            }
        }
        Ok(words)
    }

    /// The units of label words, as they appear behind a space and behind a comma.
    fn cut_labels(&self, labels: &[String]) -> tokenizers::Result<BTreeSet<String>> {
        let mut units = BTreeSet::new();
        for label in labels {
            units.extend(self.cut(label)?);
            units.extend(self.cut(&format!("0,{label}"))?);
        }
        units.retain(|unit| unit.chars().nth(1).is_some());
        Ok(units)
    }
}

/// Runs the trainer and puts its pieces into an order that depends on nothing but their scores and texts.
fn train_pieces(
    words: BTreeMap<String, u32>,
    labels: &BTreeSet<String>,
    options: &TokenizerOptions,
) -> Result<Vec<(String, f64)>, Error> {
    let spelled = words.keys().chain(labels).flat_map(|word| word.chars());
    let characters: BTreeSet<char> = spelled.chain(TARGET_CHARACTERS.chars()).chain([SPACE]).collect();
    let needed = SPECIAL.len() + characters.len() + labels.len();
    if options.vocabulary < needed {
        let problem = format!(
            "{} tokens are too few, there are {} characters and {} label words",
            options.vocabulary,
            characters.len(),
            labels.len()
        );
        return Err(failed(&problem));
    }
    let special: Vec<AddedToken> = SPECIAL.into_iter().map(|token| AddedToken::from(token.to_owned(), true)).collect();
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size((options.vocabulary - labels.len()) as u32)
        .special_tokens(special)
        .unk_token(Some("<unk>".to_owned()))
        .initial_alphabet(characters.into_iter().collect())
        .build()
        .map_err(|cause| failed(&cause.to_string()))?;
    let mut model = Unigram::default();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|cause| failed(&cause.to_string()))?;
    let trained = pool.install(|| trainer.do_train(words.into_iter().collect(), &mut model));
    trained.map_err(|cause| failed(&cause.to_string()))?;
    let mut pieces: Vec<(String, f64)> = model.iter().skip(SPECIAL.len()).cloned().collect();
    settle_rare_characters(&mut pieces);
    // Scores are logarithms: no two pieces together can score higher than one that has the highest score.
    let highest = pieces.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
    pieces.retain(|(piece, _)| !labels.contains(piece));
    pieces.extend(labels.iter().map(|label| (label.clone(), highest)));
    for (_, score) in &mut pieces {
        *score = (*score * SCORE_SCALE).round() / SCORE_SCALE;
    }
    pieces.sort_by(|(left, a), (right, b)| b.total_cmp(a).then_with(|| left.cmp(right)));
    Ok(SPECIAL.into_iter().map(|token| (token.to_owned(), 0.0)).chain(pieces).collect())
}

/// Hands the scores of the rarest characters out in the order of the characters.
fn settle_rare_characters(pieces: &mut [(String, f64)]) {
    let lowest = pieces.iter().map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
    let is_character = |piece: &str| piece.chars().nth(1).is_none();
    let characters = pieces.iter().filter(|(piece, _)| is_character(piece)).count();
    let bound = lowest + RARE_STEP * (characters + 1) as f64;
    let mut rare: Vec<&mut (String, f64)> =
        pieces.iter_mut().filter(|(piece, score)| is_character(piece) && *score <= bound).collect();
    let mut scores: Vec<f64> = rare.iter().map(|(_, score)| *score).collect();
    scores.sort_by(f64::total_cmp);
    rare.sort_by(|(left, _), (right, _)| left.cmp(right));
    for ((_, score), settled) in rare.into_iter().zip(scores) {
        *score = settled;
    }
}
