//! A device in use for minutes: threads, descriptors, memory and native objects end where they
//! began.
#![cfg(all(target_os = "linux", not(loom)))]

use std::{
    collections::BTreeMap,
    env, fs,
    time::{Duration, Instant},
};

use fencepost::{Device, Event, testing::work};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};

#[path = "common/model.rs"]
mod model;

/// How many there are of each kind.
type Counts = BTreeMap<String, u64>;

/// What a process has of each.
#[derive(Debug)]
struct Used {
    /// By their names.
    threads: Counts,
    /// By what the stand-in calls them. Empty on a real driver, which tells no such thing.
    objects: Counts,
    descriptors: u64,
    memory_mb: u64,
}

fn used() -> Used {
    let entries = |folder| fs::read_dir(folder).unwrap();
    let mut threads = Counts::new();
    for task in entries("/proc/self/task") {
        // A thread may end meanwhile.
        if let Ok(name) = fs::read_to_string(task.unwrap().path().join("comm")) {
            *threads.entry(name.trim().into()).or_default() += 1;
        }
    }
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    Used {
        threads,
        objects: objects(),
        descriptors: entries("/proc/self/fd").count() as u64,
        memory_mb: pages / 256,
    }
}

#[cfg(metal_sim)]
fn objects() -> Counts {
    let live = fencepost_sim_metal::Control.live();
    live.into_iter()
        .map(|(kind, count)| (kind, count as u64))
        .collect()
}

/// What a stand-in counts, by the fields of its structure `Live`.
#[cfg(not(metal_sim))]
const LIVE: [(&str, &[&str]); 2] = [
    (
        "FENCEPOST_CUDA_LIBRARY",
        &[
            "streams",
            "events",
            "retains",
            "contexts",
            "host memory",
            "device memory",
            "modules",
            "graphs",
            "executable graphs",
            "captures",
        ],
    ),
    (
        "FENCEPOST_VULKAN_LIBRARY",
        &[
            "instances",
            "devices",
            "semaphores",
            "fences",
            "query pools",
            "command pools",
            "command buffers",
            "buffers",
            "memories",
            "set layouts",
            "descriptor pools",
            "descriptor sets",
            "pipeline layouts",
            "modules",
            "caches",
            "pipelines",
        ],
    ),
];

/// Not by the crates of the stand-ins: linked into one program, their functions would clash.
#[cfg(not(metal_sim))]
fn objects() -> Counts {
    let mut counts = Counts::new();
    for (variable, kinds) in LIVE {
        let Ok(library) = env::var(variable) else {
            continue;
        };
        let library = std::ffi::CString::new(library).unwrap();
        // SAFETY: C strings; the library is loaded already, and opening it again gives the same.
        let live = unsafe {
            let library = libc::dlopen(library.as_ptr(), libc::RTLD_LAZY);
            libc::dlsym(library, c"fencepost_sim_live".as_ptr())
        };
        assert!(!live.is_null(), "{variable} names no stand-in");
        // SAFETY: the stand-ins' function of this name has this type.
        let live: extern "C" fn(u32) -> u64 = unsafe { std::mem::transmute(live) };
        counts.extend(
            (0..)
                .zip(kinds)
                .map(|(number, kind)| ((*kind).into(), live(number))),
        );
    }
    counts
}

/// Uses more of everything at the same time than any run of the model. Pools keep as many objects
/// as were ever in use at the same time, so from now on they do not grow.
fn fill_pools(device: &Device) {
    let log = work::new_log(device).unwrap();
    let held: Vec<_> = (0..20)
        .map(|_| {
            let stream = device.new_stream().unwrap();
            let gate = work::gate(&stream).unwrap();
            let events: Vec<_> = (0..40)
                .map(|number| {
                    work::append(&stream, &log, number).unwrap();
                    // A failure takes an event without a time.
                    let event = match number % 2 {
                        0 => Event::with_timing(device),
                        _ => Event::new(device),
                    };
                    event.record(&stream).unwrap();
                    event
                })
                .collect();
            (stream, gate, events)
        })
        .collect();
    let (gates, streams): (Vec<_>, Vec<_>) = held
        .into_iter()
        .map(|(stream, gate, events)| (gate, (stream, events)))
        .unzip();
    // Streams may share a queue, which each gate holds up.
    gates.into_iter().for_each(work::Gate::open);
    for (stream, _) in &streams {
        stream.synchronize().unwrap();
    }
}

/// The name that the system shows of the thread that watches a pool's workers.
const MONITOR: &str = "fencepost-monit";

/// Uses the device until each kind of thread has started that it ever starts. The monitor of a
/// GPU's callbacks starts with the first callback that is due just when the worker returns from the
/// last one: in the first run of the model or after minutes.
fn start_all_threads(device: &Device) {
    let event = Event::new(device);
    let stream = device.new_stream().unwrap();
    let start = Instant::now();
    while !used().threads.contains_key(MONITOR) {
        assert!(start.elapsed() < fencepost_sim::HANG_TIMEOUT, "no monitor");
        for _ in 0..1000 {
            let (tell, told) = std::sync::mpsc::channel();
            event.record(&stream).unwrap();
            let tell_it = move |_| tell.send(()).unwrap();
            event.marker().unwrap().on_complete(tell_it).unwrap();
            told.recv().unwrap();
        }
    }
}

#[test]
#[ignore = "takes FENCEPOST_SOAK_SECONDS, or ten minutes"]
fn a_device_in_long_use_needs_no_more_than_at_first() {
    let seconds = env::var("FENCEPOST_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(600, |text| text.parse().unwrap());
    let device = match env::var("FENCEPOST_DEVICE") {
        Ok(name) => Device::open(&name).unwrap(),
        Err(_) => Device::new_host(2),
    };
    let mut runner = TestRunner::deterministic();
    let mut runs = 0;
    let mut run_for = |time| {
        let start = Instant::now();
        while start.elapsed() < time {
            let ops = model::ops().new_tree(&mut runner).unwrap().current();
            let told = model::run_shared(
                &device,
                &ops,
                fencepost_sim::HANG_TIMEOUT,
                work::share_order,
            );
            assert_eq!(told, Ok(()), "{ops:?}");
            runs += 1;
        }
        device.synchronize().unwrap();
        // Workers that are not needed end after a second of rest.
        std::thread::sleep(Duration::from_secs(3));
        used()
    };
    fill_pools(&device);
    start_all_threads(&device);
    let first = run_for(Duration::from_secs(10));
    let last = run_for(Duration::from_secs(seconds));
    println!("{device}: {runs} runs\nfirst {first:?}\nlast  {last:?}");
    for (before, after) in [
        (&first.threads, &last.threads),
        (&first.objects, &last.objects),
    ] {
        for (kind, count) in after {
            let before = before.get(kind).copied().unwrap_or(0);
            assert!(*count <= before, "{kind}: {before}, then {count}");
        }
    }
    assert!(last.descriptors <= first.descriptors);
    // The stand-in for Metal never uses the memory of an object again, to find its late uses.
    if !cfg!(metal_sim) {
        assert!(last.memory_mb <= first.memory_mb + 16);
    }
}
