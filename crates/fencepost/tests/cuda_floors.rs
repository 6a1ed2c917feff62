//! What CUDA's operations cost beside the bare driver's, in turns in one process; and how their
//! times compare. Run by hand on a machine with a GPU:
//!
//!     cargo test --release -p fencepost --features cuda --test cuda_floors -- --ignored --nocapture
#![cfg(all(feature = "cuda", not(loom)))]

use std::{
    ffi::{c_int, c_uint, c_void},
    hint::black_box,
    time::Instant,
};

use fencepost::{Device, Event, cuda, testing::work};

type Handle = *mut c_void;

macro_rules! bare {
    ($($name:ident = $symbol:literal ($($argument:ty),*);)*) => {
        /// The bare driver.
        struct Bare { $($name: unsafe extern "system" fn($($argument),*) -> c_int,)* }
        impl Bare {
            fn load() -> Bare {
                // SAFETY: the driver that the library under test has loaded already, and the C
                // signatures of its reference.
                unsafe {
                    let library = Box::leak(Box::new(
                        libloading::Library::new("libcuda.so.1").unwrap(),
                    ));
                    Bare { $($name: *library.get(concat!($symbol, "\0").as_bytes()).unwrap(),)* }
                }
            }
        }
    };
}

bare! {
    create = "cuEventCreate" (*mut Handle, c_uint);
    destroy = "cuEventDestroy_v2" (Handle);
    record = "cuEventRecord" (Handle, Handle);
    query = "cuEventQuery" (Handle);
    synchronize = "cuEventSynchronize" (Handle);
    wait = "cuStreamWaitEvent" (Handle, Handle, c_uint);
    elapsed = "cuEventElapsedTime" (*mut f32, Handle, Handle);
    device_get = "cuDeviceGet" (*mut c_int, c_int);
    retain = "cuDevicePrimaryCtxRetain" (*mut Handle, c_int);
    set_current = "cuCtxSetCurrent" (Handle);
    ctx_id = "cuCtxGetId" (Handle, *mut u64);
    state = "cuDevicePrimaryCtxGetState" (c_int, *mut c_uint, *mut c_int);
    is_capturing = "cuStreamIsCapturing" (Handle, *mut c_int);
}

/// Like `drop`, for what needs none.
fn ignore<T>(_: T) {}

const ROUNDS: usize = 41;

/// The median and spread (10th to 90th percentile) of `ours / bare`, taken in turns.
fn compare(
    name: &str,
    floor: f64,
    calls: usize,
    mut ours: impl FnMut(),
    mut bare: impl FnMut(),
    settle: impl Fn(),
) {
    let time = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..calls {
            call();
        }
        let nanos = start.elapsed().as_nanos() as f64 / calls as f64;
        settle();
        nanos
    };
    let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS + 3 {
        let (x, y) = if round % 2 == 0 {
            let x = time(&mut ours);
            (x, time(&mut bare))
        } else {
            let y = time(&mut bare);
            (time(&mut ours), y)
        };
        if round >= 3 {
            a.push(x);
            b.push(y);
            ratios.push(x / y);
        }
    }
    for list in [&mut a, &mut b, &mut ratios] {
        list.sort_by(f64::total_cmp);
    }
    let at = |list: &[f64], part: f64| list[(part * (list.len() - 1) as f64) as usize];
    let ratio = at(&ratios, 0.5);
    println!(
        "{name:42} {:8.1} ns, bare {:8.1} ns, ratio {ratio:.3} ({:.3} to {:.3}), bound {floor}: {}",
        at(&a, 0.5),
        at(&b, 0.5),
        at(&ratios, 0.1),
        at(&ratios, 0.9),
        if ratio <= floor { "met" } else { "MISSED" },
    );
}

#[test]
#[ignore = "measures; needs a quiet machine with a GPU"]
fn floors() {
    let Ok(device) = Device::open("cuda:0") else {
        println!("left out: no CUDA device");
        return;
    };
    println!("{}", cuda::model(&device).unwrap());
    let bare = Bare::load();
    let stream = device.new_stream().unwrap();
    let other = device.new_stream().unwrap();
    let bare_stream_owner = device.new_stream().unwrap();
    let raw = cuda::stream_as_raw(&bare_stream_owner).unwrap();
    let settle = || {
        stream.synchronize().unwrap();
        bare_stream_owner.synchronize().unwrap();
    };
    // SAFETY: handles made here and alive; out-pointers to values of their types.
    unsafe {
        let (mut ordinal, mut context) = (0, std::ptr::null_mut());
        assert_eq!((bare.device_get)(&raw mut ordinal, 0), 0);
        assert_eq!((bare.retain)(&raw mut context, ordinal), 0);
        assert_eq!((bare.set_current)(context), 0);
        let made = |flags| {
            let mut event = std::ptr::null_mut();
            assert_eq!((bare.create)(&raw mut event, flags), 0);
            event
        };
        for (timing, flags, floor, cycle) in [(false, 2, 1.25, 0.65), (true, 0, 1.08, 0.85)] {
            let on = if timing { "on" } else { "off" };
            let event = if timing {
                Event::with_timing(&device)
            } else {
                Event::new(&device)
            };
            let native = made(flags);
            // Fewer than the driver's queue takes.
            let calls = 500;
            compare(
                &format!("record, timing {on}"),
                floor,
                calls,
                || event.record(&stream).unwrap(),
                || ignore(black_box((bare.record)(native, raw))),
                settle,
            );
            compare(
                &format!("new + record + drop, timing {on}"),
                cycle,
                calls,
                || {
                    let event = if timing {
                        Event::with_timing(&device)
                    } else {
                        Event::new(&device)
                    };
                    event.record(&stream).unwrap();
                },
                || {
                    let event = made(flags);
                    (bare.record)(event, raw);
                    (bare.destroy)(event);
                },
                settle,
            );
        }
        let event = Event::new(&device);
        event.record(&stream).unwrap();
        event.synchronize().unwrap();
        let native = made(2);
        (bare.record)(native, raw);
        (bare.synchronize)(native);
        compare(
            "query once complete",
            0.1,
            5000,
            || ignore(black_box(event.query().unwrap())),
            || ignore(black_box((bare.query)(native))),
            settle,
        );
        let raw_other = cuda::stream_as_raw(&other).unwrap();
        compare(
            "wait once complete",
            0.2,
            5000,
            || event.wait(&other).unwrap(),
            || ignore(black_box((bare.wait)(raw_other, native, 0))),
            settle,
        );
        compare(
            "record + synchronize",
            1.1,
            200,
            || {
                event.record(&stream).unwrap();
                event.synchronize().unwrap();
            },
            || {
                (bare.record)(native, raw);
                (bare.synchronize)(native);
            },
            settle,
        );
        let timed = Event::with_timing(&device);
        let native_timed = made(0);
        compare(
            "record + synchronize, timing on",
            1.1,
            200,
            || {
                timed.record(&stream).unwrap();
                timed.synchronize().unwrap();
            },
            || {
                (bare.record)(native_timed, raw);
                (bare.synchronize)(native_timed);
            },
            settle,
        );
        compare(
            "record + synchronize behind a kernel",
            1.1,
            200,
            || {
                work::spin(&stream, 0).unwrap();
                event.record(&stream).unwrap();
                event.synchronize().unwrap();
            },
            || {
                work::spin(&bare_stream_owner, 0).unwrap();
                (bare.record)(native, raw);
                (bare.synchronize)(native);
            },
            settle,
        );
        let shared = device.new_stream().unwrap();
        let _ = cuda::stream_as_raw(&shared);
        compare(
            "record, off, on a stream known outside",
            1.25,
            500,
            || event.record(&shared).unwrap(),
            || ignore(black_box((bare.record)(native, raw))),
            || {
                settle();
                shared.synchronize().unwrap();
            },
        );
        let (mut id, mut flags, mut active, mut status) = (0, 0, 0, 0);
        compare(
            "cuCtxGetId / cuDevicePrimaryCtxGetState",
            9.0,
            5000,
            || ignore(black_box((bare.ctx_id)(context, &raw mut id))),
            || {
                ignore(black_box((bare.state)(
                    ordinal,
                    &raw mut flags,
                    &raw mut active,
                )))
            },
            settle,
        );
        compare(
            "cuStreamIsCapturing / cuEventQuery",
            9.0,
            5000,
            || ignore(black_box((bare.is_capturing)(raw, &raw mut status))),
            || ignore(black_box((bare.query)(native))),
            settle,
        );
    }
}

#[test]
#[ignore = "measures; needs a GPU"]
fn times_are_the_drivers_own() {
    let Ok(device) = Device::open("cuda:0") else {
        println!("left out: no CUDA device");
        return;
    };
    let bare = Bare::load();
    let stream = device.new_stream().unwrap();
    let raw = cuda::stream_as_raw(&stream).unwrap();
    let event = || {
        let mut event = std::ptr::null_mut();
        // SAFETY: one handle; the context of the stream is made current just below.
        assert_eq!(unsafe { (bare.create)(&raw mut event, 0) }, 0);
        event
    };
    // SAFETY: as in `floors`.
    unsafe {
        let (mut ordinal, mut context) = (0, std::ptr::null_mut());
        assert_eq!((bare.device_get)(&raw mut ordinal, 0), 0);
        assert_eq!((bare.retain)(&raw mut context, ordinal), 0);
        assert_eq!((bare.set_current)(context), 0);
    }
    let outer = [event(), event(), event(), event()];
    let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
    // SAFETY: handles made above, and alive.
    let mark = |i: usize| assert_eq!(unsafe { (bare.record)(outer[i], raw) }, 0);
    let between = |start: Handle, end: Handle| {
        let mut time = 0.0;
        // SAFETY: both are recorded and complete.
        assert_eq!(unsafe { (bare.elapsed)(&raw mut time, start, end) }, 0);
        time
    };
    for nanos in [10_000, 100_000, 1_000_000, 100_000_000] {
        for _ in 0..5 {
            // Bare events around ours, and two more to see the gap between events back to back.
            mark(0);
            mark(1);
            start.record(&stream).unwrap();
            work::spin(&stream, nanos).unwrap();
            end.record(&stream).unwrap();
            mark(2);
            mark(3);
            stream.synchronize().unwrap();
            let ours = start.elapsed_time(&end).unwrap();
            let (first, last) = (start.marker().unwrap(), end.marker().unwrap());
            let native = |marker| cuda::marker_as_raw(marker, |raw| raw).unwrap();
            let same = between(native(&first), native(&last));
            let around = between(outer[1], outer[2]);
            let gaps = (between(outer[0], outer[1]), between(outer[2], outer[3]));
            println!(
                "spin {:>6} us: ours {ours:.6} ms, bare on the same events {same:.6} ms, bare around \
                 {around:.6} ms (longer by {:.2} us; two gaps back to back are {:.2} us)",
                nanos / 1000,
                (f64::from(around) - ours) * 1e3,
                (gaps.0 + gaps.1) * 1e3,
            );
            assert_eq!(ours as f32, same, "the very same reading");
            assert!(ours * 1e6 >= nanos as f64 - 1500.0, "shorter than it spun");
        }
    }
}
