//! Which work is ordered, and which is not.

mod support;

use fencepost_sim_cuda::codes::*;
use fencepost_sim_cuda::*;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use support::*;

const SEEDS: u64 = 60;

/// The orders in which work of two streams runs over many seeds. The second stream's work is
/// submitted after the first's.
fn orders(make: fn() -> [CUstream; 2], wait: bool) -> BTreeSet<Vec<u32>> {
    let seen = RefCell::new(BTreeSet::new());
    // always all seeds, since the one seed of a replay cannot show two orders
    let each_seed = |test: &dyn Fn(&Session<'_>)| (0..SEEDS).for_each(|s| with_seed(s, test));
    each_seed(&|session| {
        let ([first, second], words, log) = (make(), Words::new(1), Log::new());
        // neither may run before both are submitted
        let gated = stream();
        gate(gated, &words, 0);
        let (opened, done) = (event(NO_TIMING), event(NO_TIMING));
        ok(cuEventRecord(opened, gated));
        ok(cuStreamWaitEvent(first, opened, 0));
        log.append(first, 1);
        ok(cuEventRecord(done, first));
        ok(cuStreamWaitEvent(second, opened, 0));
        if wait {
            ok(cuStreamWaitEvent(second, done, 0));
        }
        log.append(second, 2);
        words.set(0, 1);
        assert!(session.wait_idle(HANG_TIMEOUT));
        seen.borrow_mut().insert(log.tokens());
        log.free();
        words.free();
        destroy_events(&[opened, done]);
        for stream in [first, second, gated] {
            if stream > CU_STREAM_PER_THREAD {
                destroy_streams(&[stream]);
            }
        }
    });
    seen.into_inner()
}

fn one_order() -> BTreeSet<Vec<u32>> {
    [vec![1, 2]].into()
}

fn any_order() -> BTreeSet<Vec<u32>> {
    [vec![1, 2], vec![2, 1]].into()
}

#[test]
fn without_a_wait_two_streams_run_in_any_order() {
    assert_eq!(orders(|| [stream(), stream()], false), any_order());
}

#[test]
fn a_wait_orders_two_streams() {
    assert_eq!(orders(|| [stream(), stream()], true), one_order());
}

#[test]
fn one_stream_runs_in_order() {
    assert_eq!(orders(|| [CU_STREAM_PER_THREAD; 2], false), one_order());
}

#[test]
fn the_legacy_stream_orders_blocking_streams() {
    assert_eq!(orders(|| [0, stream_with(0)], false), one_order());
    assert_eq!(
        orders(|| [stream_with(0), CU_STREAM_LEGACY], false),
        one_order()
    );
    assert_eq!(
        orders(|| [CU_STREAM_PER_THREAD, CU_STREAM_LEGACY], false),
        one_order()
    );
}

#[test]
fn blocking_streams_do_not_order_each_other() {
    assert_eq!(
        orders(|| [stream_with(0), stream_with(0)], false),
        any_order()
    );
}

#[test]
fn the_legacy_stream_does_not_order_non_blocking_streams() {
    assert_eq!(orders(|| [CU_STREAM_LEGACY, stream()], false), any_order());
    assert_eq!(orders(|| [stream(), CU_STREAM_LEGACY], false), any_order());
}

#[test]
fn each_thread_has_its_own_default_stream() {
    with_seeds(1, |_| {
        let id = || {
            let mut id = 0;
            ok(cuStreamGetId(CU_STREAM_PER_THREAD, Out::to(&mut id)));
            id
        };
        let mut context = 0;
        ok(cuCtxGetCurrent(Out::to(&mut context)));
        let theirs = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                ok(cuCtxSetCurrent(context));
                id()
            });
            other.join().unwrap()
        });
        assert_eq!(id(), id());
        assert_ne!(id(), theirs);
        let mut legacy = [0; 2];
        ok(cuStreamGetId(0, Out::to(&mut legacy[0])));
        ok(cuStreamGetId(CU_STREAM_LEGACY, Out::to(&mut legacy[1])));
        assert_eq!(legacy[0], legacy[1]);
    });
}

#[test]
fn streams_know_their_context_flags_and_number() {
    with_seeds(1, |_| {
        let mut seen = BTreeSet::new();
        let mut current = 0;
        ok(cuCtxGetCurrent(Out::to(&mut current)));
        for flags in [0, CU_STREAM_NON_BLOCKING] {
            let stream = stream_with(flags);
            let (mut context, mut got, mut id) = (0, 9, 0);
            ok(cuStreamGetCtx(stream, Out::to(&mut context)));
            ok(cuStreamGetFlags(stream, Out::to(&mut got)));
            ok(cuStreamGetId(stream, Out::to(&mut id)));
            assert_eq!((context, got), (current, flags));
            assert!(seen.insert(id));
            destroy_streams(&[stream]);
        }
    });
}

#[test]
fn a_recycled_handle_is_another_stream() {
    with_seeds(1, |session| {
        session.recycle_handles(true);
        let id = |stream| {
            let mut id = 0;
            ok(cuStreamGetId(stream, Out::to(&mut id)));
            id
        };
        let first = stream();
        let first_id = id(first);
        destroy_streams(&[first]);
        let second = stream();
        assert_eq!(first, second);
        assert_ne!(first_id, id(second));
        destroy_streams(&[second]);
    });
}

#[test]
fn streams_wait_for_words_and_write_them_in_order() {
    with_seeds(SEEDS, |_| {
        let (stream, words) = (stream(), Words::new(5));
        let at = |index: u64| words.address() + 4 * index;
        words.set(0, u32::MAX);
        // modulo 2^32: 2 comes after u32::MAX
        ok(cuStreamWaitValue32_v2(stream, at(0), 2, 0));
        ok(cuStreamWriteValue32_v2(stream, at(1), 5, 0));
        ok(cuStreamWaitValue32_v2(stream, at(1), 5, 1));
        ok(cuStreamWaitValue32_v2(stream, at(1), 4, 2));
        ok(cuStreamWaitValue32_v2(stream, at(1), 0, 3));
        ok(cuStreamWriteValue32_v2(stream, at(2), 6, 0));
        assert_eq!(words.get(1), 0);
        words.set(0, 3);
        ok(cuStreamSynchronize(stream));
        assert_eq!((words.get(1), words.get(2)), (5, 6));
        let outside = cuStreamWaitValue32_v2(stream, at(5), 0, 0);
        assert_eq!(outside, CUDA_ERROR_INVALID_VALUE);
        words.free();
        destroy_streams(&[stream]);
    });
}

#[test]
fn a_host_function_runs_in_the_order_of_the_stream_and_may_not_call_the_driver() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    static CODE: AtomicU32 = AtomicU32::new(0);
    unsafe extern "C" fn query_event(data: *mut c_void) {
        CODE.store(cuEventQuery(data.addr()), Ordering::SeqCst);
        RAN.fetch_add(1, Ordering::SeqCst);
    }
    with_seeds(SEEDS, |session| {
        RAN.store(0, Ordering::SeqCst);
        let (stream, words, event) = (stream(), Words::new(1), event(NO_TIMING));
        gate(stream, &words, 0);
        let data = std::ptr::without_provenance_mut(event);
        // SAFETY: the function takes any argument
        ok(unsafe { cuLaunchHostFunc(stream, Some(query_event), data) });
        ok(cuEventRecord(event, stream));
        assert_eq!(RAN.load(Ordering::SeqCst), 0);
        words.set(0, 1);
        ok(cuEventSynchronize(event));
        assert_eq!(RAN.load(Ordering::SeqCst), 1);
        assert_eq!(CODE.load(Ordering::SeqCst), CUDA_ERROR_NOT_PERMITTED);
        session.clear_violations_of("was called in a host function");
        words.free();
        destroy_events(&[event]);
        destroy_streams(&[stream]);
    });
}

#[test]
fn waits_cross_devices() {
    with_seeds(SEEDS, |_| {
        let (ours, words, log) = (stream(), Words::new(1), Log::new());
        let other = retain(1);
        ok(cuCtxPushCurrent_v2(other));
        let (theirs, event, their_log) = (stream(), event(NO_TIMING), Log::new());
        gate(theirs, &words, 0);
        their_log.append(theirs, 1);
        ok(cuEventRecord(event, theirs));
        ok(cuStreamWaitEvent(ours, event, 0));
        log.append(ours, 2);
        assert_eq!(cuStreamQuery(ours), CUDA_ERROR_NOT_READY);
        assert_eq!(log.tokens(), []);
        words.set(0, 1);
        ok(cuStreamSynchronize(ours));
        assert_eq!((their_log.tokens(), log.tokens()), (vec![1], vec![2]));
        their_log.free();
        destroy_events(&[event]);
        destroy_streams(&[theirs, ours]);
        ok(cuCtxPopCurrent_v2(Out::null()));
        log.free();
        words.free();
    });
}

#[test]
fn memory_is_copied_between_devices() {
    with_seeds(SEEDS, |_| {
        let (mut mine, other) = (0, retain(1));
        ok(cuCtxGetCurrent(Out::to(&mut mine)));
        let (stream, mut to) = (stream(), 0);
        ok(cuMemAlloc_v2(Out::to(&mut to), 4));
        ok(cuCtxPushCurrent_v2(other));
        let mut from = 0;
        ok(cuMemAlloc_v2(Out::to(&mut from), 4));
        // SAFETY: four bytes
        ok(unsafe { cuMemcpyHtoD_v2(from, b"here".as_ptr().cast(), 4) });
        ok(cuCtxPopCurrent_v2(Out::null()));
        let swapped = cuMemcpyPeerAsync(to, other, from, mine, 4, stream);
        assert_eq!(
            swapped, CUDA_ERROR_INVALID_VALUE,
            "each address belongs to the other context"
        );
        ok(cuMemcpyPeerAsync(to, mine, from, other, 4, stream));
        ok(cuStreamSynchronize(stream));
        let mut read = [0; 4];
        // SAFETY: there is space for four bytes
        ok(unsafe { cuMemcpyDtoH_v2(read.as_mut_ptr().cast(), to, 4) });
        assert_eq!(read, *b"here");
        destroy_streams(&[stream]);
        ok(cuMemFree_v2(to));
        ok(cuMemFree_v2(from));
    });
}

#[test]
fn a_paused_stream_blocks_no_other() {
    with_seeds(SEEDS, |session| {
        let (paused, free, log) = (stream(), stream(), Log::new());
        session.pause(paused);
        log.append(paused, 1);
        log.append(free, 2);
        ok(cuStreamSynchronize(free));
        assert_eq!(log.tokens(), [2]);
        session.resume(paused);
        ok(cuCtxSynchronize());
        assert_eq!(log.tokens(), [2, 1]);
        log.free();
        destroy_streams(&[paused, free]);
    });
}

#[test]
fn kernels_count_bytes_and_add_bins() {
    with_seeds(10, |_| {
        let text = *b"fencepost";
        let (mut data, mut bins, mut sum) = (0, 0, 0);
        ok(cuMemAlloc_v2(Out::to(&mut data), text.len()));
        ok(cuMemAlloc_v2(Out::to(&mut bins), 2048));
        ok(cuMemAlloc_v2(Out::to(&mut sum), 2048));
        let (module, histogram) = kernel(c"fencepost_histogram");
        let (other_module, reduce) = kernel(c"fencepost_reduce");
        let stream = stream();
        let len = text.len();
        // SAFETY: the text is that long
        ok(unsafe { cuMemcpyHtoDAsync_v2(data, text.as_ptr().cast(), len, stream) });
        ok(cuMemsetD8Async(bins, 0, 2048, stream));
        ok(cuMemsetD32Async(sum, 0, 512, stream));
        ok(launch(histogram, stream, &mut [data, len as u64, bins]));
        ok(launch(reduce, stream, &mut [bins, sum]));
        ok(launch(reduce, stream, &mut [bins, sum]));
        let mut counts = [0_u64; 256];
        let to = counts.as_mut_ptr().cast();
        // SAFETY: there is space for as many bytes
        ok(unsafe { cuMemcpyDtoHAsync_v2(to, sum, 2048, stream) });
        assert_eq!(counts.iter().sum::<u64>(), 2 * text.len() as u64);
        assert_eq!(counts[usize::from(b'e')], 4);
        let mut again = [0_u8; 9];
        // SAFETY: there is space for as many bytes
        ok(unsafe { cuMemcpyDtoH_v2(again.as_mut_ptr().cast(), data, len) });
        assert_eq!(again, text);
        // SAFETY: the text is that long
        ok(unsafe { cuMemcpyHtoD_v2(data, b"posts".as_ptr().cast(), 5) });
        // SAFETY: there is space for as many bytes
        ok(unsafe { cuMemcpyDtoH_v2(again.as_mut_ptr().cast(), data, len) });
        assert_eq!(&again, b"postspost");
        for memory in [data, bins, sum] {
            ok(cuMemFree_v2(memory));
        }
        ok(cuModuleUnload(module));
        ok(cuModuleUnload(other_module));
        destroy_streams(&[stream]);
    });
}

#[test]
fn a_full_stream_blocks_its_caller_until_there_is_space() {
    with_seeds(3, |session| {
        let (full, other, event, words) = (stream(), stream(), event(NO_TIMING), Words::new(1));
        gate(full, &words, 0);
        session.queue_depth(3);
        ok(cuEventRecord(event, full));
        assert_eq!(session.pending_work().lines().count(), 2);
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| cuEventRecord(event, full));
            // other streams do not block
            ok(cuStreamSynchronize(other));
            while session.pending_work().lines().count() < 3 {
                std::thread::yield_now();
            }
            assert!(!caller.is_finished());
            words.set(0, 1);
            ok(caller.join().unwrap());
        });
        session.queue_depth(0);
        words.free();
        destroy_events(&[event]);
        destroy_streams(&[full, other]);
    });
}
