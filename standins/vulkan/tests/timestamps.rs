//! Timestamps: availability, resets, valid bits, periods and calibration.

mod support;

use ash::vk;
use support::*;

const NONE: vk::CommandBufferUsageFlags = vk::CommandBufferUsageFlags::empty();

/// Two timestamps on a queue of this family, with `spins` kernels of `ns` nanoseconds between them.
fn measure(gpu: &Gpu, family: u32, ns: u32, spins: u32) -> [u64; 2] {
    let (pool, queries, done) = (gpu.pool(family), gpu.queries(2), gpu.timeline(0));
    let word = gpu.words(1, 1);
    let spin = gpu.kernel(c"fencepost_spin", &[word.buffer]);
    let work = gpu.record(pool, NONE, |buffer| {
        gpu.cmd_reset(buffer, queries, 2);
        gpu.cmd_timestamp(buffer, queries, 0);
        gpu.cmd_barrier(buffer);
        (0..spins).for_each(|_| gpu.cmd_run(buffer, &spin, ns));
        gpu.cmd_timestamp(buffer, queries, 1);
    });
    let batch = Batch {
        buffers: &[work],
        signals: &[(done, 1)],
        ..Batch::default()
    };
    gpu.submit(gpu.queue(family, 0), &batch).unwrap();
    gpu.wait(done, 1, FOREVER).unwrap();
    let ticks = gpu.results(queries, 2, Default::default()).unwrap();
    [ticks[0], ticks[1]]
}

#[test]
fn a_timestamp_comes_after_the_work_before_it() {
    with_seeds(30, |_, gpu| {
        let [start, end] = measure(gpu, 0, 1_000_000, 1);
        assert!(end - start >= 1_000_000, "{start} {end}");
    });
}

#[test]
fn each_device_has_a_period_of_its_own() {
    let setup = Setup {
        physical: 1,
        ..Setup::default()
    };
    fencepost_sim::with_seeds(10, |seed| {
        with_seed(seed, &[], setup, |_, gpu| {
            let [start, end] = measure(gpu, 0, 1_000_000_000, 1);
            let ns = (end - start) as f64 * f64::from(52.083_332_f32);
            assert!((0.999e9..20e9).contains(&ns), "{ns}");
            assert!(end - start < 1_000_000_000);
        });
    });
}

#[test]
fn timestamps_of_fewer_bits_wrap() {
    let mask = (1_u64 << 36) - 1;
    // long enough before the wrap for a slow machine; the spins take longer
    let options = [("CLOCK", mask - 8_000_000_000)];
    fencepost_sim::with_seeds(10, |seed| {
        with_seed(seed, &options, Setup::default(), |_, gpu| {
            let [start, end] = measure(gpu, 1, u32::MAX, 3);
            assert!(end < start && start <= mask);
            let passed = end.wrapping_sub(start) & mask;
            assert!(passed >= 3 * u64::from(u32::MAX), "{start} {end}");
        });
        // timestamps of 64 bits do not wrap
        with_seed(seed, &options, Setup::default(), |_, gpu| {
            let [start, end] = measure(gpu, 0, u32::MAX, 3);
            assert!(start < end && end > mask);
        });
    });
}

#[test]
fn results_are_unavailable_until_they_are_written() {
    with_seeds(30, |_, gpu| {
        let (pool, queries, gate) = (gpu.pool(0), gpu.queries(3), gpu.timeline(0));
        gpu.host_reset(queries, 0, 3);
        let work = gpu.record(pool, NONE, |buffer| gpu.cmd_timestamp(buffer, queries, 1));
        let batch = Batch {
            waits: &[(gate, 1)],
            buffers: &[work],
            ..Batch::default()
        };
        gpu.submit(gpu.queue(0, 1), &batch).unwrap();
        let get = |flags| {
            let mut data = [[7_u64; 2]; 3];
            let flags = flags | vk::QueryResultFlags::TYPE_64;
            // SAFETY: the pool is alive, and the data has space
            let got = unsafe {
                gpu.device
                    .get_query_pool_results(queries, 0, &mut data, flags)
            };
            (got, data)
        };
        let with = vk::QueryResultFlags::WITH_AVAILABILITY;
        let (got, data) = get(with);
        // the results of unavailable queries are not written
        assert_eq!((got, data), (Err(vk::Result::NOT_READY), [[7, 0]; 3]));
        gpu.signal(gate, 1).unwrap();
        gpu.queue_wait_idle(gpu.queue(0, 1)).unwrap();
        let (got, data) = get(with);
        assert_eq!(got, Err(vk::Result::NOT_READY));
        assert_eq!(data.map(|[_, available]| available), [0, 1, 0]);
        assert_ne!(data[1][0], 7);
        let mut one = [0_u64];
        let wait = vk::QueryResultFlags::WAIT | vk::QueryResultFlags::TYPE_64;
        // SAFETY: as above
        unsafe {
            gpu.device
                .get_query_pool_results(queries, 1, &mut one, wait)
        }
        .unwrap();
        assert_eq!(one[0], data[1][0]);
    });
}

#[test]
fn a_stale_result_is_seen_until_the_device_runs_the_reset() {
    with_seeds(30, |_, gpu| {
        let (pool, queries, gate) = (gpu.pool(0), gpu.queries(1), gpu.timeline(0));
        let queue = gpu.queue(0, 0);
        let write = gpu.record(pool, NONE, |buffer| {
            gpu.cmd_reset(buffer, queries, 1);
            gpu.cmd_timestamp(buffer, queries, 0);
        });
        let first = Batch {
            buffers: &[write],
            ..Batch::default()
        };
        gpu.submit(queue, &first).unwrap();
        gpu.queue_wait_idle(queue).unwrap();
        let old = gpu.results(queries, 1, Default::default()).unwrap();
        let second = Batch {
            waits: &[(gate, 1)],
            ..first
        };
        gpu.submit(queue, &second).unwrap();
        assert_eq!(gpu.results(queries, 1, Default::default()).unwrap(), old);
        gpu.signal(gate, 1).unwrap();
        gpu.queue_wait_idle(queue).unwrap();
        let new = gpu.results(queries, 1, Default::default()).unwrap();
        assert!(new[0] >= old[0]);
    });
}

#[test]
fn a_timestamp_at_the_top_of_the_pipe_waits_for_no_work() {
    let early = fencepost_sim::find_seed(100, |seed| {
        let _session = control().session(*seed, &[]);
        let gpu = Gpu::new(Setup::default());
        let (pool, queries, word) = (gpu.pool(0), gpu.queries(1), gpu.words(1, 1));
        let spin = gpu.kernel(c"fencepost_spin", &[word.buffer]);
        gpu.host_reset(queries, 0, 1);
        let work = gpu.record(pool, NONE, |buffer| {
            gpu.cmd_run(buffer, &spin, 2_000_000_000);
            let top = vk::PipelineStageFlags::TOP_OF_PIPE;
            // SAFETY: the pool is alive
            unsafe { gpu.device.cmd_write_timestamp(buffer, top, queries, 0) };
        });
        let batch = Batch {
            buffers: &[work],
            ..Batch::default()
        };
        gpu.submit(gpu.queue(0, 0), &batch).unwrap();
        gpu.queue_wait_idle(gpu.queue(0, 0)).unwrap();
        let tick = gpu.results(queries, 1, Default::default()).unwrap()[0];
        gpu.destroy();
        tick < 2_000_000_000
    });
    assert!(early.is_some());
}

#[test]
fn a_calibration_lies_between_two_others() {
    let setup = Setup {
        extensions: &[c"VK_EXT_calibrated_timestamps"],
        ..Setup::default()
    };
    with_seed(1, &[], setup, |_, gpu| {
        let calibrated = ash::ext::calibrated_timestamps::Device::new(&gpu.instance, &gpu.device);
        let of_instance = ash::ext::calibrated_timestamps::Instance::new(&gpu.entry, &gpu.instance);
        // SAFETY: the device is alive
        let domains =
            unsafe { of_instance.get_physical_device_calibrateable_time_domains(gpu.physical) };
        let domains = domains.unwrap();
        let monotonic = vk::TimeDomainKHR::CLOCK_MONOTONIC;
        assert_eq!(domains, [vk::TimeDomainKHR::DEVICE, monotonic]);
        let infos: Vec<_> = domains
            .iter()
            .map(|&domain| vk::CalibratedTimestampInfoKHR::default().time_domain(domain))
            .collect();
        let now = || {
            // SAFETY: the device is alive
            let (values, deviation) =
                unsafe { calibrated.get_calibrated_timestamps(&infos) }.unwrap();
            (values[0], values[1], deviation)
        };
        let (before, [start, _], after) = (now(), measure(gpu, 0, 1000, 1), now());
        assert!(before.0 <= start && start <= after.0);
        assert!(before.1 <= after.1 + before.2 + after.2);
    });
}
