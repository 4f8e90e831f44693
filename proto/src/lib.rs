//! The wire: generated gRPC code, conversions to core types, the error table and dialing.
