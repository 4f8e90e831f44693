//! The worker agent and its trainer processes.
