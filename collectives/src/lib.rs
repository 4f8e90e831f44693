//! All-reduce and its kin over NCCL, TCP and threads behind one trait.
