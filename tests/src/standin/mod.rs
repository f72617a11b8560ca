//! A stand-in for the official runner.
