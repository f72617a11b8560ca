//! The batches whose outcome is not known, who waits for them, and what was dealt a short while ago.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use muster_core::{InstanceId, LaunchId};
use tokio::time::Instant;

use super::Waiter;
use super::call::Standing;
use crate::backoff::Backoff;
use crate::compute::ec2::batch::{Batch, Made, Outcome};

/// Waits between two calls of the same batch.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How long it is known what was dealt, for those who ask again: whose answer was lost within this process,
/// or who asked before a restart.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// A batch whose outcome is not known.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) batch: Batch,
    standing: Standing,
    waiters: HashMap<LaunchId, Waiter>,
    backoff: Backoff,
    /// When it is called next; none while it is being called.
    call_at: Option<Instant>,
}

/// Where a launch is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere yet.
    Nowhere,
    /// In an open batch.
    Open,
    /// It has its instance.
    Dealt(Made),
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Book {
    open: BTreeMap<String, Open>,
    token_of: HashMap<LaunchId, String>,
    dealt: HashMap<LaunchId, (Made, Instant)>,
}

impl Book {
    /// The book after a restart. Open batches are called at once.
    pub(super) fn restore(batches: Vec<Batch>) -> Self {
        let mut book = Self::default();
        for batch in batches {
            match &batch.outcome {
                None => {
                    let token = batch.token.clone();
                    book.begin(batch, Vec::new());
                    if let Some(open) = book.open.get_mut(&token) {
                        open.standing = Standing::Unanswered;
                        open.call_at = Some(Instant::now());
                    }
                }
                Some(Outcome::Dealt(dealt)) => book.remember(dealt),
                Some(Outcome::Refused(_)) => {}
            }
        }
        book
    }

    /// Keeps what was dealt, and forgets what was dealt long ago.
    fn remember(&mut self, dealt: &BTreeMap<LaunchId, Made>) {
        let now = Instant::now();
        self.dealt
            .retain(|_, (_, at)| now.duration_since(*at) < REMEMBERED);
        let dealt = dealt.iter();
        self.dealt
            .extend(dealt.map(|(launch, made)| (launch.clone(), (made.clone(), now))));
    }

    /// Where a launch is.
    pub(super) fn find(&self, launch: &LaunchId) -> Place {
        if let Some((made, _)) = self.dealt.get(launch) {
            return Place::Dealt(made.clone());
        }
        if self.token_of.contains_key(launch) {
            return Place::Open;
        }
        Place::Nowhere
    }

    /// Lets a waiter wait for the open batch that its launch is in.
    pub(super) fn attach(&mut self, waiter: Waiter) {
        let launch = waiter.launch.clone();
        let token = self.token_of.get(&launch);
        if let Some(open) = token.and_then(|token| self.open.get_mut(token)) {
            open.waiters.insert(launch, waiter);
        }
    }

    /// Opens a batch, which is being called.
    pub(super) fn begin(&mut self, batch: Batch, waiters: Vec<Waiter>) {
        let token = batch.token.clone();
        for launch in &batch.launches {
            self.token_of.insert(launch.clone(), token.clone());
        }
        let waiters = waiters.into_iter();
        let open = Open {
            batch,
            standing: Standing::New,
            waiters: waiters.map(|one| (one.launch.clone(), one)).collect(),
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            call_at: None,
        };
        self.open.insert(token, open);
    }

    /// A batch could not be called, or gave no answer: it is called again, and those who wait hear why.
    pub(super) fn again(&mut self, token: &str, standing: Standing, reason: &str) {
        if let Some(open) = self.open.get_mut(token) {
            open.standing = open.standing.max(standing);
            open.call_at = Some(Instant::now() + open.backoff.wait());
            for waiter in open.waiters.values() {
                waiter.held_up.tell(reason);
            }
        }
    }

    /// A batch is settled: those of its waiters who have an instance get it; gives the others.
    pub(super) fn settle(&mut self, token: &str, dealt: &BTreeMap<LaunchId, Made>) -> Vec<Waiter> {
        self.remember(dealt);
        let Some(open) = self.open.remove(token) else {
            return Vec::new();
        };
        for launch in &open.batch.launches {
            self.token_of.remove(launch);
        }
        let mut without = Vec::new();
        for (launch, waiter) in open.waiters {
            match dealt.get(&launch) {
                // One who has left asks again.
                Some(made) => drop(waiter.answer.send(Ok(made.clone()))),
                None => without.push(waiter),
            }
        }
        without
    }

    /// Batches that are to be called now; they count as being called from here on.
    pub(super) fn due(&mut self, most: usize) -> Vec<(Batch, Standing)> {
        let now = Instant::now();
        self.open
            .values_mut()
            .filter(|open| open.call_at.is_some_and(|at| at <= now))
            .take(most)
            .map(|open| {
                open.call_at = None;
                (open.batch.clone(), open.standing)
            })
            .collect()
    }

    /// When the next batch is to be called.
    pub(super) fn next_call(&self) -> Option<Instant> {
        self.open.values().filter_map(|open| open.call_at).min()
    }

    /// Whether an instance was dealt a short while ago.
    pub(super) fn dealt_lately(&self, instance: &InstanceId) -> bool {
        let mut dealt = self.dealt.values();
        dealt.any(|(made, _)| made.instance == *instance)
    }

    /// Tokens of the open batches.
    pub(super) fn tokens(&self) -> BTreeSet<String> {
        self.open.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::compute::HeldUp;
    use crate::compute::ec2::batch::Failed;
    use crate::compute::ec2::batch::fixtures::{batch, made};

    fn waiter(launch: &str) -> (Waiter, oneshot::Receiver<Result<Made, Failed>>) {
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter {
            launch: launch.into(),
            alike: batch(&[]).alike(),
            held_up: HeldUp::nobody(),
            answer,
            attempts: 0,
        };
        (waiter, answered)
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_without_an_answer_is_called_again_until_it_has_one() {
        let mut book = Book::default();
        let (one, answered) = waiter("l-1");
        let (two, _left) = waiter("l-2");
        let batch = batch(&["l-1", "l-2"]);
        book.begin(batch.clone(), vec![one, two]);
        assert_eq!(book.find(&"l-1".into()), Place::Open);
        assert!(book.due(9).is_empty(), "it is being called");
        book.again(&batch.token, Standing::Unanswered, "no answer");
        tokio::time::advance(FIRST_WAIT).await;
        assert_eq!(book.due(9), [(batch.clone(), Standing::Unanswered)]);
        assert!(book.due(9).is_empty());
        book.again(&batch.token, Standing::Stored, "too many calls");
        tokio::time::advance(2 * FIRST_WAIT).await;
        let still = [(batch.clone(), Standing::Unanswered)];
        assert_eq!(book.due(9), still, "the call before has no answer yet");

        let dealt = BTreeMap::from([(LaunchId::from("l-1"), made("i-1"))]);
        let without = book.settle(&batch.token, &dealt);
        assert_eq!(without.len(), 1);
        assert_eq!(without[0].launch.as_str(), "l-2");
        assert_eq!(answered.await.unwrap(), Ok(made("i-1")));
        assert_eq!(book.find(&"l-1".into()), Place::Dealt(made("i-1")));
        assert_eq!(book.find(&"l-2".into()), Place::Nowhere);
        assert!(book.tokens().is_empty());
        assert!(book.dealt_lately(&"i-1".into()));
        assert!(!book.dealt_lately(&"i-2".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_what_was_dealt_is_found_and_what_is_open_is_called() {
        let mut settled = batch(&["l-1", "l-2"]);
        settled.outcome = Some(Outcome::Dealt(settled.deal(vec![made("i-1")])));
        let open = batch(&["l-3"]);
        let mut book = Book::restore(vec![settled, open.clone()]);
        assert_eq!(book.find(&"l-1".into()), Place::Dealt(made("i-1")));
        assert_eq!(book.find(&"l-1".into()), Place::Dealt(made("i-1")), "again");
        assert_eq!(book.find(&"l-2".into()), Place::Nowhere);
        assert_eq!(book.due(9), [(open.clone(), Standing::Unanswered)]);

        // The answer comes before anybody has asked.
        let dealt = BTreeMap::from([(LaunchId::from("l-3"), made("i-3"))]);
        assert!(book.settle(&open.token, &dealt).is_empty());
        assert_eq!(book.find(&"l-3".into()), Place::Dealt(made("i-3")));
        tokio::time::advance(REMEMBERED).await;
        book.settle("another", &BTreeMap::new());
        assert_eq!(book.find(&"l-1".into()), Place::Nowhere, "long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_has_left_finds_the_instance_later() {
        let mut book = Book::default();
        let (one, answered) = waiter("l-1");
        let batch = batch(&["l-1"]);
        book.begin(batch.clone(), vec![one]);
        drop(answered);
        let dealt = BTreeMap::from([(LaunchId::from("l-1"), made("i-1"))]);
        book.settle(&batch.token, &dealt);
        assert_eq!(book.find(&"l-1".into()), Place::Dealt(made("i-1")));
    }
}
