//! The thread that decides when to report.

use std::{
    sync::{
        Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fencepost::bindings::duration_in_words;
use serde_json::json;

use crate::{
    account::Account,
    asking::{Asker, Facts, Known},
    batch::Sender,
    callback::{self, stop_following},
    channel::{self, Channel},
    cupti,
    lock::Lock,
    place,
    report::Report,
    seen, threads, traced, vulkan,
};

/// The variable that says after how many seconds without a movement a report is made.
const AFTER: &str = "FENCEPOST_WATCH_AFTER";

/// How long the driver has to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long the end of the process waits for the last report.
const LAST: Duration = Duration::from_secs(5);

/// How often calls are sent for a trace. What is not sent is lost where a signal ends the process.
const TRACED: Duration = Duration::from_millis(50);

/// Whether this process is a forked child, which has none of the threads.
static CHILD: AtomicBool = AtomicBool::new(false);

/// The end of the process, and of the watching.
struct End {
    begun: Mutex<(bool, bool)>,
    changed: Condvar,
}

static END: OnceLock<End> = OnceLock::new();

fn end() -> &'static End {
    END.get_or_init(|| End {
        begun: Mutex::new((false, false)),
        changed: Condvar::new(),
    })
}

/// Begins to watch this process for its calls of CUDA, once.
pub(crate) fn start_cuda() {
    static STARTED: AtomicBool = AtomicBool::new(false);
    if !STARTED.swap(true, Ordering::SeqCst) {
        start(cupti::start);
    }
}

/// Begins to watch this process for its calls of Vulkan, once.
pub(crate) fn start_vulkan() {
    static STARTED: AtomicBool = AtomicBool::new(false);
    if !STARTED.swap(true, Ordering::SeqCst) {
        start(|| {
            vulkan::FOLLOWS.store(true, Ordering::SeqCst);
            Ok(())
        });
    }
}

/// What is to be told by the thread that watches, which another driver has started.
static TROUBLE: Lock<Vec<String>> = Lock::new(Vec::new());

/// Begins to follow one driver, and to watch if nothing does yet.
fn start(follow: impl FnOnce() -> Result<(), String>) {
    /// Whether the process is watched, once that was tried.
    static WATCHED: Mutex<Option<bool>> = Mutex::new(None);
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    match *watched {
        None => *watched = Some(start_watching(follow)),
        Some(true) => TROUBLE.lock().extend(follow().err()),
        Some(false) => {}
    }
}

/// Returns whether the process is watched from now on.
fn start_watching(follow: impl FnOnce() -> Result<(), String>) -> bool {
    // Nothing of this library is printed, not even a panic of its own.
    std::panic::set_hook(Box::new(|_| {}));
    let Some(mut channel) = Channel::open() else {
        return false;
    };
    place::start();
    traced::start();
    if let Err(why) = follow() {
        channel.send("trouble", json!(why));
    } else {
        channel.send("start", json!(null));
    }
    let asker = without_signals(Asker::start);
    let Ok(asker) = asker else {
        stop_following();
        channel.send("trouble", json!("no thread can be started"));
        return false;
    };
    let watch = Watch::new(channel, asker);
    let started = without_signals(|| {
        std::thread::Builder::new()
            .name("fencepost-watch".into())
            .spawn(move || watching(|| watch.run()))
    });
    if started.is_err() {
        stop_following();
        return false;
    }
    // SAFETY: the functions live as long as the process, since the library is never unloaded
    unsafe {
        libc::pthread_atfork(
            Some(vulkan::hold_locks),
            Some(vulkan::let_locks_go),
            Some(in_child),
        );
        libc::atexit(at_exit);
    }
    true
}

/// Runs `run`, and tells the end of the process that it need not wait any more, also after a panic.
fn watching(run: impl FnOnce()) {
    callback::guarded(run);
    let end = end();
    end.begun.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
    end.changed.notify_all();
}

/// Runs `start`, whose threads take no signal of the program's.
fn without_signals<R>(start: impl FnOnce() -> R) -> R {
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointers are to signal sets; the first call fills the set that the second reads
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let result = start();
    // SAFETY: the set was filled above
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    result
}

extern "C" fn in_child() {
    vulkan::let_locks_go();
    CHILD.store(true, Ordering::SeqCst);
    stop_following();
}

/// Makes the last report, while the driver still answers.
extern "C" fn at_exit() {
    if CHILD.load(Ordering::SeqCst) {
        return;
    }
    callback::guarded(|| {
        let end = end();
        let mut begun = end.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.0 = true;
        channel::wake();
        let until = Instant::now() + LAST;
        while !begun.1 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = end.changed.wait_timeout(begun, left);
            begun = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    });
    stop_following();
}

struct Watch {
    channel: Channel,
    asker: Asker,
    sender: Sender,
    after: Duration,
    /// How many moves there were, and how far the streams had come.
    seen: (u64, u64),
    /// Since when nothing has moved although streams are busy.
    still: Option<Instant>,
    reported: bool,
}

impl Watch {
    fn new(channel: Channel, asker: Asker) -> Watch {
        let after = std::env::var(AFTER).ok().and_then(|text| text.parse().ok());
        Watch {
            channel,
            asker,
            sender: Sender::default(),
            after: Duration::try_from_secs_f64(after.unwrap_or(30.0)).unwrap_or(Duration::MAX),
            seen: (0, 0),
            still: None,
            reported: false,
        }
    }

    fn run(mut self) {
        let mut tick =
            (self.after / 8).clamp(Duration::from_millis(20), Duration::from_millis(500));
        if traced::is_on() {
            tick = tick.min(TRACED);
        }
        loop {
            let asked = self.channel.is_asked(tick);
            self.trace();
            if end().begun.lock().unwrap_or_else(PoisonError::into_inner).0 {
                self.last();
                return;
            }
            if callback::PANICS.load(Ordering::Relaxed) != 0 {
                let what = "the watching has failed inside, and ends; the program goes on";
                self.channel.send("trouble", json!(what));
                return;
            }
            cupti::try_again();
            vulkan::asking::forget_ended();
            for why in std::mem::take(&mut *TROUBLE.lock()) {
                self.channel.send("trouble", json!(why));
            }
            if asked {
                let (known, answered) = self.asker.ask(ANSWER);
                self.report("asked for a report".into(), known, answered);
            }
            self.look();
        }
    }

    /// Sends what was called since it last did, for a trace.
    fn trace(&mut self) {
        if let Some(batch) = self.sender.take() {
            self.channel.send("calls", batch);
        }
    }

    /// Reports if nothing has moved for long.
    fn look(&mut self) {
        let moves = moves();
        if moves != self.seen.0 {
            self.seen.0 = moves;
            self.still = None;
            self.reported = false;
            return;
        }
        if self.reported && self.still.is_some_and(|still| still.elapsed() < self.after) {
            return;
        }
        let ((facts, vulkan), answered) = self.asker.ask(ANSWER);
        let of_program = || facts.iter().filter(|facts| !facts.inner.keeps_time);
        let complete: u64 = of_program().map(|facts| facts.inner.complete).sum();
        let complete = complete.wrapping_add(vulkan.complete());
        let busy = of_program().any(Facts::is_busy) || vulkan.is_busy();
        let busy = busy || is_anybody_inside(self.after);
        if complete != self.seen.1 || !busy {
            self.seen.1 = complete;
            self.still = None;
            self.reported = false;
            return;
        }
        let still = *self.still.get_or_insert_with(Instant::now);
        if still.elapsed() >= self.after && !self.reported {
            self.reported = true;
            let after = duration_in_words(self.after);
            let known = (facts, vulkan);
            self.report(format!("nothing has moved for {after}"), known, answered);
        }
    }

    fn report(&mut self, why: String, (facts, vulkan): Known, answered: bool) {
        let account = Account::new(facts);
        let report = Report::new(why, &account, &vulkan, answered, self.long());
        let text = report.text();
        self.channel
            .send("report", json!({ "text": text, "report": report }));
    }

    /// How long a call must have lasted to be told of. A thread may have entered it a little after
    /// the last work was submitted.
    fn long(&self) -> Duration {
        (self.after / 2).min(Duration::from_secs(1))
    }

    fn last(&mut self) {
        self.trace();
        let ((facts, vulkan), answered) = self.asker.ask(ANSWER);
        let report = Report::new(
            "at the end".into(),
            &Account::new(facts),
            &vulkan,
            answered,
            self.long(),
        );
        let calls: u64 = threads::threads()
            .iter()
            .map(|thread| thread.calls.load(Ordering::Relaxed))
            .sum();
        let message = json!({
            "calls": calls,
            "pending": !report.is_empty(),
            "text": report.text(),
            "report": report,
        });
        self.channel.send("end", message);
    }
}

fn moves() -> u64 {
    let moves = |thread: &&threads::Thread| thread.moves.load(Ordering::Relaxed);
    threads::threads().iter().map(moves).sum()
}

/// Whether a thread has been in a followed call for `limit`: a call may be stuck that has submitted
/// nothing yet.
fn is_anybody_inside(limit: Duration) -> bool {
    threads::threads().iter().any(|thread| {
        thread.inside.load(Ordering::Acquire) != 0
            && seen::since(thread.entered.load(Ordering::Relaxed)) >= limit
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_process_waits_for_no_watching_that_has_failed() {
        let _alone = vulkan::ALONE.lock().unwrap();
        let follows = callback::FOLLOWS.load(Ordering::Relaxed);
        watching(|| panic!("the test's own"));
        assert!(end().begun.lock().unwrap().1);
        callback::PANICS.store(0, Ordering::Relaxed);
        callback::FOLLOWS.store(follows, Ordering::Relaxed);
    }
}
