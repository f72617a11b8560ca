//! The web listener.
