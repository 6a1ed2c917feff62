//! The loss of a context: nothing of it runs any more, and every stream of it has failed.
//!
//! OpenCL has no code for that. What a call returned, or an event ended with, may mean it or not:
//!
//! | code | by the specification | implementations | so |
//! |---|---|---|---|
//! | `CL_INVALID_CONTEXT` (-34), `CL_INVALID_COMMAND_QUEUE` (-36) | the handle is not valid; those used here are retained | NVIDIA's driver returns -36 for [queues that are alive](https://github.com/GPUOpen-LibrariesAndSDKs/RadeonRays_SDK/issues/65), after a kernel that faulted | the context is tried |
//! | `CL_OUT_OF_RESOURCES` (-5) | the device has too little for this call | NVIDIA's driver returns it after a kernel that faulted, too | the context is tried |
//! | one that OpenCL does not name | | NVIDIA's -9999 after an illegal access to memory; Intel's -777, the status of an event that a [GPU hang](https://github.com/intel/compute-runtime) aborted | the context is tried |
//! | `CL_MEM_OBJECT_ALLOCATION_FAILURE` (-4), `CL_OUT_OF_HOST_MEMORY` (-6) | memory is short | | the call alone is refused |
//! | `CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST` (-14) | what was waited for has failed | | the stream of that work has failed |
//! | all others | the call is wrong, or not supported | | the call alone is refused |
//!
//! **A context is tried by work of its own**: a new queue, and a marker in it. The context is lost
//! if one of these calls returns a code of the first or the third row. What may be wrong with one
//! queue, such as one that its owner has released, is then told apart; so is memory that is short,
//! since a second -5 decides nothing.
//!
//! **The other devices of a lost context are tried at once**, and fail with the same first cause if
//! they are lost, too: their streams may wait on the device for what never ends now, and nobody may
//! call anything of theirs.
//!
//! What NVIDIA's and Intel's drivers do is from the reports and the source that the table names.
//! None of it has been run here: tests make PoCL's calls return such codes.

use std::sync::Arc;

use super::{
    account::Unsettled,
    fault::{Fault, Status, is_named},
    loader::{ContextHandle, DeviceHandle, Loader, PROFILING},
};
use crate::{
    error::{Cause, Error, Result},
    lost::Lost,
    sync::{Mutex, lock},
};

const OUT_OF_RESOURCES: Status = -5;
const INVALID_CONTEXT: Status = -34;
const INVALID_COMMAND_QUEUE: Status = -36;

/// Whether the context of one device is lost, and what fails with it.
pub(super) struct ContextLoss {
    loader: &'static Loader,
    context: ContextHandle,
    device: DeviceHandle,
    lost: Lost<dyn Unsettled>,
}

/// Those of all devices. They live as long as the process.
static ALL: Mutex<Vec<&'static ContextLoss>> = Mutex::new(Vec::new());

impl ContextLoss {
    /// The context is retained for as long as the process lives. `name` is that of the device.
    pub(super) fn new(
        loader: &'static Loader,
        context: ContextHandle,
        device: DeviceHandle,
        name: String,
    ) -> ContextLoss {
        ContextLoss {
            loader,
            context,
            device,
            lost: Lost::new(name),
        }
    }

    /// From now on it is tried when another device of the context is lost.
    pub(super) fn join(&'static self) {
        lock(&ALL).push(self);
    }

    /// See [`Lost::error`].
    pub(super) fn lost(&self) -> Option<Error> {
        self.lost.error()
    }

    /// See [`Lost::add`].
    pub(super) fn add(&self, account: &Arc<dyn Unsettled>) {
        self.lost.add(account);
    }

    /// See [`Lost::check`].
    pub(super) fn check(&self, account: &dyn Unsettled) -> Result<()> {
        self.lost.check(account)
    }

    /// The error for the caller of a call that was refused. Call it without any lock, as the
    /// others below: a loss fires waiters.
    #[cold]
    pub(super) fn error(&self, fault: Fault) -> Error {
        let lost = self.look_at(fault);
        lost.unwrap_or_else(|| fault.error(self.lost.name()))
    }

    /// The loss of the context, if it is lost by now; `fault` is the first cause if nothing was
    /// before.
    #[cold]
    pub(super) fn look_at(&self, fault: Fault) -> Option<Error> {
        self.look(fault.code(), || Cause::new(fault.to_string()))
    }

    /// As [`look_at`](ContextLoss::look_at), for work that ended with `status`.
    #[cold]
    pub(super) fn look_at_status(&self, status: Status, cause: &Cause) -> Option<Error> {
        self.look(Some(status), || cause.clone())
    }

    fn look(&self, code: Option<Status>, cause: impl FnOnce() -> Cause) -> Option<Error> {
        let may_be = |code| code == OUT_OF_RESOURCES || means_a_loss(code);
        let was_lost = self.lost().is_some();
        let is_lost = was_lost || code.is_some_and(may_be) && self.refuses_all();
        // Also where it was lost before: the thread that found that may not have failed all yet,
        // and the caller may be about to fail one of them by a cause of its own.
        let lost = is_lost.then(|| self.lost.declare(cause));
        if let (false, Some(lost)) = (was_lost, &lost) {
            self.try_others(&Cause::of(lost));
        }
        lost
    }

    /// Tries the other devices of the context, which is lost by `cause` for this one.
    fn try_others(&self, cause: &Cause) {
        let others = lock(&ALL).clone();
        for other in others {
            let shares = other.context == self.context && other.device != self.device;
            if shares && other.lost().is_none() && other.refuses_all() {
                other.lost.declare(|| cause.clone());
            }
        }
    }

    /// Tries the context.
    fn refuses_all(&self) -> bool {
        let (loader, none) = (self.loader, std::ptr::null_mut());
        let made = loader.new_queue(self.context, self.device, PROFILING);
        let tried = made.and_then(|queue| {
            // SAFETY: the queue was just made. A marker may have no event.
            let marked = unsafe { loader.marker(queue, 0, std::ptr::null(), none) };
            // SAFETY: as above.
            let flushed = marked.and_then(|()| unsafe { loader.flush(queue) });
            // SAFETY: ours, and not used any more; what is submitted still runs.
            let _ = unsafe { loader.release_queue(queue) };
            flushed
        });
        let refused = tried.err().and_then(Fault::code);
        refused.is_some_and(means_a_loss)
    }
}

/// Whether a context is lost that returns this for a new queue or its work.
fn means_a_loss(code: Status) -> bool {
    matches!(code, INVALID_CONTEXT | INVALID_COMMAND_QUEUE) || !is_named(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_that_no_retained_handle_explains_mean_a_loss() {
        for code in [INVALID_CONTEXT, INVALID_COMMAND_QUEUE, -9999, -777] {
            assert!(means_a_loss(code), "{code}");
        }
        for code in [-1, -2, -4, OUT_OF_RESOURCES, -6, -14, -30, -38, -58, -59] {
            assert!(!means_a_loss(code), "{code}");
        }
    }
}
