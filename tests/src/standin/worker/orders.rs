//! What the listener orders while a job runs.

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::sync::watch;

use crate::standin::protocol::Order;

/// Why a job is to stop. A shutdown outranks a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Interruption {
    Cancel,
    Shutdown,
}

/// The orders so far.
pub(super) struct Orders {
    lines: Option<Lines<BufReader<Stdin>>>,
    sender: Interrupter,
    received: watch::Receiver<Option<Interruption>>,
    /// What the job has already answered to.
    heeded: Option<Interruption>,
}

/// Lets others order a stop.
#[derive(Clone)]
pub(super) struct Interrupter(watch::Sender<Option<Interruption>>);

impl Interrupter {
    pub(super) fn shut_down(&self) {
        self.raise(Interruption::Shutdown);
    }

    fn raise(&self, interruption: Interruption) {
        self.0
            .send_modify(|known| *known = (*known).max(Some(interruption)));
    }
}

impl Orders {
    pub(super) fn listen() -> Self {
        let (sender, received) = watch::channel(None);
        Self {
            lines: Some(BufReader::new(tokio::io::stdin()).lines()),
            sender: Interrupter(sender),
            received,
            heeded: None,
        }
    }

    /// The first order; from then on the others are watched for.
    pub(super) async fn first(&mut self) -> Option<Order> {
        let mut lines = self.lines.take()?;
        let first = next(&mut lines).await;
        let interrupt = self.sender.clone();
        // A listener that died stops nothing: the worker goes on (`StreamString.cs:21-39`).
        tokio::spawn(async move {
            while let Some(order) = next(&mut lines).await {
                match order {
                    Order::Cancel => interrupt.raise(Interruption::Cancel),
                    Order::Shutdown => interrupt.raise(Interruption::Shutdown),
                    Order::Job { .. } => {}
                }
            }
        });
        first
    }

    pub(super) fn interrupter(&self) -> Interrupter {
        self.sender.clone()
    }

    /// What has been ordered so far.
    pub(super) fn interruption(&self) -> Option<Interruption> {
        *self.received.borrow()
    }

    /// `work`, unless something new is ordered first.
    pub(super) async fn unless_interrupted<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Interruption> {
        let heeded = self.heeded;
        let received = &mut self.received;
        tokio::select! {
            done = work => Ok(done),
            Ok(new) = received.wait_for(|known| *known > heeded) => {
                self.heeded = *new;
                Err(new.unwrap_or(Interruption::Cancel))
            }
        }
    }

    /// Ignores SIGTERM's and the listener's wishes from here on.
    pub(super) fn deafen(&mut self) {
        self.heeded = Some(Interruption::Shutdown);
    }
}

async fn next(lines: &mut Lines<BufReader<Stdin>>) -> Option<Order> {
    serde_json::from_str(&lines.next_line().await.ok()??).ok()
}
