//! First causes of failures, and the failures that nobody has asked for.
//!
//! A failure is handed to whoever asks. Every holder of it shares its [`Root`]: the streams that
//! have failed by it, the streams that have inherited it by a wait, and the errors made of it. A
//! call that returns such an error to the caller marks the root as seen. So the failure is lost
//! exactly when the last holder drops a root that stuck to a stream and was never seen, and that
//! drop reports it. At the end of the process, [`take`] gives what is still held.

use std::{
    any::Any,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::fork::Process;

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
        let stuck = Stuck {
            to: what,
            process: Process::this(),
            report,
        };
        if self.stuck.set(stuck).is_ok() {
            held().add(self);
        }
    }

    fn is_lost(&self) -> bool {
        let here = |stuck: &Stuck| stuck.process.is_this();
        self.stuck.get().is_some_and(here) && !self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if !self.is_lost() {
            return;
        }
        let Some(stuck) = self.stuck.take() else {
            return;
        };
        let root = Root::new(self.text.clone(), self.payload.take(), self.printed);
        (stuck.report)(Lost {
            what: stuck.to,
            root: Arc::new(root),
        });
    }
}

/// Those that stick to something. Dead ones are removed whenever as many were added as were alive
/// after the last removal.
struct Held {
    roots: Vec<Weak<Root>>,
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 64;

/// Held for a few instructions, and no root is dropped under it.
fn held() -> MutexGuard<'static, Held> {
    static HELD: Mutex<Held> = Mutex::new(Held {
        roots: Vec::new(),
        sweep_at: FIRST_SWEEP,
    });
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    fn add(&mut self, root: &Arc<Root>) {
        if self.roots.len() >= self.sweep_at {
            self.roots.retain(|root| root.strong_count() > 0);
            self.sweep_at = (self.roots.len() * 2).max(FIRST_SWEEP);
        }
        self.roots.push(Arc::downgrade(root));
    }
}

/// All failures that are held and that nobody has seen. They count as seen from now on.
pub(crate) fn take() -> Vec<Lost> {
    let roots: Vec<_> = held().roots.iter().filter_map(Weak::upgrade).collect();
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
