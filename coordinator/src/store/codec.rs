//! How values are written in columns: times as integer microseconds since 1970, records as JSON.

use std::fmt::Display;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// A time as stored. What is finer than a microsecond is lost.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// A time as it will be read back.
pub(super) fn rounded(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// A time as it was stored.
pub(super) fn timestamp(
    micros: i64,
    kind: &'static str,
    key: impl Display,
) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|error| corrupt(kind, key, error))
}

/// A record as stored.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<String, StoreError> {
    serde_json::to_string(record)
        .map_err(|error| StoreError::Database(sqlx::Error::Encode(Box::new(error))))
}

/// A record as it was stored.
pub(super) fn decode<T: DeserializeOwned>(
    text: &str,
    kind: &'static str,
    key: impl Display,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| corrupt(kind, key, error))
}

/// The error for a stored value that can't be read.
pub(super) fn corrupt(kind: &'static str, key: impl Display, detail: impl Display) -> StoreError {
    StoreError::Corrupt {
        kind,
        key: key.to_string(),
        detail: detail.to_string(),
    }
}
