//! When to connect, and which of the links speaks for this host.

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

/// Wait after a successor that was not answered: its hello has kept events waiting, which go on meanwhile.
const UNANSWERED_WAIT: Duration = Duration::from_secs(5);

/// The state of the connection.
///
/// One link at most is present: what it brings counts, and events are sent on it. While it is, there may be
/// another on its way, its successor, with a newer certificate. The present one goes on until the coordinator
/// has answered the successor's hello; a successor that fails is followed by another.
#[derive(Debug)]
pub(crate) struct Keeper {
    present: Option<Held>,
    next: Next,
    backoff: Backoff,
    generation: u64,
}

/// A link whose task exists.
#[derive(Debug)]
struct Held {
    generation: u64,
    requests: mpsc::Sender<SessionRequest>,
    stage: Stage,
    _cancel: DropGuard,
}

/// How far a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No connection yet.
    Connecting,
    /// The hello is on its way.
    Greeting,
    /// The stream is open.
    Open,
}

/// The link after the present one.
#[derive(Debug)]
enum Next {
    /// None is wanted.
    Nothing,
    /// To connect at this time.
    At(Instant),
    /// On its way.
    Begun(Held),
}

/// What a link is to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one that counts.
    Present,
    /// On its way to take the place of an open one.
    Successor,
}

/// What follows the end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Another link after this wait.
    Wait(Duration),
    /// Its successor is the present link.
    Succeeded {
        /// Its stream is open.
        open: bool,
    },
}

impl Keeper {
    /// To connect at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            present: None,
            next: Next::At(now),
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
            generation: 0,
        }
    }

    /// When to connect, if a link is wanted.
    pub(crate) fn connect_at(&self) -> Option<Instant> {
        match &self.next {
            Next::At(at) => Some(*at),
            Next::Nothing | Next::Begun(_) => None,
        }
    }

    /// A link's task begins. Returns its generation, what it is to be, and what it is cancelled by.
    pub(crate) fn begin(
        &mut self,
        requests: mpsc::Sender<SessionRequest>,
    ) -> (u64, Role, CancellationToken) {
        let cancel = CancellationToken::new();
        self.generation += 1;
        let held = Held {
            generation: self.generation,
            requests,
            stage: Stage::Connecting,
            _cancel: cancel.clone().drop_guard(),
        };
        let role = if self.present.is_none() {
            self.present = Some(held);
            self.next = Next::Nothing;
            Role::Present
        } else {
            self.next = Next::Begun(held);
            Role::Successor
        };
        (self.generation, role, cancel)
    }

    /// What the link of this generation is. None if it counts no more.
    pub(crate) fn role(&self, generation: u64) -> Option<Role> {
        let is_it = |held: &Held| held.generation == generation;
        match (&self.present, &self.next) {
            (Some(held), _) if is_it(held) => Some(Role::Present),
            (_, Next::Begun(held)) if is_it(held) => Some(Role::Successor),
            _ => None,
        }
    }

    fn held(&mut self, role: Role) -> Option<&mut Held> {
        match (role, &mut self.next) {
            (Role::Present, _) => self.present.as_mut(),
            (Role::Successor, Next::Begun(held)) => Some(held),
            (Role::Successor, _) => None,
        }
    }

    /// There is a connection: where the hello goes to.
    pub(crate) fn greet(&mut self, role: Role) -> Option<&mpsc::Sender<SessionRequest>> {
        let held = self.held(role)?;
        held.stage = Stage::Greeting;
        Some(&held.requests)
    }

    /// The stream is open.
    pub(crate) fn opened(&mut self, role: Role) {
        if let Some(held) = self.held(role) {
            held.stage = Stage::Open;
        }
    }

    /// The coordinator has answered the successor: it is the present link from now on, and the one before is
    /// over.
    pub(crate) fn succeed(&mut self) {
        if let Next::Begun(held) = std::mem::replace(&mut self.next, Next::Nothing) {
            self.present = Some(held);
        }
    }

    /// The coordinator has said something on the present link: it works. While another is wanted, that is
    /// no sign that it would.
    pub(crate) fn heard(&mut self) {
        if matches!(self.next, Next::Nothing) {
            self.backoff.reset();
        }
    }

    /// Where to send, while the stream is open.
    pub(crate) fn requests(&self) -> Option<&mpsc::Sender<SessionRequest>> {
        self.present
            .as_ref()
            .filter(|held| held.stage == Stage::Open)
            .map(|held| &held.requests)
    }

    /// Where to send events. Not on the old stream once the hello of its successor is on its way: the
    /// coordinator would hear of events that are newer than what the hello says, and take them for those of
    /// an agent that counts anew.
    pub(crate) fn requests_for_events(&self) -> Option<&mpsc::Sender<SessionRequest>> {
        match &self.next {
            Next::Begun(held) if held.stage != Stage::Connecting => None,
            _ => self.requests(),
        }
    }

    /// A link is over.
    pub(crate) fn closed(&mut self, role: Role, why: &Closed, now: Instant) -> After {
        if role == Role::Present {
            self.present = None;
            // Who is refused altogether is so on any link.
            if !matches!(why, Closed::Denied(_)) && matches!(self.next, Next::Begun(_)) {
                self.succeed();
                return After::Succeeded {
                    open: self.requests().is_some(),
                };
            }
        }
        let wait = match why {
            Closed::Denied(_) => backoff::around(DENIED_WAIT),
            Closed::NoAnswer if role == Role::Successor => backoff::around(UNANSWERED_WAIT),
            // Two that take each other's place must not do it all the time.
            Closed::Superseded(_) => backoff::up_to(BACKOFF_CAP),
            _ => self.backoff.next(),
        };
        self.next = Next::At(now + wait);
        After::Wait(wait)
    }

    /// Ends the present link; the next one waits a random time up to `within`.
    pub(crate) fn reconnect(&mut self, within: Duration, now: Instant) {
        self.present = None;
        self.next = Next::At(now + backoff::up_to(within));
    }

    /// Wants a successor, with what has changed, in place of any that is on its way. The present link goes on
    /// until then.
    pub(crate) fn renew(&mut self, now: Instant) {
        if self.requests().is_none() {
            self.present = None;
        }
        self.next = Next::At(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_proto::v1::SessionRequest;
    use tokio::sync::mpsc;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::{After, BACKOFF_BASE, Keeper, Role};
    use crate::session::link::Closed;

    fn begin(keeper: &mut Keeper) -> (u64, Role, CancellationToken) {
        keeper.begin(mpsc::channel::<SessionRequest>(1).0)
    }

    fn open(keeper: &mut Keeper) -> (u64, CancellationToken) {
        let (generation, role, cancel) = begin(keeper);
        assert!(keeper.requests().is_none() || role == Role::Successor);
        assert!(keeper.greet(role).is_some());
        keeper.opened(role);
        (generation, cancel)
    }

    /// One whose link is open, and that has begun another with a new certificate.
    fn renewing(now: Instant) -> (Keeper, (u64, CancellationToken)) {
        let mut keeper = Keeper::new(now);
        let old = open(&mut keeper);
        keeper.renew(now);
        assert_eq!(keeper.connect_at(), Some(now));
        (keeper, old)
    }

    #[test]
    fn a_link_that_ends_is_followed_by_another_and_its_late_events_are_not_present() {
        let now = Instant::now();
        let mut keeper = Keeper::new(now);
        assert_eq!(keeper.connect_at(), Some(now));
        let (first, role, cancel) = begin(&mut keeper);
        assert_eq!(keeper.role(first), Some(Role::Present));
        assert!(keeper.connect_at().is_none());
        assert!(keeper.requests().is_none(), "not open yet");
        keeper.opened(role);
        assert!(keeper.requests().is_some());

        let later = now + Duration::from_secs(60);
        keeper.closed(role, &Closed::Ended, later);
        assert!(cancel.is_cancelled() && keeper.role(first).is_none());
        assert!(keeper.connect_at().unwrap() <= later + BACKOFF_BASE);

        begin(&mut keeper);
        assert_eq!(keeper.role(first), None);
        keeper.closed(role, &Closed::NoAnswer, later + Duration::from_secs(9));
    }

    #[test]
    fn a_refused_instance_comes_back_slowly() {
        let now = Instant::now();
        let mut keeper = Keeper::new(now);
        let (_, role, _cancel) = begin(&mut keeper);
        let after = keeper.closed(role, &Closed::Denied(String::new()), now);
        let After::Wait(wait) = after else {
            panic!("{after:?}")
        };
        assert!(wait >= Duration::from_secs(24), "{wait:?}");
    }

    #[test]
    fn the_old_link_serves_until_the_new_one_is_answered() {
        let now = Instant::now();
        let (mut keeper, (old, old_cancel)) = renewing(now);
        let (new, role, new_cancel) = begin(&mut keeper);
        assert_eq!(
            (keeper.role(old), keeper.role(new)),
            (Some(Role::Present), Some(role))
        );
        assert_eq!(role, Role::Successor);
        assert!(keeper.requests_for_events().is_some());
        keeper.greet(role).unwrap();
        assert!(
            keeper.requests_for_events().is_none(),
            "newer than the hello"
        );
        assert!(keeper.requests().is_some(), "heartbeats");
        keeper.opened(role);
        assert!(!old_cancel.is_cancelled());
        keeper.succeed();
        assert!(old_cancel.is_cancelled() && !new_cancel.is_cancelled());
        assert_eq!(
            (keeper.role(old), keeper.role(new)),
            (None, Some(Role::Present))
        );
        assert!(keeper.requests_for_events().is_some() && keeper.connect_at().is_none());
    }

    #[test]
    fn a_successor_that_fails_leaves_the_old_link_and_is_followed_by_another_ever_later() {
        let now = Instant::now();
        let (mut keeper, (old, cancel)) = renewing(now);
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let (_, role, successor) = begin(&mut keeper);
            keeper.greet(role).unwrap();
            let After::Wait(wait) = keeper.closed(role, &Closed::Ended, now) else {
                panic!("the successor was taken for the present link")
            };
            longest = longest.max(wait);
            assert!(successor.is_cancelled() && !cancel.is_cancelled());
            assert_eq!(keeper.role(old), Some(Role::Present));
            assert_eq!(keeper.connect_at(), Some(now + wait));
            assert!(keeper.requests_for_events().is_some());
            // It works, which says nothing of the next one.
            keeper.heard();
        }
        assert!(longest > BACKOFF_BASE, "{longest:?}");
    }

    #[test]
    fn events_have_a_while_after_a_successor_that_kept_them_waiting_in_vain() {
        let now = Instant::now();
        let (mut keeper, _old) = renewing(now);
        for _ in 0..3 {
            let (_, role, _cancel) = begin(&mut keeper);
            keeper.greet(role).unwrap();
            let After::Wait(wait) = keeper.closed(role, &Closed::NoAnswer, now) else {
                panic!("the successor was taken for the present link")
            };
            assert!(wait >= Duration::from_secs(4), "{wait:?}");
        }
    }

    #[test]
    fn an_old_link_that_ends_first_is_followed_by_its_successor_at_once() {
        let now = Instant::now();
        for is_open in [false, true] {
            let (mut keeper, (old, _cancel)) = renewing(now);
            let (new, role, cancel) = begin(&mut keeper);
            if is_open {
                keeper.greet(role).unwrap();
                keeper.opened(role);
            }
            let superseded = Closed::Superseded(String::new());
            let after = keeper.closed(Role::Present, &superseded, now);
            assert_eq!(after, After::Succeeded { open: is_open });
            assert!(!cancel.is_cancelled());
            assert_eq!(
                (keeper.role(old), keeper.role(new)),
                (None, Some(Role::Present))
            );
            assert_eq!(keeper.requests().is_some(), is_open);
        }
    }

    #[test]
    fn an_instance_that_is_refused_on_the_old_link_tries_no_other_for_a_while() {
        let now = Instant::now();
        let (mut keeper, _old) = renewing(now);
        let (_, _, cancel) = begin(&mut keeper);
        let denied = Closed::Denied(String::new());
        assert!(matches!(
            keeper.closed(Role::Present, &denied, now),
            After::Wait(_)
        ));
        assert!(cancel.is_cancelled());
    }

    #[test]
    fn a_newer_certificate_is_used_by_the_successor() {
        let now = Instant::now();
        let (mut keeper, (_, old)) = renewing(now);
        let (stale, _, cancel) = begin(&mut keeper);
        keeper.renew(now);
        assert!(cancel.is_cancelled() && !old.is_cancelled());
        assert_eq!((keeper.role(stale), keeper.connect_at()), (None, Some(now)));
    }
}
