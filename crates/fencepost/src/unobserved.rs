//! The hook for failures that nobody has asked for. [`root`](crate::root) says when one is lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::{
    error::{Cause, Error},
    fork::Process,
    root::{self, FailedBy, Lost},
};

#[derive(Clone)]
enum Hook {
    /// Is called with each.
    Each(Arc<dyn Fn(&Error) + Send + Sync>),
    /// Takes them: see [`crate::bindings::set_unobserved_taker`].
    Taker(Arc<dyn Fn() + Send + Sync>),
}

static HOOK: RwLock<Option<Hook>> = RwLock::new(None);

/// Sets what is called with each failure that nobody has asked for.
///
/// A stream fails, and no query, wait, future or callback of its markers and events ever tells
/// anybody: then the failure is reported once, when the last stream, marker and event that could
/// have told it is dropped. Streams that have failed by waiting for one another share one failure,
/// and are one report.
///
/// By default one line goes to standard error, but for a panic in host work, which the panic hook
/// has reported already. The process's end reports nothing more: what is in a `static` then is
/// never dropped.
///
/// `hook` replaces that, and the hook before. It is called on a thread of the library, as callbacks
/// are ([`Marker::on_complete`](crate::Marker::on_complete)), with [`Error::StreamFailed`] or
/// [`Error::DeviceLost`].
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

fn set(hook: Hook) {
    let mut current = HOOK.write().unwrap_or_else(PoisonError::into_inner);
    let before = current.replace(hook);
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
        if HOOK.read().is_ok_and(|hook| hook.is_none()) {
            return print(&lost);
        }
        dropped().push((Process::this(), error_of(lost)));
        later(Box::new(|| {
            let hook = HOOK.read().unwrap_or_else(PoisonError::into_inner).clone();
            match hook {
                Some(Hook::Each(hook)) => take_dropped().iter().for_each(|error| hook(error)),
                Some(Hook::Taker(taker)) => taker(),
                None => {}
            }
        }));
    };
    cause.first_cause().stick(what, Box::new(report));
}

/// Those that are lost, and that the hook was not called with yet.
fn dropped() -> MutexGuard<'static, Vec<(Process, Error)>> {
    static DROPPED: Mutex<Vec<(Process, Error)>> = Mutex::new(Vec::new());
    DROPPED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those that are lost. A forked child may hold failures of its parent, which reports them.
pub(crate) fn take_dropped() -> Vec<Error> {
    let dropped = std::mem::take(&mut *dropped());
    let ours = dropped.into_iter().filter(|(of, _)| of.is_this());
    ours.map(|(_, error)| error).collect()
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
    if lost.root.is_printed() || cfg!(loom) {
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
