//! What can go wrong when a model is described, filled with weights, or fed.

use std::path::PathBuf;

/// Says what was attempted, with the values that made it fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration has a value that no model can be built from.
    #[error("model configuration: `{field}` {problem}\nhint: {hint}")]
    Config {
        /// The dotted path of the key.
        field: &'static str,
        /// What is wrong with its value, and the value.
        problem: String,
        /// What would be accepted.
        hint: String,
    },
    /// A configuration is not valid JSON, or lacks a key.
    #[error("cannot read the model configuration: {0}")]
    ConfigJson(#[source] serde_json::Error),
    /// A tensor in a file has another shape than the parameter of that name.
    #[error(
        "tensor `{name}` has shape {found:?}, the model needs {expected:?}\nhint: the weights were made with another \
         configuration; compare their config.json with the job's `model` section"
    )]
    Shape {
        /// The parameter's name.
        name: String,
        /// The shape that the model has.
        expected: Vec<i64>,
        /// The shape that the file has.
        found: Vec<i64>,
    },
    /// Parameters that must come from the file are not in it.
    #[error("the weights lack {} of the model's tensors, first `{}`", names.len(), names.first().map_or("", String::as_str))]
    Missing {
        /// All names that were not found, sorted.
        names: Vec<String>,
    },
    /// The file has tensors that the model has no place for.
    #[error("the weights have {} tensors that the model does not know, first `{}`", names.len(), names.first().map_or("", String::as_str))]
    Unexpected {
        /// All names without a parameter, sorted.
        names: Vec<String>,
    },
    /// A tensor in a file has an element type that libtorch cannot hold.
    #[error("tensor `{name}` has element type {dtype}, which cannot be loaded")]
    Dtype {
        /// The tensor's name.
        name: String,
        /// The type as safetensors calls it.
        dtype: String,
    },
    /// A file is not in the safetensors format.
    #[error("cannot use safetensors data: {0}")]
    Safetensors(#[source] safetensors::SafeTensorError),
    /// A file of weights cannot be read or written.
    #[error("cannot access `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// libtorch refused an operation on data that came from outside.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// A batch has features of a dimension that the model was not built for.
    #[error(
        "{modality} features have dimension {found}, the model was built for {expected:?}\nhint: list every dimension \
         of the datasets in `model.{modality}.dims`"
    )]
    FeatureDimension {
        /// `acoustic` or `visual`.
        modality: &'static str,
        /// The last size of the features tensor.
        found: i64,
        /// The dimensions of the configuration.
        expected: Vec<i64>,
    },
    /// A label vocabulary cannot be written in a target string.
    #[error("label schema: {0}")]
    Schema(String),
    /// A target string does not follow the schema.
    #[error("cannot read labels `{text}`: {problem}")]
    Labels {
        /// The whole string.
        text: String,
        /// The field that is wrong, and why.
        problem: String,
    },
    /// The tokenizer writes two label values so that they cannot be told apart.
    #[error(
        "the tokenizer cannot tell the label value `{value}` from another one of its field (tokens {tokens:?})\nhint: use \
         the tokenizer that belongs to the model, with all words of the label schema in its vocabulary"
    )]
    Grammar {
        /// The value whose tokens are empty, equal to another's or the start of another's.
        value: String,
        /// Its tokens.
        tokens: Vec<i64>,
    },
}
