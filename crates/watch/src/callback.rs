//! What runs in every followed call, on the thread that makes it.

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{
    calls::{self, Call, Kind},
    place::{self, Line},
    seen::{self, Awaits, EventState, Inner, Stream, Thread},
};

/// `CUpti_CallbackData`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct CallbackData {
    site: c_int,
    function_name: *const c_char,
    params: *const c_void,
    returned: *const c_int,
    symbol: *const c_char,
    context: usize,
    context_id: u32,
    correlation: *mut u64,
    correlation_id: u32,
}

/// `CUPTI_CB_DOMAIN_DRIVER_API`.
pub(crate) const DRIVER_CALLS: c_int = 1;
/// `CUPTI_API_ENTER`.
const ENTER: c_int = 0;

/// Whether calls are written down.
pub(crate) static FOLLOWS: AtomicBool = AtomicBool::new(false);
/// How often a panic was caught. The first ends the watching.
pub(crate) static PANICS: AtomicU64 = AtomicU64::new(0);

/// Runs `body`, out of which no panic comes.
pub(crate) fn guarded(body: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        FOLLOWS.store(false, Ordering::Relaxed);
        PANICS.fetch_add(1, Ordering::Relaxed);
    }
}

/// CUPTI calls it before and after each followed call.
///
/// # Safety
/// `data` is what CUPTI gives to a callback for calls of the driver.
pub(crate) unsafe extern "C" fn called(
    _user: *mut c_void,
    domain: c_int,
    id: c_uint,
    data: *const CallbackData,
) {
    if domain != DRIVER_CALLS || !FOLLOWS.load(Ordering::Relaxed) {
        return;
    }
    guarded(|| {
        let Some(call) = calls::of(id) else {
            return;
        };
        // SAFETY: the caller vouches for it
        let data = unsafe { &*data };
        let Some(thread) = seen::thread() else {
            return;
        };
        match data.site {
            ENTER => enter(call, id, data, thread),
            _ => exit(call, id, data, thread),
        }
    });
}

/// One field of the call's parameters.
///
/// # Safety
/// The call has a parameter of this type at this offset.
unsafe fn field<T: Copy>(data: &CallbackData, offset: usize) -> T {
    // SAFETY: the caller vouches for it
    unsafe { data.params.cast::<u8>().add(offset).cast::<T>().read() }
}

fn stream_handle(call: &Call, id: u32, data: &CallbackData) -> Option<usize> {
    // SAFETY: they are the parameters of this call
    unsafe { call.stream(id, data.params) }
}

fn enter(call: &Call, id: u32, data: &CallbackData, thread: &Thread) {
    let stream = stream_handle(call, id, data);
    thread
        .stream
        .store(stream.unwrap_or(usize::MAX), Ordering::Relaxed);
    thread.context.store(data.context, Ordering::Relaxed);
    thread.entered.store(seen::now(), Ordering::Relaxed);
    thread.inside.store(id, Ordering::Release);
    match call.kind {
        Kind::Record => {
            // SAFETY: the first parameter is the event
            let event: usize = unsafe { field(data, 0) };
            // Until it is known what it holds, nobody is to ask for it in the name of a marker.
            seen::set_event(event, EventState::Unseen);
        }
        Kind::DestroyEvent => {
            // SAFETY: the first parameter is the event
            let event: usize = unsafe { field(data, 0) };
            seen::forget_event(event);
            seen::until_not_asked(Some(event));
        }
        Kind::Destroy => {
            if let Some(handle) = stream {
                end_capture_of(data.context, handle);
                seen::destroyed(data.context, handle);
                seen::until_not_asked(Some(handle));
            }
        }
        Kind::BeginCapture => {
            seen::CAPTURES.fetch_add(1, Ordering::SeqCst);
            seen::until_not_asked(None);
        }
        Kind::DestroyContext => {
            // SAFETY: the first parameter is the context
            let context: usize = unsafe { field(data, 0) };
            seen::lost(Some(context));
            seen::until_not_asked(None);
        }
        Kind::Reset => {
            seen::lost(None);
            seen::until_not_asked(None);
        }
        Kind::Unload => seen::unloaded(),
        _ => {}
    }
}

fn exit(call: &Call, id: u32, data: &CallbackData, thread: &Thread) {
    thread.inside.store(0, Ordering::Release);
    let calls = thread.calls.load(Ordering::Relaxed) + 1;
    thread.calls.store(calls, Ordering::Relaxed);
    // SAFETY: after the call, it is a pointer to its result
    let succeeded = unsafe { data.returned.as_ref() }.is_none_or(|&code| code == 0);
    let handle = stream_handle(call, id, data);
    match call.kind {
        Kind::BeginCapture => begin_capture(data.context, handle, succeeded),
        Kind::EndCapture => {
            if let Some(handle) = handle {
                end_capture_of(data.context, handle);
            }
        }
        _ if !succeeded => return,
        Kind::Create => create(call, data),
        Kind::OpenEvent => {
            // SAFETY: the first parameter is a pointer to the event that the call has made
            let event = unsafe { field::<*const usize>(data, 0).as_ref() };
            if let Some(&event) = event {
                seen::set_event(event, EventState::Unseen);
            }
        }
        _ => {}
    }
    if let Some(handle) = handle
        && let Some(entry) = seen::stream(data.context, handle)
    {
        submitted(call, data, entry);
    }
    let moves = thread.moves.load(Ordering::Relaxed) + 1;
    thread.moves.store(moves, Ordering::Relaxed);
}

fn create(call: &Call, data: &CallbackData) {
    // SAFETY: the first parameter is a pointer to the stream that the call has made
    let stream = unsafe { field::<*const usize>(data, 0).as_ref() };
    let offset = if call.name == "cuGreenCtxStreamCreate" {
        16
    } else {
        8
    };
    // SAFETY: the flags are behind that pointer, and behind the context of a green one
    let flags: c_uint = unsafe { field(data, offset) };
    if let Some(&stream) = stream {
        seen::created(data.context, stream, flags & 1 == 0, place::line());
    }
}

/// Work of `call` was submitted to a stream.
fn submitted(call: &Call, data: &CallbackData, entry: &'static Stream) {
    let line = place::line();
    match call.kind {
        Kind::Launch => {
            let mut inner = entry.0.lock();
            if inner.submit(call.kind, line).is_some() {
                // SAFETY: for a launch, CUPTI gives the kernel's name or null
                unsafe { inner.launched(data.symbol) };
            }
        }
        Kind::Record => record(call, data, entry, line),
        Kind::Wait => wait(data, entry, line),
        Kind::Host => stop(entry, call.kind, Awaits::Host, line),
        Kind::WaitSemaphore => stop(entry, call.kind, Awaits::Semaphore, line),
        Kind::MemoryOperations => stop(entry, call.kind, Awaits::Values, line),
        Kind::WaitValue | Kind::WriteValue => {
            // SAFETY: the second parameter is the address
            let address: u64 = unsafe { field(data, 8) };
            let awaits = match call.kind {
                Kind::WaitValue => Awaits::Value { address },
                _ => Awaits::Writes { address },
            };
            stop(entry, call.kind, awaits, line);
        }
        Kind::Graph | Kind::Copy | Kind::Fill | Kind::Memory | Kind::SignalSemaphore => {
            entry.0.lock().submit(call.kind, line);
        }
        _ => {}
    }
}

fn stop(entry: &'static Stream, kind: Kind, awaits: Awaits, line: Line) {
    let mut inner = entry.0.lock();
    if let Some(position) = inner.submit(kind, line) {
        inner.stop_at(position, awaits, line);
    }
}

/// `CU_EVENT_RECORD_EXTERNAL`, and `CU_EVENT_WAIT_EXTERNAL`.
const EXTERNAL: c_uint = 1;

fn record(call: &Call, data: &CallbackData, entry: &'static Stream, line: Line) {
    // SAFETY: the first parameter is the event
    let event: usize = unsafe { field(data, 0) };
    let with_flags = call.name == "cuEventRecordWithFlags";
    // SAFETY: the third parameter of that function is the flags
    let external = with_flags && unsafe { field::<c_uint>(data, 16) } & EXTERNAL != 0;
    let mut inner = entry.0.lock();
    let state = match (inner.submit(call.kind, line), external) {
        (Some(position), _) => EventState::Recorded(inner.mark(entry, position, event)),
        // The graph records it, whenever it runs.
        (None, true) => EventState::Unseen,
        (None, false) => EventState::Captured(inner.capture),
    };
    drop(inner);
    seen::set_event(event, state);
}

fn wait(data: &CallbackData, entry: &'static Stream, line: Line) {
    // SAFETY: the second parameter is the event
    let event: usize = unsafe { field(data, 8) };
    let state = seen::event(event);
    let mut inner = entry.0.lock();
    if let Some(EventState::Captured(capture)) = state {
        inner.capture = capture;
        return;
    }
    let Some(position) = inner.submit(Kind::Wait, line) else {
        return;
    };
    let awaits = match state {
        Some(EventState::Recorded(mark)) => Awaits::Marker(mark),
        Some(_) => Awaits::Unseen,
        None => {
            seen::NEVER_RECORDED.fetch_add(1, Ordering::Relaxed);
            Awaits::NeverRecorded
        }
    };
    inner.stop_at(position, awaits, line);
}

fn begin_capture(context: usize, handle: Option<usize>, succeeded: bool) {
    let entry = handle.and_then(|handle| seen::stream(context, handle));
    match entry {
        Some(entry) if succeeded => {
            let mut inner: crate::lock::Guard<'_, Inner> = entry.0.lock();
            inner.capture = inner.number;
        }
        _ => {
            seen::CAPTURES.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The capture that began on this stream has ended, whether well or not.
fn end_capture_of(context: usize, handle: usize) {
    let Some(entry) = seen::stream(context, handle) else {
        return;
    };
    let number = {
        let inner = entry.0.lock();
        if inner.capture != inner.number {
            return;
        }
        inner.number
    };
    for entry in seen::streams() {
        let mut inner = entry.0.lock();
        if inner.capture == number {
            inner.capture = 0;
        }
    }
    seen::CAPTURES.fetch_sub(1, Ordering::SeqCst);
}
