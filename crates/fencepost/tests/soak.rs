//! A device in use for minutes: threads, descriptors and memory end where they began.
#![cfg(all(target_os = "linux", not(loom)))]

use std::{
    env, fs,
    time::{Duration, Instant},
};

use fencepost::{Device, testing::work};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};

#[path = "common/model.rs"]
mod model;

/// What a process has of each.
#[derive(Debug)]
struct Used {
    threads: usize,
    descriptors: usize,
    memory_mb: usize,
}

fn used() -> Used {
    let count = |folder| fs::read_dir(folder).unwrap().count();
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    Used {
        threads: count("/proc/self/task"),
        descriptors: count("/proc/self/fd"),
        memory_mb: pages / 256,
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
    let first = run_for(Duration::from_secs(10));
    let last = run_for(Duration::from_secs(seconds));
    println!("{device}: {runs} runs, first {first:?}, last {last:?}");
    assert!(last.threads <= first.threads, "{first:?}, then {last:?}");
    assert!(
        last.descriptors <= first.descriptors,
        "{first:?}, then {last:?}"
    );
    // A stand-in keeps a record of all that it has done.
    let stand_in = ["FENCEPOST_CUDA_STAND_IN", "FENCEPOST_VULKAN_STAND_IN"];
    if !stand_in.iter().any(|name| env::var_os(name).is_some()) {
        assert!(
            last.memory_mb <= first.memory_mb + 16,
            "{first:?}, then {last:?}"
        );
    }
}
