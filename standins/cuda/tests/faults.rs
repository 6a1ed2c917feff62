//! Planned faults, their effects, and recovery from them.

mod support;

use fencepost_sim_cuda::codes::*;
use fencepost_sim_cuda::*;
use std::time::{Duration, Instant};
use support::*;

const SEEDS: u64 = 30;

#[test]
fn the_nth_call_fails_and_does_nothing_else() {
    with_seeds(1, |session| {
        let mut made = 0;
        session.fail_call("cuEventCreate", 2, CUDA_ERROR_OUT_OF_MEMORY);
        let before = session.calls("cuEventCreate");
        let first = event(0);
        assert_eq!(
            cuEventCreate(Out::to(&mut made), 0),
            CUDA_ERROR_OUT_OF_MEMORY
        );
        assert_eq!(session.live().events, 1);
        let second = event(0);
        assert_eq!(session.calls("cuEventCreate"), before + 3);
        destroy_events(&[first, second]);
    });
}

#[test]
fn calls_fail_from_the_nth_on_until_faults_are_cleared() {
    with_seeds(1, |session| {
        let mut made = 0;
        session.fail_calls_from("cuEventCreate", 3, CUDA_ERROR_OUT_OF_MEMORY);
        let events = [event(0), event(0)];
        for _ in 0..3 {
            assert_eq!(
                cuEventCreate(Out::to(&mut made), 0),
                CUDA_ERROR_OUT_OF_MEMORY
            );
        }
        session.clear_faults();
        destroy_events(&events);
        destroy_events(&[event(0)]);
    });
}

#[test]
fn a_failed_record_does_not_change_the_event() {
    with_seeds(SEEDS, |session| {
        let (event, stream, words) = (event(NO_TIMING), stream(), Words::new(1));
        ok(cuEventRecord(event, stream));
        ok(cuEventSynchronize(event));
        gate(stream, &words, 0);
        session.fail_call("cuEventRecord", 1, CUDA_ERROR_OUT_OF_MEMORY);
        assert_eq!(cuEventRecord(event, stream), CUDA_ERROR_OUT_OF_MEMORY);
        ok(cuEventQuery(event));
        words.set(0, 1);
        words.free();
        destroy_events(&[event]);
        destroy_streams(&[stream]);
    });
}

#[test]
#[should_panic(expected = "no function cuEventMake")]
fn a_fault_for_an_unknown_function_panics() {
    control().fail_call("cuEventMake", 1, 1);
}

/// Checks the errors of a context that has failed, and that a reset clears them.
fn error_sticks(code: CUresult, break_it: impl Fn(&Session<'_>, CUstream)) {
    with_seeds(SEEDS, |session| {
        let (before, after, other) = (event(TIMING), event(TIMING), event(NO_TIMING));
        let (stream, bystander) = (stream(), stream());
        ok(cuEventRecord(before, stream));
        ok(cuEventSynchronize(before));
        break_it(session, stream);
        // the context fails once the device has run the work
        let recorded = cuEventRecord(after, stream);
        assert!(recorded == CUDA_SUCCESS || recorded == code);
        assert_eq!(cuStreamSynchronize(stream), code);
        let mut made = 0;
        for again in [
            cuEventSynchronize(after),
            cuEventQuery(before),
            cuEventRecord(other, bystander),
            cuStreamQuery(bystander),
            cuStreamWaitEvent(bystander, after, 0),
            cuEventCreate(Out::to(&mut made), 0),
            cuStreamCreate(Out::to(&mut made), 0),
            cuCtxSynchronize(),
            elapsed(before, before).err().unwrap_or(0),
        ] {
            assert_eq!(again, code);
        }
        // these calls destroy the objects, although they return the error
        assert_eq!(cuEventDestroy_v2(other), code);
        assert_eq!(cuStreamDestroy_v2(bystander), code);
        assert_eq!((session.live().events, session.live().streams), (2, 1));

        // the other device is not affected
        let context = retain(1);
        ok(cuCtxPushCurrent_v2(context));
        ok(cuCtxSynchronize());
        ok(cuCtxPopCurrent_v2(Out::null()));

        ok(cuDevicePrimaryCtxReset_v2(0));
        assert_eq!(cuEventQuery(before), CUDA_ERROR_CONTEXT_IS_DESTROYED);
        for event in [before, after] {
            assert_eq!(cuEventDestroy_v2(event), CUDA_ERROR_CONTEXT_IS_DESTROYED);
        }
        assert_eq!(cuStreamDestroy_v2(stream), CUDA_ERROR_CONTEXT_IS_DESTROYED);
        ok(cuDevicePrimaryCtxRelease_v2(0));
        ok(cuCtxSetCurrent(retain(0)));
        ok(cuEventCreate(Out::to(&mut made), 0));
        ok(cuEventRecord(made, CU_STREAM_PER_THREAD));
        ok(cuEventSynchronize(made));
        destroy_events(&[made]);
        // the module of the failed context
        session.clear_violations_of("was destroyed");
    });
}

#[test]
fn a_trap_sticks_to_the_context_until_it_is_reset() {
    error_sticks(CUDA_ERROR_LAUNCH_FAILED, |_, stream| {
        let (module, trap) = kernel(c"fencepost_trap");
        ok(launch(trap, stream, &mut []));
        // fails if the kernel has run already
        cuModuleUnload(module);
    });
}

#[test]
fn a_planned_launch_failure_sticks_to_the_context() {
    error_sticks(CUDA_ERROR_ECC_UNCORRECTABLE, |session, stream| {
        let (module, spin) = kernel(c"fencepost_spin");
        session.fail_launch(0, 2, CUDA_ERROR_ECC_UNCORRECTABLE);
        ok(launch(spin, stream, &mut [1]));
        ok(launch(spin, stream, &mut [1]));
        cuModuleUnload(module);
    });
}

#[test]
fn a_bad_address_sticks_to_the_context() {
    error_sticks(CUDA_ERROR_ILLEGAL_ADDRESS, |_, stream| {
        let mut short = 0;
        ok(cuMemAlloc_v2(Out::to(&mut short), 16));
        ok(cuMemsetD8Async(short, 0, 17, stream));
    });
}

#[test]
fn waits_of_other_contexts_end_when_a_context_fails() {
    with_seeds(SEEDS, |session| {
        let (stream, event, words) = (stream(), event(NO_TIMING), Words::new(1));
        gate(stream, &words, 0);
        ok(cuEventRecord(event, stream));
        let context = retain(1);
        ok(cuCtxPushCurrent_v2(context));
        ok(cuStreamWaitEvent(CU_STREAM_PER_THREAD, event, 0));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| cuEventSynchronize(event));
            std::thread::yield_now();
            session.fail_contexts(0, CUDA_ERROR_LAUNCH_FAILED);
            assert_eq!(waiter.join().unwrap(), CUDA_ERROR_LAUNCH_FAILED);
        });
        ok(cuStreamSynchronize(CU_STREAM_PER_THREAD));
        ok(cuCtxPopCurrent_v2(Out::null()));
        assert_eq!(cuEventDestroy_v2(event), CUDA_ERROR_LAUNCH_FAILED);
        assert_eq!(cuStreamDestroy_v2(stream), CUDA_ERROR_LAUNCH_FAILED);
    });
}

#[test]
fn a_lost_device_stays_lost() {
    with_seeds(SEEDS, |session| {
        let (stream, event, words) = (stream(), event(NO_TIMING), Words::new(1));
        gate(stream, &words, 0);
        ok(cuEventRecord(event, stream));
        session.lose_device(0, CUDA_ERROR_DEVICE_UNAVAILABLE);
        assert_eq!(cuEventSynchronize(event), CUDA_ERROR_DEVICE_UNAVAILABLE);
        let mut context = 0;
        assert_eq!(
            cuDevicePrimaryCtxRetain(Out::to(&mut context), 0),
            CUDA_ERROR_DEVICE_UNAVAILABLE
        );
        assert_eq!(cuEventDestroy_v2(event), CUDA_ERROR_DEVICE_UNAVAILABLE);
        assert_eq!(cuStreamDestroy_v2(stream), CUDA_ERROR_DEVICE_UNAVAILABLE);
        ok(cuDevicePrimaryCtxRelease_v2(0));
        assert_eq!(
            cuDevicePrimaryCtxRetain(Out::to(&mut context), 0),
            CUDA_ERROR_DEVICE_UNAVAILABLE
        );
    });
}

#[test]
fn after_a_reset_objects_give_errors_and_the_context_has_the_same_handle_and_another_number() {
    with_seeds(SEEDS, |session| {
        let mut context = 0;
        ok(cuCtxGetCurrent(Out::to(&mut context)));
        let number = || {
            let mut id = 0;
            let code = cuCtxGetId(context, Out::to(&mut id));
            (code, id)
        };
        let (stream, event, words) = (stream(), event(NO_TIMING), Words::new(1));
        let before = number();
        gate(stream, &words, 0);
        ok(cuEventRecord(event, stream));
        session.reset_primary(0);
        assert!(!is_active(0));
        for code in [
            cuEventSynchronize(event),
            cuEventRecord(event, stream),
            cuCtxSynchronize(),
            cuStreamDestroy_v2(stream),
            cuEventDestroy_v2(event),
            number().0,
        ] {
            assert_eq!(code, CUDA_ERROR_CONTEXT_IS_DESTROYED);
        }
        // the word is still mapped
        words.set(0, 1);
        assert_eq!(retain(0), context);
        assert_ne!(before, number());
        ok(cuCtxSynchronize());
    });
}

#[test]
fn after_deinitialization_every_call_returns_it() {
    with_seeds(SEEDS, |session| {
        let (stream, event, words) = (stream(), event(NO_TIMING), Words::new(1));
        gate(stream, &words, 0);
        ok(cuEventRecord(event, stream));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| cuEventSynchronize(event));
            std::thread::yield_now();
            session.deinitialize();
            assert_eq!(waiter.join().unwrap(), CUDA_ERROR_DEINITIALIZED);
        });
        let mut count = 0;
        for code in [
            cuInit(0),
            cuEventQuery(event),
            cuEventDestroy_v2(event),
            cuStreamDestroy_v2(stream),
            cuDeviceGetCount(Out::to(&mut count)),
            cuThreadExchangeStreamCaptureMode(Some(&mut 2)),
        ] {
            assert_eq!(code, CUDA_ERROR_DEINITIALIZED);
        }
        session.restart(session.seed(), 2);
        ok(cuCtxSetCurrent(0));
    });
}

#[test]
fn freeing_memory_waits_for_the_device() {
    with_seeds(3, |session| {
        let (stream, words, mut memory) = (stream(), Words::new(1), 0);
        ok(cuMemAlloc_v2(Out::to(&mut memory), 4));
        gate(stream, &words, 0);
        ok(cuMemsetD8Async(memory, 1, 4, stream));
        let mut context = 0;
        ok(cuCtxGetCurrent(Out::to(&mut context)));
        std::thread::scope(|scope| {
            let start = Instant::now();
            let free = scope.spawn(move || {
                ok(cuCtxSetCurrent(context));
                ok(cuMemFree_v2(memory));
            });
            while start.elapsed() < Duration::from_millis(5) {
                assert_eq!(session.live().device_memory, 1);
            }
            words.set(0, 1);
            free.join().unwrap();
        });
        assert_eq!(session.live().device_memory, 0);
        words.free();
        destroy_streams(&[stream]);
    });
}
