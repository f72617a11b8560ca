//! Deliveries that were answered, on their way to the fleet.

use muster_core::Event;

use crate::github::webhook::{self, Intake};
use crate::store::{Ledger, StoreError};

/// Deliveries taken at once.
const AT_ONCE: u32 = 256;

/// What was read.
pub(super) struct Read {
    pub(super) events: Vec<Event>,
    /// All that were read, to be marked as processed with what they changed.
    pub(super) guids: Vec<String>,
    /// Whether there may be more.
    pub(super) more: bool,
}

pub(super) async fn read(store: &dyn Ledger) -> Result<Read, StoreError> {
    let deliveries = store.pending_deliveries(AT_ONCE).await?;
    let more = u32::try_from(deliveries.len()).is_ok_and(|count| count == AT_ONCE);
    let mut read = Read {
        events: Vec::new(),
        guids: Vec::new(),
        more,
    };
    for delivery in deliveries {
        match webhook::parse(&delivery.event, &delivery.body) {
            Ok(Intake::Job(report)) => read.events.push(Event::Job(Box::new(report))),
            Ok(Intake::Ignored(_)) => {}
            // It was parsed before it was stored: an older version of this program took it.
            Err(error) => {
                tracing::error!(delivery = delivery.guid, %error, "a stored delivery can't be read");
            }
        }
        read.guids.push(delivery.guid);
    }
    Ok(read)
}
