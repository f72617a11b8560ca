//! Secrets in SSM's Parameter Store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ssm::Client;
use secrecy::SecretString;
use url::Url;

use crate::aws::{Given, Watched, own_config};
use crate::compute::ec2::call_error;

/// How long a call may take.
const CALL: Duration = Duration::from_secs(10);
/// Parameters in one call, as SSM limits them
/// (<https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html>).
const IN_CALL: usize = 10;

/// The Parameter Store of one region, seen with the coordinator's own credentials.
#[derive(Debug)]
pub(super) struct Parameters {
    client: Client,
    region: String,
}

/// What was read. A name that is not here does not exist.
#[derive(Debug, Default)]
pub(super) struct Got {
    values: BTreeMap<String, SecretString>,
    /// Why others could not be read, and whether that passes.
    failed: BTreeMap<String, (String, bool)>,
}

impl Parameters {
    pub(super) async fn new(region: &str, endpoint: Option<&Url>, given: Given) -> Self {
        let config = own_config(region, endpoint, CALL, &given).await;
        let config = aws_sdk_ssm::config::Builder::from(&config)
            .interceptor(Watched::new(given.metrics))
            .build();
        Self {
            client: Client::from_conf(config),
            region: region.to_owned(),
        }
    }

    pub(super) async fn get(&self, names: BTreeSet<&str>) -> Got {
        let mut got = Got::default();
        let names = Vec::from_iter(names);
        for some in names.chunks(IN_CALL) {
            let Err((text, passes)) = self.call(some, &mut got).await else {
                continue;
            };
            if passes || some.len() == 1 {
                got.fail(some, &text, passes);
                continue;
            }
            // One parameter that we may not read has the call refused for all of them.
            for one in some.chunks(1) {
                if let Err((text, passes)) = self.call(one, &mut got).await {
                    got.fail(one, &text, passes);
                }
            }
        }
        got
    }

    /// One call; else why it failed, and whether that passes.
    async fn call(&self, names: &[&str], got: &mut Got) -> Result<(), (String, bool)> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let output = self
            .client
            .get_parameters()
            .set_names(Some(names))
            .with_decryption(true)
            .send()
            .await;
        match output {
            Ok(output) => {
                let found = output.parameters.into_iter().flatten();
                let values =
                    found.filter_map(|one| Some((one.name?, SecretString::from(one.value?))));
                got.values.extend(values);
                Ok(())
            }
            Err(error) => {
                let (text, kind) = call_error("GetParameters", &error);
                let text = format!("can't be read from SSM in {}: {text}", self.region);
                Err((text, !kind.stays()))
            }
        }
    }
}

impl Got {
    fn fail(&mut self, names: &[&str], text: &str, passes: bool) {
        let failed = names
            .iter()
            .map(|name| ((*name).to_owned(), (text.to_owned(), passes)));
        self.failed.extend(failed);
    }

    /// The value of a parameter; else why not, and whether that passes by itself.
    pub(super) fn one(&self, name: &str) -> Result<SecretString, (String, bool)> {
        use secrecy::ExposeSecret as _;
        match (self.values.get(name), self.failed.get(name)) {
            (Some(value), _) => match value.expose_secret().trim_end_matches(['\r', '\n']) {
                "" => Err(("is empty".to_owned(), false)),
                secret => Ok(SecretString::from(secret)),
            },
            (None, Some(failed)) => Err(failed.clone()),
            (None, None) => Err(("does not exist".to_owned(), false)),
        }
    }
}
