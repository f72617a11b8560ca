//! The watch against a service on loopback, with intervals of milliseconds; the waits under paused time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use muster_proto::v1::InterruptionKind;
use rstest::rstest;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{Cadence, INTERVALS, Intervals, Pace, watch_at};
use crate::imds::notice::{Notice, Source};
use crate::imds::service::{Reply, Service, guarded};

const SPOT: &str = "get /i-1/latest/meta-data/spot/instance-action ";
const MAINTENANCE: &str = "get /i-1/latest/meta-data/events/maintenance/scheduled ";

/// A watch of one service.
struct Watched {
    service: Service,
    notices: mpsc::Receiver<Notice>,
    _cadence: watch::Sender<Cadence>,
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    async fn start(others: Duration, then: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let service = Service::start(guarded(then)).await;
        let (sender, notices) = mpsc::channel(16);
        let (cadence, looks) = watch::channel(Cadence::Busy);
        let intervals = Intervals {
            idle: Duration::from_secs(3600),
            busy: Duration::from_millis(5),
            failing: Duration::from_millis(20),
            others,
        };
        let task = tokio::spawn(watch_at(service.base.clone(), looks, sender, intervals));
        Self {
            service,
            notices,
            _cadence: cadence,
            task,
        }
    }

    async fn notice(&mut self) -> Notice {
        let notice = timeout(Duration::from_secs(20), self.notices.recv());
        notice.await.unwrap().unwrap()
    }

    /// Waits for that many more looks at Spot's place.
    async fn looks(&self, count: usize) {
        let before = self.service.log().count(SPOT);
        let enough = |log: &crate::imds::service::Log| log.count(SPOT) >= before + count;
        self.service.until(enough).await;
    }
}

fn spot(minute: usize) -> Reply {
    let time = format!("2026-01-01T00:{minute:02}:00Z");
    Reply::text(200, &format!(r#"{{"action":"terminate","time":"{time}"}}"#))
}

/// All four at once.
fn all(path: &str) -> Reply {
    match path {
        "meta-data/spot/instance-action" => spot(2),
        "meta-data/events/recommendations/rebalance" => {
            Reply::text(200, r#"{"noticeTime":"2026-01-01T00:00:00Z"}"#)
        }
        "meta-data/events/maintenance/scheduled" => Reply::text(
            200,
            r#"[{"EventId":"e-1","Code":"system-reboot","State":"active",
                "NotBefore":"21 Jan 2026 09:00:43 GMT"}]"#,
        ),
        "meta-data/autoscaling/target-lifecycle-state" => Reply::text(200, "Terminated"),
        _ => Reply::text(500, ""),
    }
}

#[tokio::test]
async fn each_notice_is_sent_once() {
    let mut watched = Watched::start(Duration::ZERO, all).await;
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(watched.notice().await.kind);
    }
    assert_eq!(
        kinds,
        [
            InterruptionKind::Spot,
            InterruptionKind::Rebalance,
            InterruptionKind::Maintenance,
            InterruptionKind::Lifecycle
        ]
    );
    watched.looks(5).await;
    assert!(watched.service.log().count(MAINTENANCE) >= 4);
    assert_eq!(
        watched.notices.try_recv(),
        Err(mpsc::error::TryRecvError::Empty)
    );
    assert_eq!(watched.service.log().connections, 1);
}

#[tokio::test]
async fn a_spot_notice_that_moves_is_sent_again() {
    let reads = AtomicUsize::new(0);
    let mut watched = Watched::start(Duration::from_secs(3600), move |path| match path {
        "meta-data/spot/instance-action" => spot(reads.fetch_add(1, Ordering::Relaxed) / 3 % 2),
        _ => Reply::text(404, ""),
    })
    .await;
    assert_eq!(
        watched.notice().await.detail,
        "terminate at 2026-01-01T00:00:00Z"
    );
    assert_eq!(
        watched.notice().await.detail,
        "terminate at 2026-01-01T00:01:00Z"
    );
    watched.looks(8).await;
    assert!(watched.notices.try_recv().is_err());
}

#[rstest]
#[case(Reply::text(200, "<html>"))]
#[case(Reply::text(200, ""))]
#[case(Reply::text(503, ""))]
#[case(Reply::text(401, ""))]
#[case(Reply::Raw(b"garbage".to_vec()))]
#[case(Reply::Raw(Vec::new()))]
#[case(Reply::Answer(200, String::new(), vec![b'x'; 100_000]))]
#[tokio::test]
async fn nothing_that_the_service_says_ends_the_watch(#[case] nuisance: Reply) {
    let reads = AtomicUsize::new(0);
    let mut watched = Watched::start(Duration::ZERO, move |path| match path {
        "meta-data/spot/instance-action" => match reads.fetch_add(1, Ordering::Relaxed) {
            8.. => spot(1),
            _ => nuisance.clone(),
        },
        _ => nuisance.clone(),
    })
    .await;
    assert_eq!(watched.notice().await.kind, InterruptionKind::Spot);
}

#[tokio::test]
async fn the_other_sources_are_looked_at_less_often() {
    let watched = Watched::start(Duration::from_secs(3600), |_| Reply::text(404, "")).await;
    watched.looks(10).await;
    let log = watched.service.log();
    for source in Source::OTHERS {
        assert_eq!(log.count(&format!("get /i-1/latest/{} ", source.path())), 1);
    }
}

#[tokio::test]
async fn a_service_that_fails_is_not_asked_for_more() {
    let watched = Watched::start(Duration::ZERO, |_| Reply::text(503, "")).await;
    watched.looks(4).await;
    assert_eq!(watched.service.log().count(MAINTENANCE), 0);
}

#[tokio::test]
async fn the_watch_ends_when_nobody_receives() {
    let mut watched = Watched::start(Duration::ZERO, |path| match path {
        "meta-data/autoscaling/target-lifecycle-state" => Reply::text(200, "Terminated"),
        _ => Reply::text(404, ""),
    })
    .await;
    watched.notices.close();
    let ended = timeout(Duration::from_secs(20), &mut watched.task);
    ended.await.unwrap().unwrap();
}

fn pace(cadence: Cadence) -> (watch::Sender<Cadence>, Pace) {
    let (sender, receiver) = watch::channel(cadence);
    (sender, Pace::new(receiver, INTERVALS))
}

async fn waited(pace: &mut Pace, failed: bool) -> Duration {
    pace.looked(failed);
    let begun = Instant::now();
    pace.wait().await;
    begun.elapsed()
}

fn around(seconds: u64) -> std::ops::RangeInclusive<Duration> {
    let mean = Duration::from_secs(seconds);
    mean * 4 / 5..=mean * 6 / 5 + Duration::from_millis(1)
}

#[tokio::test(start_paused = true)]
async fn looks_are_more_frequent_while_a_job_runs() {
    for (cadence, seconds) in [(Cadence::Busy, 2), (Cadence::Idle, 5)] {
        let (_sender, mut pace) = pace(cadence);
        let mut waits = Vec::new();
        for _ in 0..50 {
            waits.push(waited(&mut pace, false).await);
        }
        assert!(
            waits.iter().all(|wait| around(seconds).contains(wait)),
            "{waits:?}"
        );
        waits.dedup();
        assert!(waits.len() > 10, "no jitter: {waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn looks_are_rarer_while_the_service_fails() {
    for (cadence, expected) in [
        (Cadence::Busy, [2, 4, 8, 16, 16, 16]),
        (Cadence::Idle, [5, 10, 16, 16, 16, 16]),
    ] {
        let (_sender, mut pace) = pace(cadence);
        for seconds in expected {
            let wait = waited(&mut pace, true).await;
            assert!(around(seconds).contains(&wait), "{seconds} {wait:?}");
        }
        pace.failures = u32::MAX;
        assert!(around(16).contains(&waited(&mut pace, true).await));
        let wait = waited(&mut pace, false).await;
        assert!(around(expected[0]).contains(&wait), "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_cadence_counts_at_once() {
    let (sender, mut pace) = pace(Cadence::Idle);
    pace.looked(false);
    let begun = Instant::now();
    tokio::join!(pace.wait(), async {
        sleep(Duration::from_secs(3)).await;
        sender.send_replace(Cadence::Busy);
    });
    // The last look is more than two seconds ago already.
    assert_eq!(begun.elapsed().as_secs(), 3);
    pace.looked(false);
    let begun = Instant::now();
    tokio::join!(pace.wait(), async {
        sleep(Duration::from_secs(1)).await;
        sender.send_replace(Cadence::Idle);
    });
    assert!(
        around(5).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    // However often it changes, looks are no more frequent than the busiest.
    pace.looked(false);
    let begun = Instant::now();
    tokio::join!(pace.wait(), async {
        for n in 0..100 {
            sleep(Duration::from_millis(10)).await;
            sender.send_replace([Cadence::Busy, Cadence::Idle][n % 2]);
        }
    });
    assert!(begun.elapsed() >= Duration::from_millis(1600));
}

#[tokio::test(start_paused = true)]
async fn a_cadence_that_nobody_sets_any_more_stays() {
    let (sender, mut pace) = pace(Cadence::Busy);
    drop(sender);
    for _ in 0..3 {
        assert!(around(2).contains(&waited(&mut pace, false).await));
    }
}

/// Nanoseconds of cpu that this thread has used, the kernel's part included.
fn cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Prints what a minute of watching costs while a job runs, without the service's own work:
/// `cargo nextest run -p muster-agent --run-ignored only --no-capture cost_of`.
#[test]
#[ignore = "a measurement that takes two minutes"]
fn cost_of_a_minute() {
    for (way, head) in [("kept", ""), ("closed", "connection: close\r\n")] {
        let answer = guarded(move |_| Reply::Answer(404, head.to_owned(), Vec::new()));
        let (sender, base) = std::sync::mpsc::sync_channel(1);
        // The service is a thread of its own, which ends with the process.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let service = Service::start(answer).await;
                sender.send(service.base.clone()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        let base = base.recv().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let used = runtime.block_on(async {
            let (notices, _received) = mpsc::channel(1);
            let (_cadence, looks) = watch::channel(Cadence::Busy);
            let before = cpu();
            let minute = Duration::from_secs(60);
            let _ended = timeout(minute, super::watch(base, looks, notices)).await;
            cpu() - before
        });
        let percent = Duration::from_nanos(used).as_secs_f64() / 60.0 * 100.0;
        println!("connections {way}: {used} ns in 60 s, {percent:.4} % of a core");
    }
}
