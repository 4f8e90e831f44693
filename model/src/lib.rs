//! UniMSE in tch: T5, fusion, encoders, contrastive loss, labels, decoding, metrics.
