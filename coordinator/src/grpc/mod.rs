//! The gRPC listeners.
