//! Metal streams: each makes its command buffers run one after the other on a command queue.

use std::{any::Any, sync::Arc};

use objc2_metal::MTLCommandQueue;

use super::{
    completion_order::Step,
    gpu::Gpu,
    marker::MtlMarker,
    native::{self, MAX_ON_CALLERS_QUEUE, MAX_UNCOMPLETED, Native, NextBuffer, PendingStep},
    objects::{CommandBuffer, Object, pooled},
    placed::PlacedBuffer,
    time::{EndTime, Submission},
    wakes::fire_all,
};
use crate::{
    contract::{MarkerImpl, StreamImpl},
    core::StreamCore,
    epochs::{Epoch, Expected, ValueAllocator},
    error::{Cause, Error, Result},
    host_gate::{GateWait, HostGated, PublishedWait, failed_wait, open_after},
    place::Place,
    sync::{Ordering, lock},
    timeline::{Awaited, Reached, Waiter},
};

pub(crate) struct MtlStream {
    core: Arc<StreamCore>,
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) values: Arc<ValueAllocator>,
    pub(crate) native: Arc<Native>,
    pub(super) queue: Object<dyn MTLCommandQueue>,
    /// Whether the queue is the caller's, who may put anything into it.
    wrapped: bool,
}

/// The Metal stream behind a stream of any backend.
pub(crate) fn of_stream(stream: &dyn StreamImpl) -> Result<&MtlStream> {
    let any: &dyn Any = stream;
    any.downcast_ref().ok_or_else(|| Error::Unsupported {
        what: "a call of Metal".into(),
        device: stream.core().device.name.clone(),
        remedy: "use a stream of a Metal device".into(),
    })
}

impl MtlStream {
    /// A stream with a queue of its own, or on the caller's.
    pub(super) fn new(
        gpu: &Arc<Gpu>,
        queue: Option<Object<dyn MTLCommandQueue>>,
    ) -> Result<Arc<MtlStream>> {
        gpu.check()?;
        if let Some(lost) = gpu.lost() {
            return Err(lost);
        }
        let core = StreamCore::new(gpu.core.clone());
        let wrapped = queue.is_some();
        let (queue, max_uncompleted) = match queue {
            Some(queue) => (queue, MAX_ON_CALLERS_QUEUE),
            None => (pooled(|| native::new_queue(gpu))?, MAX_UNCOMPLETED),
        };
        let stream = Arc::new(MtlStream {
            native: pooled(|| Native::new(gpu, Some(queue.clone()), max_uncompleted))?,
            queue,
            values: Arc::new(ValueAllocator::new(core.clone())),
            core,
            gpu: gpu.clone(),
            wrapped,
        });
        gpu.add_stream(&stream.values);
        Ok(stream)
    }

    /// An error where `what` cannot be done: in a forked child, and on a queue of the caller's,
    /// where the completion of our command buffer says nothing about the caller's.
    pub(crate) fn check(&self, what: &str) -> Result<()> {
        self.gpu.check()?;
        match self.wrapped {
            false => Ok(()),
            true => Err(Error::Unsupported {
                what: format!(
                    "a plain {what} on a command queue of the caller's, whose command buffers may \
                     overlap"
                ),
                device: self.gpu.core.name.clone(),
                remedy: "mark your command buffers with metal::record_into and metal::wait_into, \
                         or make them with metal::command_buffer"
                    .into(),
            }),
        }
    }

    /// The same error, naming this stream and not only its device.
    pub(crate) fn named(&self, error: Error) -> Error {
        match error {
            Error::WouldBlock { pending, .. } => Error::WouldBlock {
                stream: self.core.to_string(),
                pending,
            },
            other => other,
        }
    }

    /// Submits a marker with this native value. Called under the submit lock.
    fn submit_marker(
        &self,
        next: &mut NextBuffer,
        epoch: &Arc<Epoch>,
        native: u64,
        timing: bool,
    ) -> Result<Submission> {
        if !timing && next.waits.is_empty() {
            return Ok(self.native.submission(next.last, None));
        }
        let end_time = timing.then(Arc::<EndTime>::default);
        let encode = |buffer: &CommandBuffer| match timing {
            true => self.native.encode_least_work(buffer),
            false => Ok(()),
        };
        let before = epoch.before(native);
        let submit = || {
            self.native
                .submit_buffer(next, epoch, before, end_time.clone(), encode)
        };
        let ordinal = pooled(submit)?;
        Ok(self.native.submission(ordinal, end_time))
    }

    /// See [`crate::metal::command_buffer`].
    pub(super) fn command_buffer(&self) -> Result<PlacedBuffer> {
        self.gpu.check()?;
        let placed = self.values.submit(|open| {
            pooled(|| {
                let mut next = lock(&self.native.next);
                let buffer = self.native.new_buffer(&next)?;
                let (ordinal, step) = self.native.place(&mut next, &open.epoch, open.last);
                Ok(PlacedBuffer::new(buffer, ordinal, step))
            })
        });
        let placed = placed.map_err(|error| self.named(error))?;
        placed.ok_or_else(|| match self.failure() {
            Some(error) => error,
            None => Error::Unsupported {
                what: "work on a stream behind a failure".into(),
                device: self.gpu.core.name.clone(),
                remedy: "synchronize() the stream to see the failure, and call clear_error()"
                    .into(),
            },
        })
    }

    /// Finishes `step` when `marker` completes or fails. If it fails, everything behind the step
    /// fails.
    fn finish_with(step: PendingStep, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        let text = marker.to_string();
        let call = Waiter::Call(Box::new(move |result: Result<()>| {
            step.finish(result.map_err(|error| failed_wait(text, &error)));
        }));
        // On an error the step is dropped, and so has failed.
        marker.notify(call).map(drop)
    }

    fn wait_native(&self, marker: &Arc<dyn MarkerImpl>, imp: &MtlMarker) -> Result<()> {
        if imp.point().reached() == Reached::Failed {
            self.fail_by_wait(marker);
            return Ok(());
        }
        let open = self.values.lock_submits();
        if open.epoch.is_closed() {
            return Ok(());
        }
        let step = Step::Wait { before: open.last };
        let step = self.native.push(&open.epoch, step);
        match (imp.epoch.expected(imp.point().value), imp.submitted()) {
            (Expected::Completes(_), Some(submission)) => {
                lock(&self.native.next).wait_for(&imp.counter.event, submission.ordinal);
                drop(open);
                self.core.waits_on_device(imp.point());
            }
            // The marker will fail, so this stream ends here. Later work is never submitted.
            (Expected::Fails(_, cause), _) => {
                let mut wakes = Vec::new();
                let failed = open.fail_from_here(&cause.through(marker.to_string()), |native| {
                    wakes = self.native.push_value(&open.epoch, native);
                    Ok::<_, Error>(())
                });
                drop(open);
                fire_all(failed.into_iter().chain(wakes).collect());
            }
            // Recorded behind a failure that its timeline reports.
            (Expected::Completes(_), None) => drop(open),
        }
        MtlStream::finish_with(step, marker)
    }

    /// Blocks the stream until the returned gate is dropped. Finish the step before that.
    /// `under_lock` is called under the submit lock. `None` behind a failure.
    ///
    /// The gate is an event, never a kernel that spins: that would keep a GPU busy for ever if its
    /// process died.
    pub(crate) fn add_gate<R>(
        &self,
        under_lock: impl FnOnce() -> R,
    ) -> Result<Option<(HostGate, PendingStep, R)>> {
        let event = pooled(|| self.native.gate_event())?;
        self.values.submit(|open| {
            let ticket = self.native.take_gate();
            lock(&self.native.next).wait_for(event, ticket);
            let gate = HostGate {
                native: self.native.clone(),
                ticket,
            };
            let step = Step::Wait { before: open.last };
            Ok((gate, self.native.push(&open.epoch, step), under_lock()))
        })
    }

    fn wait_for(&self, marker: &Arc<dyn MarkerImpl>, foreign: bool) -> Result<()> {
        self.check("wait")?;
        // A shared event orders the work of any two devices.
        if let Some(imp) = MtlMarker::of(&**marker).transpose()? {
            return self.wait_native(marker, imp);
        }
        self.wait_unseen(marker, foreign)
    }
}

/// Blocks a stream until it is dropped.
pub(crate) struct HostGate {
    native: Arc<Native>,
    ticket: u64,
}

impl Drop for HostGate {
    fn drop(&mut self) {
        self.native.open_gate(self.ticket);
    }
}

/// A wait for a host gate, and its step in the stream's order.
struct SubmittedWait {
    step: Option<PendingStep>,
    gate: Option<HostGate>,
}

impl GateWait for SubmittedWait {
    fn settle(&mut self, result: Result<(), Cause>) {
        if let Some(step) = self.step.take() {
            step.finish(result);
        }
    }

    fn open(&mut self) {
        // Where it was not settled, what lies behind the wait fails.
        drop(self.step.take());
        drop(self.gate.take());
    }
}

impl HostGated for MtlStream {
    /// The queue is this stream's own, so the gate blocks no other stream. The exception is a
    /// system that puts several queues on one hardware channel, which Metal does not tell.
    fn block_until(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        let publish = || {
            let after = self.core.recorded.load(Ordering::Acquire);
            PublishedWait::new(&self.core, marker, after)
        };
        let Some((gate, step, published)) = self.add_gate(publish)? else {
            return Ok(());
        };
        let wait = SubmittedWait {
            step: Some(step),
            gate: Some(gate),
        };
        open_after(marker, wait, vec![published])
    }

    fn fail_from_here(&self, cause: &Cause) {
        let mut wakes = Vec::new();
        self.values.fail_from_here(cause, |native| {
            wakes = self.native.push_value(&self.values.current_epoch(), native);
            Ok::<_, Error>(())
        });
        fire_all(wakes);
    }
}

impl StreamImpl for MtlStream {
    fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }

    fn mark(&self, timing: bool, at: Place) -> Result<Arc<dyn MarkerImpl>> {
        self.check("record")?;
        let mut wakes = Vec::new();
        let place = self.values.record(|native| {
            let epoch = self.values.current_epoch();
            let mut next = lock(&self.native.next);
            let submission = self.submit_marker(&mut next, &epoch, native, timing)?;
            wakes = self.native.push_value(&epoch, native);
            Ok(Some(submission))
        });
        fire_all(wakes);
        let place = place.map_err(|error| self.named(error))?;
        Ok(Arc::new(MtlMarker::new(
            self.native.clone(),
            place,
            timing,
            at,
        )))
    }

    fn wait(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.wait_for(marker, false)
    }

    fn wait_foreign(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        self.wait_for(marker, true)
    }

    fn completed(&self) -> u64 {
        self.values.current_epoch().timeline.completed()
    }

    fn failure(&self) -> Option<Error> {
        self.values.current_epoch().timeline.failure()
    }

    fn clear_error(&self) -> Result<()> {
        if let Some(lost) = self.gpu.lost() {
            return Err(lost);
        }
        self.values.start_new_epoch();
        self.gpu.check_loss(&self.values)
    }
}
