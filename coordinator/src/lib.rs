//! The coordinator: one loop around core's machine, with journal, gRPC and HTTP.
