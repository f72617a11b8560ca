//! Providers of instances.
