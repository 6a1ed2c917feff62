//! Tests of the Vulkan backend. Without a loader or driver: the error says so. With both: the
//! conformance suite, its mutants (on the stand-in, which has several queues to show them), and
//! what belongs to Vulkan alone.
//!
//! Without a device, tests that need one count as skipped. With `FENCEPOST_VULKAN_VALIDATION=1`
//! every test fails on any message of the validation layer.
#![cfg(all(feature = "vulkan", not(loom)))]

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use fencepost::{
    Backend, Device, Error, Event, Gate, synchronize_all, synchronize_any,
    testing::{self, work},
    vulkan::{self, Features},
};

mod common;
#[path = "common/suite.rs"]
mod suite;

/// The first device, if there is one, for one test at a time: tests share its queues.
fn gpu() -> Option<Gpu> {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // From here on the validation layer is heard.
    let said = testing::vulkan::validation_messages().len();
    match suite::missing(Backend::Vulkan) {
        Some(why) => {
            common::skip(&common::test_name(), &why);
            None
        }
        None => Some(Gpu {
            device: Device::open("vulkan:0").unwrap(),
            said,
            _alone: alone,
        }),
    }
}

struct Gpu {
    device: Device,
    /// How many messages the validation layer gave before.
    said: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Gpu {
    fn drop(&mut self) {
        let messages = testing::vulkan::validation_messages();
        let serious: Vec<_> = messages[self.said..]
            .iter()
            .filter(|text| !text.contains(LAYERS_OWN_BUG))
            .collect();
        if !std::thread::panicking() {
            assert!(serious.is_empty(), "{serious:#?}");
        }
    }
}

/// The layer's message for a bug of its own: host signals while several threads wait cause it
/// ([Vulkan-ValidationLayers
/// #8519](https://github.com/KhronosGroup/Vulkan-ValidationLayers/pull/8519) fixed it).
const LAYERS_OWN_BUG: &str = "UNASSIGNED-VkSemaphore-state-timeout";

/// Whether the validation layer is on, which takes minutes for 100,000 submits that wait.
fn is_validating() -> bool {
    std::env::var("FENCEPOST_VULKAN_VALIDATION").is_ok_and(|on| on == "1")
}

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

/// Whether the device is the stand-in, which has several queues.
fn is_stand_in() -> bool {
    std::env::var("FENCEPOST_VULKAN_STAND_IN").is_ok_and(|on| on == "1")
}

#[test]
fn without_a_driver_it_is_an_error_that_says_so() {
    suite::a_missing_driver_is_an_error_that_says_so(Backend::Vulkan);
}

#[test]
fn a_library_that_is_no_loader_is_an_error() {
    suite::another_library_is_an_error(
        "a_library_that_is_no_loader_is_an_error",
        Backend::Vulkan,
        "FENCEPOST_VULKAN_LIBRARY",
        |text| text.contains("FENCEPOST_VULKAN_LIBRARY"),
    );
}

/// Runs the whole suite, and returns how many cases passed. The validation layer takes minutes for
/// a full queue.
fn keeps_every_promise(device: &Device) -> usize {
    suite::keeps_every_promise(device, |case| {
        is_validating() && case.about == "a full queue"
    })
}

#[test]
fn a_device_keeps_every_promise() {
    let Some(gpu) = gpu() else { return };
    let passed = keeps_every_promise(&gpu.device);
    let least = if is_stand_in() { 80 } else { 70 };
    assert!(passed >= least, "only {passed} cases passed");
}

#[test]
fn a_device_without_the_newer_calls_keeps_every_promise() {
    let Some(_gpu) = gpu() else { return };
    for only in [
        Features::default(),
        Features {
            synchronization2: true,
            ..Features::default()
        },
    ] {
        let device = testing::vulkan::fresh(0, Some(only)).unwrap();
        assert!(keeps_every_promise(&device) >= 70);
    }
}

/// In a process of its own: some mutants leave hanging threads and held queues behind.
#[test]
fn every_mutant_dies_by_every_case_that_claims_it() {
    if gpu().is_none() {
        return;
    }
    if !is_stand_in() {
        return common::skip(
            &common::test_name(),
            "the stand-in shows it (FENCEPOST_VULKAN_STAND_IN=1): one queue hides missing waits, \
             and drivers make only so many devices",
        );
    }
    common::in_a_process_of_its_own(|| {
        suite::every_mutant_dies(
            "mutants-vulkan",
            "Mutants of the Vulkan backend (stand-in)",
            || testing::vulkan::fresh(0, None).unwrap(),
        );
    });
}

#[test]
fn a_thousand_timed_events_are_alive_at_once() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.device.new_stream().unwrap();
    let events: Vec<_> = (0..1000)
        .map(|_| {
            let event = Event::with_timing(&gpu.device);
            event.record(&stream).unwrap();
            event
        })
        .collect();
    events[999].synchronize_timeout(PATIENCE).unwrap();
    let ticks: Vec<_> = events
        .iter()
        .map(|event| event.marker().unwrap().timestamp().unwrap().ticks())
        .collect();
    assert!(ticks.is_sorted(), "a time is not its own marker's");
    let whole = events[0].elapsed_time(&events[999]).unwrap();
    let steps: f64 = events
        .windows(2)
        .map(|pair| pair[0].elapsed_time(&pair[1]).unwrap())
        .sum();
    assert!(
        (whole - steps).abs() < 1e-3,
        "{whole} ms, in steps {steps} ms"
    );
}

/// The resident memory of this process, in KiB.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn recording_again_and_again_takes_no_more_memory() {
    if gpu().is_none() {
        return;
    }
    if is_validating() || is_stand_in() {
        return common::skip(
            &common::test_name(),
            "the validation layer and the stand-in keep memory of their own",
        );
    }
    common::in_a_process_of_its_own(|| {
        let device = Device::open("vulkan:0").unwrap();
        let (one, two) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        let events = [Event::new(&device), Event::with_timing(&device)];
        let round = |count: u32| {
            for _ in 0..count {
                for event in &events {
                    event.record(&one).unwrap();
                    event.wait(&two).unwrap();
                }
                two.record().unwrap();
                // The queue's backlog is not measured.
                events[1].synchronize_timeout(PATIENCE).unwrap();
            }
        };
        round(2_000);
        let before = resident();
        round(20_000);
        let grown = resident().saturating_sub(before);
        println!("{grown} KiB more after 40,000 records and 40,000 waits");
        assert!(grown < 1024, "{grown} KiB more after 40,000 records");
    });
}

/// The long form of the test above.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "takes minutes; the test above is its short form"]
fn ten_million_records_take_no_more_memory() {
    if gpu().is_none() || is_validating() || is_stand_in() {
        return common::skip(&common::test_name(), "it is about a driver's own memory");
    }
    common::in_a_process_of_its_own(|| {
        const MILLION: u32 = 1_000_000;
        let device = Device::open("vulkan:0").unwrap();
        let stream = device.new_stream().unwrap();
        let (plain, timed) = (Event::new(&device), Event::with_timing(&device));
        let mut first = 0;
        for million in 1..=10 {
            for turn in 0..MILLION {
                let event = if turn % 8 == 0 { &timed } else { &plain };
                event.record(&stream).unwrap();
                if turn % 64 == 63 {
                    stream.synchronize().unwrap();
                }
            }
            println!("{} KiB after {million} million records", resident());
            if million == 1 {
                first = resident();
            }
        }
        let grown = resident().saturating_sub(first);
        assert!(grown < 1024, "{grown} KiB more after ten million records");
    });
}

#[test]
fn two_devices_wait_for_each_other_through_the_host() {
    let Some(gpu) = gpu() else { return };
    let other = testing::vulkan::fresh(0, None).unwrap();
    let (here, there) = (
        gpu.device.new_stream().unwrap(),
        other.new_stream().unwrap(),
    );
    let gate = work::gate(&here).unwrap();
    there.wait(&here.record().unwrap()).unwrap();
    let passed = there.record().unwrap();
    let early = passed.synchronize_timeout(Duration::from_millis(20));
    assert!(matches!(early, Err(Error::Timeout(_))), "{early:?}");
    let start = here.record_timed().unwrap();
    let mixed = start.elapsed(&there.record_timed().unwrap());
    assert!(
        matches!(mixed, Err(Error::DeviceMismatch { .. })),
        "{mixed:?}"
    );
    gate.open();
    passed.synchronize_timeout(PATIENCE).unwrap();
}

/// Command buffers of the caller on a device.
struct Commands {
    device: ash::Device,
    pool: ash::vk::CommandPool,
}

impl Commands {
    fn new(device: ash::Device, family: u32) -> Commands {
        use ash::vk;
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: the device is alive.
        let pool = unsafe { device.create_command_pool(&info, None) }.unwrap();
        Commands { device, pool }
    }

    /// A command buffer with what `record` puts into it.
    fn buffer<R>(
        &self,
        record: impl FnOnce(ash::vk::CommandBuffer) -> R,
    ) -> (ash::vk::CommandBuffer, R) {
        use ash::vk;
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(self.pool)
            .command_buffer_count(1);
        // SAFETY: the pool is alive, and used by this thread only.
        unsafe {
            let buffer = self.device.allocate_command_buffers(&info).unwrap()[0];
            self.device
                .begin_command_buffer(buffer, &vk::CommandBufferBeginInfo::default())
                .unwrap();
            let result = record(buffer);
            self.device.end_command_buffer(buffer).unwrap();
            (buffer, result)
        }
    }

    /// Submits `buffer`, which signals `point` behind it.
    fn submit(
        &self,
        queue: ash::vk::Queue,
        buffer: ash::vk::CommandBuffer,
        point: (ash::vk::Semaphore, u64),
    ) {
        use ash::vk;
        let (buffers, semaphores, values) = ([buffer], [point.0], [point.1]);
        let mut timeline =
            vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
        let info = vk::SubmitInfo::default()
            .command_buffers(&buffers)
            .signal_semaphores(&semaphores)
            .push_next(&mut timeline);
        // SAFETY: the caller holds the queue; buffer and semaphore are alive.
        unsafe { self.device.queue_submit(queue, &[info], vk::Fence::null()) }.unwrap();
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        // SAFETY: the tests wait for what they submit.
        unsafe { self.device.destroy_command_pool(self.pool, None) };
    }
}

#[test]
fn a_reservation_is_pending_until_its_work_is_done() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let stream = device.new_stream().unwrap();
    let family = vulkan::stream_as_raw(&stream, |_, family| family).unwrap();
    let commands = Commands::new(vulkan::device_as_raw(device).unwrap(), family);
    let record = || {
        // SAFETY: recording, outside a render pass, for that family.
        commands.buffer(|buffer| unsafe { vulkan::record_into(device, buffer, family) }.unwrap())
    };
    // Submitted in the reverse order of the reservations.
    let ((first_buffer, first), (second_buffer, second)) = (record(), record());
    let (one, two) = (first.marker(), second.marker());
    for marker in [&one, &two] {
        assert!(!marker.query().unwrap() && marker.has_timing());
        for refused in [
            marker.synchronize().unwrap_err(),
            marker.synchronize_timeout(PATIENCE).unwrap_err(),
            stream.wait(marker).unwrap_err(),
            marker.on_complete(|_| {}).unwrap_err(),
        ] {
            assert!(matches!(refused, Error::NotSubmitted { .. }), "{refused:?}");
        }
    }
    let gate = work::gate(&stream).unwrap();
    let mut told = [(second_buffer, second, &two), (first_buffer, first, &one)]
        .into_iter()
        .map(|(buffer, reservation, marker)| {
            vulkan::stream_as_raw(&stream, |queue, _| {
                commands.submit(queue, buffer, vulkan::marker_as_raw(marker).unwrap());
            })
            .unwrap();
            reservation.submitted()
        });
    let (two, one) = (told.next().unwrap(), told.next().unwrap());
    let after = device.new_stream().unwrap();
    after.wait(&one).unwrap();
    let after = after.record().unwrap();
    let early = one.synchronize_timeout(Duration::from_millis(20));
    assert!(matches!(early, Err(Error::Timeout(_))), "{early:?}");
    gate.open();
    after.synchronize_timeout(PATIENCE).unwrap();
    assert!(one.query().unwrap() && two.query().unwrap());
    let between = two.elapsed(&one).unwrap();
    assert!(!between.is_negative(), "{between} in order of submission");
    // Beside a marker of a stream.
    let end = stream.record_timed().unwrap();
    end.synchronize_timeout(PATIENCE).unwrap();
    assert!(!one.elapsed(&end).unwrap().is_negative());
    assert!(!two.elapsed(&end).unwrap().is_negative());
    assert!(end.elapsed(&one).unwrap().as_nanos_f64() <= 0.0);
}

/// To make a semaphore takes some drivers half a millisecond.
#[test]
fn a_reservation_uses_the_semaphore_of_one_that_is_over() {
    let Some(_gpu) = gpu() else { return };
    // A device that is destroyed in the end, with the semaphores that it has kept.
    let device = &testing::vulkan::fresh(0, None).unwrap();
    let stream = device.new_stream().unwrap();
    let family = vulkan::stream_as_raw(&stream, |_, family| family).unwrap();
    let commands = Commands::new(vulkan::device_as_raw(device).unwrap(), family);
    let reserve = |timing: bool| {
        let (buffer, reservation) = commands.buffer(|buffer| match timing {
            // SAFETY: recording, outside a render pass, for that family.
            true => unsafe { vulkan::record_into(device, buffer, family) }.unwrap(),
            false => vulkan::reserve(device).unwrap(),
        });
        let raw = vulkan::marker_as_raw(&reservation.marker()).unwrap();
        (buffer, reservation, raw)
    };
    let submit = |buffer, raw| {
        vulkan::stream_as_raw(&stream, |queue, _| commands.submit(queue, buffer, raw)).unwrap();
    };
    let (buffer, reservation, first) = reserve(false);
    submit(buffer, first);
    reservation
        .submitted()
        .synchronize_timeout(PATIENCE)
        .unwrap();
    // The watcher's thread may have it for a moment yet.
    let reserve_again = |timing, value| {
        let started = Instant::now();
        loop {
            let (buffer, reservation, raw) = reserve(timing);
            if raw == (first.0, value) {
                return (buffer, reservation);
            }
            assert!(started.elapsed() < PATIENCE, "{raw:?} is not {value}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for (timing, value) in [(true, first.1 + 1), (false, first.1 + 2)] {
        let (buffer, reservation) = reserve_again(timing, value);
        let marker = reservation.marker();
        assert!(!marker.query().unwrap(), "its own signal is not made");
        let (_, beside, another) = reserve(false);
        assert_ne!(another.0, first.0, "the semaphore of a marker in use");
        drop(beside);
        submit(buffer, (first.0, value));
        reservation
            .submitted()
            .synchronize_timeout(PATIENCE)
            .unwrap();
        assert_eq!(marker.timestamp().is_ok(), timing);
    }
    // Nobody knows whether the work of a reservation that was given up will signal.
    let abandoned = reserve_again(false, first.1 + 3);
    drop(abandoned);
    let (_, _reservation, raw) = reserve(false);
    assert_ne!(raw, (first.0, first.1 + 3));
}

#[test]
fn a_dropped_reservation_is_abandoned() {
    let Some(gpu) = gpu() else { return };
    let reservation = vulkan::reserve(&gpu.device).unwrap();
    let place = reservation.marker().recorded_at();
    assert_eq!((place.file(), place.line()), (file!(), line!() - 2));
    let marker = reservation.marker();
    drop(reservation);
    for error in [
        marker.query().unwrap_err(),
        marker.synchronize().unwrap_err(),
    ] {
        assert!(matches!(error, Error::Abandoned { .. }), "{error:?}");
    }
    let stream = gpu.device.new_stream().unwrap();
    assert!(matches!(stream.wait(&marker), Err(Error::Abandoned { .. })));
    stream.synchronize_timeout(PATIENCE).unwrap();
    // Among many it ends the wait, as one does that nobody has submitted.
    let reservation = vulkan::reserve(&gpu.device).unwrap();
    let (closed, reserved) = (Gate::new(&gpu.device).unwrap(), reservation.marker());
    closed.wait(&stream).unwrap();
    let pending = stream.record().unwrap();
    for (one, is_abandoned) in [(&marker, true), (&reserved, false)] {
        let (index, ended) = synchronize_any([&pending, one]).unwrap();
        assert_eq!(index, 1);
        for error in [
            ended.unwrap_err(),
            synchronize_all([&pending, one]).unwrap_err(),
        ] {
            match is_abandoned {
                true => assert!(matches!(error, Error::Abandoned { .. }), "{error:?}"),
                false => assert!(matches!(error, Error::NotSubmitted { .. }), "{error:?}"),
            }
        }
    }
    closed.open();
    stream.synchronize_timeout(PATIENCE).unwrap();
}

/// A device of the caller, made with ash alone, and destroyed when its last owner drops it.
struct Theirs {
    _entry: ash::Entry,
    instance: ash::Instance,
    physical: ash::vk::PhysicalDevice,
    device: ash::Device,
    /// How many queues of family 0 it has.
    queues: u32,
    gone: mpsc::Sender<()>,
}

impl Theirs {
    fn new(gone: mpsc::Sender<()>) -> Theirs {
        use ash::vk;
        let library = std::env::var_os("FENCEPOST_VULKAN_LIBRARY");
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_2);
        let mut timeline =
            vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
        // SAFETY: what is made here is made in order, of things that are alive.
        unsafe {
            let entry = match library {
                Some(library) => ash::Entry::load_from(library),
                None => ash::Entry::load(),
            }
            .unwrap();
            let info = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&info, None).unwrap();
            let physical = instance.enumerate_physical_devices().unwrap()[0];
            let families = instance.get_physical_device_queue_family_properties(physical);
            let queues = families[0].queue_count.min(2);
            let priorities = vec![1.0; queues as usize];
            let queue = [vk::DeviceQueueCreateInfo::default()
                .queue_family_index(0)
                .queue_priorities(&priorities)];
            let info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queue)
                .push_next(&mut timeline);
            let device = instance.create_device(physical, &info, None).unwrap();
            Theirs {
                queues,
                _entry: entry,
                instance,
                physical,
                device,
                gone,
            }
        }
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        // SAFETY: whoever used them has let go.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
        let _ = self.gone.send(());
    }
}

#[test]
fn a_device_of_the_callers_lives_until_its_work_is_done() {
    let Some(_gpu) = gpu() else { return };
    let (tell, gone) = mpsc::channel();
    let theirs = Arc::new(Theirs::new(tell));
    // SAFETY: the queue is of the device, and guarded by this lock.
    let queue = unsafe { theirs.device.get_device_queue(0, 0) };
    let lock = Arc::new(Mutex::new(0_u32));
    // SAFETY: they belong together, made with timeline semaphores for Vulkan 1.2; the owner goes
    // along.
    let device = unsafe {
        vulkan::device_from_raw(
            theirs.instance.clone(),
            theirs.physical,
            theirs.device.clone(),
            Features::default(),
            queue,
            0,
            lock.clone(),
            theirs.clone(),
        )
    }
    .unwrap();
    // SAFETY: the same queue once more, with the same lock.
    let stream =
        unsafe { vulkan::stream_from_raw(&device, queue, 0, lock.clone(), theirs.clone()) }
            .unwrap();
    drop(theirs);
    assert!(work::share_order(&stream, &device.default_stream()));
    assert!(keeps_every_promise(&device) >= 70);

    // While the caller holds the queue, the library does not take it: callbacks need no queue.
    let pending = {
        let gate = work::gate(&stream).unwrap();
        let marker = stream.record().unwrap();
        let (tell, told) = mpsc::channel();
        marker
            .on_complete(move |result| tell.send(result.is_ok()).unwrap_or(()))
            .unwrap();
        let held = lock.lock().unwrap();
        gate.open();
        assert!(told.recv_timeout(PATIENCE).unwrap());
        drop(held);
        let gate = work::gate(&stream).unwrap();
        drop(stream.record_timed().unwrap());
        gate
    };
    drop((stream, device));
    assert!(
        gone.recv_timeout(Duration::from_millis(50)).is_err(),
        "its work is pending"
    );
    pending.open();
    gone.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_queue_that_is_wrapped_twice_is_one_queue() {
    let Some(_gpu) = gpu() else { return };
    let (tell, gone) = mpsc::channel();
    let theirs = Arc::new(Theirs::new(tell));
    if theirs.queues < 2 {
        return common::skip(&common::test_name(), "the family has one queue");
    }
    // SAFETY: two queues were asked for; nobody else submits to them.
    let queues = [0, 1].map(|index| unsafe { theirs.device.get_device_queue(0, index) });
    let lock = || Arc::new(Mutex::new(()));
    // SAFETY: they belong together, made with timeline semaphores for Vulkan 1.2; the owner goes
    // along.
    let device = unsafe {
        vulkan::device_from_raw(
            theirs.instance.clone(),
            theirs.physical,
            theirs.device.clone(),
            Features::default(),
            queues[0],
            0,
            lock(),
            theirs.clone(),
        )
    }
    .unwrap();
    // SAFETY: a queue of the device that nobody else submits to.
    let wrap = || unsafe {
        vulkan::stream_from_raw(&device, queues[1], 0, lock(), theirs.clone()).unwrap()
    };
    let streams = [wrap(), wrap()];
    assert!(work::share_order(&streams[0], &streams[1]));
    assert!(!work::share_order(&streams[0], &device.default_stream()));
    // Two threads at once: the stand-in reports a submit that is not under one lock.
    std::thread::scope(|scope| {
        for stream in &streams {
            scope.spawn(|| (0..500).for_each(|_| drop(stream.record().unwrap())));
        }
    });
    for stream in &streams {
        stream.synchronize_timeout(PATIENCE).unwrap();
    }
    drop((streams, device, theirs));
    gone.recv_timeout(PATIENCE).unwrap();
}

/// Submits, and then panics.
struct Panics;

impl vulkan::QueueLock for Panics {
    fn locked(&self, submit: &mut dyn FnMut()) {
        submit();
        std::panic::resume_unwind(Box::new("a lock that fails"));
    }
}

#[test]
fn a_lock_of_the_callers_that_panics_behind_a_submit_takes_nothing_back() {
    let Some(_gpu) = gpu() else { return };
    let (tell, gone) = mpsc::channel();
    let theirs = Arc::new(Theirs::new(tell));
    // SAFETY: the queue is of the device; this thread alone submits to it. The parts belong
    // together, made with timeline semaphores for Vulkan 1.2; the owner goes along.
    let device = unsafe {
        vulkan::device_from_raw(
            theirs.instance.clone(),
            theirs.physical,
            theirs.device.clone(),
            Features::default(),
            theirs.device.get_device_queue(0, 0),
            0,
            Arc::new(Panics),
            theirs.clone(),
        )
    }
    .unwrap();
    let stream = device.default_stream();
    let event = Event::with_timing(&device);
    for value in 1..4 {
        event.record(&stream).unwrap();
        assert_eq!(event.marker().unwrap().value(), value);
        event.synchronize_timeout(PATIENCE).unwrap();
    }
    drop((event, stream, device, theirs));
    gone.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_process_may_end_with_anything_pending() {
    if gpu().is_some() {
        suite::a_process_may_end_with_anything_pending("vulkan:0");
    }
}

#[test]
fn a_process_may_end_with_a_closed_gate() {
    if gpu().is_some() {
        suite::a_process_may_end_with_a_closed_gate("vulkan:0", false);
    }
}

/// Only the driver tells what devices there are.
#[cfg(unix)]
#[test]
fn listing_devices_takes_vulkan_from_forked_children() {
    if gpu().is_none() {
        return;
    }
    common::in_a_process_of_its_own(|| {
        assert!(Device::list().iter().any(|found| !found.devices.is_empty()));
        // SAFETY: the child calls nothing but this crate, which is what is tested, and _exit.
        match unsafe { libc::fork() } {
            0 => {
                let forked = matches!(Device::open("vulkan:0"), Err(Error::Forked { .. }));
                let host = Device::open("host")
                    .and_then(|host| host.default_stream().synchronize_timeout(PATIENCE));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(i32::from(!(forked && host.is_ok()))) }
            }
            child => {
                let mut status = -1;
                // SAFETY: a child of ours; `status` is an int.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0, "the child's checks failed");
            }
        }
    });
}

#[cfg(unix)]
#[test]
fn a_forked_child_is_told_so_and_may_drop_everything() {
    if gpu().is_some() {
        suite::a_forked_child_is_told_so("vulkan:0", |device, event| {
            matches!(event.query(), Err(Error::Forked { .. }))
                && matches!(vulkan::reserve(device), Err(Error::Forked { .. }))
                && testing::vulkan::fresh(0, None).is_err()
        });
    }
}
