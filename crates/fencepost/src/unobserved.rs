//! The hook for failures that nobody has asked for. [`root`](crate::root) says when one is lost.
//!
//! A failure is lost in a drop, which must not block and must not call code of the user's. So it
//! goes to a list, and the thread of the device's callbacks takes it from there, tells the hook or
//! writes the line. What that thread has not come to when the process ends, an exit handler writes.
//!
//! The list and the hook are a process's own: a forked child reports nothing that its parent will
//! report, and finds no lock held. It begins with its parent's hook.

use std::{
    collections::VecDeque,
    mem::ManuallyDrop,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError, atomic::AtomicBool, mpsc},
    time::{Duration, Instant},
};

use crate::{
    error::{Cause, Error},
    exit::at_exit,
    fork::PerProcess,
    root::{self, FailedBy, Lost},
    sync::sleep,
};

#[derive(Clone)]
enum Hook {
    /// Is called with each.
    Each(Arc<dyn Fn(&Error) + Send + Sync>),
    /// Takes them: see [`crate::bindings::set_unobserved_taker`].
    Taker(Arc<dyn Fn() + Send + Sync>),
}

fn hook() -> &'static RwLock<Option<Hook>> {
    static HOOK: PerProcess<RwLock<Option<Hook>>> = PerProcess::new();
    HOOK.get_or_make(|of_parent| {
        let known = of_parent.and_then(|hook| hook.try_read().ok()?.clone());
        RwLock::new(known)
    })
}

/// Sets what is called with each failure that nobody has asked for.
///
/// A stream fails, and no query, wait, future or callback of its markers and events ever tells
/// anybody: then the failure is reported once, when the last stream, marker and event that could
/// have told it is dropped. Streams that have failed by waiting for one another share one failure,
/// and are one report.
///
/// By default one line goes to standard error, but for a panic in host work, which the panic hook
/// has reported already. A thread of the library writes it, so that no drop waits for who reads
/// standard error; what it has not come to is written when the process ends. Failures that are
/// still held then, by what is in a `static`, are not reported.
///
/// `hook` replaces that, and the hook before. It is called on a thread of the library, as callbacks
/// are ([`Marker::on_complete`](crate::Marker::on_complete)), with [`Error::StreamFailed`] or
/// [`Error::DeviceLost`]. A panic in it counts as one of a callback, and the next failure is
/// reported all the same. At the end of the process it is no longer called. A forked child has its
/// parent's hook, for failures of its own.
///
/// ```
/// use fencepost::{Device, Error};
///
/// let (tell, told) = std::sync::mpsc::channel();
/// fencepost::set_unobserved_hook(move |error: &Error| {
///     let _ = tell.send(error.to_string());
/// });
/// let stream = Device::open("host")?.new_stream()?;
/// stream.launch(|| std::panic::resume_unwind(Box::new("the disk is full")))?;
/// drop(stream); // nobody will ever ask
/// assert!(told.recv().unwrap().contains("the disk is full"));
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn set_unobserved_hook(hook: impl Fn(&Error) + Send + Sync + 'static) {
    set(Hook::Each(Arc::new(hook)));
}

/// See [`crate::bindings::set_unobserved_taker`].
pub(crate) fn set_taker(taker: impl Fn() + Send + Sync + 'static) {
    set(Hook::Taker(Arc::new(taker)));
}

fn set(new: Hook) {
    let mut current = hook().write().unwrap_or_else(PoisonError::into_inner);
    let before = current.replace(new);
    drop(current);
    // Dropped without the lock: that runs code of the user's.
    drop(before);
}

/// `cause` has failed what `error` names: it is reported if nobody sees it. `later` runs a closure
/// on a thread of the library.
pub(crate) fn stick(
    cause: &Cause,
    error: &Error,
    later: impl Fn(Box<dyn FnOnce() + Send>) + Send + Sync + 'static,
) {
    let what = match error {
        Error::StreamFailed { stream, .. } => FailedBy::Stream(stream.clone()),
        Error::DeviceLost { device, .. } => FailedBy::Device(device.clone()),
        _ => return,
    };
    let report = move |lost: Lost| {
        let has_hook = || hook().read().is_ok_and(|hook| hook.is_some());
        if cfg!(loom) || (lost.root.is_printed() && !has_hook()) {
            return;
        }
        write_at_exit();
        dropped().push_back(lost);
        later(Box::new(report_one));
    };
    cause.first_cause().stick(what, Box::new(report));
}

/// Those that are lost and not yet reported.
fn dropped() -> MutexGuard<'static, VecDeque<Lost>> {
    static DROPPED: PerProcess<Mutex<VecDeque<Lost>>> = PerProcess::new();
    let dropped = DROPPED.get_or_make(|_| Mutex::default());
    dropped.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All those that are lost, for a taker.
pub(crate) fn take_dropped() -> Vec<Error> {
    let dropped = std::mem::take(&mut *dropped());
    dropped.into_iter().map(error_of).collect()
}

/// Reports the first that is left. Each has a call of its own, so that a panic of the hook takes no
/// other with it.
fn report_one() {
    let hook = hook()
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let first = || dropped().pop_front();
    match hook {
        Some(Hook::Each(hook)) => first().map(error_of).iter().for_each(|error| hook(error)),
        Some(Hook::Taker(taker)) => taker(),
        None => {
            let _writing = writing().lock().unwrap_or_else(PoisonError::into_inner);
            first().iter().for_each(print);
        }
    }
}

/// Held while a line is written, and taken before a failure is, so that the exit handler knows what
/// is under way.
fn writing() -> &'static Mutex<()> {
    static WRITING: PerProcess<Mutex<()>> = PerProcess::new();
    WRITING.get_or_make(|_| Mutex::new(()))
}

/// Has the exit handler write what is left when the process ends.
fn write_at_exit() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    at_exit(&REGISTERED, write_rest);
}

extern "C" fn write_rest() {
    /// How long the process's end waits for a line that is being written.
    const LONGEST: Duration = Duration::from_secs(1);
    let start = Instant::now();
    let _writing = loop {
        match writing().try_lock() {
            Ok(free) => break free,
            Err(TryLockError::Poisoned(free)) => break free.into_inner(),
            // Nobody reads standard error.
            Err(TryLockError::WouldBlock) if start.elapsed() > LONGEST => return,
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(1)),
        }
    };
    if hook().try_read().is_ok_and(|hook| hook.is_some()) {
        return;
    }
    // Never dropped: there may be objects of another language among them, which has ended.
    let rest = ManuallyDrop::new(std::mem::take(&mut *dropped()));
    if rest.is_empty() {
        return;
    }
    // On a thread of its own, since nobody may read standard error: the process ends all the same.
    let (tell, told) = mpsc::channel();
    let written = std::thread::Builder::new().spawn(move || {
        rest.iter().for_each(print);
        let _ = tell.send(());
    });
    if written.is_ok() {
        let _ = told.recv_timeout(LONGEST);
    }
}

/// See [`crate::bindings::take_unobserved`].
pub(crate) fn take() -> Vec<Error> {
    // First those that are held: it waits until those that are being dropped are among the others.
    let held = root::take();
    let mut errors = take_dropped();
    errors.extend(held.into_iter().map(error_of));
    errors
}

fn error_of(lost: Lost) -> Error {
    let cause = Cause::of_root(lost.root);
    match lost.what {
        FailedBy::Stream(stream) => Error::StreamFailed { stream, cause },
        FailedBy::Device(device) => Error::DeviceLost { device, cause },
    }
}

fn print(lost: &Lost) {
    if lost.root.is_printed() {
        return;
    }
    let how = match &lost.what {
        FailedBy::Stream(stream) => format!("{stream} failed"),
        FailedBy::Device(device) => format!("{device} was lost"),
    };
    // Where standard error is closed, nobody can be told.
    let line = format!("fencepost: {how}, and nobody asked: {}\n", lost.root.text);
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

#[cfg(all(test, unix, not(any(loom, miri))))]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{Device, fork::tests::in_a_child};

    /// Whether a failure is told to the hook that this sets. Nothing here panics or prints.
    fn failures_are_told() -> bool {
        let (tell, told) = mpsc::channel();
        set_unobserved_hook(move |error| tell.send(error.to_string()).unwrap_or(()));
        let fails = || {
            let stream = Device::open("host")?.new_stream()?;
            stream.try_launch(|| Err("in a child"))
        };
        let told = || {
            told.recv()
                .is_ok_and(|text: String| text.contains("in a child"))
        };
        fails().is_ok() && told()
    }

    #[test]
    fn a_child_reports_failures_whatever_its_parent_held() {
        let _hook = hook().write().unwrap_or_else(PoisonError::into_inner);
        let _dropped = dropped();
        let _writing = writing().lock().unwrap_or_else(PoisonError::into_inner);
        let _held = root::tests::hold();
        assert!(in_a_child(|| failures_are_told() && take().is_empty()));
    }
}
