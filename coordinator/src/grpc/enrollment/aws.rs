//! Enrolment of an EC2 instance: STS says which one it is, the ledger that we launched it, EC2 that it is
//! as we launched it, and the store that it is the first to come.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use futures::future::BoxFuture;
use jiff::Timestamp;
use muster_core::{
    AccountName, Event, Fleet, Instance, InstanceId, LaunchId, PoolName, Registration,
};
use muster_proto::v1::AwsStsEvidence;
use rcgen::PublicKeyData as _;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;
use tracing::{info, warn};

use super::facts::{self, Expected, Peer};
use super::{Admitted, Answers, Shared, stopping};
use crate::backoff::Backoff;
use crate::compute::{InstanceFacts, Provider, ProviderError};
use crate::identity::attest::{
    AttestAccount, AttestError, Attested, Attestor, Evidence, Proof, Role,
};
use crate::identity::csr::RequestedKey;
use crate::identity::spiffe::AgentId;
use crate::store::{Claimed, Enrolment};

/// How long EC2 is asked about an instance that it doesn't know yet: it tells of a launch before all of
/// it know of that.
const DESCRIBE: Duration = Duration::from_secs(8);
const DESCRIBE_WAIT: Duration = Duration::from_millis(200);
const DESCRIBE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Instances that can be told apart while they enrol.
const TURNS: usize = 256;

/// How instances of EC2 enrol.
#[derive(Debug)]
pub struct AwsEnrollment {
    /// Asks STS who it is.
    pub attestor: Attestor,
    /// Asks EC2 what it is.
    pub describe: Describe,
}

type Described = BoxFuture<'static, Result<Option<InstanceFacts>, ProviderError>>;

/// Asks the provider of an account about one of its instances.
#[derive(Clone)]
pub struct Describe(Arc<dyn Fn(AccountName, InstanceId) -> Described + Send + Sync>);

impl Describe {
    /// Asks by a function.
    pub fn new(ask: impl Fn(AccountName, InstanceId) -> Described + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Asks these providers.
    #[must_use]
    pub fn by(providers: HashMap<AccountName, Provider>) -> Self {
        let providers = Arc::new(providers);
        Self::new(move |account, instance| {
            let providers = Arc::clone(&providers);
            Box::pin(async move {
                match providers.get(&account) {
                    Some(provider) => provider.describe(&instance).await,
                    None => Err(ProviderError(format!("account {account} has no provider"))),
                }
            })
        })
    }
}

impl fmt::Debug for Describe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Describe")
    }
}

/// One at a time for each instance, from the claim to the ledger's word: whoever comes second must find
/// the first one enrolled, not in between.
#[derive(Debug)]
pub(super) struct Turns {
    hasher: RandomState,
    turns: Vec<Arc<Mutex<()>>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            turns: (0..TURNS).map(|_| Arc::default()).collect(),
        }
    }
}

impl Turns {
    async fn of(&self, account: &AccountName, instance: &InstanceId) -> OwnedMutexGuard<()> {
        let hash = self.hasher.hash_one((account, instance));
        let index = usize::try_from(hash % TURNS as u64).unwrap_or(0);
        Arc::clone(&self.turns[index]).lock_owned().await
    }
}

/// A proof by STS, with all that it must be made for.
pub(super) struct Signed<'a> {
    pub(super) evidence: &'a AwsStsEvidence,
    pub(super) nonce: &'a [u8],
    pub(super) csr_der: &'a [u8],
    pub(super) key: &'a RequestedKey,
    /// Where it comes from.
    pub(super) peer: Option<IpAddr>,
}

/// The ledger's row of an instance that enrols.
struct Row<'a> {
    launch: LaunchId,
    pool: PoolName,
    account: &'a AttestAccount,
}

impl Shared {
    pub(super) async fn by_sts(
        &self,
        signed: &Signed<'_>,
        answers: &Answers,
    ) -> Result<Admitted, Status> {
        let Some(aws) = &self.parts.aws else {
            return Err(Status::invalid_argument(
                "evidence: expected a join_token; no account of AWS is configured here",
            ));
        };
        let attested = self.attested(&aws.attestor, signed).await?;
        let row = self.row_of(&attested).await?;
        let instance = &attested.instance;
        let id = AgentId::new(
            &self.parts.trust_domain,
            row.pool.as_str(),
            row.account.name.as_str(),
            &row.account.region,
            instance.as_str(),
        )
        .map_err(|error| Status::failed_precondition(error.to_string()))?;
        let facts = described(&aws.describe, &row, instance).await?;
        let expected = Expected {
            coordinator: &self.parts.audience,
            pool: &row.pool,
            peer: if row.account.check_peer_ip {
                Peer::At(signed.peer)
            } else {
                Peer::Any
            },
            launched_within: aws.attestor.launched_within(),
        };
        facts::check(&facts, &expected, Timestamp::now()).map_err(|mismatch| {
            warn!(
                security = "instance not as launched",
                launch = %row.launch, %instance, account = %row.account.name, reason = %mismatch,
                "an enrolment was refused"
            );
            Status::failed_precondition("the instance is not as it was launched")
        })?;
        if answers.is_closed() {
            // It comes again; what it would be given now could reach nobody.
            return Err(Status::cancelled("the machine has left"));
        }
        let turn = self.turns.of(&row.account.name, instance).await;
        self.claim(signed, &row, instance, &facts).await?;
        Ok(Admitted {
            launch: row.launch,
            id,
            _turn: Some(turn),
        })
    }

    async fn attested<'a>(
        &self,
        attestor: &'a Attestor,
        signed: &Signed<'_>,
    ) -> Result<Attested<'a>, Status> {
        let evidence = signed.evidence;
        let proof = Proof {
            evidence: Evidence {
                access_key_id: &evidence.access_key_id,
                amz_date: &evidence.amz_date,
                region: &evidence.region,
                session_token: &evidence.session_token,
                signature: &evidence.signature,
            },
            nonce: signed.nonce,
            audience: &self.parts.audience,
            csr_der: signed.csr_der,
        };
        let attested = attestor.attest(&proof, Timestamp::now()).await;
        attested.map_err(|error| match error {
            AttestError::Malformed { .. } => Status::invalid_argument(error.to_string()),
            AttestError::Refused(reason) => {
                warn!(
                    security = "identity not believed",
                    peer = signed.peer.map(tracing::field::display),
                    reason,
                    "an enrolment was refused"
                );
                Status::unauthenticated("the evidence is not accepted")
            }
            AttestError::Unavailable(reason) => {
                warn!(
                    reason,
                    "STS can't say who an instance is; it is told to come again"
                );
                Status::unavailable("STS can't be asked at present")
            }
        })
    }

    /// The launch that made the instance.
    async fn row_of<'a>(&self, attested: &Attested<'a>) -> Result<Row<'a>, Status> {
        let names: Vec<_> = attested.accounts.iter().map(|it| it.name.clone()).collect();
        let instance = attested.instance.clone();
        let found = self
            .parts
            .engine
            .query(move |fleet| find(fleet, &names, &instance));
        let (launch, pool, account) = match found.await.map_err(|_| stopping())? {
            Found::Row(launch, pool, account) => (launch, pool, account),
            Found::Over(launch) => {
                let instance = &attested.instance;
                warn!(%launch, %instance, reason = "the launch is over", "an enrolment was refused");
                return Err(Status::failed_precondition("the launch is over"));
            }
            Found::Pending => {
                let instance = &attested.instance;
                info!(%instance, "an instance came before the answer to its launch, perhaps");
                return Err(Status::unavailable(
                    "the ledger has no such instance yet: come again",
                ));
            }
            Found::Nothing => {
                warn!(
                    security = "instance not launched here",
                    instance = %attested.instance, account = %attested.accounts[0].name,
                    "an enrolment was refused"
                );
                return Err(Status::failed_precondition(
                    "the ledger has no such instance",
                ));
            }
        };
        let account = attested.accounts.iter().find(|it| it.name == account);
        let account = account.ok_or_else(stopping)?;
        if let Role::InstanceProfile(role) = &attested.role {
            info!(%launch, role, "it signed with the instance profile's role");
        }
        Ok(Row {
            launch,
            pool,
            account,
        })
    }

    /// Lets it be the one that enrols for this start of the instance. If another was, one of the two is
    /// not who it says, and nobody knows which: the host gets no job and is ended.
    async fn claim(
        &self,
        signed: &Signed<'_>,
        row: &Row<'_>,
        instance: &InstanceId,
        facts: &InstanceFacts,
    ) -> Result<(), Status> {
        let mut key_hash = [0; 32];
        let hash = digest::digest(&digest::SHA256, signed.key.der_bytes());
        key_hash.copy_from_slice(hash.as_ref());
        let enrolment = Enrolment {
            account_id: row.account.account_id.clone(),
            region: row.account.region.clone(),
            instance: instance.clone(),
            launched_at: facts.launched_at,
            launch: row.launch.clone(),
            key_hash,
            at: Timestamp::now(),
        };
        let claimed = self.parts.store.claim_enrolment(enrolment).await;
        let claimed = claimed.map_err(|error| {
            warn!(%error, "an enrolment can't be stored");
            Status::unavailable("the enrolment can't be stored at present")
        })?;
        let again = match claimed {
            Claimed::Now => return Ok(()),
            Claimed::BySameKey => self.is_untouched(&row.launch).await?,
            Claimed::Already => false,
        };
        if again {
            info!(launch = %row.launch, %instance, "it enrols again, as it got no answer");
            return Ok(());
        }
        warn!(
            security = "second enrolment",
            launch = %row.launch, %instance, account = %row.account.name,
            peer = signed.peer.map(tracing::field::display),
            "an instance enrolled a second time; it is ended, as one of the two is not what it says"
        );
        let distrusted = Event::Distrusted {
            launch: row.launch.clone(),
            reason: "somebody enrolled as this instance a second time".to_owned(),
        };
        self.submit(distrusted).await?;
        Err(Status::already_exists("this launch has enrolled before"))
    }

    /// Whether nothing was made for a host yet that a second certificate could reach.
    async fn is_untouched(&self, launch: &LaunchId) -> Result<bool, Status> {
        let launch = launch.clone();
        let untouched = self.parts.engine.query(move |fleet| {
            fleet
                .runner(&launch)
                .is_some_and(|runner| runner.registration == Registration::None)
        });
        untouched.await.map_err(|_| stopping())
    }
}

/// What the ledger has of an instance.
enum Found {
    Row(LaunchId, PoolName, AccountName),
    Over(LaunchId),
    /// Nothing; but a launch in its account has no answer yet.
    Pending,
    Nothing,
}

fn find(fleet: &Fleet, accounts: &[AccountName], instance: &InstanceId) -> Found {
    let found = accounts
        .iter()
        .find_map(|account| fleet.runner_of(account, instance));
    if let Some(runner) = found {
        if runner.is_over() {
            return Found::Over(runner.launch.clone());
        }
        let (pool, account) = (runner.pool.clone(), runner.account.clone());
        return Found::Row(runner.launch.clone(), pool, account);
    }
    let pending = fleet
        .runners()
        .any(|runner| runner.instance == Instance::Requested && accounts.contains(&runner.account));
    if pending {
        Found::Pending
    } else {
        Found::Nothing
    }
}

/// What EC2 says of an instance, asking again for a while.
async fn described(
    describe: &Describe,
    row: &Row<'_>,
    instance: &InstanceId,
) -> Result<InstanceFacts, Status> {
    let end = Instant::now() + DESCRIBE;
    let mut backoff = Backoff::new(DESCRIBE_WAIT, DESCRIBE_WAIT_MAX);
    loop {
        let asked = (describe.0)(row.account.name.clone(), instance.clone());
        let reason = match timeout_at(end, asked).await {
            Ok(Ok(Some(facts))) => return Ok(facts),
            Ok(Ok(None)) => "EC2 doesn't know it yet".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {DESCRIBE:?}"),
        };
        let wait = backoff.wait();
        if Instant::now() + wait >= end {
            let launch = &row.launch;
            warn!(%launch, %instance, reason, "EC2 can't say what an instance is; it is told to come again");
            return Err(Status::unavailable(
                "EC2 can't be asked about the instance at present: come again",
            ));
        }
        sleep(wait).await;
    }
}
