//! Stream capture and graphs.

mod support;

use fencepost_sim_cuda::codes::*;
use fencepost_sim_cuda::*;
use std::collections::BTreeSet;
use support::*;

const GLOBAL: u32 = CU_STREAM_CAPTURE_MODE_GLOBAL;
const THREAD_LOCAL: u32 = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
const RELAXED: u32 = CU_STREAM_CAPTURE_MODE_RELAXED;

const SEEDS: u64 = 30;

fn begin(stream: CUstream, mode: u32) {
    ok(cuStreamBeginCapture_v2(stream, mode));
}

fn end(stream: CUstream) -> Result<CUgraph, CUresult> {
    let mut graph = 7;
    match cuStreamEndCapture(stream, Out::to(&mut graph)) {
        CUDA_SUCCESS => Ok(graph),
        code => {
            assert_eq!(graph, 0);
            Err(code)
        }
    }
}

fn status(stream: CUstream) -> i32 {
    let mut status = 9;
    ok(cuStreamIsCapturing(stream, Out::to(&mut status)));
    status
}

fn exchange(mut mode: u32) -> u32 {
    ok(cuThreadExchangeStreamCaptureMode(Some(&mut mode)));
    mode
}

fn instantiate(graph: CUgraph) -> CUgraphExec {
    let mut exec = 0;
    ok(cuGraphInstantiateWithFlags(Out::to(&mut exec), graph, 0));
    ok(cuGraphDestroy(graph));
    exec
}

#[test]
fn captured_work_runs_when_the_graph_is_launched() {
    with_seeds(SEEDS, |_| {
        let (stream, log) = (stream(), Log::new());
        begin(stream, GLOBAL);
        log.append(stream, 1);
        log.append(stream, 2);
        let mut id = 0;
        let mut capturing = 0;
        ok(cuStreamGetCaptureInfo_v2(
            stream,
            Out::to(&mut capturing),
            Out::to(&mut id),
            Out::null(),
            Out::null(),
            Out::null(),
        ));
        assert_eq!((capturing, status(stream)), (1, 1));
        assert_ne!(id, 0);
        let graph = end(stream).unwrap();
        assert_eq!(status(stream), 0);
        ok(cuStreamSynchronize(stream));
        assert_eq!(log.tokens(), []);
        let exec = instantiate(graph);
        ok(cuGraphLaunch(exec, stream));
        log.append(stream, 3);
        ok(cuGraphLaunch(exec, stream));
        ok(cuStreamSynchronize(stream));
        assert_eq!(log.tokens(), [1, 2, 3, 1, 2]);
        ok(cuGraphExecDestroy(exec));
        log.free();
        destroy_streams(&[stream]);
    });
}

/// The orders in which the nodes of a graph with a fork and a join run.
fn forked(wait: bool) -> BTreeSet<Vec<u32>> {
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        let tokens = std::cell::RefCell::new(Vec::new());
        with_seed(seed, |_| {
            let (origin, branch, log) = (stream(), stream(), Log::new());
            let (fork, join) = (event(NO_TIMING), event(NO_TIMING));
            begin(origin, GLOBAL);
            log.append(origin, 1);
            ok(cuEventRecord(fork, origin));
            ok(cuStreamWaitEvent(branch, fork, 0));
            assert_eq!(status(branch), 1);
            log.append(branch, 2);
            ok(cuEventRecord(join, branch));
            if wait {
                ok(cuStreamWaitEvent(origin, join, 0));
            }
            log.append(origin, 3);
            ok(cuStreamWaitEvent(origin, join, 0));
            log.append(origin, 4);
            let exec = instantiate(end(origin).unwrap());
            assert_eq!((status(origin), status(branch)), (0, 0));
            ok(cuGraphLaunch(exec, origin));
            ok(cuStreamSynchronize(origin));
            tokens.replace(log.tokens());
            ok(cuGraphExecDestroy(exec));
            log.free();
            destroy_events(&[fork, join]);
            destroy_streams(&[origin, branch]);
        });
        seen.insert(tokens.into_inner());
    }
    seen
}

#[test]
fn branches_of_a_graph_run_in_any_order_that_its_waits_permit() {
    assert_eq!(forked(false), [vec![1, 2, 3, 4], vec![1, 3, 2, 4]].into());
    assert_eq!(forked(true), [vec![1, 2, 3, 4]].into());
}

#[test]
fn a_captured_event_is_valid_for_waits_only() {
    with_seeds(1, |_| {
        let (stream, event, other) = (stream(), event(TIMING), event(TIMING));
        for ask in [cuEventQuery, cuEventSynchronize] {
            begin(stream, RELAXED);
            ok(cuEventRecord(event, stream));
            assert_eq!(ask(event), CUDA_ERROR_CAPTURED_EVENT);
            assert_eq!(end(stream), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        }
        begin(stream, RELAXED);
        ok(cuEventRecord(event, stream));
        assert_eq!(elapsed(event, other), Err(CUDA_ERROR_CAPTURED_EVENT));
        ok(cuGraphDestroy(end(stream).unwrap()));
        // once the capture has ended, the event is invalid until it is recorded again
        assert_eq!(cuEventQuery(event), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(
            cuStreamWaitEvent(stream, event, 0),
            CUDA_ERROR_INVALID_VALUE
        );
        ok(cuEventRecord(event, stream));
        ok(cuEventSynchronize(event));
        destroy_events(&[event, other]);
        destroy_streams(&[stream]);
    });
}

#[test]
fn an_external_record_happens_when_the_graph_runs() {
    with_seeds(SEEDS, |_| {
        let (stream, start, stop) = (stream(), event(TIMING), event(TIMING));
        let (module, spin) = kernel(c"fencepost_spin");
        for event in [start, stop] {
            let outside = cuEventRecordWithFlags(event, stream, 1);
            assert_eq!(outside, CUDA_ERROR_ILLEGAL_STATE);
        }
        begin(stream, GLOBAL);
        ok(cuEventRecordWithFlags(start, stream, 1));
        ok(launch(spin, stream, &mut [2_000_000]));
        ok(cuEventRecordWithFlags(stop, stream, 1));
        let graph = end(stream).unwrap();
        assert_eq!(elapsed(start, stop), Err(CUDA_ERROR_INVALID_HANDLE));
        let exec = instantiate(graph);
        for _ in 0..2 {
            ok(cuGraphLaunch(exec, stream));
            ok(cuEventSynchronize(stop));
            assert!(elapsed(start, stop).is_ok_and(|time| time >= 2.0));
        }
        ok(cuGraphExecDestroy(exec));
        ok(cuModuleUnload(module));
        destroy_events(&[start, stop]);
        destroy_streams(&[stream]);
    });
}

#[test]
fn an_external_wait_happens_when_the_graph_runs() {
    with_seeds(SEEDS, |_| {
        let (stream, other, event) = (stream(), stream(), event(NO_TIMING));
        let (words, log) = (Words::new(1), Log::new());
        begin(stream, GLOBAL);
        ok(cuStreamWaitEvent(stream, event, 1));
        log.append(stream, 2);
        let exec = instantiate(end(stream).unwrap());
        gate(other, &words, 0);
        log.append(other, 1);
        ok(cuEventRecord(event, other));
        ok(cuGraphLaunch(exec, stream));
        assert_eq!(log.tokens(), []);
        words.set(0, 1);
        ok(cuStreamSynchronize(stream));
        assert_eq!(log.tokens(), [1, 2]);
        ok(cuGraphExecDestroy(exec));
        log.free();
        words.free();
        destroy_events(&[event]);
        destroy_streams(&[stream, other]);
    });
}

/// Queries an event that is not part of the capture, from a thread in `thread_mode`. Returns the
/// results of the query and of the end of the capture.
fn query_during_capture(
    capture_mode: u32,
    thread_mode: u32,
    same_thread: bool,
) -> (CUresult, CUresult) {
    let results = std::cell::Cell::new((0, 0));
    with_seed(0, |_| {
        let (captured, stream, event) = (stream(), stream(), event(NO_TIMING));
        ok(cuEventRecord(event, stream));
        ok(cuEventSynchronize(event));
        begin(captured, capture_mode);
        let ask = || {
            let before = exchange(thread_mode);
            let queried = cuEventQuery(event);
            assert_eq!(exchange(before), thread_mode);
            queried
        };
        let queried = if same_thread {
            ask()
        } else {
            std::thread::scope(|scope| scope.spawn(ask).join().unwrap())
        };
        let ended = match end(captured) {
            Ok(graph) => cuGraphDestroy(graph),
            Err(code) => code,
        };
        results.set((queried, ended));
        destroy_events(&[event]);
        destroy_streams(&[captured, stream]);
    });
    results.get()
}

#[test]
fn the_modes_determine_which_queries_invalidate_a_capture() {
    let invalidated = (
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
        CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
    );
    for (capture, thread, same, expected) in [
        (GLOBAL, GLOBAL, true, invalidated),
        (GLOBAL, GLOBAL, false, invalidated),
        (GLOBAL, THREAD_LOCAL, true, invalidated),
        (GLOBAL, THREAD_LOCAL, false, (0, 0)),
        (GLOBAL, RELAXED, true, (0, 0)),
        (GLOBAL, RELAXED, false, (0, 0)),
        (THREAD_LOCAL, GLOBAL, true, invalidated),
        (THREAD_LOCAL, GLOBAL, false, (0, 0)),
        (THREAD_LOCAL, RELAXED, true, (0, 0)),
        (RELAXED, GLOBAL, true, (0, 0)),
        (RELAXED, GLOBAL, false, (0, 0)),
    ] {
        let got = query_during_capture(capture, thread, same);
        assert_eq!(got, expected, "{capture} {thread} {same}");
    }
}

#[test]
fn potentially_unsafe_calls_invalidate_a_global_capture() {
    with_seeds(1, |_| {
        let (captured, stream, event, words) =
            (stream(), stream(), event(NO_TIMING), Words::new(1));
        let mut memory = 0;
        let mut pointer = std::ptr::null_mut();
        let calls: [&mut dyn FnMut() -> CUresult; 8] = [
            &mut || cuEventQuery(event),
            &mut || cuEventSynchronize(event),
            &mut || cuStreamQuery(stream),
            &mut || cuStreamSynchronize(stream),
            &mut || cuCtxSynchronize(),
            &mut || cuMemAlloc_v2(Out::to(&mut memory), 4),
            &mut || cuMemHostAlloc(Out::to(&mut pointer), 4, 0),
            &mut || cuMemFreeHost(words.pointer()),
        ];
        for call in calls {
            begin(captured, GLOBAL);
            assert_eq!(call(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
            assert_eq!(status(captured), 2);
            assert_eq!(
                cuEventRecord(event, captured),
                CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
            );
            assert_eq!(end(captured), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        }
        // these calls are safe
        begin(captured, GLOBAL);
        let made = support::event(TIMING);
        ok(cuEventRecord(made, stream));
        ok(cuStreamWaitEvent(stream, made, 0));
        destroy_events(&[made]);
        ok(cuGraphDestroy(end(captured).unwrap()));
        words.free();
        destroy_events(&[event]);
        destroy_streams(&[captured, stream]);
    });
}

#[test]
fn a_capturing_stream_refuses_queries_even_in_relaxed_mode() {
    with_seeds(1, |_| {
        let stream = stream();
        for ask in [cuStreamQuery, cuStreamSynchronize] {
            begin(stream, RELAXED);
            assert_eq!(ask(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
            assert_eq!(end(stream), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        }
        begin(stream, RELAXED);
        let number = cuStreamGetId(stream, Out::to(&mut 0));
        assert_eq!(number, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        assert_eq!(end(stream), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        begin(stream, RELAXED);
        let flags = cuStreamGetFlags(stream, Out::to(&mut 0));
        assert_eq!(flags, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        assert_eq!(end(stream), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        begin(stream, RELAXED);
        ok(cuStreamGetCtx(stream, Out::to(&mut 0)));
        ok(cuGraphDestroy(end(stream).unwrap()));
        destroy_streams(&[stream]);
    });
}

#[test]
fn the_legacy_stream_is_refused_while_a_blocking_stream_is_captured() {
    with_seeds(1, |_| {
        let (blocking, free, event) = (stream_with(0), stream(), event(NO_TIMING));
        assert_eq!(
            cuStreamBeginCapture_v2(CU_STREAM_LEGACY, RELAXED),
            CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        );
        begin(blocking, RELAXED);
        let mut got = 0;
        assert_eq!(
            cuStreamIsCapturing(0, Out::to(&mut got)),
            CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
        );
        assert_eq!(status(blocking), 1);
        assert_eq!(cuEventRecord(event, 0), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
        assert_eq!(end(blocking), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        begin(free, RELAXED);
        ok(cuEventRecord(event, 0));
        assert_eq!(status(0), 0);
        ok(cuGraphDestroy(end(free).unwrap()));
        destroy_events(&[event]);
        destroy_streams(&[blocking, free]);
    });
}

#[test]
fn captures_do_not_merge_and_do_not_depend_on_work_outside() {
    with_seeds(1, |_| {
        let [a, b, outside] = [stream(), stream(), stream()];
        let event = event(NO_TIMING);

        begin(a, RELAXED);
        begin(b, RELAXED);
        ok(cuEventRecord(event, a));
        assert_eq!(
            cuStreamWaitEvent(b, event, 0),
            CUDA_ERROR_STREAM_CAPTURE_MERGE
        );
        assert_eq!(end(a), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        assert_eq!(end(b), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));

        ok(cuEventRecord(event, outside));
        begin(a, RELAXED);
        assert_eq!(
            cuStreamWaitEvent(a, event, 0),
            CUDA_ERROR_STREAM_CAPTURE_ISOLATION
        );
        assert_eq!(end(a), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));

        destroy_events(&[event]);
        destroy_streams(&[a, b, outside]);
    });
}

#[test]
fn a_capture_ends_in_its_origin_stream_and_thread_with_all_branches_joined() {
    with_seeds(1, |_| {
        let (origin, branch, event, log) = (stream(), stream(), event(NO_TIMING), Log::new());
        assert_eq!(end(origin), Err(CUDA_ERROR_ILLEGAL_STATE));
        begin(origin, GLOBAL);
        assert_eq!(
            cuStreamBeginCapture_v2(origin, GLOBAL),
            CUDA_ERROR_ILLEGAL_STATE
        );
        ok(cuEventRecord(event, origin));
        ok(cuStreamWaitEvent(branch, event, 0));
        assert_eq!(end(branch), Err(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED));
        assert_eq!(end(origin), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));

        begin(origin, GLOBAL);
        ok(cuEventRecord(event, origin));
        ok(cuStreamWaitEvent(branch, event, 0));
        log.append(branch, 1);
        assert_eq!(end(origin), Err(CUDA_ERROR_STREAM_CAPTURE_UNJOINED));

        begin(origin, GLOBAL);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| end(origin));
            assert_eq!(
                other.join().unwrap(),
                Err(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD)
            );
        });
        assert_eq!(end(origin), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        log.free();
        destroy_events(&[event]);
        destroy_streams(&[origin, branch]);
    });
}
