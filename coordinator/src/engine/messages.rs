//! Messages to agents, and the vault of configurations that wait to be sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use muster_core::{Effect, Event, LaunchId, RunnerName};
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{self, SessionResponse};
use secrecy::{ExposeSecret as _, SecretString};

use crate::grpc::time::to_wire;
use crate::presence::{Presence, SendError};

/// JIT configurations between GitHub's answer and the agent's stream. In memory only: one that is
/// lost with the process is never looked for, its registration is deleted instead.
#[derive(Clone, Debug, Default)]
pub struct Vault {
    // Shared with the tasks that register runners; held for an insert or a removal only.
    held: Arc<Mutex<HashMap<LaunchId, (RunnerName, SecretString)>>>,
}

impl Vault {
    /// Holds a configuration until it is taken.
    pub fn put(&self, launch: LaunchId, name: RunnerName, config: SecretString) {
        self.lock().insert(launch, (name, config));
    }

    /// Takes the configuration out: nobody gets it after this.
    #[must_use]
    pub fn take(&self, launch: &LaunchId, name: &RunnerName) -> Option<SecretString> {
        let mut held = self.lock();
        let (held_name, _) = held.get(launch)?;
        if held_name != name {
            return None;
        }
        held.remove(launch).map(|(_, config)| config)
    }

    /// Drops what is held for a launch.
    pub fn drop_launch(&self, launch: &LaunchId) {
        self.lock().remove(launch);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LaunchId, (RunnerName, SecretString)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the agents.
#[derive(Debug)]
pub(super) struct Messages {
    presence: Presence,
    vault: Vault,
}

impl Messages {
    pub(super) fn new(presence: Presence, vault: Vault) -> Self {
        Self { presence, vault }
    }

    /// Sends a message, and gives the event that follows at once, if one does. A message to an agent
    /// that is not connected is dropped: the core says it anew when the agent connects.
    pub(super) fn send(&self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Assign { launch, name } => return self.assign(launch, name),
            Effect::Drain {
                launch,
                reason,
                deadline,
            } => {
                let deadline = deadline.map(to_wire);
                self.say(&launch, Message::Drain(v1::Drain { reason, deadline }));
            }
            Effect::Retire { launch, reason } => {
                self.say(&launch, Message::Retire(v1::Retire { reason }));
            }
            Effect::Launch { .. }
            | Effect::Mint { .. }
            | Effect::WatchRun { .. }
            | Effect::Rerun { .. }
            | Effect::Deregister { .. }
            | Effect::Terminate { .. }
            | Effect::TerminateStray { .. }
            | Effect::Withdraw { .. }
            | Effect::CloseOffering { .. } => {}
        }
        None
    }

    /// The work of a launch is over: its agent is not listened to any more.
    pub(super) fn revoke(&self, launch: &LaunchId) {
        self.presence.revoke(launch);
        self.vault.drop_launch(launch);
    }

    pub(super) fn forget(&self, launch: &LaunchId) {
        self.presence.forget(launch);
        self.vault.drop_launch(launch);
    }

    fn assign(&self, launch: LaunchId, name: RunnerName) -> Option<Event> {
        let Some(config) = self.vault.take(&launch, &name) else {
            return Some(Event::AssignmentLost { launch, name });
        };
        let assignment = v1::Assignment {
            runner_name: name.to_string(),
            encoded_jit_config: config.expose_secret().to_owned(),
        };
        match self
            .presence
            .send(&launch, wrap(Message::Assignment(assignment)))
        {
            Ok(()) => {}
            // It was not handed to any stream, so it may still go, once.
            Err(SendError::NotConnected | SendError::Stalled) => {
                self.vault.put(launch, name, config);
            }
        }
        None
    }

    fn say(&self, launch: &LaunchId, message: Message) {
        if let Err(error) = self.presence.send(launch, wrap(message)) {
            tracing::debug!(launch = launch.as_str(), %error, "message not sent");
        }
    }
}

fn wrap(message: Message) -> SessionResponse {
    SessionResponse {
        message: Some(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (LaunchId, RunnerName) {
        ("launch".into(), "muster-linux-launch".into())
    }

    #[test]
    fn a_configuration_is_taken_once() {
        let vault = Vault::default();
        let (launch, name) = names();
        vault.put(launch.clone(), name.clone(), "secret".into());
        assert!(vault.take(&launch, &"another".into()).is_none());
        assert!(vault.take(&launch, &name).is_some());
        assert!(vault.take(&launch, &name).is_none());
    }

    #[test]
    fn an_assignment_goes_once_to_a_connected_agent() {
        let (presence, vault) = (Presence::default(), Vault::default());
        let messages = Messages::new(presence.clone(), vault.clone());
        let (launch, name) = names();
        vault.put(launch.clone(), name.clone(), "secret".into());
        let assign = Effect::Assign {
            launch: launch.clone(),
            name: name.clone(),
        };
        assert_eq!(
            messages.send(assign.clone()),
            None,
            "it waits for the agent"
        );
        let (_connection, mut stream) = presence.connect(&launch);
        assert_eq!(messages.send(assign.clone()), None);
        assert!(matches!(
            stream.try_recv().map(|response| response.message),
            Ok(Some(Message::Assignment(assignment))) if assignment.encoded_jit_config == "secret"
        ));
        assert_eq!(
            messages.send(assign),
            Some(Event::AssignmentLost { launch, name })
        );
    }

    #[test]
    fn debug_of_the_vault_shows_no_secret() {
        let vault = Vault::default();
        let (launch, name) = names();
        vault.put(launch, name, "c2VjcmV0".into());
        assert!(!format!("{vault:?}").contains("c2VjcmV0"));
    }
}
