//! The host backend: streams of closures on threads of this process.
//!
//! - **Streams are serial queues on a small pool of workers** ([`Pool`]). Ten thousand streams cost
//!   memory, not threads.
//! - **A wait parks the queue, not a worker.** A parked queue is a waiter on the other stream's
//!   timeline. Waking it puts it back on the pool.
//! - **A record on an idle stream completes at once**, on the calling thread.
//! - **No unsafe code.**

use std::{sync::Arc, time::Duration};

use crate::{
    clock::{Timestamp, host_clock, host_now},
    contract::DeviceRef,
    core::DeviceCore,
    error::Result,
    sync::{Ids, cores},
};
use crate::{
    contract::{Backend, DeviceImpl, Look, Sample, Stamp, StreamImpl},
    core::Streams,
    deadlock,
    fork::PerProcess,
    place::Place,
    workers::{CallbackQueue, MAX_THREADS, Pool},
};

mod cache;
mod stream;

use stream::HostStream;

/// How many threads a host device uses.
///
/// ```
/// use fencepost::{Device, HostOptions};
/// let device = Device::new_host_with(HostOptions::new(2).max_threads(64));
/// # device.default_stream().synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostOptions {
    workers: usize,
    max_threads: usize,
}

impl HostOptions {
    /// At most `workers` pieces of host work run at the same time, at least one. Work that blocks
    /// does not count: other threads take its place, up to 4,096 in all.
    ///
    /// ```
    /// # use fencepost::HostOptions;
    /// assert_eq!(HostOptions::new(2), HostOptions::new(2).max_threads(4096));
    /// ```
    pub fn new(workers: usize) -> HostOptions {
        HostOptions {
            workers,
            max_threads: MAX_THREADS,
        }
    }

    /// Sets how many threads the device may have at most, those with blocked work included; at
    /// least as many as its workers.
    ///
    /// Once that many pieces of work are blocked, no other work starts until one of them returns.
    /// If they wait for that other work, they wait for ever; the text of a
    /// [`Timeout`](crate::Timeout) then says so.
    ///
    /// ```
    /// # use fencepost::HostOptions;
    /// let few = HostOptions::new(2).max_threads(16);
    /// ```
    #[must_use]
    pub fn max_threads(mut self, max_threads: usize) -> HostOptions {
        self.max_threads = max_threads;
        self
    }
}

/// Runs `f`, which may block for long, and says so: while it runs, the thread does not count as one
/// of the device's workers, and other host work takes its place.
///
/// For host work and callbacks that wait for something outside of this library, such as a channel,
/// a lock or a socket. Without it the device notices within some milliseconds that the thread
/// sleeps; with it, nothing waits. The waits of this library say so themselves. On a thread that
/// runs no host work, this just calls `f`.
///
/// # Blocking
/// Blocks while `f` does. Up to [`max_threads`](HostOptions::max_threads) pieces of work may block
/// at once; further work waits until one of them returns.
///
/// # Panics
/// Where `f` does.
///
/// # References
/// - [`tokio::task::block_in_place`](https://docs.rs/tokio/latest/tokio/task/fn.block_in_place.html)
///
/// ```
/// let device = fencepost::Device::new_host(1);
/// let (consumer, producer) = (device.new_stream()?, device.new_stream()?);
/// let (sender, receiver) = std::sync::mpsc::channel();
/// consumer.launch(move || {
///     let number = fencepost::blocking(|| receiver.recv());
///     assert_eq!(number, Ok(7));
/// })?;
/// // The device has one worker. It starts this work although the consumer blocks.
/// producer.launch(move || drop(sender.send(7)))?;
/// consumer.synchronize()?;
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn blocking<R>(f: impl FnOnce() -> R) -> R {
    deadlock::blocking(f)
}

struct HostDevice {
    core: Arc<DeviceCore>,
    pool: Arc<Pool>,
    default: Arc<HostStream>,
    streams: Streams<HostStream>,
}

/// The process's shared host device. A forked child has one of its own.
pub(crate) fn shared() -> DeviceRef {
    static SHARED: PerProcess<DeviceRef> = PerProcess::new();
    SHARED
        .get_or_make(|_| named("host".into(), HostOptions::new(cores().max(2))))
        .clone()
}

/// A host device with a pool of its own, and a name that no other device has.
pub(crate) fn new(options: HostOptions) -> DeviceRef {
    static NUMBERS: Ids = Ids::new();
    named(format!("host#{}", NUMBERS.next() + 1), options)
}

fn named(name: String, options: HostOptions) -> DeviceRef {
    let pool = Pool::with_max_threads(options.workers.max(1), options.max_threads);
    let pool = Arc::new(pool);
    let callbacks = Arc::new(CallbackQueue::new(pool.clone()));
    let core = DeviceCore::new(name, host_clock(), callbacks);
    let default = HostStream::new(core.clone(), pool.clone());
    let streams = Streams::new();
    streams.add(&default);
    DeviceRef::new(HostDevice {
        streams,
        core,
        pool,
        default,
    })
}

impl DeviceImpl for HostDevice {
    fn core(&self) -> &Arc<DeviceCore> {
        &self.core
    }

    fn backend(&self) -> Backend {
        Backend::Host
    }

    fn default_stream(&self) -> Arc<dyn StreamImpl> {
        self.default.clone()
    }

    fn new_stream(&self) -> Result<Arc<dyn StreamImpl>> {
        let stream = HostStream::new(self.core.clone(), self.pool.clone());
        self.streams.add(&stream);
        Ok(stream)
    }

    fn streams(&self) -> Vec<Arc<dyn StreamImpl>> {
        let streams = self.streams.alive().into_iter();
        streams
            .map(|stream| stream as Arc<dyn StreamImpl>)
            .collect()
    }

    /// Exact: the markers' times are read from the host's own clock.
    fn correlate(&self, _: Place, _: Look<'_>) -> Result<Sample> {
        let (host, ticks) = host_now();
        Ok(Sample {
            stamp: Stamp::Clock(Timestamp::new(ticks, host_clock())),
            host,
            error: Duration::ZERO,
            is_host_clock: true,
        })
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        device::Device,
        event::Event,
        sync::{AtomicUsize, Ordering, thread},
    };

    /// Launches work that checks how many such pieces ran before it, and counts itself.
    fn count(stream: &crate::Stream, counter: &Arc<AtomicUsize>, before: std::ops::Range<usize>) {
        let counter = counter.clone();
        stream
            .launch(move || {
                let seen = counter.fetch_add(1, Ordering::SeqCst);
                assert!(before.contains(&seen), "{seen} came before, not {before:?}");
            })
            .unwrap();
    }

    #[test]
    fn two_submitters_leave_no_work_behind() {
        loom::model(|| {
            let device = Device::new_host(1);
            let stream = device.new_stream().unwrap();
            let counter = Arc::new(AtomicUsize::new(0));
            let other = {
                let (stream, counter) = (stream.clone(), counter.clone());
                thread::spawn(move || {
                    count(&stream, &counter, 0..2);
                    stream.record().unwrap().synchronize().unwrap();
                    assert!(counter.load(Ordering::SeqCst) >= 1);
                })
            };
            count(&stream, &counter, 0..2);
            other.join().unwrap();
            drop((stream, device));
        });
    }

    #[test]
    fn a_parked_stream_goes_on_once_its_marker_completes() {
        loom::model(|| {
            let device = Device::new_host(1);
            let (first, second) = (device.new_stream().unwrap(), device.new_stream().unwrap());
            let counter = Arc::new(AtomicUsize::new(0));
            count(&first, &counter, 0..1);
            let event = Event::new(&device);
            event.record(&first).unwrap();
            event.wait(&second).unwrap();
            count(&second, &counter, 1..2);
            let waiter = thread::spawn(move || second.record().unwrap().synchronize().unwrap());
            waiter.join().unwrap();
            assert_eq!(counter.load(Ordering::SeqCst), 2);
            drop((first, event, device));
        });
    }

    #[test]
    fn a_query_never_speaks_for_a_newer_marker() {
        loom::model(|| {
            let device = Device::new_host(1);
            let (primary, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
            let event = Arc::new(Event::new(&device));
            event.record(&primary).unwrap();
            // Off its primary stream the marker must be asked, and a query stores the answer.
            event.record(&other).unwrap();
            let asking = {
                let event = event.clone();
                thread::spawn(move || drop(event.query()))
            };
            // The next marker stays pending: its stream waits for a gate.
            let gate = crate::timeline::Timeline::new(
                crate::core::StreamCore::new(device.core().clone()),
                0,
            );
            let awaited = stream::marker_on(gate.clone());
            other.imp().wait(&awaited).unwrap();
            event.record(&other).unwrap();
            assert!(!event.query().unwrap());
            asking.join().unwrap();
            assert!(!event.query().unwrap());
            gate.advance(1).fire();
            drop((primary, other, event, device));
        });
    }
}
