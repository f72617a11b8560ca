//! The coordinator's own credentials: what is said when there are none.

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};

/// Credentials as the SDK finds them. Its own words for having found none name the last place where it
/// looked, and no place where somebody could put some.
#[derive(Debug)]
pub(super) struct Own(pub(super) SharedCredentialsProvider);

impl ProvideCredentials for Own {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let provided = self.0.provide_credentials().await;
            provided.map_err(|error| CredentialsError::provider_error(said(&error)))
        })
    }
}

fn said(error: &CredentialsError) -> String {
    let mut texts = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    let why = if texts.is_empty() {
        error.to_string()
    } else {
        texts.join(": ")
    };
    match error {
        CredentialsError::CredentialsNotLoaded(_) => format!(
            "no AWS credentials found: not in the environment, a profile, a web identity, nor with the \
             container's or the instance's metadata service ({why})"
        ),
        _ => format!("AWS credentials can't be had: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Failing(fn() -> CredentialsError);

    impl ProvideCredentials for Failing {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err((self.0)()))
        }
    }

    async fn told(error: fn() -> CredentialsError) -> String {
        let own = Own(SharedCredentialsProvider::new(Failing(error)));
        let error = own.provide_credentials().await.unwrap_err();
        std::error::Error::source(&error).unwrap().to_string()
    }

    #[tokio::test]
    async fn that_there_are_none_is_said_with_the_places_where_some_could_be() {
        let told = told(|| CredentialsError::not_loaded("no provider had any")).await;
        assert_eq!(
            told,
            "no AWS credentials found: not in the environment, a profile, a web identity, nor with the \
             container's or the instance's metadata service (no provider had any)"
        );
    }

    #[tokio::test]
    async fn a_place_that_has_some_and_fails_is_another_matter() {
        let told =
            told(|| CredentialsError::provider_error("503 of the container's service")).await;
        assert_eq!(
            told,
            "AWS credentials can't be had: 503 of the container's service"
        );
    }
}
