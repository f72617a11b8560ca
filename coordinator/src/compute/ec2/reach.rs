//! Whether AWS can be reached: one call to each service that an account uses, so that the log says at the
//! start what would else be known only when something is wanted.

use std::time::Duration;

use muster_core::PoolName;
use tokio::time::timeout;

use super::Ec2Provider;
use super::error::{CallError, of_call};
use super::settings::ImageSource;
use crate::compute::{Reach, Unreachable};

/// Longest wait for an answer. All are asked at once.
const PATIENCE: Duration = Duration::from_secs(15);

type Answer = Result<(), CallError>;

impl Ec2Provider {
    /// Asks each service once, by calls that change nothing and that the policies allow.
    pub(in crate::compute) async fn reach(&self) -> Reach {
        let parameter = self.image_parameter();
        let (sts, ec2, ssm, sqs) = tokio::join!(
            patiently(self.ask_sts()),
            patiently(self.ask_ec2()),
            patiently(self.ask_ssm(parameter.as_deref())),
            patiently(self.ask_sqs()),
        );
        let all = self.pools(|_| true);
        let by_parameter = self.pools(|image| matches!(image, ImageSource::Parameter(_)));
        let launches_nothing = if self.settings.role.is_some() {
            "and, as its role can't be assumed, nothing is launched or ended"
        } else {
            "what runs goes on"
        };
        let mut reach = Reach::default();
        let mut take = |service, used: bool, answer: Answer, means: String| match answer {
            _ if !used => {}
            Ok(()) => reach.answering.push(service),
            Err(error) => reach.lacking.push(Unreachable {
                service,
                reason: error.text,
                means,
            }),
        };
        take(
            "STS",
            true,
            sts,
            format!("instances can't enrol; {launches_nothing}"),
        );
        take(
            "EC2",
            true,
            ec2,
            format!("pools {all} launch nothing, and nothing is ended"),
        );
        take(
            "SSM",
            parameter.is_some(),
            ssm,
            format!("pools {by_parameter} launch nothing until their image is known"),
        );
        take(
            "SQS",
            self.settings.queue_url.is_some(),
            sqs,
            "interruptions and ends are heard of from agents and lists only, and later".to_owned(),
        );
        reach
    }

    fn image_parameter(&self) -> Option<String> {
        let mut pools = self.settings.pools.values();
        pools.find_map(|pool| match &pool.image {
            ImageSource::Parameter(name) => Some(name.clone()),
            ImageSource::Template | ImageSource::Id(_) => None,
        })
    }

    /// Names of the pools with such an image.
    fn pools(&self, image: fn(&ImageSource) -> bool) -> String {
        let pools = self.settings.pools.iter();
        let names = pools.filter(|(_, pool)| image(&pool.image));
        let names: Vec<&str> = names.map(|(name, _)| PoolName::as_str(name)).collect();
        names.join(", ")
    }

    /// Needs no permission, and proves that there are credentials.
    async fn ask_sts(&self) -> Answer {
        let answer = self.clients.sts.get_caller_identity().send().await;
        answer
            .map(|_| ())
            .map_err(|error| of_call("GetCallerIdentity", &error))
    }

    async fn ask_ec2(&self) -> Answer {
        self.budgets.describe.spend().await;
        let answer = self.clients.ec2.describe_subnets().max_results(5);
        let answer = answer.send().await;
        answer
            .map(|_| ())
            .map_err(|error| of_call("DescribeSubnets", &error))
    }

    async fn ask_ssm(&self, parameter: Option<&str>) -> Answer {
        let Some(parameter) = parameter else {
            return Ok(());
        };
        let answer = self.clients.ssm.get_parameters().names(parameter);
        let answer = answer.send().await;
        answer
            .map(|_| ())
            .map_err(|error| of_call("GetParameters", &error))
    }

    /// Takes a message, if there is one, and hides it from nobody.
    async fn ask_sqs(&self) -> Answer {
        let Some(queue) = &self.settings.queue_url else {
            return Ok(());
        };
        let answer = self.clients.sqs.receive_message().queue_url(queue);
        let answer = answer.wait_time_seconds(0).visibility_timeout(0);
        let answer = answer.max_number_of_messages(1).send().await;
        answer.map(|_| ()).map_err(|error| {
            let error = of_call("ReceiveMessage", &error);
            CallError {
                text: format!("{queue}: {}", error.text),
                ..error
            }
        })
    }
}

async fn patiently(answer: impl Future<Output = Answer>) -> Answer {
    timeout(PATIENCE, answer)
        .await
        .unwrap_or_else(|_| Err(CallError::unknown(format!("no answer within {PATIENCE:?}"))))
}
