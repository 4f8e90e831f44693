//! The training step beside PyTorch's and Hugging Face's: same weights, same batches, in turn.
//!
//! `UNIMSE_PEER_PYTHON` names a Python that has torch and transformers; without it nothing can be compared.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

#[cfg(feature = "torch")]
mod cases;
#[cfg(feature = "torch")]
mod ours;

fn main() {
    #[cfg(feature = "torch")]
    {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if !ours::ran(&arguments) {
            cases::compare(&arguments);
        }
    }
    #[cfg(not(feature = "torch"))]
    eprintln!("built without training");
}
