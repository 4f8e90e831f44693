//! Pure decisions: what the coordinator, the workers and the tools agree on, without any I/O.
