//! The driver: one that is not there, one that fails, and how often it is called.

use fencepost::{Backend, Device, Error, Event, cuda};

use crate::{common, gpu, suite};

#[test]
fn without_a_driver_it_is_an_error_that_says_so() {
    suite::a_missing_driver_is_an_error_that_says_so(Backend::Cuda);
}

#[test]
fn a_library_that_is_no_driver_is_an_error() {
    suite::another_library_is_an_error(
        "driver::a_library_that_is_no_driver_is_an_error",
        Backend::Cuda,
        "FENCEPOST_CUDA_LIBRARY",
        |text| text.contains("FENCEPOST_CUDA_LIBRARY") || text.contains("has no cuInit"),
    );
}

/// The host takes the place of no driver that is there and fails.
#[test]
fn a_driver_that_fails_is_an_error_and_not_the_host() {
    let library = std::env::var_os("FENCEPOST_CUDA_LIBRARY");
    let control = library
        .as_ref()
        .and_then(|library| fencepost_sim_cuda::Control::load(library.as_ref()).ok());
    let Some(control) = control else {
        return common::skip(
            &common::test_name(),
            "FENCEPOST_CUDA_LIBRARY names no stand-in for the CUDA driver",
        );
    };
    if common::is_child() {
        let code = match std::env::var("FENCEPOST_TEST_SCENARIO").as_deref() {
            Ok("no GPU") => 100,
            _ => 999,
        };
        control.fail_call("cuInit", 1, code);
        let opened = Device::open_best();
        println!("opened: {opened:?}");
        if code == 100 {
            assert_ne!(opened.unwrap().backend(), Backend::Cuda);
            return;
        }
        let Err(Error::Unavailable { device, why, .. }) = opened else {
            panic!("a driver that fails is told");
        };
        assert_eq!(device, "cuda");
        assert!(why.contains("cuInit") && why.contains("999"), "{why}");
        // The failure is not remembered.
        assert_eq!(Device::open_best().unwrap().backend(), Backend::Cuda);
        return;
    }
    for scenario in ["no GPU", "a failure"] {
        let mut child = common::child(&common::test_name());
        child
            .env("FENCEPOST_TEST_SCENARIO", scenario)
            .env_remove("FENCEPOST_DEVICE");
        assert!(common::run(child).success(), "{scenario}");
    }
}

#[test]
fn a_gpu_has_the_same_uuid_each_time_and_no_other_has_it() {
    let Some(gpu) = gpu() else { return };
    let uuid = gpu.device.uuid().unwrap();
    assert_ne!(uuid, [0; 16]);
    assert_eq!(Device::open("cuda:0").unwrap().uuid(), Some(uuid));
    if let Ok(other) = Device::open("cuda:1") {
        assert_ne!(other.uuid(), Some(uuid));
    }
}

/// How often an operation calls each function of the driver; those that it does not call are left
/// out.
#[cfg(target_os = "linux")]
fn calls_of(
    control: &fencepost_sim_cuda::Control,
    operation: &dyn Fn(),
) -> Vec<(&'static str, u64)> {
    const FUNCTIONS: [&str; 18] = [
        "cuCtxGetCurrent",
        "cuCtxGetId",
        "cuCtxPopCurrent_v2",
        "cuCtxPushCurrent_v2",
        "cuDevicePrimaryCtxGetState",
        "cuEventCreate",
        "cuEventDestroy_v2",
        "cuEventElapsedTime_v2",
        "cuEventQuery",
        "cuEventRecord",
        "cuEventRecordWithFlags",
        "cuEventSynchronize",
        "cuStreamGetCtx",
        "cuStreamGetId",
        "cuStreamIsCapturing",
        "cuStreamQuery",
        "cuStreamWaitEvent",
        "cuThreadExchangeStreamCaptureMode",
    ];
    // The first call creates what later ones use.
    operation();
    let before = FUNCTIONS.map(|name| control.calls(name));
    operation();
    let counts = FUNCTIONS.iter().zip(before);
    counts
        .map(|(name, before)| (*name, control.calls(name) - before))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// The stand-in counts the calls on which the costs in `fencepost bench` depend.
#[cfg(target_os = "linux")]
#[test]
fn an_operation_calls_the_driver_no_more_than_it_must() {
    let library = std::env::var_os("FENCEPOST_CUDA_LIBRARY");
    let loaded =
        library.and_then(|library| fencepost_sim_cuda::Control::load(library.as_ref()).ok());
    let Some(control) = loaded else {
        return common::skip(
            &common::test_name(),
            "FENCEPOST_CUDA_LIBRARY names no stand-in for the CUDA driver",
        );
    };
    common::in_a_process_of_its_own(|| {
        let device = Device::open("cuda:0").unwrap();
        let [stream, other, shared, shared_too] = [(); 4].map(|()| device.new_stream().unwrap());
        for stream in [&shared, &shared_too] {
            assert!(cuda::stream_as_raw(stream).is_some());
        }
        let record = [("cuCtxGetId", 1), ("cuEventRecord", 1)];
        let record_known_outside = [record[0], record[1], ("cuStreamIsCapturing", 1)];
        for new_event in [Event::new, Event::with_timing] {
            let event = new_event(&device);
            let calls = |operation: &dyn Fn()| calls_of(&control, operation);
            assert_eq!(calls(&|| event.record(&stream).unwrap()), record);
            // Others may capture a stream whose handle they know.
            let recorded = calls(&|| event.record(&shared).unwrap());
            assert_eq!(recorded, record_known_outside);
            let whole_life = calls(&|| new_event(&device).record(&stream).unwrap());
            assert_eq!(whole_life, record, "native events are used again");
            // Another marker of the event, or of the thread, is recorded again there.
            let twice = record_known_outside.map(|(name, count)| (name, 2 * count));
            let in_turn = calls(&|| {
                event.record(&shared).unwrap();
                event.record(&shared_too).unwrap();
            });
            assert_eq!(in_turn, twice);
            let whole_lives = calls(&|| {
                new_event(&device).record(&shared).unwrap();
                new_event(&device).record(&shared_too).unwrap();
            });
            assert_eq!(whole_lives, twice);
            event.synchronize().unwrap();
            assert_eq!(calls(&|| assert!(event.query().unwrap())), []);
            assert_eq!(calls(&|| event.wait(&other).unwrap()), []);
        }
        // A marker that stays has an event of its own, of which the pool has some.
        let again = calls_of(&control, &|| {
            drop([(); 3].map(|()| shared.record().unwrap()));
        });
        assert_eq!(
            again,
            record_known_outside.map(|(name, count)| (name, 3 * count))
        );
        let [start, end] = [(); 2].map(|()| Event::with_timing(&device));
        let elapsed = [("cuCtxGetId", 1), ("cuEventElapsedTime_v2", 1)];
        // At first, and once they are recorded in place.
        for _ in 0..3 {
            start.record(&stream).unwrap();
            end.record(&stream).unwrap();
            end.synchronize().unwrap();
            for (start, end) in [(&start, &end), (&end, &start), (&start, &start)] {
                let calls = calls_of(&control, &|| drop(start.elapsed(end).unwrap()));
                assert_eq!(calls, elapsed);
            }
        }
    });
}
