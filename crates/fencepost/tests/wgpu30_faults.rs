//! Faults of the driver under wgpu, by a layer in front of it that makes chosen calls fail: every
//! waiter is told the first cause, and nothing hangs. And forked children, which must not call it.
//!
//! Each fault has a process of its own, since the faults are those of a whole process.
#![cfg(all(feature = "wgpu30", target_os = "linux", not(loom)))]

use std::{
    future::IntoFuture as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use fencepost::{
    Device, Error, Event, Marker, Result,
    wgpu30::{self, wgpu},
};
use fencepost_sim_layer::{Control, NAME, library_path};

mod common;
#[path = "common/wgpu.rs"]
mod gpus;

use gpus::{Gpu, gpu, hold, open, wanted};

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

const OUT_OF_HOST_MEMORY: i32 = -1;
const OUT_OF_DEVICE_MEMORY: i32 = -2;
const DEVICE_LOST: i32 = -4;

const SUBMIT: &str = "vkQueueSubmit";
const SEMAPHORE: &str = "vkCreateSemaphore";
const WAIT: &str = "vkWaitSemaphores";
const VALUE: &str = "vkGetSemaphoreCounterValue";

/// The layer, if the loader was told to load it.
fn layer() -> Option<Control> {
    let named = std::env::var("VK_INSTANCE_LAYERS").is_ok_and(|names| names.contains(NAME));
    let control = library_path()
        .filter(|_| named)
        .and_then(|path| Control::load(&path).ok());
    if control.is_none() {
        let why = format!("VK_INSTANCE_LAYERS does not name {NAME}");
        common::skip(&common::test_name(), &why);
    }
    control
}

/// Runs `fault` with a device, in a process of its own.
fn with_faults(fault: impl FnOnce(&Gpu, &Control)) {
    let Some(control) = layer() else { return };
    common::in_a_process_of_its_own(|| {
        let Some(gpu) = gpu() else { return };
        fault(&gpu, &control);
        control.clear_faults();
    });
}

/// Whether the marker is over, and how: a hang fails the test.
fn over(marker: &Marker) -> Result<()> {
    let ended = marker.synchronize_timeout(PATIENCE);
    assert!(!matches!(ended, Err(Error::Timeout(_))), "{ended:?}");
    ended
}

/// The error is of `call`, which returned `code`.
fn is_refusal(error: &Error, call: &str, code: i32) {
    let text = error.to_string();
    assert!(text.contains(call), "no \"{call}\" in: {text}");
    assert!(text.contains(&code.to_string()), "no {code} in: {text}");
}

/// What a callback of the marker's is told.
fn told(marker: &Marker) -> mpsc::Receiver<Result<()>> {
    let (tell, told) = mpsc::channel();
    marker
        .on_complete(move |ended| tell.send(ended).unwrap())
        .unwrap();
    told
}

/// The cause for which a device was lost, if that is the error.
fn cause_of_loss(error: &Error) -> String {
    match error {
        Error::DeviceLost { cause, .. } => cause.to_string(),
        other => panic!("{other:?} is no loss"),
    }
}

/// What wgpu tells its user: through the device's lost callback, and its handler of errors.
type Said = Arc<Mutex<Vec<String>>>;

fn listen(device: &wgpu::Device) -> Said {
    let said = Said::default();
    let (lost, uncaptured) = (said.clone(), said.clone());
    device.set_device_lost_callback(move |_, text| {
        lost.lock().unwrap().push(format!("lost: {text}"));
    });
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        uncaptured.lock().unwrap().push(format!("error: {error}"));
    }));
    said
}

fn said(said: &Said) -> Vec<String> {
    said.lock().unwrap().clone()
}

/// Waits for the driver's work, also on a device that seems lost: wgpu takes apart what such work
/// uses.
fn let_the_work_end(device: &wgpu::Device) {
    // SAFETY: nothing is destroyed through it, and no other thread submits.
    unsafe {
        let hal = device.as_hal::<wgpu::hal::api::Vulkan>().unwrap();
        let _ = hal.raw_device().device_wait_idle();
    }
}

#[test]
fn a_lost_device_is_told_to_every_waiter_with_one_cause() {
    with_faults(|gpu, control| {
        let stream = gpu.stream();
        let second = stream.device().new_stream().unwrap();
        let encoder = gpu.device.create_command_encoder(&Default::default());
        let mark = wgpu30::reserve(stream.device(), &encoder).unwrap();
        let Some(gate) = hold(&stream) else { return };
        gpu.queue.submit([encoder.finish()]);
        let markers = [
            stream.record().unwrap(),
            second.record_timed().unwrap(),
            mark.submitted(),
        ];
        let host = Device::open("host").unwrap().new_stream().unwrap();
        host.wait(&markers[0]).unwrap();
        let behind = host.record().unwrap();
        let callbacks = markers.each_ref().map(told);
        let threads = markers
            .clone()
            .map(|marker| thread::spawn(move || over(&marker)));
        let awaited = markers[1].clone();
        let awaiting = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            runtime.unwrap().block_on(async {
                let ended = tokio::time::timeout(PATIENCE, (&awaited).into_future());
                ended.await.expect("an await hangs")
            })
        });
        // All threads are where they wait.
        thread::sleep(Duration::from_millis(200));
        control.lose_devices();
        let mut ended: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        ended.push(awaiting.join().unwrap());
        ended.extend(callbacks.map(|told| told.recv_timeout(PATIENCE).expect("a callback")));
        ended.extend(markers.iter().map(|marker| marker.query().map(drop)));
        ended.push(stream.record().and_then(|marker| over(&marker)));
        ended.push(second.synchronize_timeout(PATIENCE));
        ended.push(stream.clear_error());
        ended.push(stream.device().new_stream().map(drop));
        let causes: Vec<_> = ended
            .into_iter()
            .map(|ended| cause_of_loss(&ended.unwrap_err()))
            .collect();
        assert!(
            causes.iter().all(|cause| *cause == causes[0]),
            "{causes:#?}"
        );
        assert!(causes[0].to_lowercase().contains("lost"), "{}", causes[0]);
        let error = over(&behind).unwrap_err().to_string();
        assert!(error.contains(&causes[0]), "{error}");
        gate.open();
        let_the_work_end(&gpu.device);
    });
}

/// wgpu's `submit` has no result. A failed one has taken the signal of this crate with it.
#[test]
fn a_submit_that_the_driver_refuses_fails_its_marker_and_those_behind_it() {
    with_faults(|gpu, control| {
        let codes = [OUT_OF_HOST_MEMORY, OUT_OF_DEVICE_MEMORY, DEVICE_LOST];
        let devices = codes.map(|_| open(wanted()).unwrap());
        let refused: Vec<_> = devices
            .iter()
            .zip(codes)
            .map(|((device, queue), code)| {
                let (said_there, stream) = (listen(device), wgpu30::stream(device, queue).unwrap());
                let before = stream.record().unwrap();
                over(&before).unwrap();
                control.fail_call(SUBMIT, 1, code);
                let markers = [stream.record(), stream.record_timed()].map(|made| made.unwrap());
                assert!(before.query().unwrap());
                (said_there, stream, told(&markers[0]), markers)
            })
            .collect();
        for (said_there, stream, callback, markers) in refused {
            for marker in &markers {
                let error = over(marker).unwrap_err();
                assert!(
                    error
                        .to_string()
                        .contains("the submit failed in the driver"),
                    "{error}"
                );
            }
            assert!(callback.recv_timeout(PATIENCE).unwrap().is_err());
            cause_of_loss(&stream.clear_error().unwrap_err());
            let said = said(&said_there);
            assert!(said[0].starts_with("lost:"), "{said:?}");
            // wgpu's own, of the submit. Of the loss its callback alone tells.
            assert!(
                said[1..].iter().all(|said| said == "error: Out of Memory"),
                "{said:?}"
            );
        }
        over(&gpu.stream().record().unwrap()).unwrap();
    });
}

/// The library's thread polls for a mark in an encoder, and does not sleep for the signal.
#[test]
fn a_refused_submit_is_told_beside_a_mark_that_is_never_submitted() {
    with_faults(|gpu, control| {
        let stream = gpu.stream();
        let encoder = gpu.device.create_command_encoder(&Default::default());
        let mark = wgpu30::reserve(stream.device(), &encoder).unwrap();
        let _of_mark = told(&mark.submitted());
        listen(&gpu.device);
        control.fail_call(SUBMIT, 1, OUT_OF_HOST_MEMORY);
        let told = told(&stream.record().unwrap());
        let ended = told.recv_timeout(PATIENCE).expect("a callback");
        let cause = cause_of_loss(&ended.unwrap_err());
        assert!(cause.contains("the submit failed in the driver"), "{cause}");
        let_the_work_end(&gpu.device);
    });
}

#[test]
fn a_time_is_waited_for_where_wgpus_fence_is_later_than_the_semaphore() {
    with_faults(|gpu, control| {
        // wgpu has made its fence by now, and this crate no semaphore.
        control.be_late();
        let stream = gpu.stream();
        let [start, end] = [(); 2].map(|()| stream.record_timed().unwrap());
        over(&end).unwrap();
        let polled = gpu.device.poll(wgpu::PollType::Poll).unwrap();
        assert!(!polled.is_queue_empty(), "the fence is not late");
        let (tell, told) = mpsc::channel();
        let reading = thread::spawn(move || tell.send(start.elapsed(&end)).unwrap());
        // By now the thread looks for the time.
        thread::sleep(Duration::from_millis(50));
        assert!(told.try_recv().is_err(), "there is no time yet");
        control.be_on_time();
        let elapsed = told.recv_timeout(PATIENCE).unwrap().unwrap();
        assert!(!elapsed.is_negative(), "{elapsed}");
        reading.join().unwrap();
    });
}

#[test]
fn on_a_lost_device_wgpus_poll_panics_and_its_submit_says_nothing() {
    with_faults(|gpu, control| {
        let heard = listen(&gpu.device);
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        control.lose_devices();
        let polled = catch_unwind(AssertUnwindSafe(|| gpu.device.poll(wgpu::PollType::Poll)));
        let payload = polled.unwrap_err();
        let text = payload.downcast_ref::<String>().unwrap();
        assert!(text.starts_with("Error in Device::poll"), "{text}");
        gpu.queue.submit([]);
        assert!(gpus::ready(scope.pop()).is_none());
        assert_eq!(said(&heard).len(), 1, "{heard:?}");
        assert!(said(&heard)[0].starts_with("lost:"), "{heard:?}");
    });
}

#[test]
fn memory_that_runs_out_for_a_time_is_an_error_and_the_stream_goes_on() {
    with_faults(|gpu, control| {
        let (heard, stream) = (listen(&gpu.device), gpu.stream());
        for call in ["vkCreateQueryPool", "vkCreateBuffer"] {
            control.fail_calls_from(call, 1, OUT_OF_DEVICE_MEMORY);
            let times = wgpu30::PassTimes::new(stream.device()).map(drop);
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mark = wgpu30::record_into(stream.device(), &mut encoder).map(drop);
            let event = Event::with_timing(stream.device());
            for refused in [times, mark, event.record(&stream)] {
                let error = refused.unwrap_err();
                assert!(matches!(error, Error::Backend { .. }), "{error:?}");
                assert!(error.to_string().contains("Out of Memory"), "{error}");
            }
            over(&stream.record().unwrap()).unwrap();
            control.clear_faults();
        }
        over(&stream.record_timed().unwrap()).unwrap();
        assert!(said(&heard).is_empty(), "{heard:?}");
    });
}

#[test]
fn a_loss_that_wgpu_meets_first_ends_in_errors_and_none_of_them_goes_to_the_callers_handler() {
    let calls = [
        ("vkCreateQueryPool", DEVICE_LOST),
        ("vkCreateBuffer", DEVICE_LOST),
        ("vkBeginCommandBuffer", DEVICE_LOST),
        // wgpu takes a device for lost whose encoder could get no memory.
        ("vkBeginCommandBuffer", OUT_OF_DEVICE_MEMORY),
    ];
    with_faults(|_, control| {
        for (call, code) in calls {
            let (device, queue) = open(wanted()).unwrap();
            let (heard, stream) = (listen(&device), wgpu30::stream(&device, &queue).unwrap());
            over(&stream.record().unwrap()).unwrap();
            control.fail_calls_from(call, 1, code);
            let timed = stream.record_timed().and_then(|marker| over(&marker));
            assert!(timed.is_err(), "{call}");
            control.clear_faults();
            let error = over(&stream.record().unwrap()).unwrap_err();
            assert!(
                error.to_string().contains("takes no more submits"),
                "{error}"
            );
            assert!(
                stream
                    .record_timed()
                    .and_then(|marker| over(&marker))
                    .is_err()
            );
            cause_of_loss(&stream.clear_error().unwrap_err());
            let heard = said(&heard);
            assert!(
                heard.len() == 1 && heard[0].starts_with("lost:"),
                "{call}: {heard:?}"
            );
        }
    });
}

#[test]
fn a_semaphore_that_cannot_be_made_is_an_error() {
    with_faults(|gpu, control| {
        // One to ask wgpu for its kind of fence, one to wake the watcher, and that of the stream.
        for nth in 1..=3 {
            control.fail_call(SEMAPHORE, nth, OUT_OF_HOST_MEMORY);
            let error = wgpu30::stream(&gpu.device, &gpu.queue).unwrap_err();
            assert!(matches!(error, Error::Backend { .. }), "{error:?}");
            control.clear_faults();
        }
        let stream = gpu.stream();
        control.fail_call(SEMAPHORE, 1, OUT_OF_HOST_MEMORY);
        let error = stream.device().new_stream().unwrap_err();
        is_refusal(&error, SEMAPHORE, OUT_OF_HOST_MEMORY);
        over(&stream.device().new_stream().unwrap().record().unwrap()).unwrap();
    });
}

#[test]
fn a_wait_or_a_look_that_the_driver_refuses_is_an_error_and_the_next_one_works() {
    with_faults(|gpu, control| {
        let stream = gpu.stream();
        let Some(gate) = hold(&stream) else { return };
        let marker = stream.record().unwrap();
        control.fail_calls_from(WAIT, 1, OUT_OF_HOST_MEMORY);
        let refused = marker.synchronize_timeout(PATIENCE);
        is_refusal(&refused.unwrap_err(), WAIT, OUT_OF_HOST_MEMORY);
        control.clear_faults();
        control.fail_call(VALUE, 1, OUT_OF_HOST_MEMORY);
        is_refusal(&marker.query().unwrap_err(), VALUE, OUT_OF_HOST_MEMORY);
        assert!(!marker.query().unwrap());
        gate.open();
        over(&marker).unwrap();
        stream.synchronize_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn callbacks_are_told_though_the_watchers_calls_fail_for_a_time() {
    with_faults(|gpu, control| {
        let stream = gpu.stream();
        let Some(gate) = hold(&stream) else { return };
        let markers = [stream.record().unwrap(), stream.record().unwrap()];
        let first = told(&markers[0]);
        for nth in 1..=20 {
            control.fail_call(WAIT, nth, OUT_OF_HOST_MEMORY);
        }
        // The thread is asleep or about to be, and is not woken.
        control.fail_calls_from("vkSignalSemaphore", 1, OUT_OF_HOST_MEMORY);
        let second = told(&markers[1]);
        gate.open();
        for told in [first, second] {
            told.recv_timeout(PATIENCE).expect("a callback").unwrap();
        }
    });
}

#[test]
fn a_callback_is_told_that_the_watcher_cannot_read_the_counter() {
    with_faults(|gpu, control| {
        let stream = gpu.stream();
        let Some(gate) = hold(&stream) else { return };
        let told = told(&stream.record().unwrap());
        control.fail_calls_from(VALUE, 1, OUT_OF_HOST_MEMORY);
        gate.open();
        let ended = told.recv_timeout(PATIENCE).expect("a callback");
        is_refusal(&ended.unwrap_err(), VALUE, OUT_OF_HOST_MEMORY);
        control.clear_faults();
        stream.clear_error().unwrap();
        over(&stream.record().unwrap()).unwrap();
    });
}

/// Runs `child` in a forked child, which it ends. One that hangs is ended by a signal.
fn in_a_forked_child(child: impl FnOnce()) {
    // SAFETY: the child calls nothing but this crate, which is what is tested, and alarm and _exit.
    match unsafe { libc::fork() } {
        -1 => panic!("fork failed"),
        0 => {
            // SAFETY: as above.
            unsafe { libc::alarm(60) };
            let outcome = catch_unwind(AssertUnwindSafe(child));
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
        child => {
            let mut status = -1;
            // SAFETY: a child of ours; `status` is an int.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child was not told, hangs, or crashed");
        }
    }
}

fn is_told(call: &str, result: Result<()>) {
    assert!(
        matches!(result, Err(Error::Forked { .. })),
        "{call}: {result:?}"
    );
}

#[test]
fn a_forked_child_is_told_so_and_never_calls_the_driver() {
    with_faults(|gpu, control| {
        let (device, queue) = (&gpu.device, &gpu.queue);
        let stream = gpu.stream();
        let done = Event::with_timing(stream.device());
        done.record(&stream).unwrap();
        done.synchronize_timeout(PATIENCE).unwrap();
        let other = stream.device().new_stream().unwrap();
        let Some(gate) = hold(&stream) else { return };
        let pending = Event::with_timing(stream.device());
        pending.record(&other).unwrap();
        let marker = pending.marker().unwrap();
        let callback = told(&marker);
        let mut encoder = device.create_command_encoder(&Default::default());
        let marks = [
            wgpu30::reserve(stream.device(), &encoder).unwrap(),
            wgpu30::record_into(stream.device(), &mut encoder).unwrap(),
        ];
        let [times, unused] = [(); 2].map(|()| wgpu30::PassTimes::new(stream.device()).unwrap());
        let owned = (stream, other, done, pending, marker, marks, times, unused);
        in_a_forked_child(|| {
            let calls = control.all_calls();
            let (stream, other, done, pending, marker, marks, times, unused) = owned;
            is_told("stream", wgpu30::stream(device, queue).map(drop));
            is_told("record", stream.record().map(drop));
            is_told("record_timed", other.record_timed().map(drop));
            is_told("Event::record", done.record(&stream));
            is_told("Event::wait", pending.wait(&stream));
            is_told("Stream::wait", stream.wait(&marker));
            is_told("query", pending.query().map(drop));
            is_told("synchronize", marker.synchronize());
            is_told("synchronize_timeout", marker.synchronize_timeout(PATIENCE));
            is_told("on_complete", marker.on_complete(|_| unreachable!()));
            is_told("elapsed", done.elapsed(&pending).map(drop));
            is_told("Stream::query", stream.query().map(drop));
            is_told("Stream::synchronize", other.synchronize());
            is_told("error", stream.error().map_or(Ok(()), Err));
            is_told("clear_error", stream.clear_error());
            is_told("new_stream", stream.device().new_stream().map(drop));
            is_told("Device::synchronize", stream.device().synchronize());
            is_told(
                "reserve",
                wgpu30::reserve(stream.device(), &encoder).map(drop),
            );
            let marked = wgpu30::record_into(stream.device(), &mut encoder);
            is_told("record_into", marked.map(drop));
            is_told(
                "PassTimes::new",
                wgpu30::PassTimes::new(stream.device()).map(drop),
            );
            is_told(
                "PassTimes::record_into",
                times.record_into(&mut encoder).map(drop),
            );
            let [reserved, recorded] = marks;
            is_told("reserved", reserved.submitted().synchronize());
            drop((recorded, unused, done, pending, marker, other, stream));
            assert_eq!(control.all_calls(), calls, "calls of the driver");
        });
        gate.open();
        callback.recv_timeout(PATIENCE).unwrap().unwrap();
        let_the_work_end(device);
    });
}
