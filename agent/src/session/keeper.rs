//! When to connect.

use std::time::Duration;

use muster_proto::v1::SessionRequest;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::link::Closed;
use crate::backoff::{self, Backoff};

/// First ceiling of the wait before a new connection.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Last ceiling.
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// Wait after the coordinator has refused the instance while its job runs.
const DENIED_WAIT: Duration = Duration::from_secs(30);

/// The state of the connection.
#[derive(Debug)]
pub(crate) struct Keeper {
    state: State,
    backoff: Backoff,
    generation: u64,
}

#[derive(Debug)]
enum State {
    /// To connect at this time.
    Waiting { at: Instant },
    /// A link's task exists.
    Held {
        requests: mpsc::Sender<SessionRequest>,
        open: bool,
        _cancel: DropGuard,
    },
}

impl Keeper {
    /// To connect at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::Waiting { at: now },
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
            generation: 0,
        }
    }

    /// When to connect, if there is no link.
    pub(crate) fn connect_at(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { at } => Some(*at),
            State::Held { .. } => None,
        }
    }

    /// A link's task begins. Returns its generation, and what it is cancelled by.
    pub(crate) fn begin(
        &mut self,
        requests: mpsc::Sender<SessionRequest>,
    ) -> (u64, CancellationToken) {
        let cancel = CancellationToken::new();
        self.generation += 1;
        self.state = State::Held {
            requests,
            open: false,
            _cancel: cancel.clone().drop_guard(),
        };
        (self.generation, cancel)
    }

    /// Whether an event of this generation is of the present link.
    pub(crate) fn is_present(&self, generation: u64) -> bool {
        self.generation == generation && matches!(self.state, State::Held { .. })
    }

    /// The stream is open.
    pub(crate) fn opened(&mut self) {
        if let State::Held { open, .. } = &mut self.state {
            *open = true;
        }
    }

    /// The coordinator has said something: it works.
    pub(crate) fn heard(&mut self) {
        self.backoff.reset();
    }

    /// Where to send, while the stream is open.
    pub(crate) fn requests(&self) -> Option<&mpsc::Sender<SessionRequest>> {
        match &self.state {
            State::Held {
                requests,
                open: true,
                ..
            } => Some(requests),
            _ => None,
        }
    }

    /// The link is over. Returns how long the next one waits.
    pub(crate) fn closed(&mut self, why: &Closed, now: Instant) -> Duration {
        let wait = match why {
            Closed::Denied(_) => backoff::around(DENIED_WAIT),
            // Two that take each other's place must not do it all the time.
            Closed::Superseded(_) => backoff::up_to(BACKOFF_CAP),
            _ => self.backoff.next(),
        };
        self.wait(wait, now);
        wait
    }

    /// Ends the present link; the next one waits a random time up to `within`.
    pub(crate) fn reconnect(&mut self, within: Duration, now: Instant) {
        self.wait(backoff::up_to(within), now);
    }

    fn wait(&mut self, wait: Duration, now: Instant) {
        self.state = State::Waiting { at: now + wait };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::{BACKOFF_BASE, Keeper};
    use crate::session::link::Closed;

    #[test]
    fn a_link_that_ends_is_followed_by_another_and_its_late_events_are_not_present() {
        let now = Instant::now();
        let mut keeper = Keeper::new(now);
        assert_eq!(keeper.connect_at(), Some(now));
        let (first, cancel) = keeper.begin(mpsc::channel(1).0);
        assert!(keeper.is_present(first) && keeper.connect_at().is_none());
        assert!(keeper.requests().is_none(), "not open yet");
        keeper.opened();
        assert!(keeper.requests().is_some());

        let later = now + Duration::from_secs(60);
        keeper.closed(&Closed::Ended, later);
        assert!(cancel.is_cancelled() && !keeper.is_present(first));
        assert!(keeper.connect_at().unwrap() <= later + BACKOFF_BASE);

        keeper.begin(mpsc::channel(1).0);
        assert!(!keeper.is_present(first));
        keeper.closed(&Closed::NoAnswer, later + Duration::from_secs(9));
    }

    #[test]
    fn a_refused_instance_comes_back_slowly() {
        let now = Instant::now();
        let mut keeper = Keeper::new(now);
        keeper.begin(mpsc::channel(1).0);
        let wait = keeper.closed(&Closed::Denied(String::new()), now);
        assert!(wait >= Duration::from_secs(24), "{wait:?}");
    }
}
