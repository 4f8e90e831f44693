//! UniMSE in tch: T5, fusion, encoders, contrastive loss, labels, decoding, metrics.
//!
//! UniMSE (EMNLP 2022) is one T5 generator for sentiment and emotion from text, audio and video. This crate is pure
//! numerics: a forward pass is a function of tensors, and nothing here knows a rank, a job, a network or a clock.
//!
//! The tour, in the order in which a sample meets it:
//!
//! - [`config`]: [`Config`], a Hugging Face T5 `config.json` plus one key `unimse`; presets tiny to large.
//! - [`labels`]: [`LabelSchema`] renders what is known of a sample as `polarity,score,emotion...` and reads it back.
//! - [`grammar`]: [`Grammar`] turns labels into target tokens and is the automaton of all valid targets.
//! - [`unimse`]: [`UniMse`] joins the parts: [`UniMse::forward`] gives the sums that make the loss.
//!   - [`t5`]: T5 v1.0 and v1.1 with Hugging Face's parameter names and KV-cached decoding.
//!   - [`fusion`]: the multimodal fusion layer after the last blocks of encoder and decoder.
//!   - [`encoders`]: the acoustic and the visual LSTM over true lengths.
//!   - [`contrastive`]: InfoNCE between text and each modality.
//!   - [`heads`]: a score and classes read off the encoder, beside the generator.
//! - [`decoding`]: [`LabelDecoder`] generates labels under the grammar, so that every output can be parsed.
//! - [`metrics`]: [`metrics::task_metrics`], exactly the numbers that papers print.
//! - [`sentence`]: a BERT sentence encoder, which finds the donors of universal labels.
//! - [`weights`]: parameters in a stable order, loading with errors that name the tensor, safetensors out.
//!
//! Parameters have the names of Hugging Face's T5, so a pretrained checkpoint loads unchanged. Randomness (initial
//! weights, dropout) comes from libtorch's generator of the device, which the caller seeds with `tch::manual_seed`.

#![warn(missing_docs)]
#![allow(clippy::doc_markdown, reason = "UniMSE, PyTorch, ReLU and the like are names, not code")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod config;
pub mod contrastive;
pub mod decoding;
pub mod encoders;
pub mod error;
pub mod flops;
pub mod fusion;
pub mod grammar;
pub mod heads;
pub mod labels;
pub mod metrics;
pub mod sentence;
pub mod t5;
pub mod unimse;
pub mod weights;

pub use config::{Config, Preset};
pub use decoding::{LabelDecoder, Prediction};
pub use encoders::{Modality, ModalityPart};
pub use error::Error;
pub use grammar::Grammar;
pub use heads::{Answers, Heads};
pub use labels::{EmotionVocabulary, LabelSchema, Labels, Polarity, Task};
pub use sentence::{Pooling, SentenceEncoder};
pub use unimse::{Batch, Encoded, Inputs, Output, UniMse};
