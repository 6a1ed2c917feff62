//! What happens at the end of a process, and in a forked child.

use std::sync::Arc;

use fencepost::{
    Backend, Device, Error, Event,
    cuda::{self, RawEvent, RawEventOptions},
};

use crate::{PATIENCE, common, gpu, suite};

#[test]
fn a_process_may_end_with_anything_pending() {
    if gpu().is_some() {
        suite::a_process_may_end_with_anything_pending("cuda:0");
    }
}

#[test]
fn a_process_may_end_with_a_closed_gate() {
    // The child opens no device before it has its own exit handler.
    if common::is_child() || gpu().is_some() {
        suite::a_process_may_end_with_a_closed_gate("cuda:0", true);
    }
}

/// On a real driver, too: it is initialised in the parent.
#[cfg(unix)]
#[test]
fn a_forked_child_is_told_so_and_may_drop_everything() {
    if gpu().is_none() {
        return;
    }
    static RAW: std::sync::OnceLock<RawEvent> = std::sync::OnceLock::new();
    static COMPLETE: std::sync::OnceLock<[Event; 2]> = std::sync::OnceLock::new();
    if common::is_child() {
        let device = Device::open("cuda:0").unwrap();
        let complete = [(); 2].map(|()| Event::with_timing(&device));
        for event in &complete {
            event.record(&device.default_stream()).unwrap();
            event.synchronize().unwrap();
        }
        complete[0].elapsed(&complete[1]).unwrap();
        COMPLETE.set(complete).unwrap();
        let raw = RawEvent::new(&device, RawEventOptions::default().timing(true)).unwrap();
        raw.record(&device.default_stream()).unwrap();
        RAW.set(raw).unwrap();
    }
    suite::a_forked_child_is_told_so("cuda:0", |device, _| {
        let (raw, stream) = (RAW.get().unwrap(), device.default_stream());
        let [start, end] = COMPLETE.get().unwrap();
        let options = RawEventOptions::default;
        let results = [
            (
                "cuda::new_stream",
                cuda::new_stream(device, Default::default()).map(drop),
            ),
            ("cuda::model", cuda::model(device).map(drop)),
            ("RawEvent::new", RawEvent::new(device, options()).map(drop)),
            ("RawEvent::open", RawEvent::open(device, &[1; 64]).map(drop)),
            ("RawEvent::record", raw.record(&stream)),
            ("RawEvent::wait", raw.wait(&stream)),
            ("RawEvent::query", raw.query().map(drop)),
            ("RawEvent::synchronize", raw.synchronize()),
            ("RawEvent::elapsed", raw.elapsed(raw).map(drop)),
            ("RawEvent::export", raw.export().map(drop)),
            ("elapsed, complete", start.elapsed(end).map(drop)),
            ("elapsed_time, complete", start.elapsed_time(end).map(drop)),
            // SAFETY: refused before the handle is looked at; it stands for the default stream.
            ("stream_from_raw", unsafe {
                cuda::stream_from_raw(std::ptr::null_mut(), Arc::new(())).map(drop)
            }),
        ];
        let told = |(call, result): &(&str, fencepost::Result<()>)| {
            let is_told = matches!(result, Err(Error::Forked { .. }));
            if !is_told {
                eprintln!("{call} in a forked child: {result:?}");
            }
            is_told
        };
        // How many there are is known, and asking is no use of the driver.
        let listed = Device::list();
        let count = |found: &fencepost::Found| found.devices.len();
        results.iter().all(told) && listed.iter().map(count).sum::<usize>() > 1
    });
}

/// Which GPUs there are is asked of NVML, where that can tell. A scenario is how many GPUs are
/// shown, and how often the driver is initialised for that.
#[cfg(target_os = "linux")]
#[test]
fn asking_leaves_a_forked_child_the_driver() {
    let library = std::env::var_os("FENCEPOST_CUDA_LIBRARY");
    let is_stand_in =
        |path: &std::ffi::OsString| fencepost_sim_cuda::Control::load(path.as_ref()).is_ok();
    let Some(library) = library.filter(is_stand_in) else {
        return common::skip(
            &common::test_name(),
            "FENCEPOST_CUDA_LIBRARY names no stand-in for the CUDA driver",
        );
    };
    let found = || {
        let cuda = |found: &fencepost::Found| found.backend == Backend::Cuda;
        Device::list().into_iter().find(cuda).unwrap()
    };
    let Ok(scenario) = std::env::var("FENCEPOST_TEST_SCENARIO") else {
        for (scenario, variable, value) in [
            ("2 0", "UNUSED", ""),
            ("1 0", "CUDA_VISIBLE_DEVICES", "1"),
            (
                "1 0",
                "CUDA_VISIBLE_DEVICES",
                "GPU-66656e63-6570-6f73-742d-73696d000001",
            ),
            ("0 0", "CUDA_VISIBLE_DEVICES", "-1"),
            // The stand-in for the driver shows both, whatever this says.
            ("2 1", "CUDA_VISIBLE_DEVICES", "MIG-1"),
            ("2 1", "FENCEPOST_SIM_CUDA_MIG", "1"),
            (
                "2 1",
                "FENCEPOST_NVML_LIBRARY",
                "/nowhere/libnvidia-ml.so.1",
            ),
        ] {
            let mut child = common::child(&common::test_name());
            child
                .env("FENCEPOST_NVML_LIBRARY", &library)
                .env("FENCEPOST_TEST_SCENARIO", scenario)
                .env(variable, value);
            assert!(common::run(child).success(), "{variable}={value}");
        }
        return;
    };
    let control = fencepost_sim_cuda::Control::load(library.as_ref()).unwrap();
    let (shown, initialised) = scenario.split_once(' ').unwrap();
    let before = control.calls("cuInit");
    assert_eq!(found().devices.len().to_string(), shown);
    assert!(Device::open("toaster").is_err() && Device::open("cuda:x").is_err());
    assert_eq!((control.calls("cuInit") - before).to_string(), initialised);
    if shown == "0" {
        return;
    }
    // SAFETY: the child calls nothing but this crate, which is what is tested, and _exit.
    match unsafe { libc::fork() } {
        0 => {
            let opened = Device::open("cuda:0").and_then(|device| {
                let stream = device.new_stream()?;
                stream.record()?.synchronize_timeout(PATIENCE)
            });
            let good = match initialised {
                "0" => opened.is_ok(),
                _ => matches!(opened, Err(Error::Forked { .. })),
            };
            if !good {
                eprintln!("{opened:?}");
            }
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(!good)) }
        }
        child => {
            let mut status = -1;
            // SAFETY: a child of ours; `status` is an int.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child's checks failed");
        }
    }
}
