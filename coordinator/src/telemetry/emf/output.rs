//! Writing the lines, as long as somebody reads them.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Emitter;
use crate::telemetry::Metrics;

/// How long the end waits for the last lines to be read.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Writes all figures to standard output at each interval and once more at the end. Returns once
/// cancelled.
pub async fn run(
    metrics: Metrics,
    namespace: String,
    interval: Duration,
    cancel: CancellationToken,
) {
    let emitter = Emitter::new(metrics, namespace);
    run_to(std::io::stdout(), emitter, interval, cancel).await;
}

async fn run_to<W: Write + Send + 'static>(
    out: W,
    mut emitter: Emitter,
    interval: Duration,
    cancel: CancellationToken,
) {
    let mut pen = Pen {
        out: Arc::new(Mutex::new(out)),
        writing: None,
    };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        let last = tokio::select! {
            () = cancel.cancelled() => true,
            _ = ticks.tick() => false,
        };
        // What is not read now is read later: counters go on.
        if pen.is_free(interval).await {
            pen.start(emitter.lines(Timestamp::now()));
        }
        if last {
            pen.is_free(interval.min(LAST_WAIT)).await;
            return;
        }
    }
}

/// Writes on a thread of its own, as whoever reads standard output may stop reading; never more than
/// one text at a time.
struct Pen<W> {
    out: Arc<Mutex<W>>,
    writing: Option<JoinHandle<std::io::Result<()>>>,
}

impl<W: Write + Send + 'static> Pen<W> {
    /// Waits for the text before to be written; false if that takes too long.
    async fn is_free(&mut self, patience: Duration) -> bool {
        let Some(writing) = &mut self.writing else {
            return true;
        };
        match tokio::time::timeout(patience, writing).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "metrics were not written"),
            Ok(Err(error)) => tracing::warn!(%error, "metrics were not written"),
            Err(_) => {
                tracing::warn!("standard output is not read; metrics wait");
                return false;
            }
        }
        self.writing = None;
        true
    }

    fn start(&mut self, lines: Vec<String>) {
        let out = Arc::clone(&self.out);
        self.writing = Some(tokio::task::spawn_blocking(move || write(&out, &lines)));
    }
}

fn write<W: Write>(out: &Mutex<W>, lines: &[String]) -> std::io::Result<()> {
    let mut text = lines.join("\n");
    text.push('\n');
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::telemetry::WebhookAnswer;

    fn emitter() -> Emitter {
        let metrics = Metrics::new().unwrap();
        metrics.webhook(WebhookAnswer::Accepted);
        Emitter::new(metrics, "Muster".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_writes_at_each_interval_and_at_the_end() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let emitter = emitter();
        let cancel = CancellationToken::new();
        let minute = Duration::from_secs(60);
        let task = tokio::spawn(run_to(writer, emitter, minute, cancel.clone()));
        tokio::time::sleep(Duration::from_secs(90)).await;
        cancel.cancel();
        task.await.unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        let counted: Vec<i64> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter_map(|line| line["WebhooksAccepted"].as_i64())
            .collect();
        assert_eq!(counted, [1, 0], "one interval, and the end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_pipe_does_not_end_the_task() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let emitter = emitter();
        let cancel = CancellationToken::new();
        let second = Duration::from_secs(1);
        let task = tokio::spawn(run_to(writer, emitter, second, cancel.clone()));
        tokio::time::sleep(5 * second).await;
        assert!(!task.is_finished());
        cancel.cancel();
        task.await.unwrap();
    }

    /// A reader that reads nothing until it is let go.
    struct Stalled {
        started: Arc<AtomicUsize>,
        go: std::sync::mpsc::Receiver<()>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.started.fetch_add(1, Ordering::SeqCst);
            let _ = self.go.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn while_nobody_reads_one_text_waits_and_the_end_is_not_held_up() {
        let started = Arc::<AtomicUsize>::default();
        let (let_go, go) = std::sync::mpsc::sync_channel(1);
        let writer = Stalled {
            started: Arc::clone(&started),
            go,
        };
        let emitter = emitter();
        let cancel = CancellationToken::new();
        let interval = Duration::from_millis(5);
        let task = tokio::spawn(run_to(writer, emitter, interval, cancel.clone()));
        while started.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(interval).await;
        }
        // Time for more, if more were to come.
        tokio::time::sleep(10 * interval).await;
        cancel.cancel();
        tokio::time::timeout(Duration::from_secs(9), task)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(started.load(Ordering::SeqCst), 1);
        drop(let_go);
    }
}
