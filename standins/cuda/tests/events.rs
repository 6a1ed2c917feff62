//! Events.

mod support;

use fencepost_sim_cuda::codes::*;
use fencepost_sim_cuda::*;
use support::*;

const SEEDS: u64 = 40;

#[test]
fn an_event_never_recorded_is_complete() {
    with_seeds(SEEDS, |_| {
        let (event, stream) = (event(NO_TIMING), stream());
        ok(cuEventQuery(event));
        ok(cuEventSynchronize(event));
        ok(cuStreamWaitEvent(stream, event, 0));
        ok(cuStreamSynchronize(stream));
        destroy_events(&[event]);
        destroy_streams(&[stream]);
    });
}

#[test]
fn an_event_is_complete_once_all_earlier_work_is() {
    with_seeds(SEEDS, |_| {
        let (event, stream, words, log) = (event(NO_TIMING), stream(), Words::new(1), Log::new());
        gate(stream, &words, 0);
        log.append(stream, 7);
        ok(cuEventRecord(event, stream));
        assert_eq!(cuEventQuery(event), CUDA_ERROR_NOT_READY);
        assert_eq!(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
        assert_eq!(log.tokens(), []);
        words.set(0, 1);
        ok(cuEventSynchronize(event));
        assert_eq!(log.tokens(), [7]);
        ok(cuEventQuery(event));
        ok(cuStreamQuery(stream));
        log.free();
        words.free();
        destroy_events(&[event]);
        destroy_streams(&[stream]);
    });
}

#[test]
fn rerecord_leaves_earlier_waits_alone() {
    with_seeds(SEEDS, |_| {
        let (event, words, log) = (event(NO_TIMING), Words::new(2), Log::new());
        let [first, second, waiter] = [stream(), stream(), stream()];
        gate(first, &words, 0);
        gate(second, &words, 1);
        ok(cuEventRecord(event, first));
        ok(cuStreamWaitEvent(waiter, event, 0));
        log.append(waiter, 1);
        ok(cuEventRecord(event, second));
        words.set(0, 1);
        // the second gate is closed: if the second record had changed the wait, this would hang
        ok(cuStreamSynchronize(waiter));
        assert_eq!(log.tokens(), [1]);
        assert_eq!(cuEventQuery(event), CUDA_ERROR_NOT_READY);
        words.set(1, 1);
        ok(cuEventSynchronize(event));
        log.free();
        words.free();
        destroy_events(&[event]);
        destroy_streams(&[first, second, waiter]);
    });
}

#[test]
fn destroying_a_pending_event_neither_blocks_nor_affects_waits() {
    with_seeds(SEEDS, |session| {
        let (event, words, log) = (event(TIMING), Words::new(1), Log::new());
        let [recorder, waiter] = [stream(), stream()];
        gate(recorder, &words, 0);
        log.append(recorder, 1);
        ok(cuEventRecord(event, recorder));
        ok(cuStreamWaitEvent(waiter, event, 0));
        log.append(waiter, 2);
        destroy_events(&[event]);
        destroy_streams(&[recorder]);
        assert_eq!(session.live().events, 0);
        words.set(0, 1);
        ok(cuStreamSynchronize(waiter));
        assert_eq!(log.tokens(), [1, 2]);
        log.free();
        words.free();
        destroy_streams(&[waiter]);
    });
}

#[test]
fn elapsed_time_needs_timing_a_record_and_completion() {
    with_seeds(SEEDS, |_| {
        let (start, end, untimed) = (event(TIMING), event(TIMING), event(NO_TIMING));
        let (stream, words) = (stream(), Words::new(1));
        assert_eq!(elapsed(start, end), Err(CUDA_ERROR_INVALID_HANDLE));
        ok(cuEventRecord(start, stream));
        assert_eq!(elapsed(start, end), Err(CUDA_ERROR_INVALID_HANDLE));
        gate(stream, &words, 0);
        ok(cuEventRecord(end, stream));
        ok(cuEventRecord(untimed, stream));
        assert_eq!(elapsed(start, untimed), Err(CUDA_ERROR_INVALID_HANDLE));
        assert_eq!(elapsed(start, end), Err(CUDA_ERROR_NOT_READY));
        words.set(0, 1);
        ok(cuEventSynchronize(end));
        assert!(elapsed(start, end).is_ok_and(|time| time >= 0.0));
        assert_eq!(elapsed(start, start), Ok(0.0));
        words.free();
        destroy_events(&[start, end, untimed]);
        destroy_streams(&[stream]);
    });
}

#[test]
fn elapsed_time_follows_the_devices_clock_and_is_signed() {
    with_seeds(SEEDS, |_| {
        let (start, end, stream) = (event(TIMING), event(TIMING), stream());
        let (module, spin) = kernel(c"fencepost_spin");
        ok(cuEventRecord(start, stream));
        ok(launch(spin, stream, &mut [5_000_000]));
        ok(cuEventRecord(end, stream));
        ok(cuEventSynchronize(end));
        let mut old_name = 0.0;
        ok(cuEventElapsedTime(Out::to(&mut old_name), start, end));
        assert_eq!(Ok(old_name), elapsed(start, end));
        assert!(old_name >= 5.0);
        // a multiple of 32 ns, as an f32
        let steps = (f64::from(old_name) * 1e6 / 32.0).round();
        assert_eq!((steps * 32.0 / 1e6) as f32, old_name);
        assert_eq!(elapsed(end, start), Ok(-old_name));
        ok(cuModuleUnload(module));
        destroy_events(&[start, end]);
        destroy_streams(&[stream]);
    });
}

#[test]
fn flags_are_checked() {
    with_seeds(1, |_| {
        let mut made = 0;
        for bad in [8, CU_EVENT_INTERPROCESS, 1 << 31] {
            assert_eq!(
                cuEventCreate(Out::to(&mut made), bad),
                CUDA_ERROR_INVALID_VALUE
            );
        }
        assert_eq!(cuEventCreate(Out::null(), 0), CUDA_ERROR_INVALID_VALUE);
        for good in [
            CU_EVENT_BLOCKING_SYNC,
            CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING,
        ] {
            destroy_events(&[event(good)]);
        }
    });
}

#[test]
fn creating_an_event_needs_a_context_and_using_one_does_not() {
    with_seeds(SEEDS, |_| {
        let (event, stream) = (event(TIMING), stream());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut made = 0;
                assert_eq!(
                    cuEventCreate(Out::to(&mut made), 0),
                    CUDA_ERROR_INVALID_CONTEXT
                );
                assert_eq!(
                    cuStreamCreate(Out::to(&mut made), 0),
                    CUDA_ERROR_INVALID_CONTEXT
                );
                assert_eq!(cuEventRecord(event, 0), CUDA_ERROR_INVALID_CONTEXT);
                ok(cuEventRecord(event, stream));
                ok(cuEventSynchronize(event));
                ok(cuEventQuery(event));
                ok(cuStreamWaitEvent(stream, event, 0));
                assert_eq!(elapsed(event, event), Ok(0.0));
            });
        });
        destroy_events(&[event]);
        destroy_streams(&[stream]);
    });
}

#[test]
fn an_event_is_recorded_only_in_streams_of_its_context() {
    with_seeds(SEEDS, |_| {
        let ours = event(TIMING);
        let other = retain(1);
        ok(cuCtxPushCurrent_v2(other));
        let (stream, theirs) = (stream(), event(TIMING));
        assert_eq!(cuEventRecord(ours, stream), CUDA_ERROR_INVALID_HANDLE);
        ok(cuEventQuery(ours));
        ok(cuEventRecord(theirs, stream));
        ok(cuEventSynchronize(theirs));
        assert_eq!(elapsed(ours, theirs), Err(CUDA_ERROR_INVALID_HANDLE));
        // waits cross contexts
        ok(cuStreamWaitEvent(CU_STREAM_PER_THREAD, ours, 0));
        destroy_events(&[ours, theirs]);
        destroy_streams(&[stream]);
        let mut popped = 0;
        ok(cuCtxPopCurrent_v2(Out::to(&mut popped)));
        assert_eq!(popped, other);
    });
}

#[test]
fn an_event_is_not_opened_in_the_process_that_exported_it() {
    with_seeds(SEEDS, |session| {
        let shared = event(CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING);
        let private = event(NO_TIMING);
        let mut handle = CUipcEventHandle { reserved: [0; 64] };
        let mut opened = 0;
        assert_eq!(
            cuIpcGetEventHandle(Out::to(&mut handle), private),
            CUDA_ERROR_INVALID_HANDLE
        );
        assert_eq!(
            cuIpcOpenEventHandle(Out::to(&mut opened), handle),
            CUDA_ERROR_INVALID_VALUE
        );
        ok(cuIpcGetEventHandle(Out::to(&mut handle), shared));
        assert_eq!(
            cuIpcOpenEventHandle(Out::to(&mut opened), handle),
            CUDA_ERROR_INVALID_CONTEXT
        );
        // now this process acts as the other one too
        session.ipc_in_one_process(true);
        ok(cuIpcOpenEventHandle(Out::to(&mut opened), handle));
        let (stream, words) = (stream(), Words::new(1));
        gate(stream, &words, 0);
        ok(cuEventRecord(shared, stream));
        assert_eq!(cuEventQuery(opened), CUDA_ERROR_NOT_READY);
        words.set(0, 1);
        ok(cuEventSynchronize(opened));
        words.free();
        destroy_events(&[shared, private, opened]);
        destroy_streams(&[stream]);
    });
}
