//! Gathers calls about single instances that come at the same time, so that they share one to EC2.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Questions that may wait; those who ask more wait themselves.
const WAITING: usize = 4_096;
/// Calls under way at a time.
const CALLS: usize = 8;

/// Sends questions where they are gathered. Cheap to clone.
#[derive(Debug)]
pub(super) struct Batcher<Q, A> {
    questions: mpsc::Sender<Asked<Q, A>>,
}

/// A question, and who waits for the answer.
#[derive(Debug)]
pub(super) struct Asked<Q, A> {
    pub(super) question: Q,
    pub(super) answer: oneshot::Sender<A>,
}

/// How much is gathered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gather {
    /// How long after the first question others may join it.
    pub(super) window: Duration,
    /// Most questions in one call.
    pub(super) most: usize,
}

impl<Q, A> Clone for Batcher<Q, A> {
    fn clone(&self) -> Self {
        Self {
            questions: self.questions.clone(),
        }
    }
}

impl<Q: Send + 'static, A: Send + 'static> Batcher<Q, A> {
    /// A batcher, and the task that serves it until it is told to stop.
    pub(super) fn new<F>(
        gather: Gather,
        call: impl Fn(Vec<Asked<Q, A>>) -> F + Send + 'static,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (questions, asked) = mpsc::channel(WAITING);
        let serve = async move {
            // Dropped calls drop their questions, and those who ask hear that nobody answers.
            let _ = stop.run_until_cancelled(serve(gather, call, asked)).await;
        };
        (Self { questions }, serve)
    }

    /// Asks. None if the batcher has stopped.
    pub(super) async fn ask(&self, question: Q) -> Option<A> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { question, answer };
        self.questions.send(asked).await.ok()?;
        answered.await.ok()
    }
}

async fn serve<Q, A, F>(
    gather: Gather,
    call: impl Fn(Vec<Asked<Q, A>>) -> F,
    mut asked: mpsc::Receiver<Asked<Q, A>>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut calls = JoinSet::new();
    loop {
        let first = tokio::select! {
            Some(_) = calls.join_next() => continue,
            first = asked.recv() => first,
        };
        let Some(first) = first else { return };
        let mut batch = vec![first];
        let full = tokio::time::sleep(gather.window);
        tokio::pin!(full);
        while batch.len() < gather.most {
            tokio::select! {
                () = &mut full => break,
                next = asked.recv() => match next {
                    Some(next) => batch.push(next),
                    None => break,
                },
            }
        }
        while calls.len() >= CALLS {
            calls.join_next().await;
        }
        calls.spawn(call(batch));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const GATHER: Gather = Gather {
        window: Duration::from_millis(20),
        most: 3,
    };

    #[tokio::test(start_paused = true)]
    async fn what_comes_together_is_asked_together() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let call = move |batch: Vec<Asked<u32, u32>>| {
            seen.lock().unwrap().push(batch.len());
            async move {
                for asked in batch {
                    asked.answer.send(asked.question * 2).unwrap();
                }
            }
        };
        let (batcher, serve) = Batcher::new(GATHER, call, CancellationToken::new());
        let serving = tokio::spawn(serve);
        let answers = futures::future::join_all((0..7).map(|n| batcher.ask(n))).await;
        assert_eq!(answers, (0..7).map(|n| Some(n * 2)).collect::<Vec<_>>());
        assert_eq!(*sizes.lock().unwrap(), [3, 3, 1]);
        drop(batcher);
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn who_asks_after_the_end_is_told() {
        let stop = CancellationToken::new();
        let call = |_: Vec<Asked<u32, u32>>| async {};
        let (batcher, serve) = Batcher::new(GATHER, call, stop.clone());
        let serving = tokio::spawn(serve);
        assert_eq!(batcher.ask(1).await, None, "a call that answers nobody");
        stop.cancel();
        serving.await.unwrap();
        assert_eq!(batcher.ask(1).await, None);
    }
}
