//! Checkpoints as bytes: streamed shards, manifests, verification and deletion over an object store.
