//! One thing to write, and who waits for it.

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::database::Connection;
use super::{Accepted, Delivery, StoreError};

/// One thing to write. It may be applied more than once, if a transaction is rolled back.
pub(super) trait Change: Send + Sync + 'static {
    /// What the caller learns.
    type Output: Send;

    /// Whether only the leader may write it.
    const OF_LEADER: bool = true;
    /// Whether the leader is to be told, if another coordinator writes it.
    const WAKES_LEADER: bool = false;

    /// Writes it inside a transaction.
    fn apply(
        &self,
        db: &mut Connection,
    ) -> impl Future<Output = Result<Self::Output, StoreError>> + Send;

    /// About how many bytes it writes, if that may be many.
    fn size(&self) -> usize {
        0
    }

    /// The delivery, if it is one: those of a group are written together.
    fn as_delivery(&self) -> Option<&Delivery> {
        None
    }

    /// What the caller learns of a delivery that was written together with others.
    fn delivered(_accepted: Accepted) -> Option<Self::Output> {
        None
    }
}

/// A change, its outcome once applied, and who waits for it.
pub(super) struct Pending<C: Change> {
    change: C,
    outcome: Option<C::Output>,
    reply: oneshot::Sender<Result<C::Output, StoreError>>,
}

impl<C: Change> Pending<C> {
    /// The change, and where its outcome will be told.
    pub(super) fn new(change: C) -> (Box<Self>, oneshot::Receiver<Result<C::Output, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        let pending = Self {
            change,
            outcome: None,
            reply,
        };
        (Box::new(pending), answer)
    }
}

/// A [`Pending`] whose change may be of any type.
pub(super) trait Queued: Send {
    fn apply<'a>(&'a mut self, db: &'a mut Connection) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Tells the caller: the outcome if the transaction was committed.
    fn answer(self: Box<Self>, verdict: Result<(), StoreError>);

    fn size(&self) -> usize;

    fn of_leader(&self) -> bool;

    fn wakes_leader(&self) -> bool;

    fn as_delivery(&self) -> Option<&Delivery>;

    fn delivered(&mut self, accepted: Accepted);
}

impl<C: Change> Queued for Pending<C> {
    fn apply<'a>(&'a mut self, db: &'a mut Connection) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.outcome = Some(self.change.apply(db).await?);
            Ok(())
        })
    }

    fn answer(self: Box<Self>, verdict: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        let answer = verdict.and_then(|()| outcome.ok_or(StoreError::Closed));
        // A caller that has gone away needs no answer.
        drop(reply.send(answer));
    }

    fn size(&self) -> usize {
        self.change.size()
    }

    fn of_leader(&self) -> bool {
        C::OF_LEADER
    }

    fn wakes_leader(&self) -> bool {
        C::WAKES_LEADER
    }

    fn as_delivery(&self) -> Option<&Delivery> {
        self.change.as_delivery()
    }

    fn delivered(&mut self, accepted: Accepted) {
        self.outcome = C::delivered(accepted);
    }
}
