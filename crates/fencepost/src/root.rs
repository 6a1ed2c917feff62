//! First causes of failures, and the failures that nobody has asked for.
//!
//! A failure is handed to whoever asks. Every holder of it shares its [`Root`]: the streams that
//! have failed by it, the streams that have inherited it by a wait, and the errors made of it. A
//! call that returns such an error to the caller marks the root as seen. So the failure is lost
//! exactly when the last holder drops a root that stuck to a stream and was never seen, and that
//! drop reports it. At the end of the process, [`take`] gives what is still held, once what is
//! being dropped at that moment is reported.

use std::{
    any::Any,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::fork::{PerProcess, Process};

/// What caused a failure, as an object of the language that the failed code is written in.
pub(crate) type Payload = Arc<dyn Any + Send + Sync>;

/// A first cause.
pub(crate) struct Root {
    pub(crate) text: Arc<str>,
    pub(crate) payload: Option<Payload>,
    printed: bool,
    seen: AtomicBool,
    /// What it stuck to first.
    stuck: OnceLock<Stuck>,
}

impl UnwindSafe for Root {}
impl RefUnwindSafe for Root {}

struct Stuck {
    to: FailedBy,
    /// In a forked child, the parent reports it.
    process: Process,
    report: Report,
    /// Whether its root is dropped, and reported if it was lost.
    over: Arc<AtomicBool>,
}

/// Called with a failure that is lost, perhaps under locks of the library: so it must not call code
/// of the user's on this thread.
pub(crate) type Report = Box<dyn Fn(Lost) + Send + Sync>;

/// What a failure has ended.
#[derive(Clone)]
pub(crate) enum FailedBy {
    /// A stream, in words.
    Stream(String),
    /// The device of this name.
    Device(String),
}

/// A failure that nobody has asked for.
pub(crate) struct Lost {
    pub(crate) what: FailedBy,
    pub(crate) root: Arc<Root>,
}

impl Root {
    /// `printed` says whether the panic hook has told of it already.
    pub(crate) fn new(text: Arc<str>, payload: Option<Payload>, printed: bool) -> Root {
        Root {
            text,
            payload,
            printed,
            seen: AtomicBool::new(false),
            stuck: OnceLock::new(),
        }
    }

    /// The failure has been handed to somebody.
    pub(crate) fn see(&self) {
        self.seen.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_printed(&self) -> bool {
        self.printed
    }

    /// It has failed a stream or a device. From now on it is reported if nobody sees it.
    pub(crate) fn stick(self: &Arc<Root>, what: FailedBy, report: Report) {
        let over = Arc::new(AtomicBool::new(false));
        let stuck = Stuck {
            to: what,
            process: Process::this(),
            report,
            over: over.clone(),
        };
        let entry = Entry {
            root: Arc::downgrade(self),
            process: stuck.process,
            over,
        };
        if self.stuck.set(stuck).is_ok() {
            held().add(entry);
        }
    }

    fn is_lost(&self) -> bool {
        let here = |stuck: &Stuck| stuck.process.is_this();
        self.stuck.get().is_some_and(here) && !self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let lost = self.is_lost();
        let Some(stuck) = self.stuck.take() else {
            return;
        };
        if lost {
            let root = Root::new(self.text.clone(), self.payload.take(), self.printed);
            (stuck.report)(Lost {
                what: stuck.to,
                root: Arc::new(root),
            });
        }
        stuck.over.store(true, Ordering::Release);
    }
}

/// A root that sticks to something.
struct Entry {
    root: Weak<Root>,
    process: Process,
    over: Arc<AtomicBool>,
}

impl Entry {
    /// The root; `None` once it is dropped, and reported if it was lost.
    fn settled(&self) -> Option<Arc<Root>> {
        loop {
            let root = self.root.upgrade();
            // In a forked child the thread that drops it may be missing.
            if root.is_some() || self.over.load(Ordering::Acquire) || !self.process.is_this() {
                return root;
            }
            std::thread::yield_now();
        }
    }
}

/// Those that stick to something. Dead ones are removed whenever as many were added as were alive
/// after the last removal.
struct Held {
    roots: Vec<Arc<Entry>>,
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 64;

/// Held for a few instructions, and no root is dropped under it. A forked child has a list of its
/// own: what its parent holds, the parent reports.
fn held() -> MutexGuard<'static, Held> {
    static HELD: PerProcess<Mutex<Held>> = PerProcess::new();
    let held = HELD.get_or_make(|_| {
        Mutex::new(Held {
            roots: Vec::new(),
            sweep_at: FIRST_SWEEP,
        })
    });
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    fn add(&mut self, entry: Entry) {
        if self.roots.len() >= self.sweep_at {
            self.roots
                .retain(|entry| !entry.over.load(Ordering::Relaxed));
            self.sweep_at = (self.roots.len() * 2).max(FIRST_SWEEP);
        }
        self.roots.push(Arc::new(entry));
    }
}

/// All failures that are held and that nobody has seen. They count as seen from now on. Waits for
/// the reports of those that are being dropped, so it must not be called from a report.
pub(crate) fn take() -> Vec<Lost> {
    let entries = held().roots.clone();
    let roots: Vec<_> = entries.iter().filter_map(|entry| entry.settled()).collect();
    let lost = |root: Arc<Root>| {
        if !root.is_lost() {
            return None;
        }
        root.see();
        let what = root.stuck.get()?.to.clone();
        Some(Lost { what, root })
    };
    roots.into_iter().filter_map(lost).collect()
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use super::*;
    use std::{sync::mpsc::channel, thread, time::Duration};

    /// Holds the lock of those that stick to something.
    pub(crate) fn hold() -> impl Drop {
        held()
    }

    #[test]
    fn what_is_being_dropped_is_reported_before_the_rest_is_taken() {
        let (begun_sender, begun) = channel();
        let (go, waits) = channel::<()>();
        let reported = Arc::new(AtomicBool::new(false));
        let report = {
            let (waits, reported) = (Mutex::new(waits), reported.clone());
            move |_: Lost| {
                let _ = begun_sender.send(());
                let _ = waits.lock().map(|waits| waits.recv());
                reported.store(true, Ordering::SeqCst);
            }
        };
        let root = Arc::new(Root::new("boom".into(), None, false));
        root.stick(FailedBy::Device("a device".into()), Box::new(report));
        let entry = {
            let ours = |entry: &&Arc<Entry>| std::ptr::eq(entry.root.as_ptr(), &*root);
            held().roots.iter().find(ours).cloned().unwrap()
        };
        thread::scope(|scope| {
            scope.spawn(|| drop(root));
            begun.recv().unwrap();
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                drop(go);
            });
            assert!(entry.settled().is_none());
            assert!(reported.load(Ordering::SeqCst), "its report was under way");
        });
    }
}
