//! Webhooks: who sent one.

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// A webhook that GitHub, by our secrets, did not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The header is not `sha256=` and 64 hexadecimal digits.
    #[error("the signature is not \"sha256=\" followed by 64 hexadecimal digits")]
    Malformed,
    /// No secret gives this signature for this body.
    #[error("the signature does not belong to this body and a configured secret")]
    Wrong,
}

/// Checks the value of `X-Hub-Signature-256` against the body as it came.
///
/// Every secret is tried, whichever fits, and each comparison takes the same time wherever the
/// difference lies. An empty secret fits nothing.
/// <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>
///
/// # Errors
/// When the header is malformed or no secret fits.
pub fn verify(secrets: &[SecretString], body: &[u8], header: &str) -> Result<(), SignatureError> {
    let signature = header
        .strip_prefix("sha256=")
        .and_then(unhex)
        .ok_or(SignatureError::Malformed)?;
    let mut fits = false;
    for secret in secrets {
        let secret = secret.expose_secret().as_bytes();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        fits |= hmac::verify(&key, body, &signature).is_ok() & !secret.is_empty();
    }
    if fits {
        Ok(())
    } else {
        Err(SignatureError::Wrong)
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn secrets(texts: &[&str]) -> Vec<SecretString> {
        texts.iter().map(|text| SecretString::from(*text)).collect()
    }

    /// The example of GitHub's documentation.
    /// <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation>
    const SIGNATURE: &str =
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[rstest]
    #[case(&["It's a Secret to Everybody"])]
    #[case(&["the new one", "It's a Secret to Everybody"])]
    #[case(&["It's a Secret to Everybody", "the old one"])]
    fn any_configured_secret_verifies(#[case] texts: &[&str]) {
        assert_eq!(verify(&secrets(texts), b"Hello, World!", SIGNATURE), Ok(()));
    }

    #[rstest]
    #[case(&["another"], "Hello, World!", SIGNATURE, SignatureError::Wrong)]
    #[case(&[], "Hello, World!", SIGNATURE, SignatureError::Wrong)]
    #[case(&["It's a Secret to Everybody"], "Hello, World?", SIGNATURE, SignatureError::Wrong)]
    #[case(&["x"], "", "", SignatureError::Malformed)]
    #[case(&["x"], "", "sha1=757107ea0eb2509fc211221cce984b8a37570b6d", SignatureError::Malformed)]
    #[case(&["x"], "", &SIGNATURE[..70], SignatureError::Malformed)]
    // HMAC-SHA256 of nothing under the empty key.
    #[case(&[""], "", "sha256=b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad",
        SignatureError::Wrong)]
    fn another_signature_is_refused(
        #[case] texts: &[&str],
        #[case] body: &str,
        #[case] header: &str,
        #[case] expected: SignatureError,
    ) {
        assert_eq!(
            verify(&secrets(texts), body.as_bytes(), header),
            Err(expected)
        );
    }

    proptest! {
        #[test]
        fn no_signature_makes_it_panic(header in "\\PC{0,80}", body in any::<Vec<u8>>()) {
            prop_assert!(verify(&secrets(&["s"]), &body, &header).is_err());
        }
    }
}
