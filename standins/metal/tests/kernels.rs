//! What the four kernels do.
#![cfg(metal_sim)]

mod support;

use objc2::runtime::ProtocolObject;
use objc2_metal::*;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::*;

const SEEDS: u64 = 20;

#[test]
fn append_writes_down_where_it_ran_in_the_order() {
    with_seeds(SEEDS, |_| {
        let gpu = Gpu::open();
        let (append, log, event) = (
            pipeline(&gpu, "fencepost_append"),
            gpu.buffer(4 * 4),
            gpu.event(),
        );
        for token in 1..=5 {
            let buffer = gpu.command_buffer();
            wait_for(&buffer, &event, token - 1);
            dispatch(&buffer, &append, &[&log], 10 * token as u32, (1, 1));
            signal(&buffer, &event, token);
            buffer.commit();
        }
        assert!(event.waitUntilSignaledValue_timeoutMS(5, 60_000));
        assert!(fencepost_sim_metal::Control.wait_idle(GENEROUS));
        let words: Vec<u32> = words(&log)
            .iter()
            .map(|word| word.load(Ordering::SeqCst))
            .collect();
        // it counts on when it is full
        assert_eq!(words, [5, 10, 20, 30]);
    });
}

#[test]
fn append_runs_once_for_each_group() {
    with_seeds(1, |_| {
        let gpu = Gpu::open();
        let (append, log) = (pipeline(&gpu, "fencepost_append"), gpu.buffer(64));
        let buffer = gpu.command_buffer();
        dispatch(&buffer, &append, &[&log], 7, (3, 1));
        buffer.commit();
        buffer.waitUntilCompleted();
        assert_eq!((word(&log, 0), word(&log, 3), word(&log, 4)), (3, 7, 0));
    });
}

#[test]
fn histogram_counts_bytes_and_reduce_adds_with_carry() {
    with_seeds(SEEDS, |_| {
        let gpu = Gpu::open();
        let (histogram, reduce) = (
            pipeline(&gpu, "fencepost_histogram"),
            pipeline(&gpu, "fencepost_reduce"),
        );
        let text = *b"a fencepost and a fence.";
        // SAFETY: so many bytes are there
        let data = unsafe {
            let options = MTLResourceOptions::StorageModeShared;
            gpu.device.newBufferWithBytes_length_options(
                NonNull::from(&text).cast(),
                text.len(),
                options,
            )
        };
        let data = data.unwrap();
        let (counts, sums) = (gpu.buffer(4 * 512), gpu.buffer(4 * 512));
        let e = usize::from(b'e');
        words(&sums)[e].store(u32::MAX, Ordering::SeqCst);
        words(&sums)[e + 256].store(6, Ordering::SeqCst);
        let buffer = gpu.command_buffer();
        // all but the full stop
        dispatch(
            &buffer,
            &histogram,
            &[&data, &counts],
            text.len() as u32 - 1,
            (4, 256),
        );
        dispatch(&buffer, &reduce, &[&counts, &sums], 0, (1, 256));
        buffer.commit();
        buffer.waitUntilCompleted();
        for byte in 0..=u8::MAX {
            let times = text[..text.len() - 1]
                .iter()
                .filter(|other| **other == byte)
                .count();
            assert_eq!(word(&counts, byte.into()) as usize, times);
            if usize::from(byte) != e {
                assert_eq!(word(&sums, byte.into()) as usize, times);
            }
        }
        let times = word(&counts, e);
        assert_eq!((word(&sums, e), word(&sums, e + 256)), (times - 1, 7));
    });
}

#[test]
fn spin_takes_time_on_the_devices_clock() {
    with_seeds(3, |_| {
        let gpu = Gpu::open();
        let (spin, bytes) = (pipeline(&gpu, "fencepost_spin"), gpu.buffer(4));
        for rounds in [1000, 3_000_000] {
            let buffer = gpu.command_buffer();
            dispatch(&buffer, &spin, &[&bytes], rounds, (1, 1));
            let seen = commit(&buffer).recv_timeout(GENEROUS).unwrap();
            let taken = Duration::from_secs_f64(seen.end - seen.start);
            // seconds in an f64 do not hold every nanosecond
            assert!(
                taken + Duration::from_nanos(1) >= Duration::from_nanos(rounds.into()),
                "{taken:?}"
            );
        }
    });
}

#[test]
fn an_argument_table_is_copied_by_each_dispatch() {
    with_seeds(SEEDS, |_| {
        let gpu = Gpu::open();
        let (append, log, other) = (
            pipeline(&gpu, "fencepost_append"),
            gpu.buffer(32),
            gpu.buffer(32),
        );
        let buffer = gpu.command_buffer();
        let encoder = buffer.computeCommandEncoder().unwrap();
        encoder.setComputePipelineState(&append);
        let bind = |bytes: &ProtocolObject<dyn MTLBuffer>, offset| {
            // SAFETY: the kernel stays inside
            unsafe { encoder.setBuffer_offset_atIndex(Some(bytes), offset, 0) };
            set_word(&encoder, 3, 32 - offset as u32);
        };
        for (bytes, offset, token) in [(&log, 0, 1), (&other, 8, 2), (&log, 0, 3)] {
            bind(bytes, offset);
            set_word(&encoder, 2, token);
            encoder.dispatchThreads_threadsPerThreadgroup(size(1), size(1));
        }
        encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
        encoder.endEncoding();
        buffer.commit();
        buffer.waitUntilCompleted();
        assert_eq!([0, 1, 2].map(|place| word(&log, place)), [2, 1, 3]);
        assert_eq!([0, 1, 2, 3].map(|place| word(&other, place)), [0, 0, 1, 2]);
    });
}
