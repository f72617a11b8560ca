//! The world of the other tests, with an account of AWS.

use std::collections::VecDeque;
use std::sync::LazyLock;

use muster_proto::v1::AwsStsEvidence;
use tonic::Code;

use super::*;
use crate::compute::{InstanceFacts, InstanceState, LaunchedAs, ProviderError};
use crate::grpc::enrollment::Describe;
use crate::identity::attest::tests::fake::{Credentials, FakeSts};
use crate::identity::attest::tests::{ACCOUNT, account, signed};
use crate::identity::attest::{AttestSettings, Attestor};

pub(super) const OTHER_ACCOUNT: &str = "210987654321";
pub(super) const ROLE: &str = "muster-runner";

/// When EC2 started all instances of this process' tests.
pub(super) static LAUNCHED_AT: LazyLock<Timestamp> = LazyLock::new(Timestamp::now);

pub(super) type Facts = Result<Option<InstanceFacts>, ProviderError>;

/// The world of the other tests, with an account of AWS: `main`, in `eu-west-1`.
pub(super) struct Aws {
    pub(super) world: World,
    pub(super) sts: FakeSts,
    pub(super) who: Credentials,
    /// What EC2 says next; after the last, the instance is as it was launched.
    pub(super) said: Arc<Mutex<VecDeque<Facts>>>,
}

pub(super) fn facts() -> InstanceFacts {
    InstanceFacts {
        state: InstanceState::Running,
        image: "ami-0123456789abcdef0".to_owned(),
        subnet: Some("subnet-1".to_owned()),
        private_ip: Some("127.0.0.1".parse().unwrap()),
        launched_at: *LAUNCHED_AT,
        coordinator: Some(AUDIENCE.to_owned()),
        pool: Some("linux".to_owned()),
        batch: Some("mb-0".to_owned()),
        launched_as: Some(LaunchedAs {
            batch: "mb-0".to_owned(),
            image: Some("ami-0123456789abcdef0".to_owned()),
            subnets: ["subnet-1".to_owned()].into(),
        }),
    }
}

/// A launch in this account whose instance boots.
pub(super) fn of_account(name: &str) -> Runner {
    let mut record = booting();
    record.account = name.into();
    record
}

impl Aws {
    pub(super) async fn new() -> Self {
        Self::with(vec![of_account("main")], |_| {}).await
    }

    pub(super) async fn with(
        runners: Vec<Runner>,
        change: impl FnOnce(&mut AttestSettings),
    ) -> Self {
        let said = Arc::<Mutex<VecDeque<Facts>>>::default();
        let next = Arc::clone(&said);
        let describe = Describe::new(move |_, _| {
            let said = next.lock().unwrap().pop_front();
            Box::pin(async { said.unwrap_or_else(|| Ok(Some(facts()))) })
        });
        let aws = Self::described_by(runners, change, describe).await;
        Self { said, ..aws }
    }

    /// One whose EC2 is another.
    pub(super) async fn described_by(
        runners: Vec<Runner>,
        change: impl FnOnce(&mut AttestSettings),
        describe: Describe,
    ) -> Self {
        let sts = FakeSts::start().await;
        let who = Credentials::of_instance(ACCOUNT, INSTANCE);
        sts.know(&who);
        let mut settings = AttestSettings::new(vec![account("main", ACCOUNT)]);
        settings.endpoint = Some(sts.url.clone());
        change(&mut settings);
        let aws = AwsEnrollment {
            attestor: Attestor::new(settings).unwrap(),
            describe,
        };
        let world = World::with_aws(runners, Some(aws)).await;
        Self {
            world,
            sts,
            who,
            said: Arc::default(),
        }
    }

    pub(super) fn say(&self, facts: impl IntoIterator<Item = Facts>) {
        self.said.lock().unwrap().extend(facts);
    }

    pub(super) async fn enroll(&self) -> Result<EnrollIssued, Status> {
        self.enroll_as(&self.who, &KeyPair::generate().unwrap())
            .await
    }

    pub(super) async fn enroll_as(
        &self,
        who: &Credentials,
        key: &KeyPair,
    ) -> Result<EnrollIssued, Status> {
        let channel = self.world.connect(self.world.enroll, None);
        let challenged = Challenged::new(channel).await?;
        let (csr, challenge) = (csr(key), &challenged.challenge);
        let audience = challenge.audience.as_str();
        let fields = signed(who, audience, &challenge.nonce, &csr, Timestamp::now());
        let evidence = Evidence::AwsSts(AwsStsEvidence {
            access_key_id: fields.access_key_id,
            amz_date: fields.amz_date,
            region: fields.region,
            session_token: fields.session_token,
            signature: fields.signature,
        });
        challenged.prove(csr, evidence).await
    }

    pub(super) async fn refusal(&self) -> (Code, String) {
        let refused = self.enroll().await.unwrap_err();
        (refused.code(), refused.message().to_owned())
    }

    pub(super) fn count(&self, outcome: &str) -> String {
        let series = format!("muster_enrolments_total{{outcome=\"{outcome}\"}} ");
        let text = self.world.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap().to_owned()
    }
}
