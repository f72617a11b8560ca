//! One-time tokens that prove which launch a machine belongs to, where no cloud vouches for it.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use muster_core::{InstanceId, LaunchId, PoolName};
use secrecy::SecretString;
use thiserror::Error;

use crate::store::{JoinToken, Redeemed, Store, StoreError};

/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;
/// Characters of a token: the bytes in unpadded base64url.
pub const TOKEN_CHARS: usize = 43;

/// A token was not made.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The operating system gives no random bytes.
    #[error("no random bytes")]
    Random,
    /// It can't be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a token for one launch and stores its hash. Older unused tokens of the launch stop working.
///
/// # Errors
/// When it can't be made or stored.
pub async fn make(
    store: &Store,
    launch: LaunchId,
    pool: PoolName,
    instance: InstanceId,
    expires_at: Timestamp,
) -> Result<SecretString, TokenError> {
    let mut bytes = [0; TOKEN_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| TokenError::Random)?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    store
        .put_join_token(JoinToken {
            hash: hash(&token),
            launch,
            pool,
            instance,
            expires_at,
        })
        .await?;
    Ok(token.into())
}

/// Uses a token, if it is good. A text of another form than a token's is unknown at once.
///
/// # Errors
/// When the outcome can't be stored.
pub async fn redeem(store: &Store, token: &str, now: Timestamp) -> Result<Redeemed, StoreError> {
    if token.len() != TOKEN_CHARS {
        return Ok(Redeemed::Unknown);
    }
    store.redeem_join_token(hash(token), now).await
}

/// A token has 256 random bits, so a plain hash hides it, and looking it up by its hash leaks
/// nothing about it by timing.
fn hash(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_token_is_plain_sha_256() {
        // FIPS 180-2, B.1.
        assert_eq!(hash("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(URL_SAFE_NO_PAD.encode([0; TOKEN_BYTES]).len(), TOKEN_CHARS);
    }
}
