//! An instance and the stages of its life.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::fakes::aws::options::Stages;
use crate::fakes::aws::shared::Place;
use crate::fakes::aws::xml::iso;
use crate::fakes::clock::after;

/// How an instance is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Market {
    /// Cheap, and taken back at two minutes' notice.
    Spot,
    /// At the list price.
    OnDemand,
}

impl Market {
    /// EC2's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
        }
    }
}

/// `instance-state-name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// Being made.
    Pending,
    /// Paid for.
    Running,
    /// On its way out.
    ShuttingDown,
    /// Gone, but described for an hour still.
    Terminated,
    /// On its way to be stopped.
    Stopping,
    /// Not running; its disk stays.
    Stopped,
}

impl InstanceState {
    /// EC2's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    fn code(self) -> u32 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }

    /// Whether it is over, or nearly so.
    pub fn is_ending(self) -> bool {
        matches!(self, Self::ShuttingDown | Self::Terminated)
    }

    pub(super) fn answer(self) -> Value {
        json!({ "Code": self.code(), "Name": self.as_str() })
    }
}

/// A step in an instance's life, for a world that runs something on it.
#[derive(Clone, Debug)]
pub enum Life {
    /// It was launched; it is `pending`.
    Launched(Instance),
    /// It is up.
    Running(Instance),
    /// It is shutting down or stopping: what runs on it ends now.
    Ending(Instance),
    /// It is terminated or stopped.
    Ended(Instance),
}

impl Life {
    /// The instance, as it was then.
    pub fn instance(&self) -> &Instance {
        match self {
            Self::Launched(it) | Self::Running(it) | Self::Ending(it) | Self::Ended(it) => it,
        }
    }
}

/// An instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// `i-…`.
    pub id: String,
    /// Account and region.
    pub place: Place,
    /// Such as `eu-central-1a`.
    pub zone: String,
    /// Its subnet.
    pub subnet_id: String,
    /// Such as `m7i.large`.
    pub instance_type: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// The machine image.
    pub image_id: String,
    /// Spot or on demand.
    pub market: Market,
    /// Its address.
    pub private_ip: Ipv4Addr,
    /// When it was launched.
    pub launched_at: Timestamp,
    /// Where it stands.
    pub state: InstanceState,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// The fleet that launched it.
    pub fleet_id: String,
    /// The client token of the call that launched it.
    pub client_token: Option<String>,
    /// Id of the launch template.
    pub template_id: String,
    /// Version of the launch template.
    pub template_version: u32,
    /// What becomes of it when its own system shuts down: `true` terminates, `false` stops it.
    pub ends_on_shutdown: bool,
    /// Whether `TerminateInstances` is refused.
    pub protected: bool,
    /// Why it ended, such as `Client.UserInitiatedShutdown`.
    pub reason: Option<String>,
    /// Whether the call that ended it asked to leave its system no time.
    pub skip_os_shutdown: bool,
    /// When Spot takes it back.
    pub interrupted_at: Option<Timestamp>,
    /// Access key id of its identity credentials.
    pub identity_key: String,
    pub(super) reservation_id: String,
    pub(super) index: u32,
    /// From when on other calls know it.
    pub(super) known_from: Timestamp,
    /// The next step that comes by itself.
    pub(super) due: Option<(Timestamp, InstanceState)>,
    /// When it is not described any more.
    pub(super) forgotten_at: Option<Timestamp>,
}

impl Instance {
    /// Whether calls know it.
    pub(super) fn is_known(&self, now: Timestamp) -> bool {
        self.known_from <= now
    }

    /// Lets calls know it.
    pub(in crate::fakes::aws) fn reveal(&mut self, now: Timestamp) {
        self.known_from = self.known_from.min(now);
    }

    /// Begins to end it. Nothing happens to one that is ending.
    pub(in crate::fakes::aws) fn end(
        &mut self,
        reason: &str,
        now: Timestamp,
        stages: &Stages,
    ) -> bool {
        if self.state.is_ending() {
            return false;
        }
        self.state = InstanceState::ShuttingDown;
        self.reason = Some(reason.to_owned());
        self.due = Some((after(now, stages.shutting_down), InstanceState::Terminated));
        self.interrupted_at = None;
        true
    }

    /// Begins to stop it.
    pub(in crate::fakes::aws) fn stop(&mut self, reason: &str, now: Timestamp, wait: Duration) {
        self.state = InstanceState::Stopping;
        self.reason = Some(reason.to_owned());
        self.due = Some((after(now, wait), InstanceState::Stopped));
    }

    /// As `DescribeInstances` answers it.
    pub(super) fn answer(&self) -> Value {
        let tags: Vec<_> = self
            .tags
            .iter()
            .map(|(key, value)| json!({ "Key": key, "Value": value }))
            .collect();
        let mut out = json!({
            "InstanceId": self.id, "ImageId": self.image_id, "InstanceType": self.instance_type,
            "Architecture": self.architecture, "State": self.state.answer(),
            "LaunchTime": iso(self.launched_at), "AmiLaunchIndex": self.index,
            "Placement": { "AvailabilityZone": self.zone, "Tenancy": "default" },
            "Tags": tags, "Monitoring": { "State": "disabled" }, "EbsOptimized": false,
            "RootDeviceType": "ebs", "VirtualizationType": "hvm", "Hypervisor": "xen",
            "MetadataOptions": { "State": "applied", "HttpTokens": "required",
                "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1 },
        });
        let mut set = |name: &str, value: Value| out[name] = value;
        if self.market == Market::Spot {
            set("InstanceLifecycle", json!("spot"));
        }
        if let Some(token) = &self.client_token {
            set("ClientToken", json!(token));
        }
        // A terminated instance has no network any more.
        if self.state == InstanceState::Terminated {
            set("PrivateDnsName", json!(""));
        } else {
            set("PrivateIpAddress", json!(self.private_ip.to_string()));
            set("SubnetId", json!(self.subnet_id));
            set("VpcId", json!("vpc-00000000000000001"));
            let name = self.private_ip.to_string().replace('.', "-");
            set(
                "PrivateDnsName",
                json!(format!("ip-{name}.{}.compute.internal", self.place.region)),
            );
        }
        if let Some(reason) = &self.reason {
            set(
                "StateReason",
                json!({ "Code": reason, "Message": format!("{reason}: ended") }),
            );
        }
        out
    }
}
