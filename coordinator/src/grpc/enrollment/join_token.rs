//! Enrolment by a join token: it names the launch and the instance by itself.

use muster_core::AccountName;
use tonic::Status;
use tracing::warn;

use super::{Admitted, Shared, stopping};
use crate::clock;
use crate::identity::join_token;
use crate::identity::spiffe::AgentId;
use crate::store::{JoinToken, Redeemed};

/// The region of instances that no cloud runs.
const LOCAL_REGION: &str = "local";

impl Shared {
    pub(super) async fn by_join_token(&self, token: &str) -> Result<Admitted, Status> {
        let token = self.redeem(token).await?;
        let account = self.account_of(&token).await?;
        let id = AgentId::new(
            &self.parts.trust_domain,
            token.pool.as_str(),
            account.as_str(),
            LOCAL_REGION,
            token.instance.as_str(),
        )
        .map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Admitted {
            launch: token.launch,
            id,
            _turn: None,
        })
    }

    async fn redeem(&self, token: &str) -> Result<JoinToken, Status> {
        let redeemed = join_token::redeem(&self.parts.store, token, clock::now())
            .await
            .map_err(|error| {
                warn!(%error, "a join token can't be redeemed");
                Status::unavailable("the token can't be checked at present")
            })?;
        match redeemed {
            Redeemed::Now(token) => Ok(token),
            Redeemed::Already => {
                warn!(
                    security = "second enrolment",
                    "a join token was presented again"
                );
                Err(Status::already_exists("this launch has enrolled before"))
            }
            Redeemed::Expired => Err(Status::unauthenticated("the join token has expired")),
            Redeemed::Unknown => Err(Status::unauthenticated("there is no such join token")),
        }
    }

    /// The account of the machine that a token is for. The instance may be there before the news of
    /// its launch: then the token, made by this coordinator for both, joins the two.
    async fn account_of(&self, token: &JoinToken) -> Result<AccountName, Status> {
        let (launch, instance) = (token.launch.clone(), token.instance.clone());
        let account = self.parts.engine.query(move |fleet| {
            let runner = fleet
                .runner(&launch)
                .ok_or("the ledger has no such launch")?;
            if runner.is_over() {
                return Err("the launch is over");
            }
            match runner.instance_id() {
                Some(known) if *known != instance => Err("the launch has another instance"),
                _ => Ok(runner.account.clone()),
            }
        });
        account.await.map_err(|_| stopping())?.map_err(|reason| {
            warn!(launch = %token.launch, reason, "an enrolment was refused");
            Status::failed_precondition(reason)
        })
    }
}
