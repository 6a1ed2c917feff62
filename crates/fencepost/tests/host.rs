//! What belongs to the host backend alone: work that blocks or panics, and too few threads.
#![cfg(not(loom))]

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use fencepost::{Device, Error, Event, testing::work};

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

#[test]
fn every_host_device_has_a_name_of_its_own() {
    let (first, second) = (Device::new_host(1), Device::new_host(1));
    let shared = Device::open("host").unwrap();
    assert_eq!(shared.name(), "host");
    assert_ne!(first.name(), second.name());
    let stream = second.default_stream();
    let mixed = Event::new(&first).record(&stream).unwrap_err();
    let text = mixed.to_string();
    assert!(
        text.contains(first.name()) && text.contains(second.name()),
        "{text}"
    );
    for device in [&first, &second] {
        assert!(device.name().starts_with("host#"), "{device}");
        // The name is for texts only.
        let unknown = Device::open(device.name()).unwrap_err();
        assert!(
            matches!(unknown, Error::UnknownDevice { .. }),
            "{unknown:?}"
        );
    }
}

#[test]
fn a_device_of_wgpu_is_no_unknown_one() {
    let error = Device::open("wgpu30").unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let remedy = match cfg!(feature = "wgpu30") {
        true => "fencepost::wgpu30::stream",
        false => "build with the cargo feature wgpu30",
    };
    assert!(error.to_string().contains(remedy), "{error}");
}

#[test]
fn the_debug_text_of_a_marker_names_its_state() {
    let stream = Device::new_host(1).new_stream().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    stream.launch(move || wait.recv().unwrap_or(())).unwrap();
    let marker = stream.record().unwrap();
    stream
        .launch(|| std::panic::resume_unwind(Box::new("x")))
        .unwrap();
    let failed = stream.record().unwrap();
    assert!(format!("{marker:?}").ends_with(", Pending)"), "{marker:?}");
    drop(go);
    marker.synchronize().unwrap();
    assert!(format!("{marker:?}").ends_with(", Complete)"), "{marker:?}");
    failed.synchronize().unwrap_err();
    assert!(format!("{failed:?}").ends_with(", Failed)"), "{failed:?}");
}

#[test]
fn work_that_blocks_elsewhere_does_not_starve_other_streams() {
    const STREAMS: usize = 64;
    let device = Device::new_host(2);
    // Each piece of work waits for all others, by means that the library does not know.
    let barrier = Arc::new(Barrier::new(STREAMS));
    let ends: Vec<_> = (0..STREAMS)
        .map(|_| {
            let (stream, barrier) = (device.new_stream().unwrap(), barrier.clone());
            let meet = move || {
                barrier.wait();
            };
            stream.launch(meet).unwrap();
            stream.record().unwrap()
        })
        .collect();
    for end in ends {
        end.synchronize_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn any_number_of_blocked_work_leaves_a_worker_for_what_it_waits_for() {
    const STREAMS: usize = 800;
    let device = Device::new_host(1);
    let last = device.new_stream().unwrap();
    let gate = work::gate(&last).unwrap();
    last.launch(|| {}).unwrap();
    let awaited = last.record().unwrap();
    let running = Arc::new(AtomicUsize::new(0));
    let ends: Vec<_> = (0..STREAMS)
        .map(|_| {
            let stream = device.new_stream().unwrap();
            let (awaited, running) = (awaited.clone(), running.clone());
            let work = move || {
                running.fetch_add(1, Ordering::SeqCst);
                awaited.synchronize().unwrap();
            };
            stream.launch(work).unwrap();
            stream.record().unwrap()
        })
        .collect();
    // All of them block at once: more than a sensible number of threads.
    let deadline = Instant::now() + PATIENCE;
    while running.load(Ordering::SeqCst) < STREAMS && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(
        running.load(Ordering::SeqCst),
        STREAMS,
        "some work found no worker"
    );
    gate.open();
    for end in ends {
        end.synchronize_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn a_callback_may_wait_for_any_stream() {
    let device = Device::new_host(1);
    let (one, two) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let (tell, told) = mpsc::channel();
    let marker = one.record().unwrap();
    marker
        .on_complete(move |_| {
            two.launch(|| {}).unwrap();
            tell.send(two.synchronize_timeout(PATIENCE).is_ok())
                .unwrap();
        })
        .unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn host_work_may_use_its_own_stream_without_waiting() {
    let device = Device::new_host(1);
    let stream = device.new_stream().unwrap();
    let (own, (tell, told)) = (stream.clone(), mpsc::channel());
    stream
        .launch(move || {
            let again = tell.clone();
            own.launch(move || again.send("second").unwrap()).unwrap();
            let event = Event::new(own.device());
            event.record(&own).unwrap();
            assert!(!event.query().unwrap(), "this very work is in front of it");
            event.wait(&own).unwrap();
            tell.send("first").unwrap();
        })
        .unwrap();
    stream.synchronize_timeout(PATIENCE).unwrap();
    // The marker may be in front of the second work, so both are waited for.
    let said = [(); 2].map(|()| told.recv_timeout(PATIENCE).unwrap());
    assert_eq!(said, ["first", "second"]);
}

#[test]
fn a_wait_for_its_own_device_is_refused_whatever_else_has_failed() {
    let device = Device::new_host(2);
    let failed = device.new_stream().unwrap();
    failed.launch(|| panic!("an earlier failure")).unwrap();
    failed.synchronize_timeout(PATIENCE).unwrap_err();
    let stream = device.new_stream().unwrap();
    let (tell, told) = mpsc::channel();
    let own = device.clone();
    stream
        .launch(move || tell.send(own.synchronize()).unwrap())
        .unwrap();
    let error = told.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(matches!(error, Error::WouldDeadlock { .. }), "{error:?}");
    let error = device.synchronize().unwrap_err();
    assert!(matches!(error, Error::StreamFailed { .. }), "{error:?}");
}

#[test]
fn what_a_panic_threw_may_itself_panic_when_dropped() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                std::panic::resume_unwind(Box::new("a second panic"));
            }
        }
    }
    let stream = Device::new_host(1).new_stream().unwrap();
    // The stream must not fail before the second closure is queued behind the first.
    let (go, wait) = mpsc::channel::<()>();
    stream
        .launch(move || {
            let _ = wait.recv();
            std::panic::resume_unwind(Box::new(Bomb))
        })
        .unwrap();
    // Skipped work is dropped too, and what it owns with it.
    let held = Bomb;
    stream
        .launch(move || {
            std::hint::black_box(&held);
        })
        .unwrap();
    drop(go);
    assert!(matches!(
        stream.synchronize(),
        Err(Error::StreamFailed { .. })
    ));
    stream.clear_error().unwrap();
    stream.launch(|| {}).unwrap();
    stream.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_timeout_tells_what_holds_the_stream_up() {
    let device = Device::new_host(2);
    let stream = || device.new_stream().unwrap();
    let (one, two, three) = (stream().with_name("load"), stream(), stream());
    let (go, wait) = mpsc::channel::<()>();
    let launched = line!() + 1;
    one.launch(move || wait.recv().unwrap_or(())).unwrap();
    two.wait(&one.record().unwrap()).unwrap();
    let waited = line!() + 1;
    three.wait(&two.record().unwrap()).unwrap();
    let end = Event::new(&device);
    end.set_name("end");
    end.record(&three).unwrap();
    // The queues park, and the closure starts, a moment after they were submitted.
    let error = loop {
        let error = end
            .synchronize_timeout(Duration::from_millis(20))
            .unwrap_err();
        if error.to_string().contains("has been running") {
            break error;
        }
    };
    let text = error.to_string();
    for part in [
        "gave up after 20 ms:",
        &format!(
            "marker 1 of {three} (event \"end\"), recorded at {}:",
            file!()
        ),
        "has completed 0 of 1 markers",
        &format!("stuck is {one} (1 stream lies between): it has been running the closure"),
        &format!("launched at {}:{launched} for ", file!()),
        &format!(
            "waits for marker 1 of {two}, recorded at {}:{waited}",
            file!()
        ),
        &format!("waits for marker 1 of stream {} \"load\" of host", one.id()),
    ] {
        assert!(text.contains(part), "\"{part}\" is not in: {text}");
    }
    println!("{text}");
    drop(go);
    end.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_timeout_tells_of_host_work_that_waits() {
    let device = Device::new_host(2);
    let (one, two) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let (go, wait) = mpsc::channel::<()>();
    one.launch(move || wait.recv().unwrap_or(())).unwrap();
    let marker = one.record().unwrap();
    let launched = line!() + 1;
    two.launch(move || marker.synchronize().unwrap()).unwrap();
    let end = two.record().unwrap();
    let part = format!("the closure launched at {}:{launched}, which", file!());
    let text = loop {
        let error = end.synchronize_timeout(Duration::from_millis(20));
        let text = error.unwrap_err().to_string();
        if text.contains(&part) {
            break text;
        }
    };
    assert!(
        text.contains(&format!("stuck is {one}: it has been running")),
        "{text}"
    );
    drop(go);
    end.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_timeout_never_names_a_line_of_the_library() {
    let device = Device::new_host(1);
    let stream = device.new_stream().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    stream.launch(move || wait.recv().unwrap_or(())).unwrap();
    let (held, limit) = (Event::new(&device), Duration::from_millis(1));
    held.record(&stream).unwrap();
    for waited in [
        stream.synchronize_timeout(limit),
        stream.record().unwrap().synchronize_timeout(limit),
        stream.record_timed().unwrap().synchronize_timeout(limit),
        held.synchronize_timeout(limit),
        device.synchronize_timeout(limit),
    ] {
        let Err(Error::Timeout(timeout)) = waited else {
            panic!("{waited:?} is no timeout");
        };
        assert_eq!(timeout.recorded_at.file(), file!(), "{timeout}");
        let text = timeout.to_string();
        assert!(
            !text.contains("src/") && !text.contains("<unknown>"),
            "{text}"
        );
    }
    drop(go);
    device.synchronize_timeout(PATIENCE).unwrap();
}

#[test]
fn a_timeout_names_the_line_of_a_gate_for_tests() {
    let stream = Device::new_host(1).new_stream().unwrap();
    let gate = work::gate(&stream).unwrap();
    let line = line!() - 1;
    let marker = stream.record().unwrap();
    let place = format!("{}:{line}", file!());
    let begin = Instant::now();
    // Until a worker has come to the gate, the stream is going on.
    loop {
        let timeout = marker
            .synchronize_timeout(Duration::from_millis(1))
            .unwrap_err();
        if timeout.to_string().contains(&place) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{timeout}");
    }
    gate.open();
    marker.synchronize_timeout(PATIENCE).unwrap();
}

/// Whatever takes the line of its caller is called by the user, or hands its own caller's on.
#[test]
fn every_function_that_asks_for_its_caller_tracks_it() {
    fn visit(folder: &std::path::Path, asks: &mut usize) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // The work of the suite tells its own lines, except that of a gate.
                if !path.ends_with("testing") {
                    visit(&path, asks);
                }
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let source = source.split("\n#[cfg(all(test").next().unwrap();
            let lines: Vec<_> = source.lines().map(str::trim).collect();
            for (number, line) in lines.iter().enumerate() {
                let asked = ["Place::caller()", "self.record()?", "self.record_timed()?"];
                if line.starts_with("//") || !asked.iter().any(|asked| line.contains(asked)) {
                    continue;
                }
                *asks += 1;
                let is_fn = |line: &&str| {
                    line.starts_with("fn ") || line.contains("pub") && line.contains("fn ")
                };
                let before = &lines[..number];
                let function = before.iter().rposition(is_fn).unwrap();
                let attributes = before[..function].iter().rev();
                let mut attributes = attributes.take_while(|line| line.starts_with("#["));
                assert!(
                    attributes.any(|line| *line == "#[track_caller]"),
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    lines[function]
                );
            }
        }
    }
    let mut asks = 0;
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    visit(source.as_ref(), &mut asks);
    assert!(asks > 10, "{asks}");
}

#[test]
fn a_progress_is_never_ahead_of_itself() {
    let stream = Device::new_host(2).new_stream().unwrap();
    let watched = stream.clone();
    let watcher = std::thread::spawn(move || {
        let mut last = watched.progress();
        while last.completed < 2000 {
            let now = watched.progress();
            assert!(
                now.completed <= now.recorded && now.completed >= last.completed,
                "{now:?}"
            );
            last = now;
        }
    });
    for _ in 0..1000 {
        stream.launch(|| {}).unwrap();
        stream.record().unwrap();
        stream.record().unwrap();
    }
    stream.synchronize_timeout(PATIENCE).unwrap();
    watcher.join().unwrap();
}

#[test]
fn open_best_follows_the_environment_and_never_falls_back() {
    // A process of its own: the environment is shared by all threads.
    let run = |value: &str| {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "opens_what_the_environment_names", "--nocapture"])
            .env("FENCEPOST_DEVICE", value)
            .output()
            .unwrap()
    };
    for good in ["host", ""] {
        let output = run(good);
        assert!(output.status.success(), "{good:?}: {output:?}");
    }
    for bad in [
        "hots", "host:1", "host:00", "cuda:-1", "HOST", " host", "metal:x",
    ] {
        let output = run(bad);
        assert!(!output.status.success(), "{bad:?} was opened");
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("unknown device"), "{bad:?}: {text}");
    }
}

#[test]
fn opens_what_the_environment_names() {
    let device = Device::open_best().unwrap();
    device.default_stream().synchronize().unwrap();
}
