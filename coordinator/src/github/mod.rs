//! GitHub: its API and its webhooks. No JSON of GitHub's travels beyond this module.

mod json;
pub mod webhook;
