//! What fails with a lost device. Knows no API.
//!
//! # The protocol
//!
//! | thread | first | then |
//! |---|---|---|
//! | [`declare`](Lost::declare): the device is lost | sets the cause | fails every stream that it finds |
//! | [`add`](Lost::add): a new stream | adds the stream | [`check`](Lost::check) |
//! | whoever starts a new timeline | puts it into the stream | [`check`](Lost::check) |
//!
//! *Invariant: once both threads are through, the stream's timeline has failed.* Each of them
//! writes first and looks afterwards. So either `declare` finds the stream with its new timeline,
//! or `check` finds the cause.
//!
//! *Invariant: all streams that are found have failed before any waiter is fired.* A waiter may be
//! that of another stream of the device, which would fail by its wait, and not by the loss.
//!
//! `loom_tests` explores it, on what starts the timelines of each backend's streams, too.

use std::sync::Arc;

use crate::{
    core::{Loss, Streams},
    error::{Cause, Error, Result},
    timeline::Wake,
};

/// A stream, as the loss of its device knows it.
pub(crate) trait Loses: Send + Sync {
    /// Fails the current timeline, since the device is lost. The caller fires what it gives.
    fn lose(&self, cause: &Cause) -> Wake;
}

/// Whether a device is lost, and the streams that fail with it.
pub(crate) struct Lost<S: ?Sized> {
    /// Of the device.
    name: String,
    loss: Loss,
    streams: Streams<S>,
}

impl<S: Loses + ?Sized> Lost<S> {
    pub(crate) fn new(name: String) -> Lost<S> {
        Lost {
            name,
            loss: Loss::new(),
            streams: Streams::new(),
        }
    }

    /// Of the device.
    #[cfg(feature = "opencl")]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Those that were added, and are alive.
    #[cfg(any(feature = "vulkan", feature = "wgpu30"))]
    pub(crate) fn streams(&self) -> Vec<Arc<S>> {
        self.streams.alive()
    }

    /// The error of every call, once the device is lost.
    pub(crate) fn error(&self) -> Option<Error> {
        self.loss.error(&self.name)
    }

    /// `stream` fails with the device, also where that is lost already.
    pub(crate) fn add(&self, stream: &Arc<S>) {
        self.streams.add(stream);
        let _ = self.check(&**stream);
    }

    /// An error where the device is lost; then `stream` has failed. Whoever starts a new timeline
    /// calls it afterwards. Call it without any lock: it fires waiters.
    pub(crate) fn check(&self, stream: &(impl Loses + ?Sized)) -> Result<()> {
        match self.error() {
            None => Ok(()),
            Some(lost) => {
                stream.lose(&Cause::of(&lost)).fire();
                Err(lost)
            }
        }
    }

    /// The device is lost, by `cause` if nothing was its cause before. Call it without any lock: it
    /// fires waiters.
    pub(crate) fn declare(&self, cause: impl FnOnce() -> Cause) -> Error {
        self.loss.declare(&self.name, cause, |cause| {
            let streams = self.streams.alive();
            let wakes: Vec<_> = streams.iter().map(|stream| stream.lose(cause)).collect();
            wakes.into_iter().for_each(Wake::fire);
        })
    }
}

#[cfg(all(test, loom))]
pub(crate) mod loom_tests {
    use super::*;
    use crate::{
        sync::{Mutex, lock, thread},
        timeline::{Timeline, Waiter, loom_tests::stream_core},
    };

    /// What starts the timelines of a stream.
    pub(crate) trait Epochs: Loses + 'static {
        fn timeline(&self) -> Arc<Timeline>;
        fn start_new_epoch(&self);
    }

    /// The device is lost while another thread runs `beside`.
    fn lose_beside<S: Epochs>(lost: &Arc<Lost<S>>, beside: impl FnOnce()) {
        let losing = {
            let lost = lost.clone();
            thread::spawn(move || drop(lost.declare(|| Cause::new("x"))))
        };
        beside();
        losing.join().unwrap();
    }

    fn is_lost(stream: &impl Epochs) -> bool {
        let failure = stream.timeline().failure();
        matches!(failure, Some(Error::DeviceLost { cause, .. }) if cause.root() == "x")
    }

    /// A stream fails with its device, also where it is made, or its error is cleared, beside that.
    pub(crate) fn a_loss_reaches_every_stream<S: Epochs>(make: fn() -> Arc<S>) {
        loom::model(move || {
            let (lost, stream) = (Arc::new(Lost::new("a device".into())), make());
            lose_beside(&lost, || lost.add(&stream));
            assert!(is_lost(&*stream));
        });
        loom::model(move || {
            let (lost, stream) = (Arc::new(Lost::new("a device".into())), make());
            lost.add(&stream);
            let of_stream = Cause::new("of the stream");
            stream.timeline().fail(&of_stream, false).fire();
            lose_beside(&lost, || {
                stream.start_new_epoch();
                let _ = lost.check(&*stream);
            });
            assert!(is_lost(&*stream));
        });
    }

    struct Plain(Mutex<Arc<Timeline>>);

    impl Plain {
        fn new() -> Arc<Plain> {
            Arc::new(Plain(Mutex::new(Timeline::new(stream_core(), 0))))
        }
    }

    impl Loses for Plain {
        fn lose(&self, cause: &Cause) -> Wake {
            self.timeline().fail(cause, true)
        }
    }

    impl Epochs for Plain {
        fn timeline(&self) -> Arc<Timeline> {
            lock(&self.0).clone()
        }

        fn start_new_epoch(&self) {
            *lock(&self.0) = Timeline::new(stream_core(), 0);
        }
    }

    #[test]
    fn a_loss_reaches_a_stream_that_is_made_or_cleared_beside_it() {
        a_loss_reaches_every_stream(Plain::new);
    }

    #[test]
    fn two_threads_that_find_a_loss_tell_one_cause() {
        loom::model(|| {
            let (lost, stream) = (Arc::new(Lost::new("a device".into())), Plain::new());
            lost.add(&stream);
            let mut mine = None;
            lose_beside(&lost, || mine = Some(lost.declare(|| Cause::new("y"))));
            let cause = |error: Option<Error>| error?.cause().map(|cause| cause.root().to_owned());
            let (mine, first) = (cause(mine), cause(stream.timeline().failure()));
            assert!(first.is_some());
            assert_eq!(mine, first);
        });
    }

    #[test]
    fn all_streams_have_failed_when_the_first_waiter_is_fired() {
        loom::model(|| {
            let lost = Lost::new("a device".into());
            let both = [Plain::new(), Plain::new()];
            for (stream, other) in [(0, 1), (1, 0)] {
                lost.add(&both[stream]);
                let other = both[other].clone();
                let call = Waiter::Call(Box::new(move |_| assert!(is_lost(&*other))));
                assert!(both[stream].timeline().register(1, call).is_ok());
            }
            drop(lost.declare(|| Cause::new("x")));
        });
    }
}
