//! Ticks, wraps and calibration.

mod support;

use fencepost_sim::{
    Config, Error, Order, SimDevice, Submission, Violation, find_seed, with_seeds,
};
use support::{device, device_with, queue};

const SEEDS: u64 = 200;

/// Two timestamps with work between them.
fn timestamps(config: Config) -> (u64, u64) {
    let device = device_with(config);
    let queue = queue(&device, Order::InOrder);
    let (start, end) = (device.new_query().unwrap(), device.new_query().unwrap());
    assert_eq!(start.read(), None);
    let mut work = Submission::new().timestamp(&start);
    for _ in 0..20 {
        work = work.run(|| ());
    }
    queue.submit(work.timestamp(&end)).unwrap();
    device.run_until_idle();
    (start.read().unwrap(), end.read().unwrap())
}

#[test]
fn ticks_never_go_back() {
    with_seeds(SEEDS, |seed| {
        let device = device(seed);
        let queue = queue(&device, Order::Overlapping);
        for _ in 0..5 {
            queue.submit(Submission::new().run(|| ())).unwrap();
        }
        let (mut last, first) = (device.tick(), device.tick());
        while device.step() {
            assert!(device.tick() >= last);
            last = device.tick();
        }
        assert!(last > first);
        assert_eq!(device.tick(), last);
    });
}

#[test]
fn timestamps_wrap_at_the_valid_bits() {
    for bits in [32, 36] {
        let mask = (1_u64 << bits) - 1;
        let wraps = |seed: u64| {
            let plain = timestamps(Config::seeded(seed));
            let near_the_end = Config {
                valid_bits: bits,
                initial_tick: mask - 3000,
                ..Config::seeded(seed)
            };
            let (start, end) = timestamps(near_the_end);
            assert!(start <= mask && end <= mask);
            // under the mask, the difference is that of a clock that does not wrap
            assert_eq!(end.wrapping_sub(start) & mask, plain.1 - plain.0);
            end < start
        };
        assert!(find_seed(SEEDS, |&seed| wraps(seed)).is_some());
    }
}

#[test]
fn a_64_bit_clock_wraps_too() {
    let wraps = |seed: u64| {
        let (start, end) = timestamps(Config {
            initial_tick: u64::MAX - 3000,
            ..Config::seeded(seed)
        });
        end < start
    };
    assert!(find_seed(SEEDS, |&seed| wraps(seed)).is_some());
}

#[test]
fn the_period_scales_ticks() {
    with_seeds(SEEDS, |seed| {
        let fine = timestamps(Config::seeded(seed));
        let coarse = timestamps(Config {
            period_ns: 100.0,
            ..Config::seeded(seed)
        });
        let (fine, coarse) = (fine.1 - fine.0, coarse.1 - coarse.0);
        assert!((coarse * 100).abs_diff(fine) <= 100, "{fine} {coarse}");
    });
}

#[test]
fn two_timestamps_may_be_equal() {
    let ties = |seed: u64| {
        let device = device(seed);
        let queue = queue(&device, Order::InOrder);
        let (a, b) = (device.new_query().unwrap(), device.new_query().unwrap());
        queue
            .submit(Submission::new().timestamp(&a).timestamp(&b))
            .unwrap();
        device.run_until_idle();
        a.read().unwrap() == b.read().unwrap()
    };
    assert!(find_seed(SEEDS, |&seed| ties(seed)).is_some());
    assert!(find_seed(SEEDS, |&seed| !ties(seed)).is_some());
}

#[test]
fn a_timestamp_follows_earlier_batches_where_signals_are_ordered() {
    let early = |seed: u64, order| {
        let device = device(seed);
        let queue = queue(&device, order);
        let (gate, query) = (device.new_gate().unwrap(), device.new_query().unwrap());
        queue.submit(Submission::new().gate(&gate)).unwrap();
        queue.submit(Submission::new().timestamp(&query)).unwrap();
        device.run_until_idle();
        query.read().is_some()
    };
    assert!(find_seed(SEEDS, |&seed| early(seed, Order::Overlapping)).is_some());
    with_seeds(SEEDS, |seed| assert!(!early(seed, Order::OrderedSignals)));
}

#[test]
fn the_error_of_a_calibration_is_within_its_uncertainty() {
    let off = |seed: u64| {
        let device = device_with(Config {
            calibration_error_ns: 500,
            ..Config::seeded(seed)
        });
        let queue = queue(&device, Order::InOrder);
        for _ in 0..5 {
            queue.submit(Submission::new().run(|| ())).unwrap();
        }
        device.run_until_idle();
        let reading = device.calibrate();
        assert_eq!(reading.uncertainty_ns, 500);
        assert_eq!(reading.device_tick, device.tick());
        reading.host_ns.abs_diff(device.host_ns())
    };
    with_seeds(SEEDS, |seed| assert!(off(seed) <= 500));
    assert!(find_seed(SEEDS, |&seed| off(seed) > 250).is_some());
}

#[test]
fn a_fast_device_clock_runs_ahead_of_the_host() {
    let device = device_with(Config {
        drift_ppm: 100_000.0,
        initial_tick: 0,
        ..Config::seeded(1)
    });
    let queue = queue(&device, Order::InOrder);
    for _ in 0..100 {
        queue.submit(Submission::new().run(|| ())).unwrap();
    }
    device.run_until_idle();
    let (ticks, host) = (device.tick(), device.host_ns());
    assert!(ticks.abs_diff(host + host / 10) <= 2, "{ticks} {host}");
}

#[test]
fn the_clocks_of_two_devices_drift_apart() {
    let drifts = [0, 1, 2].map(|number| fencepost_sim::drift_of(20.0, number));
    assert_eq!(drifts, [20.0, -20.0, 20.0]);
    assert_ne!(fencepost_sim::offset_of(0), fencepost_sim::offset_of(1));
}

#[test]
fn each_device_of_a_machine_has_its_own_clock() {
    let here = device(1);
    let there = here
        .another(Config {
            initial_tick: 1000,
            period_ns: 10.0,
            ..Config::seeded(1)
        })
        .unwrap();
    here.new_queue()
        .unwrap()
        .submit(Submission::new().run(|| ()).run(|| ()))
        .unwrap();
    here.run_until_idle();
    assert_eq!(here.host_ns(), there.host_ns());
    assert_eq!(there.tick() - 1000, (here.tick() - 1) / 10);
}

#[test]
fn a_clock_without_valid_bits_has_no_timestamps() {
    let device = device_with(Config {
        valid_bits: 0,
        ..Config::seeded(1)
    });
    let query = device.new_query().unwrap();
    device
        .new_queue()
        .unwrap()
        .submit(Submission::new().timestamp(&query))
        .unwrap();
    device.run_until_idle();
    assert_eq!((query.read(), device.tick()), (None, 0));
    assert_eq!(device.violations(), [Violation::NoTimestamps]);
}

#[test]
fn an_impossible_configuration_is_refused() {
    let plain = || Config::seeded(1);
    for config in [
        Config {
            period_ns: 0.0,
            ..plain()
        },
        Config {
            period_ns: f64::NAN,
            ..plain()
        },
        Config {
            drift_ppm: -2e6,
            ..plain()
        },
        Config {
            valid_bits: 65,
            ..plain()
        },
        Config {
            max_overlap: 0,
            ..plain()
        },
        Config {
            max_pending: Some(0),
            ..plain()
        },
        Config {
            channels: Some(0),
            ..plain()
        },
    ] {
        assert!(matches!(SimDevice::new(config), Err(Error::BadConfig(_))));
    }
}

#[test]
fn work_that_takes_time_advances_the_clock() {
    with_seeds(SEEDS, |seed| {
        let device = device(seed);
        let queue = queue(&device, Order::InOrder);
        let (start, end) = (device.new_query().unwrap(), device.new_query().unwrap());
        let inside = device.clone();
        let spin = move || inside.advance(1_000_000_000);
        let work = Submission::new()
            .timestamp(&start)
            .run(spin)
            .timestamp(&end);
        queue.submit(work).unwrap();
        device.run_until_idle();
        assert!(end.read().unwrap() - start.read().unwrap() >= 1_000_000_000);
    });
}

#[test]
fn a_clock_that_follows_real_time_lies_between_reads_of_the_host() {
    with_seeds(10, |seed| {
        let before = std::time::Instant::now();
        let device = device_with(Config {
            follows_real_time: true,
            initial_tick: 0,
            ..Config::seeded(seed)
        });
        let made = std::time::Instant::now();
        let queue = queue(&device, Order::InOrder);
        for _ in 0..100 {
            let query = device.new_query().unwrap();
            let least = made.elapsed();
            queue.submit(Submission::new().timestamp(&query)).unwrap();
            device.run_until_idle();
            let most = before.elapsed().as_nanos();
            let tick = u128::from(query.read().unwrap());
            assert!(
                least.as_nanos() <= tick && tick <= most,
                "{tick}: {least:?}, {most}"
            );
            // it follows where no step is taken, too
            let (least, tick) = (made.elapsed().as_nanos(), u128::from(device.tick()));
            assert!(least <= tick && tick <= before.elapsed().as_nanos());
        }
    });
}

#[test]
fn a_clock_that_follows_real_time_includes_time_spent_by_the_host() {
    with_seeds(10, |seed| {
        let device = device_with(Config {
            follows_real_time: true,
            ..Config::seeded(seed)
        });
        let queue = queue(&device, Order::InOrder);
        let (start, end) = (device.new_query().unwrap(), device.new_query().unwrap());
        let gate = device.new_gate().unwrap();
        let work = Submission::new().timestamp(&start).gate(&gate);
        queue.submit(work.timestamp(&end)).unwrap();
        device.run_until_idle();
        let start_of_sleep = std::time::Instant::now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let slept = start_of_sleep.elapsed().as_nanos();
        gate.open();
        device.run_until_idle();
        assert!(u128::from(end.read().unwrap() - start.read().unwrap()) >= slept);
    });
}
