//! What runs in every followed call, on the thread that makes it.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{
    calls::{self, Call, Kind},
    driver::{Driver, SUCCESS},
    events::{self, EventState},
    place::{self, Line},
    seen::{self, Awaits, Inner, Stream},
    threads::{self, Here, Thread},
    traced::{self, Marker, Traced},
    vulkan,
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
        stop_following();
        PANICS.fetch_add(1, Ordering::Relaxed);
    }
}

/// From now on no call is written down, of CUDA or of Vulkan.
pub(crate) fn stop_following() {
    FOLLOWS.store(false, Ordering::SeqCst);
    vulkan::FOLLOWS.store(false, Ordering::SeqCst);
}

/// Writes down a followed call, before and after it is made.
///
/// # Safety
/// `data` is what CUPTI gives to a callback for this call of the driver.
#[inline]
pub(crate) unsafe fn called(id: c_uint, data: *const CallbackData) {
    // SAFETY: the caller vouches for it
    let data = unsafe { &*data };
    guarded(|| {
        threads::here(|here| match data.site {
            ENTER => entered(id, data, here),
            _ => returned(id, data, here),
        });
    });
}

#[inline]
fn entered(id: c_uint, data: &CallbackData, here: &Here) {
    let call = calls::of(id);
    let stream = call.and_then(|call| stream_handle(call, id, data));
    if let Some(call) = call {
        enter(call, data, stream, here);
    }
    if let Some(thread) = here.thread() {
        thread.enter(id, data, stream);
    }
}

#[inline]
fn returned(id: c_uint, data: &CallbackData, here: &Here) {
    let call = calls::of(id);
    let marker = call.map_or((0, 0), |call| exit(call, id, data, here));
    if let Some(thread) = here.thread() {
        if traced::is_on() {
            thread.keep(call, data, marker);
        }
        // Last: while the thread is inside, nobody relies on what the event held before.
        thread.exit();
    }
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

impl Thread {
    #[inline]
    fn enter(&self, id: u32, data: &CallbackData, stream: Option<usize>) {
        self.stream
            .store(stream.unwrap_or(usize::MAX), Ordering::Relaxed);
        self.context.store(data.context, Ordering::Relaxed);
        self.name
            .store(data.function_name.cast_mut(), Ordering::Relaxed);
        self.entered.store(seen::now(), Ordering::Relaxed);
        if traced::is_on() {
            self.begun.store(traced::now(), Ordering::Relaxed);
        }
        self.inside.store(id, Ordering::Release);
    }

    /// Keeps the call that it has returned from, for a trace. `marker` is what it recorded or
    /// awaited.
    #[cold]
    fn keep(&self, call: Option<&Call>, data: &CallbackData, marker: Marker) {
        let is = |kind| call.is_some_and(|call| call.kind == kind);
        let tid = self.tid.load(Ordering::Relaxed);
        let kernel = match is(Kind::Launch) {
            // SAFETY: for a launch, CUPTI gives the kernel's name or null
            true => unsafe { traced::kernel(data.symbol, seen::modules_unloaded()) },
            false => 0,
        };
        let stream = match self.stream.load(Ordering::Relaxed) {
            usize::MAX => 0,
            handle => seen::number_of(data.context, handle, tid),
        };
        let marker_of = |kind| if is(kind) { marker } else { (0, 0) };
        let call = Traced {
            tid,
            name: data.function_name.expose_provenance(),
            start: self.begun.load(Ordering::Relaxed),
            end: traced::now(),
            stream,
            kernel,
            recorded: marker_of(Kind::Record),
            awaited: marker_of(Kind::Wait),
            // SAFETY: after the call, it is a pointer to its result
            code: unsafe { data.returned.as_ref() }.map_or(SUCCESS, |&code| code),
        };
        traced::keep(&self.traced, call);
    }

    /// The thread enters a call of Vulkan.
    pub(crate) fn enter_vulkan(&self, name: &'static CStr) {
        self.stream.store(usize::MAX, Ordering::Relaxed);
        self.context.store(0, Ordering::Relaxed);
        self.name.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
        self.entered.store(seen::now(), Ordering::Relaxed);
        self.inside.store(calls::VULKAN, Ordering::Release);
    }

    /// The call that it has entered begins a wait.
    pub(crate) fn begins(&self) {
        let entered = self.entered.load(Ordering::Relaxed);
        self.began.store(entered, Ordering::Relaxed);
        self.inside.store(calls::VULKAN_WAIT, Ordering::Release);
    }

    /// The call that it has entered goes on with the wait that began before.
    pub(crate) fn goes_on(&self) {
        let began = self.began.load(Ordering::Relaxed);
        self.entered.store(began, Ordering::Relaxed);
        self.inside.store(calls::VULKAN_WAIT, Ordering::Release);
    }

    /// The thread leaves a call of Vulkan, which may have moved something.
    pub(crate) fn exit_vulkan(&self, moves: bool) {
        self.exit();
        if moves {
            let moves = self.moves.load(Ordering::Relaxed) + 1;
            self.moves.store(moves, Ordering::Relaxed);
        }
    }

    #[inline]
    fn exit(&self) {
        self.inside.store(0, Ordering::Release);
        let calls = self.calls.load(Ordering::Relaxed) + 1;
        self.calls.store(calls, Ordering::Relaxed);
    }
}

/// There is no thread while it ends: the program may destroy its streams from there.
#[inline]
fn enter(call: &Call, data: &CallbackData, stream: Option<usize>, here: &Here) {
    match call.kind {
        // SAFETY: the first parameter is the event
        Kind::Record => is_recorded(unsafe { field(data, 0) }, here),
        kind if kind.submits() => {}
        Kind::RecordElsewhere | Kind::RecordContext => {
            // SAFETY: they are the parameters of this call
            let event = unsafe { call.event(data.params) };
            match event {
                Some(event) if call.kind == Kind::RecordContext => is_recorded(event, here),
                Some(event) => events::set(here.me(), event, EventState::Elsewhere),
                None => {}
            }
        }
        _ => enter_rarely(call, data, stream, here),
    }
}

/// The thread begins to record an event.
#[inline]
fn is_recorded(event: usize, here: &Here) {
    match here.thread() {
        Some(thread) => thread.event.store(event, Ordering::Relaxed),
        // Nobody could see that it is being recorded.
        None => events::set(here.me(), event, EventState::Unseen),
    }
}

/// [`enter`], of calls that submit nothing.
#[inline(never)]
fn enter_rarely(call: &Call, data: &CallbackData, stream: Option<usize>, here: &Here) {
    match call.kind {
        Kind::Synchronize => {
            if let Some(thread) = here.thread() {
                // SAFETY: they are the parameters of this call
                let context = unsafe { call.context(data.params) };
                thread.awaits_stream(here, context.unwrap_or(data.context), stream);
            }
        }
        Kind::SynchronizeEvent => {
            if let Some(thread) = here.thread() {
                // SAFETY: the first parameter is the event
                thread.awaits_event(here, unsafe { field(data, 0) });
            }
        }
        Kind::DestroyEvent => {
            // SAFETY: the first parameter is the event
            let event: usize = unsafe { field(data, 0) };
            events::forget(here.me(), &here.events, event);
            seen::ASKED.wait(Some(event));
        }
        Kind::Destroy => {
            if let Some(handle) = stream {
                end_capture_of(here, data.context, handle);
                seen::destroyed(data.context, handle);
                seen::ASKED.wait(Some(handle));
            }
        }
        Kind::BeginCapture => {
            seen::CAPTURES.fetch_add(1, Ordering::SeqCst);
            seen::ASKED.wait(None);
        }
        Kind::DestroyContext => {
            // SAFETY: the first parameter is the context
            let context: usize = unsafe { field(data, 0) };
            seen::lost(Some(context));
            seen::ASKED.wait(None);
        }
        Kind::Reset => {
            seen::lost(None);
            seen::ASKED.wait(None);
        }
        Kind::Release => {
            seen::RELEASES.fetch_add(1, Ordering::SeqCst);
            seen::ASKED.wait(None);
        }
        Kind::Unload => seen::unloaded(),
        _ => {}
    }
}

/// Returns what the call recorded, or made its stream wait for.
#[inline]
fn exit(call: &Call, id: u32, data: &CallbackData, here: &Here) -> Marker {
    // SAFETY: after the call, it is a pointer to its result
    let code = unsafe { data.returned.as_ref() }.map_or(SUCCESS, |&code| code);
    let handle = stream_handle(call, id, data);
    let mut marker = (0, 0);
    if !call.kind.submits() {
        if !exit_rarely(call, data, code, handle, here) {
            return marker;
        }
    } else if code != SUCCESS {
        return marker;
    } else if let Some(handle) = handle
        && let Some(entry) = seen::stream(&here.streams, data.context, handle)
    {
        marker = submitted(call, data, entry, here);
    }
    if let Some(thread) = here.thread() {
        if thread.keeps_time.load(Ordering::Relaxed) {
            keeps_time(handle, data.context, here);
            return marker;
        }
        let moves = thread.moves.load(Ordering::Relaxed) + 1;
        thread.moves.store(moves, Ordering::Relaxed);
    }
    marker
}

/// What was submitted tells nothing of the program.
#[cold]
fn keeps_time(handle: Option<usize>, context: usize, here: &Here) {
    if let Some(entry) = handle.and_then(|handle| seen::stream(&here.streams, context, handle)) {
        entry.0.lock().keeps_time = true;
    }
}

/// [`exit`], of calls that submit nothing. Returns whether such a call moves something.
#[inline(never)]
fn exit_rarely(
    call: &Call,
    data: &CallbackData,
    code: c_int,
    handle: Option<usize>,
    here: &Here,
) -> bool {
    let succeeded = code == SUCCESS;
    match call.kind {
        Kind::BeginCapture => begin_capture(here, data.context, handle, succeeded),
        Kind::EndCapture => {
            if let Some(handle) = handle.filter(|_| ends_capture(code)) {
                end_capture_of(here, data.context, handle);
            }
        }
        Kind::Release => {
            // SAFETY: the first parameter is the device
            let device: c_int = unsafe { field(data, 0) };
            if !Driver::find().is_some_and(|driver| driver.is_active(device)) {
                seen::lost(None);
            }
            seen::RELEASES.fetch_sub(1, Ordering::SeqCst);
        }
        Kind::Synchronize | Kind::SynchronizeEvent => {
            if let Some(thread) = here.thread() {
                thread.has_waited(succeeded);
            }
        }
        _ if !succeeded => return false,
        Kind::Create => create(call, data),
        Kind::OpenEvent => {
            // SAFETY: the first parameter is a pointer to the event that the call has made
            let event = unsafe { field::<*const usize>(data, 0).as_ref() };
            if let Some(&event) = event {
                events::set(here.me(), event, EventState::Elsewhere);
            }
        }
        Kind::RecordContext => {
            // SAFETY: they are the parameters of this call
            if let Some(event) = unsafe { call.event(data.params) } {
                events::set(here.me(), event, EventState::Unseen);
            }
        }
        _ => {}
    }
    true
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

/// Work of `call` was submitted to a stream. Returns what it recorded or waits for.
#[inline]
fn submitted(call: &Call, data: &CallbackData, entry: &'static Stream, here: &Here) -> Marker {
    let thread = here.thread();
    let at = thread.map_or_else(seen::now, |thread| thread.entered.load(Ordering::Relaxed));
    let line = (place::line(), at);
    match call.kind {
        Kind::Launch => {
            let mut inner = entry.0.lock_by(here.me());
            if inner.submit(call.kind, line).is_some() {
                // SAFETY: for a launch, CUPTI gives the kernel's name or null
                unsafe { inner.launched(data.symbol) };
            }
        }
        Kind::Record => return record(call, data, entry, line, here),
        Kind::Wait => return wait(data, entry, line, here),
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
        Kind::Graph
        | Kind::Copy
        | Kind::Fill
        | Kind::Memory
        | Kind::Prepare
        | Kind::SignalSemaphore => {
            entry.0.lock().submit(call.kind, line);
        }
        _ => {}
    }
    (0, 0)
}

fn stop(entry: &'static Stream, kind: Kind, awaits: Awaits, line: (Line, u64)) {
    let mut inner = entry.0.lock();
    if let Some(position) = inner.submit(kind, line) {
        inner.stop_at(position, awaits, line.0);
    }
}

/// `CU_EVENT_RECORD_EXTERNAL`, and `CU_EVENT_WAIT_EXTERNAL`.
const EXTERNAL: c_uint = 1;

fn record(
    call: &Call,
    data: &CallbackData,
    entry: &'static Stream,
    line: (Line, u64),
    here: &Here,
) -> Marker {
    // SAFETY: the first parameter is the event
    let event: usize = unsafe { field(data, 0) };
    let with_flags = call.name == "cuEventRecordWithFlags";
    // SAFETY: the third parameter of that function is the flags
    let external = with_flags && unsafe { field::<c_uint>(data, 16) } & EXTERNAL != 0;
    let slot = events::find(here.me(), &here.events, event);
    let mut inner = entry.0.lock_by(here.me());
    let state = match (inner.submit(call.kind, line), external) {
        (Some(position), _) => EventState::Recorded(inner.mark(entry, position, event)),
        // The graph records it, whenever it runs.
        (None, true) => EventState::Elsewhere,
        (None, false) => EventState::Captured(inner.capture),
    };
    let is_set = events::set_under(slot, &mut inner, event, state);
    drop(inner);
    if !is_set {
        events::set_on(here.me(), &here.events, entry, event, state);
    }
    match state {
        EventState::Recorded(mark) => (mark.stream.number, mark.value),
        _ => (0, 0),
    }
}

fn wait(data: &CallbackData, entry: &'static Stream, line: (Line, u64), here: &Here) -> Marker {
    // SAFETY: the second parameter is the event
    let event: usize = unsafe { field(data, 8) };
    let state = events::awaited(here.me(), &here.events, event);
    let mut inner = entry.0.lock_by(here.me());
    if let Some(EventState::Captured(capture)) = state {
        inner.capture = capture;
        return (0, 0);
    }
    let Some(position) = inner.submit(Kind::Wait, line) else {
        return (0, 0);
    };
    let awaits = match state {
        Some(EventState::Recorded(mark)) => Awaits::Marker(mark),
        Some(_) => Awaits::Unseen,
        None => {
            seen::NEVER_RECORDED.fetch_add(1, Ordering::Relaxed);
            Awaits::NeverRecorded
        }
    };
    inner.stop_at(position, awaits, line.0);
    match awaits {
        Awaits::Marker(mark) => (mark.stream.number, mark.value),
        _ => (0, 0),
    }
}

fn begin_capture(here: &Here, context: usize, handle: Option<usize>, succeeded: bool) {
    let entry = handle.and_then(|handle| seen::stream(&here.streams, context, handle));
    match entry {
        Some(entry) if succeeded => {
            let mut inner: crate::lock::Guard<'_, Inner> = entry.0.lock();
            if inner.capture == inner.number {
                // The end of the last one was not seen.
                seen::CAPTURES.fetch_sub(1, Ordering::SeqCst);
            }
            inner.capture = inner.number;
        }
        _ => {
            seen::CAPTURES.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Whether a capture has ended where the call that ends it returns this code. It has if it was
/// invalid, or if streams were not joined; it goes on where the call itself was wrong, for example
/// made by another thread:
/// <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html>.
fn ends_capture(code: c_int) -> bool {
    const INVALIDATED: c_int = 901;
    const UNJOINED: c_int = 904;

    matches!(code, SUCCESS | INVALIDATED | UNJOINED)
}

/// The capture that began on this stream has ended, whether well or not.
fn end_capture_of(here: &Here, context: usize, handle: usize) {
    let Some(entry) = seen::stream(&here.streams, context, handle) else {
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::lock::{Lock, Me};

    /// What was seen is one for the process, so one test at a time.
    static ALONE: Lock<()> = Lock::new(());

    /// A call as CUPTI reports it, before and after.
    fn call<P>(id: u32, params: &P, symbol: *const c_char) {
        call_that_returns(&SUCCEEDED, id, params, symbol);
    }

    fn call_that_returns<P>(code: &'static c_int, id: u32, params: &P, symbol: *const c_char) {
        for site in [ENTER, 1] {
            let data = CallbackData {
                site,
                function_name: std::ptr::null(),
                params: std::ptr::from_ref(params).cast(),
                returned: code,
                symbol,
                context: 0x10,
                context_id: 1,
                correlation: std::ptr::null_mut(),
                correlation_id: 0,
            };
            // SAFETY: the data is what CUPTI gives for this function
            unsafe { called(id, &raw const data) };
        }
    }

    static SUCCEEDED: c_int = 0;

    const RECORD: u32 = 119;
    const DESTROY_EVENT: u32 = 325;
    const CREATE_STREAM: u32 = 124;
    const DESTROY_STREAM: u32 = 326;
    const WAIT: u32 = 295;
    const LAUNCH: u32 = 307;

    fn record(event: usize, stream: usize) {
        call(RECORD, &[event, stream], std::ptr::null());
    }

    fn wait(stream: usize, event: usize) {
        call(WAIT, &[stream, event, 0], std::ptr::null());
    }

    fn launch(stream: usize) {
        call(LAUNCH, &[0, 0, 0, 0, 0, stream, 0, 0], c"kernel".as_ptr());
    }

    fn create(stream: usize) {
        let stream = std::ptr::from_ref(&stream);
        call(CREATE_STREAM, &(stream, 1_usize), std::ptr::null());
    }

    fn destroy(stream: usize) {
        call(DESTROY_STREAM, &[stream], std::ptr::null());
    }

    fn inner(stream: usize) -> Inner {
        let entry = threads::here(|here| seen::stream(&here.streams, 0x10, stream));
        entry.unwrap().0.lock().clone()
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        create(0x1000);
        create(0x2000);
        for _ in 0..10_000 {
            record(0x77, 0x1000);
            wait(0x2000, 0x77);
            launch(0x2000);
        }
        let (first, second) = (inner(0x1000), inner(0x2000));
        assert_eq!((first.records, first.submitted), (10_000, 10_000));
        assert_eq!((second.launches, second.submitted), (10_000, 20_000));
        assert_eq!(first.marks.iter().len(), 256);
        assert_eq!(second.points.iter().len(), 1024);
        assert!(first.marks.lacks_older && second.points.lacks_older);
        assert!(second.lacks_waits());
        let lost = second.points.iter().next().unwrap().position - 1;
        let complete = |position| {
            let mut inner = second.clone();
            inner.complete = position;
            inner
        };
        assert!(complete(lost - 3).lacks_waits() && !complete(lost).lacks_waits());
        assert_eq!(second.last.symbol, b"kernel");

        let before = seen::streams().len();
        for number in 0..10_000 {
            let (stream, event) = (0x10_000 + number * 16, 0x900_000 + number * 16);
            create(stream);
            record(event, stream);
            destroy(stream);
            call(DESTROY_EVENT, &[event], std::ptr::null());
            assert!(events::event(Me::get(), event).is_none());
        }
        assert!(seen::streams().len() - before <= 100);
        destroy(0x1000);
        destroy(0x2000);
    }

    #[test]
    fn a_handle_that_is_used_again_is_another_stream() {
        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        create(0x3000);
        record(0x99, 0x3000);
        let first = inner(0x3000);
        destroy(0x3000);
        create(0x3000);
        let second = inner(0x3000);
        assert_ne!(first.number, second.number);
        assert_eq!((second.submitted, second.marks.iter().len()), (0, 0));
        wait(0x3000, 0x99);
        let second = inner(0x3000);
        let awaits = second.points.iter().next().unwrap().awaits;
        assert!(matches!(awaits, Awaits::Marker(mark) if mark.stream.number == first.number));
        destroy(0x3000);
    }

    #[test]
    fn an_event_holds_its_last_record_whichever_streams_made_them() {
        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        let streams = [0xd000, 0xd100, 0xd200];
        streams.into_iter().for_each(create);
        let event = 0xee;
        let turns = [0, 0, 1, 1, 1, 0, 1, 2, 0, 2, 2, 1, 1];
        for (turn, stream) in turns.map(|turn| streams[turn]).into_iter().enumerate() {
            record(event, stream);
            let last = inner(stream);
            let state = events::event(Me::get(), event);
            let Some(EventState::Recorded(mark)) = state else {
                panic!("{state:?} in turn {turn}")
            };
            assert_eq!(
                (mark.stream.number, mark.value),
                (last.number, last.records)
            );
        }
        // What other threads know of it is the same, also once it is another event.
        let destroyed = std::thread::spawn(move || {
            record(event, streams[0]);
            call(DESTROY_EVENT, &[event], std::ptr::null());
            events::event(Me::get(), event).is_none()
        });
        assert!(destroyed.join().unwrap());
        record(event, streams[1]);
        wait(streams[2], event);
        let points = inner(streams[2]).points;
        let number = inner(streams[1]).number;
        assert!(matches!(
            points.last().unwrap().awaits,
            Awaits::Marker(mark) if mark.stream.number == number
        ));
        streams.into_iter().for_each(destroy);
    }

    #[test]
    fn a_wait_for_an_external_semaphore_stops_a_stream_and_a_signal_does_not() {
        const WAIT_SEMAPHORES: u32 = 492;
        const SIGNAL_SEMAPHORES: u32 = 490;

        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        create(0xe000);
        for id in [SIGNAL_SEMAPHORES, WAIT_SEMAPHORES] {
            call(id, &[0_usize, 0, 1, 0xe000], std::ptr::null());
        }
        let inner = inner(0xe000);
        assert_eq!((inner.submitted, inner.points.iter().len()), (2, 1));
        let point = inner.points.iter().next().unwrap();
        assert!(matches!(point.awaits, Awaits::Semaphore) && point.position == 2);
        destroy(0xe000);
    }

    #[test]
    fn work_in_a_capture_is_not_submitted() {
        const BEGIN: u32 = 539;
        const END: u32 = 497;

        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        create(0x4000);
        create(0x5000);
        call(BEGIN, &[0x4000_usize, 0], std::ptr::null());
        assert_eq!(seen::CAPTURES.load(Ordering::SeqCst), 1);
        launch(0x4000);
        record(0x55, 0x4000);
        wait(0x5000, 0x55);
        launch(0x5000);
        assert_eq!((inner(0x4000).submitted, inner(0x5000).submitted), (0, 0));
        call(END, &[0x4000_usize, 0], std::ptr::null());
        assert_eq!(seen::CAPTURES.load(Ordering::SeqCst), 0);
        launch(0x4000);
        launch(0x5000);
        assert_eq!((inner(0x4000).submitted, inner(0x5000).submitted), (1, 1));
        destroy(0x4000);
        destroy(0x5000);
    }

    #[test]
    fn a_capture_goes_on_where_its_end_is_refused() {
        const BEGIN: u32 = 539;
        const END: u32 = 497;
        static WRONG_THREAD: c_int = 908;
        static UNJOINED: c_int = 904;

        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        create(0xb000);
        let captures = || seen::CAPTURES.load(Ordering::SeqCst);
        let end = |code| call_that_returns(code, END, &[0xb000_usize, 0], std::ptr::null());
        for ends in [&SUCCEEDED, &UNJOINED] {
            call(BEGIN, &[0xb000_usize, 0], std::ptr::null());
            end(&WRONG_THREAD);
            launch(0xb000);
            assert_eq!((captures(), inner(0xb000).submitted), (1, 0));
            end(ends);
            assert_eq!(captures(), 0);
        }
        // One that ended unseen counts no more once the next has begun.
        for _ in 0..2 {
            call(BEGIN, &[0xb000_usize, 0], std::ptr::null());
        }
        assert_eq!(captures(), 1);
        destroy(0xb000);
        assert_eq!(captures(), 0);
    }

    #[test]
    fn what_a_thread_destroys_while_it_ends_is_seen() {
        struct Owner;
        impl Drop for Owner {
            fn drop(&mut self) {
                assert!(
                    threads::here(Here::thread).is_none(),
                    "the thread's entry is gone before"
                );
                record(0x44, 0x9000);
                record(0x45, 0x9000);
                call(DESTROY_EVENT, &[0x44_usize], std::ptr::null());
                destroy(0x9000);
            }
        }
        thread_local! {
            static OWNER: Owner = const { Owner };
        }

        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        let number = std::thread::spawn(|| {
            // The last local that was begun is dropped first: the thread's entry.
            OWNER.with(|_| ());
            create(0x9000);
            inner(0x9000).number
        })
        .join()
        .unwrap();
        let left = seen::streams()
            .into_iter()
            .find(|entry| entry.0.lock().number == number);
        let life = left.map(|entry| entry.0.lock().life);
        assert_eq!(life, Some(seen::Life::Destroyed));
        assert!(events::event(Me::get(), 0x44).is_none());
        let other = events::event(Me::get(), 0x45);
        assert!(matches!(other, Some(EventState::Recorded(mark)) if mark.value == 2));
    }

    #[test]
    fn an_event_that_may_be_recorded_elsewhere_is_not_guessed() {
        const GRAPH_RECORDS: u32 = 589;
        const GRAPH_NODE: u32 = 712;
        const IPC_HANDLE: u32 = 334;

        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        create(0x8000);
        let awaited = |event| {
            wait(0x8000, event);
            inner(0x8000).points.last().unwrap().awaits
        };
        for event in 0x60..0x64 {
            assert!(matches!(awaited(event), Awaits::NeverRecorded));
            record(event, 0x8000);
            assert!(matches!(awaited(event), Awaits::Marker(_)));
        }
        call(GRAPH_RECORDS, &[0, 0, 0, 0, 0x60_usize], std::ptr::null());
        let node = [7_usize, 0, 0x61];
        let node = node.as_ptr().expose_provenance();
        call(GRAPH_NODE, &[0, 0, 0, 0, node], std::ptr::null());
        call(IPC_HANDLE, &[0_usize, 0x62], std::ptr::null());
        for event in 0x60..0x63 {
            record(event, 0x8000);
            assert!(matches!(awaited(event), Awaits::Unseen), "{event:#x}");
            call(DESTROY_EVENT, &[event], std::ptr::null());
            assert!(matches!(awaited(event), Awaits::NeverRecorded));
        }
        assert!(matches!(awaited(0x63), Awaits::Marker(_)));
        destroy(0x8000);
    }

    #[test]
    fn an_event_that_may_be_recorded_elsewhere_joins_a_stream_to_a_capture() {
        const IPC_HANDLE: u32 = 334;
        const BEGIN: u32 = 539;
        const END: u32 = 497;

        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        create(0x8100);
        create(0x8200);
        call(IPC_HANDLE, &[0_usize, 0x65], std::ptr::null());
        call(BEGIN, &[0x8100_usize, 0], std::ptr::null());
        record(0x65, 0x8100);
        wait(0x8200, 0x65);
        launch(0x8200);
        assert_eq!(inner(0x8200).submitted, 0);
        call(END, &[0x8100_usize, 0], std::ptr::null());
        record(0x65, 0x8100);
        let state = events::event(Me::get(), 0x65);
        assert!(matches!(state, Some(EventState::Elsewhere)), "{state:?}");
        call(DESTROY_EVENT, &[0x65_usize], std::ptr::null());
        destroy(0x8100);
        destroy(0x8200);
    }

    #[test]
    fn an_event_that_a_context_records_is_unseen_until_a_stream_records_it() {
        const CONTEXT_RECORDS: u32 = 755;

        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        create(0xe000);
        record(0x68, 0xe000);
        call(CONTEXT_RECORDS, &[0x10_usize, 0x68], std::ptr::null());
        let state = || events::event(Me::get(), 0x68);
        assert!(matches!(state(), Some(EventState::Unseen)));
        record(0x68, 0xe000);
        assert!(matches!(state(), Some(EventState::Recorded(mark)) if mark.value == 2));
        destroy(0xe000);
    }

    #[test]
    fn a_context_that_is_named_is_waited_for_and_no_other() {
        const SYNCHRONIZE: u32 = 800;

        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        create(0xf000);
        launch(0xf000);
        call(SYNCHRONIZE, &[0x99_usize], std::ptr::null());
        assert_eq!(inner(0xf000).complete, 0);
        call(SYNCHRONIZE, &[0x10_usize], std::ptr::null());
        assert_eq!(inner(0xf000).complete, 1);
        destroy(0xf000);
    }

    #[test]
    fn a_prefetch_is_work_of_its_stream() {
        const PREFETCH: u32 = 716;

        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        create(0xf100);
        call(PREFETCH, &[0, 0, 0, 0, 0xf100_usize], std::ptr::null());
        let stream = inner(0xf100);
        assert_eq!((stream.submitted, stream.last.kind), (1, Kind::Prepare));
        destroy(0xf100);
    }

    #[test]
    #[ignore = "prints what following a call costs, with FENCEPOST_WATCH_TRACE=1 for a trace"]
    fn price() {
        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        traced::start();
        create(0x6000);
        create(0x7000);
        // The least of many short turns: other programs take the processor between them.
        let cost = |what: &str, body: &dyn Fn()| {
            let turn = || {
                let begun = Instant::now();
                (0..1000).for_each(|_| body());
                let taken = begun.elapsed();
                threads::here(Here::thread).unwrap().traced.lock().clear();
                taken
            };
            let least = (0..2000).map(|_| turn()).min().unwrap();
            println!("{what}: {:.1} ns", least.as_nanos() as f64 / 1000.0);
        };
        for _ in 0..3 {
            cost("record", &|| record(0x88, 0x6000));
            cost("launch", &|| launch(0x6000));
            cost("wait", &|| wait(0x7000, 0x88));
            cost("two streams in turn", &|| {
                launch(0x6000);
                launch(0x7000);
            });
        }
    }

    #[test]
    #[ignore = "prints how much memory the process has over 10^8 calls"]
    fn memory() {
        let _alone = ALONE.lock();
        FOLLOWS.store(true, Ordering::Relaxed);
        let streams = [1, 2, 3, 4, 5, 6, 7, 8].map(|number| 0xc0_0000 + number * 64);
        streams.into_iter().for_each(create);
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let mut lines = status.lines();
            lines
                .find(|line| line.starts_with("VmRSS"))
                .map(str::to_owned)
        };
        let mut calls = 0_u64;
        for number in 0_usize.. {
            let (from, to) = (streams[number % 8], streams[(number + 3) % 8]);
            record(from + 1, from);
            wait(to, from + 1);
            launch(to);
            calls += 3;
            if number % 100 == 0 {
                let made = 0xd0_0000 + number % 10_000 * 64;
                create(made);
                record(made + 1, made);
                destroy(made);
                call(DESTROY_EVENT, &[made + 1], std::ptr::null());
                calls += 4;
            }
            if number % 1_000_000 == 0 {
                println!("{calls} calls: {}", resident().unwrap_or_default());
            }
            if calls >= 100_000_000 {
                break;
            }
        }
        streams.into_iter().for_each(destroy);
    }
}
