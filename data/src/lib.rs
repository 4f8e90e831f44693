//! Readers of public dataset formats, one Arrow store, tokenizer training, batches.
