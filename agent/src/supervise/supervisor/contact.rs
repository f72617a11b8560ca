//! Whether the coordinator can hear this host. What the front says of it counts only while there is one.

use tokio::time::Instant;

/// Since when there is no way to the coordinator.
#[derive(Debug)]
pub(super) struct Contact {
    down_since: Option<Instant>,
}

impl Contact {
    /// None yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            down_since: Some(now),
        }
    }

    /// The front says that there is a stream, or that there is none any more.
    pub(super) fn set(&mut self, up: bool, now: Instant) {
        if up {
            self.down_since = None;
        } else {
            self.lose(now);
        }
    }

    /// There is no front any more.
    pub(super) fn lose(&mut self, now: Instant) {
        self.down_since.get_or_insert(now);
    }

    /// Since when not.
    pub(super) fn down_since(&self) -> Option<Instant> {
        self.down_since
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Contact;

    #[test]
    fn a_loss_counts_from_its_beginning() {
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        let mut contact = Contact::new(start);
        contact.set(false, later);
        contact.lose(later);
        assert_eq!(contact.down_since(), Some(start));
        contact.set(true, later);
        assert_eq!(contact.down_since(), None);
        contact.lose(later);
        assert_eq!(contact.down_since(), Some(later));
    }
}
