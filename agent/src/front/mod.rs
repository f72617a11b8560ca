//! The half of the agent that faces the network: holds the stream to the coordinator, watches the
//! metadata service, and passes on what the supervisor says. It decides nothing about the runner.

mod coordinator;
mod standing;

use std::time::Duration;

use jiff::Timestamp;
use muster_proto::v1::session_request::Message;
use muster_proto::v1::{Heartbeat, Sample, SessionRequest};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::standing::Standing;
use crate::config::NetworkConfig;
use crate::enroll::Enrolled;
use crate::identity::Identity;
use crate::imds::{self, Cadence, Notice};
use crate::local::{HostState, Order, Report, ToSupervisor, heard};
use crate::session::keeper::Keeper;
use crate::session::link::{Closed, LinkEvent};
use crate::session::outbox::Outbox;
use crate::signals::Signals;
use crate::systemd::{DescriptorStore, Notifier};

/// How long the executors may take to end.
const TASKS_LIMIT: Duration = Duration::from_secs(2);
/// Events of one executor that may wait for the dispatcher. A full queue holds the executor back.
const EVENTS: usize = 64;
/// The loop turns at least this often.
const TURN_MAX: Duration = Duration::from_secs(60);

/// The network's half of the agent, enrolled.
#[derive(Debug)]
pub(crate) struct Front {
    config: NetworkConfig,
    notifier: Notifier,
    store: DescriptorStore,
    /// Set where the supervisor is another process; else it takes the signals.
    signals: Option<Signals>,
    instance_id: String,
    identity: Identity,
    enrolled_at: Timestamp,
    started_at: Timestamp,
    keeper: Keeper,
    outbox: Outbox,
    /// What the supervisor said last. None before it has said anything.
    host: Option<HostState>,
    sample: Option<Sample>,
    standing: Standing,
    supervisor: Option<ToSupervisor>,
    supervisors: mpsc::Receiver<ToSupervisor>,
    /// No other supervisor will come.
    last_supervisor: bool,
    link_events: Inbox<(u64, LinkEvent)>,
    notices: Inbox<Notice>,
    cadence: watch::Sender<Cadence>,
    tasks: JoinSet<()>,
    cancel: CancellationToken,
    done: bool,
}

/// A bounded queue, both ends of which stay here, so that it never closes.
#[derive(Debug)]
struct Inbox<T> {
    sender: mpsc::Sender<T>,
    receiver: mpsc::Receiver<T>,
}

impl<T> Inbox<T> {
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel(EVENTS);
        Self { sender, receiver }
    }
}

impl Front {
    /// A front that has enrolled. `started_at` is when the process began.
    pub(crate) fn new(
        config: NetworkConfig,
        enrolled: Enrolled,
        signals: Option<Signals>,
        started_at: Timestamp,
        supervisors: mpsc::Receiver<ToSupervisor>,
    ) -> Self {
        Self {
            config,
            notifier: Notifier::new(),
            store: DescriptorStore::new(),
            signals,
            instance_id: enrolled.instance_id,
            identity: enrolled.identity,
            enrolled_at: enrolled.at,
            started_at,
            keeper: Keeper::new(Instant::now()),
            outbox: Outbox::default(),
            host: None,
            sample: None,
            standing: Standing::default(),
            supervisor: None,
            supervisors,
            last_supervisor: false,
            link_events: Inbox::new(),
            notices: Inbox::new(),
            cadence: watch::Sender::new(Cadence::Idle),
            tasks: JoinSet::new(),
            cancel: CancellationToken::new(),
            done: false,
        }
    }

    /// Runs until the supervisor says that all is done, there is none any more, or a signal comes.
    pub(crate) async fn run(mut self) {
        self.keep_identity();
        self.watch_metadata();
        while !self.is_over() {
            self.connect_if_due();
            let requests = self.keeper.requests().cloned();
            let unsent = self.outbox.has_unsent();
            let wake = self.next_wake();
            tokio::select! {
                supervisor = self.supervisors.recv(), if !self.last_supervisor => {
                    match supervisor {
                        Some(supervisor) => self.supervisor = Some(supervisor),
                        None => self.last_supervisor = true,
                    }
                }
                report = heard(&mut self.supervisor) => match report {
                    Some(report) => self.on_report(report),
                    None => self.lose_supervisor(),
                },
                Some((generation, event)) = self.link_events.receiver.recv() => {
                    self.on_link(generation, event);
                }
                Some(notice) = self.notices.receiver.recv() => self.on_notice(notice),
                signal = signal(&mut self.signals) => {
                    tracing::info!(signal, "ending; the supervisor goes on");
                    self.done = true;
                }
                permit = room(requests), if unsent => self.send_event(permit),
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an executor failed");
                    }
                }
                () = sleep_until(wake) => {}
            }
            self.notifier.alive(Instant::now());
        }
        self.clear_away().await;
    }

    /// Whether all is done, or nobody can say so any more.
    fn is_over(&self) -> bool {
        self.done || (self.last_supervisor && self.supervisor.is_none())
    }

    fn watch_metadata(&mut self) {
        if let Some(base) = self.config.metadata_endpoint.clone() {
            let notices = self.notices.sender.clone();
            let watch = imds::watch(base, self.cadence.subscribe(), notices);
            let cancel = self.cancel.clone();
            self.tasks.spawn(async move {
                let _ended = cancel.run_until_cancelled(watch).await;
            });
        }
    }

    /// Leaves the identity where the next process of this service finds it.
    fn keep_identity(&mut self) {
        let kept = self
            .identity
            .kept(&self.instance_id, self.enrolled_at)
            .and_then(|text| self.store.keep(&text));
        if let Err(error) = kept {
            tracing::warn!(%error, "the identity would not survive a crash");
        }
    }

    fn next_wake(&self) -> Instant {
        let connect = self.keeper.connect_at().filter(|_| self.host.is_some());
        [connect, self.notifier.next()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + TURN_MAX)
    }

    fn connect_if_due(&mut self) {
        // The hello says what the runner does, so the supervisor must have said it.
        let due = self
            .keeper
            .connect_at()
            .is_some_and(|at| at <= Instant::now());
        if due && let Some(host) = self.host.clone() {
            self.connect(&host);
        }
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::State(host) => self.on_state(host),
            Report::Event(event) => self.outbox.push(event),
            Report::Sample(sample) => {
                self.send_heartbeat(sample);
                self.sample = Some(sample);
            }
            Report::Done => self.done = true,
        }
    }

    fn on_state(&mut self, host: HostState) {
        let cadence = if host.busy {
            Cadence::Busy
        } else {
            Cadence::Idle
        };
        self.cadence.send_if_modified(|now| {
            let changed = *now != cadence;
            *now = cadence;
            changed
        });
        let first = self.host.is_none();
        self.host = Some(host);
        if first || self.standing.is_owed() {
            self.repeat_orders();
        }
    }

    /// Tells a supervisor that is new to us all that holds.
    fn repeat_orders(&mut self) {
        let assigned = self
            .host
            .as_ref()
            .is_some_and(|host| host.runner_name.is_some());
        for order in self.standing.orders(assigned) {
            self.say(order);
        }
    }

    /// Gives an order, and again to the supervisor that comes after this one.
    fn order(&mut self, order: Order) {
        self.standing.note(&order);
        self.say(order);
    }

    fn say(&mut self, order: Order) {
        let Some(supervisor) = &self.supervisor else {
            return;
        };
        if supervisor.to.try_send(order).is_err() {
            tracing::warn!("the supervisor does not listen");
            self.lose_supervisor();
        }
    }

    fn lose_supervisor(&mut self) {
        self.supervisor = None;
        self.standing.owe();
    }

    fn on_notice(&mut self, notice: Notice) {
        self.order(Order::Notice(crate::local::Notice {
            kind: notice.kind.into(),
            deadline: notice.deadline,
            detail: notice.detail,
        }));
    }

    fn send_heartbeat(&self, sample: Sample) {
        let Some(requests) = self.keeper.requests() else {
            return;
        };
        let heartbeat = Message::Heartbeat(Heartbeat {
            sample: Some(sample),
        });
        // A full queue is a stalled connection, which keep-alive will end; a reading can be missed.
        if requests.try_send(request(heartbeat)).is_err() {
            tracing::debug!("a heartbeat was left out");
        }
    }

    fn send_event(&mut self, permit: Option<mpsc::OwnedPermit<SessionRequest>>) {
        let Some(permit) = permit else {
            // Nothing can be sent on this stream any more, whatever may still come from it.
            self.on_closed(&Closed::Ended);
            return;
        };
        if let Some(event) = self.outbox.next_unsent() {
            permit.send(request(Message::Event(event)));
        }
    }

    async fn clear_away(mut self) {
        self.cancel.cancel();
        // Dropping the keeper cancels the link; dropping the receivers lets executors run to their end.
        drop((self.keeper, self.supervisor, self.supervisors));
        drop((self.link_events, self.notices));
        let ended = timeout(TASKS_LIMIT, async {
            while self.tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::warn!("executors did not end in time");
        }
    }
}

/// The next signal; never, where somebody else takes them.
async fn signal(signals: &mut Option<Signals>) -> &'static str {
    match signals {
        Some(signals) => signals.recv().await,
        None => std::future::pending().await,
    }
}

/// Room for one message on the open stream. Never, if there is none.
async fn room(
    requests: Option<mpsc::Sender<SessionRequest>>,
) -> Option<mpsc::OwnedPermit<SessionRequest>> {
    match requests {
        Some(requests) => requests.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

fn request(message: Message) -> SessionRequest {
    SessionRequest {
        message: Some(message),
    }
}
