//! Which memory stays allocated, and which grows: counted by an allocator of these tests.
#![cfg(not(loom))]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicIsize, Ordering},
    },
};

use fencepost::{
    Device, Event,
    testing::work,
    trace::{Options, Trace},
};

mod common;

/// The bytes that are allocated now, by the sizes that were asked for.
static LIVE: AtomicIsize = AtomicIsize::new(0);

struct Counting;

// SAFETY: every call is handed on to the system's allocator as it came; counting touches no memory
// that is handed out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's own.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Held by one test at a time, so that each counts its own bytes alone.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One device for all tests: the threads of a device that ends would free memory during another
/// test.
fn device() -> Device {
    Device::open("host").unwrap()
}

/// The live bytes, once the workers have dropped what earlier work left them.
fn live() -> isize {
    loop {
        let seen = LIVE.load(Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(20));
        if LIVE.load(Ordering::Relaxed) == seen {
            return seen;
        }
    }
}

#[test]
fn a_live_event_takes_at_most_256_bytes() {
    const EVENTS: usize = 10_000;
    let _alone = alone();
    let device = device();
    let stream = device.new_stream().unwrap();
    let gate = work::gate(&stream).unwrap();
    let mut table = String::new();
    for (name, timing) in [("plain", false), ("timed", true)] {
        // The stream's queue does not belong to the events. It has room for all before the count.
        let before = live();
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        for _ in 0..EVENTS {
            let event = if timing {
                Event::with_timing(&device)
            } else {
                Event::new(&device)
            };
            events.push(event);
        }
        let unrecorded = (live() - before) as usize / EVENTS;
        let idle = device.new_stream().unwrap();
        for event in &events {
            event.record(&idle).unwrap();
        }
        let complete = (live() - before) as usize / EVENTS;
        for event in &events {
            event.record(&stream).unwrap();
        }
        let pending = (live() - before) as usize / EVENTS;
        black_box(&events);
        table += &format!(
            "{name}: {unrecorded} B unrecorded, {complete} B complete, {pending} B pending \
             (with its place in the stream's queue)\n"
        );
        assert!(complete <= 256, "{table}");
        assert!(pending <= 256, "{table}");
    }
    gate.open();
    stream.synchronize().unwrap();
    common::write_table("memory-event", "Bytes a live host event", &table);
}

#[test]
fn a_finished_span_takes_at_most_60_bytes() {
    const SPANS: usize = 200_000;
    let _alone = alone();
    let stream = device().new_stream().unwrap();
    let trace = Trace::with_options(Options::default().capacity(SPANS));
    // What a trace has for its threads and streams does not belong to the spans.
    let record = |count: usize| {
        for number in 0..count {
            let name = ["load", "forward", "backward"][number % 3];
            match number % 10 {
                0 => trace.span(name, &stream).end(),
                _ => trace.host_span(name).end(),
            }
            if number % 1000 == 0 {
                trace.collect();
            }
        }
    };
    record(2000);
    let begun = trace.collect().finished;
    let before = live();
    record(SPANS / 2);
    let half = trace.collect();
    let bytes = (live() - before) as f64 / (half.finished - begun) as f64;
    let table = format!("{bytes:.1} B each of {} spans\n", half.finished);
    assert!(bytes <= 60.0, "{table}");
    common::write_table("memory-span", "Bytes a finished span", &table);
    // Once the capacity is reached, nothing grows.
    record(SPANS);
    trace.collect();
    let full = live();
    record(SPANS);
    assert_eq!(trace.collect().finished, SPANS);
    let grown = live() - full;
    assert!(grown < 500_000, "{grown} bytes more");
}

#[test]
fn ten_million_records_do_not_grow_memory() {
    let _alone = alone();
    let device = device();
    let stream = device.new_stream().unwrap();
    let (plain, timed) = (Event::new(&device), Event::with_timing(&device));
    let round = |records: usize| {
        for _ in 0..records / 2 {
            plain.record(&stream).unwrap();
            timed.record(&stream).unwrap();
        }
    };
    // On an idle stream each record completes at once.
    round(1000);
    let before = live();
    round(8_000_000);
    // Other threads may free or allocate a little meanwhile.
    let grown = live() - before;
    assert!(
        grown < 1_000_000,
        "8 million records left {grown} bytes behind"
    );
    // A stream with work in it, waited for every now and then, so that records queue up; also from
    // another stream, so that the event leaves its first one.
    let other = device.new_stream().unwrap();
    let busy = |rounds: usize| {
        for _ in 0..rounds {
            other.launch(|| {}).unwrap();
            for _ in 0..500 {
                plain.record(&other).unwrap();
                timed.record(&other).unwrap();
            }
            timed.wait(&stream).unwrap();
            timed.synchronize().unwrap();
        }
        other.synchronize().unwrap();
        stream.synchronize().unwrap();
    };
    busy(10);
    let before = live();
    busy(2000);
    let grown = live() - before;
    // A queue keeps the room that it once needed, which depends on the timing of the threads.
    assert!(
        grown < 64 * 1024,
        "2 million records on a busy stream left {grown} bytes"
    );
}

#[test]
fn waits_that_give_up_leave_nothing_behind() {
    let _alone = alone();
    let device = device();
    let stream = device.new_stream().unwrap();
    let gate = work::gate(&stream).unwrap();
    let marker = stream.record().unwrap();
    let give_up = |times: usize| {
        for _ in 0..times {
            let early = marker.synchronize_timeout(std::time::Duration::from_micros(20));
            assert!(early.is_err());
        }
    };
    give_up(10);
    let before = live();
    give_up(2000);
    // Other threads may free or allocate a little meanwhile. A wait that leaves anything behind
    // leaves at least a byte.
    let grown = live() - before;
    assert!(grown < 2000, "2,000 waits left {grown} bytes behind");
    gate.open();
    marker.synchronize().unwrap();
}

#[test]
fn memory_of_streams_grows_linearly() {
    let _alone = alone();
    let device = device();
    let bytes_each = |count: usize| {
        let before = live();
        let streams: Vec<_> = (0..count).map(|_| device.new_stream().unwrap()).collect();
        let event = Event::new(&device);
        for stream in &streams {
            event.wait(stream).unwrap();
            event.record(stream).unwrap();
        }
        let each = (live() - before) as f64 / count as f64;
        black_box(streams);
        each
    };
    bytes_each(100);
    let (few, many) = (bytes_each(1_000), bytes_each(10_000));
    let table = format!("{few:.0} B each of 1,000; {many:.0} B each of 10,000\n");
    common::write_table("memory-stream", "Bytes a live idle host stream", &table);
    assert!(many <= few * 1.25, "{table}");
}
