//! wgpu 30: a stream on a `Device` and `Queue` of the caller's own.
//!
//! With the feature `wgpu30`, [`stream`] gives the [`Stream`] of a [`wgpu::Queue`]; events are made
//! on its [`device`](Stream::device). The module has the major version in its name, since wgpu's
//! types are in its interface. wgpu is re-exported here. It is built with its backends for Vulkan
//! and Metal; whoever needs others enables them in a dependency of their own.
//!
//! # What to know of wgpu's queue
//! - A device has one queue. Streams of one device share its order, so what delays one delays the
//!   others. A marker covers everything that was submitted to the *queue* before it, by any stream
//!   or by the caller. What was recorded into encoders and not submitted is not covered.
//! - Recording is one `Queue::submit`. That calls the done callbacks that are due, on the thread
//!   that records, as each submit of the caller's does.
//! - Nobody needs to poll. On Vulkan and Metal, each submit that marks also signals a timeline
//!   semaphore or a shared event of this crate. A thread of this crate waits for that, and so holds
//!   no lock of wgpu's. On other backends that thread polls, without waiting, at growing pauses of
//!   1 ms at most.
//! - Where that thread polls, it also calls the done and map callbacks of the caller that are due.
//!   One that blocks until another marker of the device is told would wait for its own thread.
//! - A stream waits for markers of the same device by the order of the queue. It waits on the
//!   device for a marker of the Vulkan backend on the same `VkDevice`, unless that marker depends
//!   on the host, as behind a [`Gate`](crate::Gate). A host stream can wait for a marker of wgpu's.
//!   For any other pending marker, a wait is [`Error::ForeignWait`]: wgpu chains its submits by
//!   binary semaphores, and one that waits for a signal that is not submitted yet is invalid. For
//!   the same reason a gate on wgpu is [`Error::Unsupported`].
//! - NVIDIA's driver for Vulkan tells that a device is lost by a submit alone. Until the program
//!   submits something, or records a marker, waits for earlier ones go on.
//! - After `Device::destroy`, markers that are recorded fail, and earlier ones complete.
//! - In a forked child every call that needs wgpu is [`Error::Forked`], and to drop things calls
//!   neither wgpu nor the driver.
//!
//! # What wgpu does that one would not guess
//! Each row was seen with wgpu 30.0.2. The tests are in `tests/wgpu30.rs`, `wgpu30_misuse.rs` and
//! `wgpu30_faults.rs`.
//!
//! | wgpu | so here | test |
//! |---|---|---|
//! | A callback that panics unwinds out of `poll` or `submit`, and the others that are due then are dropped uncalled. | A panic in a submit or poll that this crate makes is caught; the panic hook has reported it. A marker whose callback another panic drops completes all the same. | `a_panic_in_a_callback_of_the_callers_hides_no_mark_in_an_encoder` |
//! | `submit` calls the done callbacks that are due. | This crate holds no lock then, so they may record and query. | `a_callback_of_the_users_that_runs_in_a_record_may_record` |
//! | `poll` with a wait accepts a submission index of another device, and says that its work is done. | A marker belongs to its device; another one is [`Error::DeviceMismatch`]. | `an_index_of_another_device_is_taken_by_wgpu_and_a_marker_is_not` |
//! | `==` of two devices, or of two queues, compares numbers within an instance: the first ones of two instances are equal. | Native handles are compared. | `two_devices_of_wgpu_are_two_devices` |
//! | A query that nothing wrote resolves to 0, or to what it held before, without an error. | Its time is an error, never a number. | `a_pass_has_times_if_it_was_begun_with_them` |
//! | The timestamp period is 1 also on devices without timestamps. | Timing there is [`Error::Unsupported`], and names the feature. | `without_features_there_are_no_times_and_the_error_names_the_feature` |
//! | A driver may signal wgpu's fence of a submit a moment after this crate's semaphore of it. | Reading a time waits for it, for ten seconds at most, or one second where wgpu's queue is empty. | `a_time_is_waited_for_where_wgpus_fence_is_later_than_the_semaphore` |
//! | `poll` panics on a lost device; `submit` to a lost or destroyed one does nothing, without an error. | The markers fail, with the cause. | `on_a_lost_device_wgpus_poll_panics_and_its_submit_says_nothing`, `after_destroy_what_is_pending_completes_and_what_is_recorded_fails` |
//! | A submit that the driver refuses has taken this crate's signal with it. Where memory ran out, the caller's handler of uncaptured errors is called, which panics by default; where the device is lost, nobody is told but the device's lost callback. | The marker fails, once its signal was missed for five seconds on an empty queue. | `a_submit_that_the_driver_refuses_fails_its_marker_and_those_behind_it`, `a_refused_submit_is_told_beside_a_mark_that_is_never_submitted` |
//! | When memory runs out for an encoder or a submit, wgpu counts the device as lost; for a buffer or a query set it does not. | Recording is an error in the second case, and the stream goes on. | `memory_that_runs_out_for_a_time_is_an_error_and_the_stream_goes_on`, `a_loss_that_wgpu_meets_first_ends_in_errors_and_none_of_them_goes_to_the_callers_handler` |
//! | An invalid command in an encoder is an error only when the encoder is finished. A submit that wgpu refuses calls the done callbacks of its encoders all the same. | A marker of [`record_into`] fails, since its time is missing. Any other is complete, and a time around a pass is an error. | `a_mark_inside_of_a_pass_fails_without_a_panic_of_ours` |
//! | Dropping the last owner of a queue waits until it is idle. | A thread of this crate does that, once what was submitted before is over. | `no_drop_waits_for_work_that_is_held`, `a_marker_is_told_in_front_of_work_that_the_last_owner_of_the_queue_would_wait_for` |
//! | On Mesa's lavapipe each submit from the second on waits for the work before, since it waits for a binary semaphore. | Recording waits there too. | `on_lavapipe_a_record_waits_for_the_work_before_by_wgpus_doing` |
#![allow(unsafe_code)]

mod counter;
pub(crate) mod device;
mod exit;
pub(crate) mod gpu;
#[cfg(target_vendor = "apple")]
mod metal;
mod queue;
mod reserve;
mod signal;
mod slots;
mod staging;
pub(crate) mod stream;
mod time;
mod timer;
#[cfg(not(target_vendor = "apple"))]
mod vulkan;
mod watcher;

use std::fmt;

use crate::{
    device::Device, error::Result, place::Place, reservation::Reservation, stream::Stream,
};

#[allow(unused_imports)] // Named in the documentation.
use crate::error::Error;

pub use wgpu;

/// The stream of a queue, for events on it. The same one each time, while anything of it is alive.
/// Never blocks.
///
/// It keeps clones of `device` and `queue`. Dropping the last owner of a wgpu queue waits until the
/// queue is idle: if that owner is this crate, one of its threads drops it.
///
/// # Errors
/// [`Error::DeviceMismatch`] for a queue of another device, where that can be told (Vulkan);
/// [`Error::Backend`] where the driver refuses a call; [`Error::Forked`] in a process that was
/// forked after the first call, whatever device it is.
///
/// # References
/// - [`Queue::submit`](https://docs.rs/wgpu/30.0.2/wgpu/struct.Queue.html#method.submit)
/// - wgpu-hal's [`add_signal_semaphore`][1]
///
/// [1]: https://docs.rs/wgpu-hal/30.0.2/wgpu_hal/vulkan/struct.Queue.html#method.add_signal_semaphore
///
/// ```no_run
/// # fn f(device: &wgpu::Device, queue: &wgpu::Queue) -> fencepost::Result<()> {
/// # use fencepost::wgpu30::wgpu;
/// let stream = fencepost::wgpu30::stream(device, queue)?;
/// queue.submit([/* … */]);
/// let marker = stream.record()?;
/// marker.on_complete(|result| println!("the work is over: {result:?}"))?;
/// # Ok(())
/// # }
/// ```
pub fn stream(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Stream> {
    let (device, stream) = device::wrap(device, queue)?;
    Ok(Stream::new(stream, Device::new(device)))
}

/// Reserves a marker in an encoder of the caller's: it is complete when everything that is made of
/// the encoder is, and what was submitted before that. Never blocks.
///
/// A done callback of wgpu's completes the marker. The caller need not poll: this crate polls
/// `device`, without waiting, while somebody waits for the marker. wgpu does not tell which device
/// an encoder is of, so a marker in one of another device completes only where the caller polls
/// that.
///
/// # Errors
/// [`Error::Unsupported`] for a device of another backend; [`Error::DeviceLost`];
/// [`Error::Forked`]. If the encoder is dropped without a submit, the marker fails, and says so. If
/// wgpu refuses the submit, it calls the done callback as if the work were over, and the marker is
/// complete; so it is if a panic drops the encoder. A marker of [`record_into`] fails then.
///
/// # References
/// - [`CommandEncoder::on_submitted_work_done`](https://docs.rs/wgpu/30.0.2/wgpu/struct.CommandEncoder.html#method.on_submitted_work_done)
///
/// ```no_run
/// # use fencepost::wgpu30::{self, wgpu};
/// # fn f(stream: fencepost::Stream, queue: wgpu::Queue, encoder: wgpu::CommandEncoder)
/// # -> fencepost::Result<()> {
/// let reservation = wgpu30::reserve(stream.device(), &encoder)?;
/// queue.submit([encoder.finish()]);
/// reservation.submitted().synchronize()
/// # }
/// ```
#[track_caller]
pub fn reserve(device: &Device, encoder: &wgpu::CommandEncoder) -> Result<Reservation> {
    let gpu = &device::as_wgpu(device.imp())?.gpu;
    let reserved = reserve::reserve(gpu, encoder, Place::caller())?;
    Ok(Reservation::new(reserved, device))
}

/// As [`reserve`], with the time at this point of the encoder, outside of passes: when everything
/// is complete that was recorded in front of it or submitted earlier. Never blocks.
///
/// The time comes from a query that is resolved and mapped with the same submit, so that nobody
/// waits for it.
///
/// # Errors
/// Those of [`reserve`]; [`Error::Unsupported`] where the device was made without
/// `Features::TIMESTAMP_QUERY` and `TIMESTAMP_QUERY_INSIDE_ENCODERS`; [`Error::Backend`] where wgpu
/// refuses at once. Inside of a pass it refuses later, when the encoder is finished, and the marker
/// fails.
///
/// # References
/// - [`CommandEncoder::write_timestamp`](https://docs.rs/wgpu/30.0.2/wgpu/struct.CommandEncoder.html#method.write_timestamp)
///
/// ```no_run
/// # use fencepost::wgpu30::{self, wgpu};
/// # fn f(stream: fencepost::Stream, queue: wgpu::Queue, mut encoder: wgpu::CommandEncoder)
/// # -> fencepost::Result<()> {
/// let start = wgpu30::record_into(stream.device(), &mut encoder)?;
/// // … commands …
/// let end = wgpu30::record_into(stream.device(), &mut encoder)?;
/// queue.submit([encoder.finish()]);
/// let (start, end) = (start.submitted(), end.submitted());
/// end.synchronize()?;
/// println!("{}", start.elapsed(&end)?);
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn record_into(device: &Device, encoder: &mut wgpu::CommandEncoder) -> Result<Reservation> {
    let gpu = &device::as_wgpu(device.imp())?.gpu;
    let reserved = reserve::record_into(gpu, encoder, Place::caller())?;
    Ok(Reservation::new(reserved, device))
}

/// Markers at the beginning and the end of one pass, with times: on devices that have
/// `Features::TIMESTAMP_QUERY` alone.
///
/// ```no_run
/// # use fencepost::wgpu30::{self, wgpu};
/// # fn f(stream: fencepost::Stream, queue: wgpu::Queue, mut encoder: wgpu::CommandEncoder)
/// # -> fencepost::Result<()> {
/// let times = wgpu30::PassTimes::new(stream.device())?;
/// let pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
///     label: None,
///     timestamp_writes: Some(times.compute()),
/// });
/// // … dispatches …
/// drop(pass);
/// let (start, end) = times.record_into(&mut encoder)?;
/// queue.submit([encoder.finish()]);
/// let (start, end) = (start.submitted(), end.submitted());
/// end.synchronize()?;
/// println!("the pass took {}", start.elapsed(&end)?);
/// # Ok(())
/// # }
/// ```
///
/// # References
/// - [`ComputePassTimestampWrites`](https://docs.rs/wgpu/30.0.2/wgpu/struct.ComputePassTimestampWrites.html)
#[must_use = "a pass has times only if it is begun with them"]
pub struct PassTimes {
    pass: reserve::Pass,
    device: Device,
}

impl PassTimes {
    /// Takes two queries. Never blocks.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device of another backend, and where it was made without
    /// `Features::TIMESTAMP_QUERY`; [`Error::Backend`] where wgpu refuses more queries;
    /// [`Error::Forked`].
    ///
    /// ```no_run
    /// # fn f(stream: fencepost::Stream) -> fencepost::Result<()> {
    /// let times = fencepost::wgpu30::PassTimes::new(stream.device())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(device: &Device) -> Result<PassTimes> {
        Ok(PassTimes {
            pass: reserve::Pass::new(&device::as_wgpu(device.imp())?.gpu)?,
            device: device.clone(),
        })
    }

    /// For the descriptor of a compute pass.
    ///
    /// ```no_run
    /// # fn f(times: fencepost::wgpu30::PassTimes) {
    /// let writes = times.compute();
    /// # }
    /// ```
    pub fn compute(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        let (query_set, [begin, end]) = self.pass.queries();
        wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: Some(begin),
            end_of_pass_write_index: Some(end),
        }
    }

    /// For the descriptor of a render pass.
    ///
    /// ```no_run
    /// # fn f(times: fencepost::wgpu30::PassTimes) {
    /// let writes = times.render();
    /// # }
    /// ```
    pub fn render(&self) -> wgpu::RenderPassTimestampWrites<'_> {
        let (query_set, [begin, end]) = self.pass.queries();
        wgpu::RenderPassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: Some(begin),
            end_of_pass_write_index: Some(end),
        }
    }

    /// Reserves the two markers, behind the pass and in the same encoder. Never blocks. Both are
    /// complete when what is made of the encoder is. If no pass was begun with these queries, their
    /// times are [`Error::Backend`]. wgpu does not tell which encoder a pass is of: one in another
    /// encoder that is submitted later may write its times into those of other marks.
    ///
    /// # Errors
    /// Those of [`reserve`]; [`Error::Backend`] where wgpu refuses.
    ///
    /// ```no_run
    /// # use fencepost::wgpu30::{PassTimes, wgpu};
    /// # fn f(times: PassTimes, mut encoder: wgpu::CommandEncoder) -> fencepost::Result<()> {
    /// let (start, end) = times.record_into(&mut encoder)?;
    /// # drop((start, end)); Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn record_into(
        self,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<(Reservation, Reservation)> {
        let [start, end] = self.pass.reserve(encoder, Place::caller())?;
        let of = |reserved| Reservation::new(reserved, &self.device);
        Ok((of(start), of(end)))
    }
}

impl fmt::Debug for PassTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassTimes")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}
