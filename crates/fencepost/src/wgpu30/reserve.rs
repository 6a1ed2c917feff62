//! Markers in encoders that the caller finishes and submits.
//!
//! Such a marker has a counter of its own, which a done callback of the encoder raises to 1. wgpu
//! drops the callback uncalled where the encoder is never submitted: then the marker has failed.
//! wgpu also drops it uncalled where another callback panics: then the work is over, and the marker
//! is complete. wgpu calls it also after a submit that it refused: then the time of a marker of
//! [`record_into`] is missing, and that marker has failed; any other counts as complete. A panic
//! that drops the encoder itself is told from one of a callback's by that time alone.
//!
//! Until then the marker's epoch *may fail*, so that a stream which waits for it fails with it.

use std::sync::Arc;

use super::{
    counter::Native,
    gpu::Gpu,
    signal::{Signal, Tell, Told},
    slots::Slot,
    stream::WgpuMarker,
    time::MarkTime,
    timer::{self, Reading, Stamp},
};
use crate::{
    core::StreamCore,
    epochs::{Epoch, Reserved, ReservedMarker, State, ValueAllocator},
    error::{Cause, Error, Result},
    place::Place,
};

/// Reserves a marker that is complete when what is made of `encoder` is.
pub(super) fn reserve(
    gpu: &Arc<Gpu>,
    encoder: &wgpu::CommandEncoder,
    at: Place,
) -> Result<Reserved> {
    reserve_with(gpu, encoder, None, None, at)
}

/// As [`reserve`], with a time. Where `written` is missing, nothing of the encoder ran.
fn reserve_with(
    gpu: &Arc<Gpu>,
    encoder: &wgpu::CommandEncoder,
    time: Option<MarkTime>,
    written: Option<Arc<Stamp>>,
    at: Place,
) -> Result<Reserved> {
    gpu.core.check_fork()?;
    if let Some(ended) = gpu.ended() {
        return Err(ended);
    }
    let told = Told::new();
    let native = Native::new(gpu, Signal::Told(told.clone()));
    let timing = time.is_some();
    let values = ValueAllocator::new(StreamCore::new(gpu.core.clone()));
    let place = values.record(|_| Ok::<_, Error>(time))?;
    let state = State::reserved();
    place.epoch.begin_may_fail();
    let over = Over {
        gpu: gpu.clone(),
        tell: Some(told.tell(1)),
        epoch: place.epoch.clone(),
        state: state.clone(),
        written,
    };
    encoder.on_submitted_work_done(move || over.tell());
    let marker = WgpuMarker::new(native, place, timing, at);
    let marker = Arc::new(ReservedMarker::new(marker, state.clone()));
    Ok(Reserved::new(marker, state, || ()))
}

/// What the done callback of an encoder holds.
struct Over {
    gpu: Arc<Gpu>,
    tell: Option<Tell>,
    epoch: Arc<Epoch>,
    state: Arc<State>,
    written: Option<Arc<Stamp>>,
}

impl Over {
    fn tell(mut self) {
        match self.tell.take() {
            Some(tell) if self.is_missing() => {
                self.fail(tell, "wgpu refused the submit of its encoder");
            }
            Some(tell) => self.complete(tell),
            None => {}
        }
    }

    /// Whether it is known that nothing of the encoder ran. wgpu calls or drops what reads the time
    /// before this.
    fn is_missing(&self) -> bool {
        self.written.as_ref().is_some_and(|time| time.is_missing())
    }

    fn complete(&self, tell: Tell) {
        drop(tell);
        self.epoch.clear();
    }

    fn fail(&self, tell: Tell, why: &str) {
        self.epoch.fail_after(0, &Cause::new(why));
        self.epoch.settle(0);
        tell.forget();
        if !self.state.is_submitted() {
            // Nobody has claimed a submit, so nobody need be told that there was none.
            let _ = self.epoch.timeline.failure().map(Error::seen);
        }
        // Streams that wait for it have failed, too.
        self.gpu.look_again();
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        match self.tell.take() {
            Some(tell) if std::thread::panicking() && !self.is_missing() => self.complete(tell),
            Some(tell) => self.fail(
                tell,
                "the encoder that it was recorded into was dropped without a submit; if it is \
                 never to run, drop the reservation",
            ),
            None => {}
        }
    }
}

/// As [`reserve`], with the time at this point of `encoder`.
pub(super) fn record_into(
    gpu: &Arc<Gpu>,
    encoder: &mut wgpu::CommandEncoder,
    at: Place,
) -> Result<Reserved> {
    gpu.core.check_fork()?;
    gpu.check_timing(true)?;
    let slot = timer::take(gpu)?;
    let reading = gpu.scoped("wgpu::CommandEncoder::write_timestamp", || {
        slot.write(encoder);
        Reading::new(gpu, slot, encoder, 1)
    })?;
    let stamp = reading.stamp(0);
    let time = stamp.clone().map(|stamp| MarkTime::new(gpu, stamp));
    reading.on_submit(encoder);
    reserve_with(gpu, encoder, time, stamp, at)
}

/// The two queries that a pass is to write.
pub(super) struct Pass {
    gpu: Arc<Gpu>,
    slot: Slot,
}

impl Pass {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Pass> {
        gpu.core.check_fork()?;
        gpu.check_timing(false)?;
        Ok(Pass {
            slot: timer::take(gpu)?,
            gpu: gpu.clone(),
        })
    }

    pub(super) fn queries(&self) -> (&wgpu::QuerySet, [u32; 2]) {
        (self.slot.set(), self.slot.queries())
    }

    /// Reserves the markers at its beginning and its end, behind the pass in `encoder`.
    pub(super) fn reserve(
        self,
        encoder: &mut wgpu::CommandEncoder,
        at: Place,
    ) -> Result<[Reserved; 2]> {
        let Pass { gpu, slot } = self;
        gpu.core.check_fork()?;
        let reading = gpu.scoped("wgpu::CommandEncoder::resolve_query_set", || {
            Reading::new(&gpu, slot, encoder, 2)
        })?;
        let time = |query| Some(MarkTime::new(&gpu, reading.stamp(query)?));
        let times = [time(0), time(1)];
        reading.on_submit(encoder);
        let [start, end] = times.map(|time| reserve_with(&gpu, encoder, time, None, at));
        Ok([start?, end?])
    }
}
