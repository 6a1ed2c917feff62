//! A thread that does something each so often, until its handle is dropped. Knows no CUDA.
//!
//! # The protocol
//!
//! The handle's drop sets `stopping`, then unparks the thread. The thread looks at `stopping`
//! before each round, and parks for the rest of its pause after it. A thread that was unparked does
//! not park the next time, so it sees `stopping` after one more round at most. Nobody waits for it:
//! a round may be in the driver.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::sync::{AtomicBool, Ordering, park, thread};

pub(super) struct Ticker {
    stopping: Arc<AtomicBool>,
    thread: thread::Thread,
}

impl Ticker {
    /// Starts a thread that calls `round` at once, and then each `pause`, while it returns `true`.
    pub(super) fn start(
        name: &str,
        pause: Duration,
        mut round: impl FnMut() -> bool + Send + 'static,
    ) -> std::io::Result<Ticker> {
        let stopping = Arc::new(AtomicBool::new(false));
        let seen = stopping.clone();
        let handle = thread::Builder::new().name(name.into()).spawn(move || {
            while !seen.load(Ordering::Acquire) {
                let next = Instant::now() + pause;
                if !round() {
                    return;
                }
                park(Some(next.saturating_duration_since(Instant::now())));
            }
        })?;
        Ok(Ticker {
            stopping,
            thread: handle.thread().clone(),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Longer than any test runs.
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_thread_ends_with_its_handle_however_long_its_pause_is() {
        let (told, hears) = mpsc::channel();
        let ticker = Ticker::start("fencepost-test", LONG, move || told.send(()).is_ok()).unwrap();
        hears.recv_timeout(LONG).unwrap();
        drop(ticker);
        // The thread drops the sender as it ends.
        while hears.recv_timeout(LONG) != Err(mpsc::RecvTimeoutError::Disconnected) {}
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::AtomicUsize;

    #[test]
    fn a_thread_that_is_told_to_stop_makes_one_more_round_at_most() {
        loom::model(|| {
            let (told, late) = (
                Arc::new(AtomicBool::new(false)),
                Arc::new(AtomicUsize::new(0)),
            );
            let (seen, counts) = (told.clone(), late.clone());
            let ticker = Ticker::start("fencepost-test", Duration::ZERO, move || {
                if seen.load(Ordering::Acquire) {
                    counts.fetch_add(1, Ordering::Relaxed);
                }
                true
            });
            drop(ticker);
            told.store(true, Ordering::Release);
            assert!(late.load(Ordering::Relaxed) <= 1);
        });
    }
}
