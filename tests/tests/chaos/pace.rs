//! Compressed time: tokio's clock runs so many times faster than the system's, and slower where the
//! machine can't keep up. All else takes its time from tokio.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

/// How often time moves on.
const BEAT: Duration = Duration::from_millis(1);

/// Time moves on until this is dropped. The runtime must have been started with its time paused.
pub(crate) struct Pace {
    stop: Arc<AtomicBool>,
    held: Arc<AtomicBool>,
}

/// No time passes until this is dropped.
pub(crate) struct Still(Arc<AtomicBool>);

impl Drop for Still {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Pace {
    /// Lets time run `speed` times as fast.
    pub(crate) fn start(speed: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (beat, mut beats) = mpsc::channel(1);
        let stopped = Arc::clone(&stop);
        let held = Arc::new(AtomicBool::new(false));
        let holds = Arc::clone(&held);
        // While a blocking task is under way, tokio doesn't let paused time jump by itself.
        tokio::task::spawn_blocking(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::park_timeout(BEAT);
                // A beat that nobody had the time for is left out.
                let _ = beat.try_send(());
            }
        });
        tokio::spawn(async move {
            while beats.recv().await.is_some() {
                if !holds.load(Ordering::Relaxed) {
                    tokio::time::advance(BEAT * speed).await;
                }
            }
        });
        Self { stop, held }
    }

    /// Lets no time pass: for what waits for a disk, whose time is not compressed.
    pub(crate) fn still(&self) -> Still {
        self.held.store(true, Ordering::Relaxed);
        Still(Arc::clone(&self.held))
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
