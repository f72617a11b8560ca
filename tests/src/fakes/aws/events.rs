//! Events of EC2, as EventBridge puts them on the queue.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ec2::Instance;
use super::ids;
use super::shared::State;
use crate::fakes::clock::after;

/// An instance came to another state.
pub(super) const STATE_CHANGE: &str = "EC2 Instance State-change Notification";
const INTERRUPTION: &str = "EC2 Spot Instance Interruption Warning";
const REBALANCE: &str = "EC2 Instance Rebalance Recommendation";

/// Whom Spot tells that it takes an instance back. Each way is best effort, and either may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The instance by its metadata, and the queue.
    Both,
    /// Only the instance.
    Instance,
    /// Only the queue.
    Queue,
    /// Nobody.
    Nobody,
}

impl State {
    /// Puts an event about an instance on the queue of its account and region.
    pub(super) fn notify(&mut self, it: &Instance, kind: &str, detail: &Value, now: Timestamp) {
        let (account, region, id) = (&it.place.account, &it.place.region, &it.id);
        // Events of Spot name the zone in place of region and account.
        let resource = if kind == STATE_CHANGE {
            format!("arn:aws:ec2:{region}:{account}:instance/{id}")
        } else {
            format!("arn:aws:ec2:{}:instance/{id}", it.zone)
        };
        let event = json!({
            "version": "0", "id": ids::uuid(), "detail-type": kind, "source": "aws.ec2",
            "account": account, "region": region,
            "time": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "resources": [resource], "detail": detail,
        });
        if let Some(queue) = self.queues.get_mut(&it.place) {
            queue.send(&event.to_string(), now);
        }
    }

    /// Spot takes an instance back after `wait`: who is `told` is told at once. `false` if there is
    /// no such spot instance.
    pub(super) fn interrupt(
        &mut self,
        instance_id: &str,
        wait: std::time::Duration,
        told: Told,
        now: Timestamp,
    ) -> bool {
        let Some(it) = self.instance_mut(instance_id) else {
            return false;
        };
        if it.state.is_ending() || it.market != super::ec2::Market::Spot {
            return false;
        }
        it.interrupted_at = Some(after(now, wait));
        let it = it.clone();
        if let Some(imds) = &self.options.imds
            && matches!(told, Told::Both | Told::Instance)
        {
            imds.notice(instance_id, after(self.options.wall.now(), wait));
        }
        if matches!(told, Told::Both | Told::Queue) {
            let detail = json!({ "instance-id": instance_id, "instance-action": "terminate" });
            self.notify(&it, INTERRUPTION, &detail, now);
        }
        true
    }

    /// Spot advises to move off an instance. `false` if there is no such spot instance.
    pub(super) fn recommend_rebalance(&mut self, instance_id: &str, now: Timestamp) -> bool {
        let Some(it) = self.instance_mut(instance_id).cloned() else {
            return false;
        };
        if it.state.is_ending() || it.market != super::ec2::Market::Spot {
            return false;
        }
        if let Some(imds) = &self.options.imds {
            imds.recommend_rebalance(instance_id, self.options.wall.now());
        }
        let detail = json!({ "instance-id": instance_id });
        self.notify(&it, REBALANCE, &detail, now);
        true
    }
}
