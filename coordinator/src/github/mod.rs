//! GitHub: its API and its webhooks.
