//! Calls that change something. Each is stored, with who made it, before it takes effect.

use muster_core::{Event, PoolName, Runner};
use muster_proto::v1;
use tonic::Status;
use tracing::info;

use super::{LIST, Shared, convert, limit, near, now, store_failed};
use crate::identity::spiffe::OperatorId;
use crate::store::OperatorAction;

/// Most characters of a reason.
const MAX_REASON: usize = 512;
/// The levels that can be set.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

impl Shared {
    pub(super) async fn drain_runner(
        &self,
        operator: &OperatorId,
        request: v1::DrainRunnerRequest,
    ) -> Result<v1::DrainRunnerResponse, Status> {
        let runner = self.named_runner(&request.name).await?;
        let target = runner.name.as_str();
        self.record(operator, "DrainRunner", target, &request.reason)
            .await?;
        let event = Event::OperatorDrain {
            launch: runner.launch.clone(),
            reason: by(operator, &request.reason)?,
        };
        let runner = Some(self.changed(runner, event).await?);
        Ok(v1::DrainRunnerResponse { runner })
    }

    pub(super) async fn terminate_runner(
        &self,
        operator: &OperatorId,
        request: v1::TerminateRunnerRequest,
    ) -> Result<v1::TerminateRunnerResponse, Status> {
        let runner = self.named_runner(&request.name).await?;
        let target = runner.name.as_str();
        self.record(operator, "TerminateRunner", target, &request.reason)
            .await?;
        let event = Event::OperatorTerminate {
            launch: runner.launch.clone(),
            reason: by(operator, &request.reason)?,
        };
        let runner = Some(self.changed(runner, event).await?);
        Ok(v1::TerminateRunnerResponse { runner })
    }

    pub(super) async fn pause_pool(
        &self,
        operator: &OperatorId,
        request: v1::PausePoolRequest,
    ) -> Result<v1::PausePoolResponse, Status> {
        let pool = self.named_pool(&request.name).await?;
        self.record(operator, "PausePool", pool.as_str(), &request.reason)
            .await?;
        let paused = Some(by(operator, &request.reason)?);
        let event = Event::OperatorPause {
            pool: pool.clone(),
            paused,
        };
        self.submit(event).await?;
        let pool = Some(self.pool(&pool).await?);
        Ok(v1::PausePoolResponse { pool })
    }

    pub(super) async fn resume_pool(
        &self,
        operator: &OperatorId,
        request: v1::ResumePoolRequest,
    ) -> Result<v1::ResumePoolResponse, Status> {
        let pool = self.named_pool(&request.name).await?;
        self.record(operator, "ResumePool", pool.as_str(), "")
            .await?;
        let event = Event::OperatorPause {
            pool: pool.clone(),
            paused: None,
        };
        self.submit(event).await?;
        let pool = Some(self.pool(&pool).await?);
        Ok(v1::ResumePoolResponse { pool })
    }

    pub(super) async fn set_log_level(
        &self,
        operator: &OperatorId,
        level: &str,
    ) -> Result<v1::SetLogLevelResponse, Status> {
        if !level.is_empty() {
            let level = checked_level(level)?;
            self.record(operator, "SetLogLevel", level, "").await?;
            (self.log_level.set)(level)
                .map_err(|error| Status::internal(format!("the level can't be set: {error}")))?;
        }
        Ok(v1::SetLogLevelResponse {
            level: (self.log_level.get)(),
        })
    }

    pub(super) async fn list_actions(
        &self,
        asked: u32,
    ) -> Result<v1::ListOperatorActionsResponse, Status> {
        let actions = self.store.actions(limit(asked, LIST)).await;
        let actions = actions.map_err(store_failed)?;
        Ok(v1::ListOperatorActionsResponse {
            actions: actions.into_iter().map(convert::action).collect(),
        })
    }

    /// The runner that a call must name.
    async fn named_runner(&self, name: &str) -> Result<Runner, Status> {
        if name.is_empty() {
            return Err(near::name_needed("runner", &self.runner_names().await?));
        }
        self.runner(name).await
    }

    /// The pool that a call must name.
    async fn named_pool(&self, name: &str) -> Result<PoolName, Status> {
        if name.is_empty() {
            return Err(near::name_needed("pool", &self.pool_names().await?));
        }
        let name = PoolName::new(name);
        self.pool(&name).await?;
        Ok(name)
    }

    async fn record(
        &self,
        operator: &OperatorId,
        method: &str,
        target: &str,
        reason: &str,
    ) -> Result<(), Status> {
        check_reason(reason)?;
        let action = OperatorAction {
            at: now(),
            operator: operator.name().to_owned(),
            method: method.to_owned(),
            target: target.to_owned(),
            reason: reason.to_owned(),
        };
        self.store
            .record_action(action)
            .await
            .map_err(store_failed)?;
        info!(
            operator = operator.name(),
            method, target, reason, "an operator acts"
        );
        Ok(())
    }

    /// Has an event applied, and shows the runner after it.
    async fn changed(&self, runner: Runner, event: Event) -> Result<v1::Runner, Status> {
        self.submit(event).await?;
        let launch = runner.launch.clone();
        let after = self
            .query(move |fleet| fleet.runner(&launch).cloned())
            .await?;
        Ok(self.shown(&after.unwrap_or(runner)))
    }

    async fn submit(&self, event: Event) -> Result<(), Status> {
        self.answered(self.engine.submit(event)).await
    }
}

/// Who and why, for the records and the people who read them.
fn by(operator: &OperatorId, reason: &str) -> Result<String, Status> {
    check_reason(reason)?;
    Ok(match reason {
        "" => format!("by {}", operator.name()),
        reason => format!("by {}: {reason}", operator.name()),
    })
}

fn check_reason(reason: &str) -> Result<(), Status> {
    if reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "reason: expected one line of at most {MAX_REASON} characters"
        )));
    }
    Ok(())
}

fn checked_level(level: &str) -> Result<&'static str, Status> {
    LEVELS
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(level))
        .ok_or_else(|| {
            Status::invalid_argument(format!("level: expected one of {}", LEVELS.join(", ")))
        })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::identity::spiffe::TrustDomain;

    #[test]
    fn who_and_why_read_as_a_sentence() {
        let domain = TrustDomain::new("muster.test").unwrap();
        let alice = OperatorId::new(&domain, "alice").unwrap();
        assert_eq!(by(&alice, "").unwrap(), "by alice");
        assert_eq!(by(&alice, "bad image").unwrap(), "by alice: bad image");
        assert!(by(&alice, "two\nlines").is_err());
        assert!(by(&alice, &"x".repeat(513)).is_err());
    }

    #[rstest]
    #[case("debug", Some("debug"))]
    #[case("WARN", Some("warn"))]
    #[case("verbose", None)]
    #[case("muster=trace", None)]
    fn a_level_is_one_of_five(#[case] asked: &str, #[case] level: Option<&str>) {
        assert_eq!(checked_level(asked).ok(), level);
    }
}
