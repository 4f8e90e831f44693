//! Checkpoints on real stores and on stores that fail, one binary.

mod commit;
mod faults;
mod gc;
mod places;
mod pull;
mod round_trip;
mod sample;
mod untrusted;
