//! Metal streams: an order of our own on a command queue.

use std::{any::Any, panic::Location, sync::Arc};

use objc2::rc::Retained;
use objc2_metal::{MTLCommandBuffer, MTLCommandQueue};

use super::{
    completion_order::{self, Step},
    gpu::Gpu,
    native::{Native, Stamp, Tail, Turn, pooled},
    objects::{CommandBuffer, Object, Time},
};
use crate::contract::{MarkerImpl, StreamImpl};
use crate::{
    core::{Blocked, StreamCore},
    epochs::{CountedMarker, Epoch, Outlook, ReservedMarker, ValueAllocator},
    error::{Cause, Error, Result},
    sync::lock,
    timeline::{Awaited, Reached, Waiter, Wake},
};

pub(super) type MtlMarker = CountedMarker<Native>;

pub(crate) struct MtlStream {
    core: Arc<StreamCore>,
    pub(super) gpu: Arc<Gpu>,
    values: ValueAllocator,
    native: Arc<Native>,
    /// Whether the queue is the caller's, who may put anything into it.
    wrapped: bool,
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
        let stream = Arc::new(MtlStream {
            native: pooled(|| Native::new(gpu, queue))?,
            values: ValueAllocator::new(core.clone()),
            core,
            gpu: gpu.clone(),
            wrapped,
        });
        gpu.add_stream(&stream);
        Ok(stream)
    }

    /// The device is gone, and this stream with it: who is to be told.
    pub(super) fn lose(&self, cause: &Cause) -> Wake {
        self.values.now().timeline.fail(cause, true)
    }

    pub(super) fn is_wrapped(&self) -> bool {
        self.wrapped
    }

    /// On a queue of the caller's, a command buffer of ours says nothing about theirs.
    fn check(&self, what: &str) -> Result<()> {
        self.gpu.check()?;
        match self.wrapped {
            false => Ok(()),
            true => Err(Error::Unsupported {
                what: format!("a plain {what} on a command queue of the caller's, whose command buffers may overlap"),
                device: self.gpu.core.name.clone(),
                remedy: "mark your command buffers with metal::record_into and metal::wait_into, or make them with \
                         metal::command_buffer"
                    .into(),
            }),
        }
    }

    /// What stands behind the text of an error about this stream, not about its queue.
    fn named(&self, error: Error) -> Error {
        match error {
            Error::WouldBlock { pending, .. } => Error::WouldBlock {
                stream: self.core.to_string(),
                pending,
            },
            other => other,
        }
    }

    /// The submit of a marker. Called under the submit lock.
    fn submit_mark(
        &self,
        tail: &mut Tail,
        epoch: &Arc<Epoch>,
        native: u64,
        timing: bool,
    ) -> Result<Stamp> {
        if !timing && tail.waits.is_empty() {
            return Ok(self.native.stamp(tail.ordinal, None));
        }
        let time = timing.then(Arc::<Time>::default);
        pooled(|| {
            let buffer = self.native.begin(tail)?;
            if timing {
                self.native.blit(&buffer)?;
            }
            let (ordinal, turn) = self.native.take(tail, epoch, epoch.before(native));
            let left = time.clone();
            self.native.finish_buffer(&buffer, ordinal, turn, left);
            buffer.commit();
            Ok(self.native.stamp(ordinal, time))
        })
    }

    /// A command buffer of the caller's that comes next in the stream's order, whenever it is
    /// committed; `None` behind a failure.
    pub(super) fn command_buffer(&self) -> Result<Option<Taken>> {
        self.gpu.check()?;
        let taken = self.values.submit(|open| {
            let mut tail = lock(&self.native.tail);
            let buffer = self.native.begin(&tail)?;
            let (ordinal, turn) = self.native.take(&mut tail, &open.epoch, open.last);
            // Its place in the queue too: a buffer that waits for it must not stand in front of it.
            buffer.enqueue();
            self.native.open(&buffer, ordinal);
            Ok(Taken {
                buffer,
                ordinal,
                turn,
            })
        });
        taken.map_err(|error| self.named(error))
    }

    /// Work of the suite, in the stream's order; `Ok(false)` where it lies behind a failure.
    #[cfg(feature = "conformance")]
    pub(super) fn run(&self, encode: impl FnOnce(&CommandBuffer) -> Result<()>) -> Result<bool> {
        self.check("dispatch")?;
        let ran = self.values.submit(|open| {
            pooled(|| {
                let mut tail = lock(&self.native.tail);
                let buffer = self.native.begin(&tail)?;
                encode(&buffer)?;
                let (ordinal, turn) = self.native.take(&mut tail, &open.epoch, open.last);
                self.native.finish_buffer(&buffer, ordinal, turn, None);
                buffer.commit();
                Ok(())
            })
        });
        Ok(ran.map_err(|error| self.named(error))?.is_some())
    }

    /// Ends the stream here: what is recorded from now on fails with `cause`, once what was
    /// submitted so far is done.
    fn end(&self, cause: &Cause) {
        let mut wakes = Vec::new();
        self.values.end(cause, |native| {
            wakes = self.native.value(&self.values.now(), native);
            Ok::<_, Error>(())
        });
        completion_order::fire(wakes);
    }

    /// Ends the stream because `marker` has failed.
    fn fail_in_turn(&self, marker: &Arc<dyn MarkerImpl>, error: &Error) {
        self.end(&Cause::of(error).through(marker.to_string()));
    }

    /// Says that the wait for `marker` is over once it is, or fails what lies behind the wait.
    fn follow(marker: &Arc<dyn MarkerImpl>, turn: Turn) -> Result<()> {
        let text = marker.to_string();
        let call = Waiter::Call(Box::new(move |result: Result<()>| {
            turn.finish(result.map_err(|error| Cause::of(&error).through(text)));
        }));
        // Refused: the turn is dropped, which fails it.
        marker.notify(call).map(drop)
    }

    fn wait_native(&self, marker: &Arc<dyn MarkerImpl>, imp: &MtlMarker) -> Result<()> {
        if imp.point().reached() == Reached::Failed {
            if let Err(error) = marker.query() {
                self.fail_in_turn(marker, &error);
            }
            return Ok(());
        }
        let open = self.values.open();
        if open.epoch.is_closed() {
            return Ok(());
        }
        let turn = self
            .native
            .push(&open.epoch, Step::Wait { before: open.last });
        match (imp.epoch.outlook(imp.point().value), imp.submitted()) {
            (Outlook::Completes(_), Some(stamp)) => {
                lock(&self.native.tail).wait_for(&imp.counter.event, stamp.ordinal);
                drop(open);
            }
            // Its stream ends in front of the marker, so this one ends here; what was to come later
            // is never submitted.
            (Outlook::Fails(_, cause), _) => {
                let mut wakes = Vec::new();
                let failed = open.end(&cause.through(marker.to_string()), |native| {
                    wakes = self.native.value(&open.epoch, native);
                    Ok::<_, Error>(())
                });
                drop(open);
                completion_order::fire(failed.into_iter().chain(wakes).collect());
            }
            // Recorded behind a failure that its timeline tells of.
            (Outlook::Completes(_), None) => drop(open),
        }
        MtlStream::follow(marker, turn)
    }

    /// HostGates the stream until the host lets it go, by an event and never by a kernel that
    /// spins, which keeps a GPU busy for ever when its process dies: gives the turn that the host
    /// is to let go, what it is in the stream's order, and what `held` gave under the submit lock;
    /// `None` behind a failure.
    fn hold<R>(&self, held: impl FnOnce() -> R) -> Result<Option<(u64, Turn, R)>> {
        let hold = pooled(|| self.native.hold())?;
        self.values.submit(|open| {
            let hold_turn = self.native.take_hold();
            lock(&self.native.tail).wait_for(hold, hold_turn);
            let step = Step::Wait { before: open.last };
            Ok((hold_turn, self.native.push(&open.epoch, step), held()))
        })
    }

    /// HostGates the stream until the host has seen `marker`.
    fn block_until(&self, marker: &Arc<dyn MarkerImpl>) -> Result<()> {
        // Told of while it lasts, for finding circles. The queue is this stream's alone, so it
        // holds up no other, unless the system puts several queues on one channel: then nothing but
        // the caller knows what it does.
        let publish = || {
            self.core.block(Blocked {
                marker: marker.clone(),
                for_ever: true,
                in_work: false,
                after: self.core.recorded.load(crate::sync::Ordering::Acquire),
            })
        };
        let Some((hold, turn, wait)) = self.hold(publish)? else {
            return Ok(());
        };
        let release = Release {
            native: self.native.clone(),
            core: self.core.clone(),
            wait,
            hold,
        };
        let text = marker.to_string();
        let call = Waiter::Call(Box::new(move |result: Result<()>| {
            // What lies behind fails before it is let go.
            turn.finish(result.map_err(|error| Cause::of(&error).through(text)));
            drop(release);
        }));
        // Refused: both are dropped, which fails the stream and lets it go.
        marker.notify(call).map(drop)
    }

    /// The Metal marker behind a marker of any backend; an error while nobody has said that it is
    /// submitted.
    pub(super) fn metal(marker: &dyn MarkerImpl) -> Option<Result<&MtlMarker>> {
        let any: &dyn Any = marker;
        match any.downcast_ref::<ReservedMarker<Native>>() {
            Some(reserved) => Some(reserved.submitted()),
            None => any.downcast_ref().map(Ok),
        }
    }
}

/// A command buffer that has its place in the stream and is not committed.
pub(crate) struct Taken {
    buffer: Retained<CommandBuffer>,
    ordinal: u64,
    turn: Turn,
}

impl Taken {
    pub(crate) fn buffer(&self) -> &CommandBuffer {
        &self.buffer
    }

    /// Signals the stream's event, and commits.
    pub(crate) fn commit(self) {
        if self.turn.native.gpu.is_forked() {
            // Metal did not come along.
            return std::mem::forget(self);
        }
        pooled(|| {
            let native = self.turn.native.clone();
            native.close(self.ordinal);
            native.finish_buffer(&self.buffer, self.ordinal, self.turn, None);
            self.buffer.commit();
            drop(self.buffer);
        });
    }
}

/// What lets a held stream go, whatever happens: when it is dropped.
struct Release {
    native: Arc<Native>,
    core: Arc<StreamCore>,
    wait: u64,
    hold: u64,
}

impl Drop for Release {
    fn drop(&mut self) {
        self.core.unblock(self.wait);
        self.native.let_go(self.hold);
    }
}

impl MtlStream {
    fn wait_for(&self, marker: &Arc<dyn MarkerImpl>, foreign: bool) -> Result<()> {
        self.check("wait")?;
        // A shared event orders the work of any two devices.
        if let Some(imp) = MtlStream::metal(&**marker).transpose()? {
            return self.wait_native(marker, imp);
        }
        match marker.query() {
            Ok(true) => Ok(()),
            Ok(false) if foreign => self.block_until(marker),
            Ok(false) => Err(Error::ForeignWait {
                stream: self.core.to_string(),
                marker: marker.to_string(),
            }),
            Err(error) => {
                self.fail_in_turn(marker, &error);
                Ok(())
            }
        }
    }
}

impl StreamImpl for MtlStream {
    fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }

    fn mark(&self, timing: bool, at: &'static Location<'static>) -> Result<Arc<dyn MarkerImpl>> {
        self.check("record")?;
        let mut wakes = Vec::new();
        let place = self.values.record(|native| {
            let epoch = self.values.now();
            let mut tail = lock(&self.native.tail);
            let stamp = self.submit_mark(&mut tail, &epoch, native, timing)?;
            wakes = self.native.value(&epoch, native);
            Ok(Some(stamp))
        });
        completion_order::fire(wakes);
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
        self.values.now().timeline.completed()
    }

    fn failure(&self) -> Option<Error> {
        self.values.now().timeline.failure()
    }

    fn clear_error(&self) -> Result<()> {
        if let Some(lost) = self.gpu.lost() {
            return Err(lost);
        }
        self.values.reopen();
        Ok(())
    }

    #[cfg(feature = "conformance")]
    fn gate(&self) -> Result<crate::testing::work::Gate> {
        self.check("gate")?;
        let held = self.hold(|| ())?;
        let native = self.native.clone();
        Ok(crate::testing::work::Gate::new(move || {
            // Behind a failure there is nothing to hold back.
            if let Some((hold, turn, ())) = held {
                turn.finish(Ok(()));
                native.let_go(hold);
            }
        }))
    }

    #[cfg(feature = "conformance")]
    fn append(&self, log: &crate::testing::work::Log, token: u32) -> Result<()> {
        match super::work::append(self, log, token)? {
            true => Ok(()),
            // What is submitted behind a failure never runs.
            false => self.failure().map_or(Ok(()), Err),
        }
    }

    /// The stream ends here, by the backend's own way of ending one: no kernel faults on purpose on
    /// every GPU. The stand-in's faults show what a buffer does that ends in an error.
    #[cfg(feature = "conformance")]
    fn fail(&self, text: &str) -> Result<()> {
        self.end(&Cause::new(text));
        Ok(())
    }
}
