//! The calls that pass here: counted, refused where a test has planned it, or passed on.

use crate::events::{self, IN_CALLBACK, IN_STATUS, IN_WAIT};
use crate::quirks::{self, Due};
use crate::table::{Handle, original};
use fencepost_sim::CallLog;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Once;

pub(crate) static LOG: CallLog<c_int> = CallLog::new("OpenCL");

const FAULTS: &str = "FENCEPOST_SIM_OPENCL_FAULTS";
/// `CL_DEVICE_VERSION`
const DEVICE_VERSION: u32 = 0x102f;
/// `CL_PROFILING_COMMAND_END`
const PROFILING_END: u32 = 0x1283;
/// `CL_EVENT_COMMAND_EXECUTION_STATUS`
const EXECUTION_STATUS: u32 = 0x11d3;
/// `CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST`
const IN_WAIT_LIST: c_int = -14;

pub(crate) type Callback = unsafe extern "system" fn(Handle, c_int, *mut c_void);
type Data = *mut c_void;
type Handles = *mut Handle;
type List = *const Handle;
type Sizes = *const usize;

/// A call begins. The code to return if it is to fail.
fn enter(name: &'static str) -> Option<c_int> {
    quirks::run_due();
    LOG.count(name)
}

/// Defines a function for each call. The number in front is its position in the table of
/// `cl_icd.h`.
macro_rules! calls {
    ($($position:literal $name:ident = $kind:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        /// The calls that a test can count and make fail.
        pub const FUNCTIONS: &[&str] = &[$(stringify!($name)),*];

        /// How the calls are numbered among the driver's own functions.
        #[allow(non_camel_case_types, clippy::enum_variant_names)]
        enum Number {
            $($name),*
        }

        /// The position of each call in the table, and the function to put there.
        pub(crate) fn replaced() -> Vec<(usize, *const c_void)> {
            vec![$(($position, $name as *const c_void)),*]
        }

        /// The driver's own.
        mod real {
            use super::*;
            $(calls! { @real $kind $name($($argument: $type),*) })*
        }

        $(calls! { @call $kind $name($($argument: $type),*) })*
    };

    (@real create $name:ident($($argument:ident: $type:ty),*)) => {
        pub(super) unsafe fn $name($($argument: $type,)* errcode: *mut c_int) -> Handle {
            type Real = unsafe extern "system" fn($($type,)* *mut c_int) -> Handle;
            let real = original(Number::$name as usize);
            // SAFETY: the driver's function of this name and type; the rest is the caller's
            unsafe { std::mem::transmute::<*const c_void, Real>(real)($($argument,)* errcode) }
        }
    };
    (@real $kind:ident $name:ident($($argument:ident: $type:ty),*)) => {
        pub(super) unsafe fn $name($($argument: $type),*) -> c_int {
            type Real = unsafe extern "system" fn($($type),*) -> c_int;
            let real = original(Number::$name as usize);
            // SAFETY: the driver's function of this name and type; the rest is the caller's
            unsafe { std::mem::transmute::<*const c_void, Real>(real)($($argument),*) }
        }
    };

    // Returns a code.
    (@call status $name:ident($($argument:ident: $type:ty),*)) => {
        unsafe extern "system" fn $name($($argument: $type),*) -> c_int {
            match enter(stringify!($name)) {
                Some(code) => code,
                // SAFETY: passed on
                None => unsafe { real::$name($($argument),*) },
            }
        }
    };
    // Returns a handle. Its last argument is the place for a code.
    (@call create $name:ident($($argument:ident: $type:ty),*)) => {
        unsafe extern "system" fn $name($($argument: $type,)* errcode: *mut c_int) -> Handle {
            if let Some(code) = enter(stringify!($name)) {
                if !errcode.is_null() {
                    // SAFETY: the caller's place for a code
                    unsafe { errcode.write(code) };
                }
                return null_mut();
            }
            // SAFETY: passed on
            let made = unsafe { real::$name($($argument,)* errcode) };
            if stringify!($name) == "clCreateUserEvent" && !made.is_null() {
                events::made(stringify!($name), made);
            }
            made
        }
    };
    // Returns a code. Its last arguments are a wait list and a place for an event, or null.
    (@call enqueue $name:ident($($argument:ident: $type:ty),*)) => {
        unsafe extern "system" fn $name($($argument: $type),*) -> c_int {
            if let Some(code) = enter(stringify!($name)) {
                return code;
            }
            let event = calls!(@last $($argument)*);
            // SAFETY: passed on
            let status = unsafe { real::$name($($argument),*) };
            if status == 0 && !event.is_null() {
                // SAFETY: the driver has just written an event there
                events::made(stringify!($name), unsafe { *event });
            }
            status
        }
    };
    // Written out below.
    (@call by_hand $name:ident($($argument:ident: $type:ty),*)) => {};

    (@last $last:ident) => { $last };
    (@last $first:ident $($rest:ident)+) => { calls!(@last $($rest)+) };
}

calls! {
    2 clGetDeviceIDs = status(
        platform: Handle, kind: u64, count: u32, devices: Handles, found: *mut u32,
    );
    3 clGetDeviceInfo = by_hand(
        device: Handle, name: u32, size: usize, value: Data, size_ret: *mut usize,
    );
    4 clCreateContext = create(
        properties: *const isize, count: u32, devices: List, notify: Data, user_data: Data,
    );
    6 clRetainContext = status(context: Handle);
    7 clReleaseContext = status(context: Handle);
    8 clGetContextInfo = status(
        context: Handle, name: u32, size: usize, value: Data, size_ret: *mut usize,
    );
    9 clCreateCommandQueue = create(context: Handle, device: Handle, properties: u64);
    10 clRetainCommandQueue = status(queue: Handle);
    11 clReleaseCommandQueue = status(queue: Handle);
    12 clGetCommandQueueInfo = status(
        queue: Handle, name: u32, size: usize, value: Data, size_ret: *mut usize,
    );
    14 clCreateBuffer = create(context: Handle, flags: u64, size: usize, host: Data);
    26 clCreateProgramWithSource = create(
        context: Handle, count: u32, texts: *mut *const c_char, lengths: Sizes,
    );
    30 clBuildProgram = status(
        program: Handle, count: u32, devices: List, options: *const c_char, notify: Data,
        user_data: Data,
    );
    34 clCreateKernel = create(program: Handle, name: *const c_char);
    41 clWaitForEvents = by_hand(count: u32, events: List);
    42 clGetEventInfo = by_hand(
        event: Handle, name: u32, size: usize, value: Data, size_ret: *mut usize,
    );
    43 clRetainEvent = by_hand(event: Handle);
    44 clReleaseEvent = by_hand(event: Handle);
    45 clGetEventProfilingInfo = by_hand(
        event: Handle, name: u32, size: usize, value: Data, size_ret: *mut usize,
    );
    46 clFlush = status(queue: Handle);
    47 clFinish = status(queue: Handle);
    48 clEnqueueReadBuffer = enqueue(
        queue: Handle, buffer: Handle, blocking: u32, offset: usize, size: usize, to: Data,
        waits: u32, list: List, event: Handles,
    );
    49 clEnqueueWriteBuffer = enqueue(
        queue: Handle, buffer: Handle, blocking: u32, offset: usize, size: usize, from: Data,
        waits: u32, list: List, event: Handles,
    );
    59 clEnqueueNDRangeKernel = enqueue(
        queue: Handle, kernel: Handle, dimensions: u32, offset: Sizes, global: Sizes,
        local: Sizes, waits: u32, list: List, event: Handles,
    );
    81 clSetEventCallback = by_hand(event: Handle, kind: c_int, callback: Callback, data: Data);
    84 clCreateUserEvent = create(context: Handle);
    85 clSetUserEventStatus = status(event: Handle, code: c_int);
    102 clEnqueueFillBuffer = enqueue(
        queue: Handle, buffer: Handle, pattern: Data, length: usize, offset: usize, size: usize,
        waits: u32, list: List, event: Handles,
    );
    105 clEnqueueMarkerWithWaitList = enqueue(
        queue: Handle, waits: u32, list: List, event: Handles,
    );
    106 clEnqueueBarrierWithWaitList = enqueue(
        queue: Handle, waits: u32, list: List, event: Handles,
    );
    123 clCreateCommandQueueWithProperties = create(
        context: Handle, device: Handle, properties: *const u64,
    );
    140 clGetDeviceAndHostTimer = by_hand(device: Handle, on_device: *mut u64, on_host: *mut u64);
}

unsafe extern "system" fn clGetDeviceInfo(
    device: Handle,
    name: u32,
    size: usize,
    value: Data,
    size_ret: *mut usize,
) -> c_int {
    if let Some(code) = enter("clGetDeviceInfo") {
        return code;
    }
    // SAFETY: passed on
    let status = unsafe { real::clGetDeviceInfo(device, name, size, value, size_ret) };
    let told = status == 0 && name == DEVICE_VERSION && !value.is_null();
    if let Some(version) = quirks::version().filter(|_| told) {
        // SAFETY: the driver has just written "OpenCL 3.0" there, or another version
        let number = unsafe { value.cast::<u8>().add(quirks::VERSION_BEGINS.len()) };
        // SAFETY: as above; the number is as long
        unsafe { number.copy_from_nonoverlapping(version.as_ptr(), version.len()) };
    }
    status
}

unsafe extern "system" fn clGetEventProfilingInfo(
    event: Handle,
    name: u32,
    size: usize,
    value: Data,
    size_ret: *mut usize,
) -> c_int {
    if let Some(code) = enter("clGetEventProfilingInfo") {
        return code;
    }
    // SAFETY: passed on
    let status = unsafe { real::clGetEventProfilingInfo(event, name, size, value, size_ret) };
    if status == 0 && name != PROFILING_END && !value.is_null() && quirks::has_end_alone() {
        // SAFETY: the driver has just written a time there
        unsafe { value.cast::<u64>().write(0) };
    }
    status
}

unsafe extern "system" fn clGetDeviceAndHostTimer(
    device: Handle,
    on_device: *mut u64,
    on_host: *mut u64,
) -> c_int {
    if let Some(code) = enter("clGetDeviceAndHostTimer") {
        return code;
    }
    // SAFETY: passed on
    let status = unsafe { real::clGetDeviceAndHostTimer(device, on_device, on_host) };
    let Some(ahead) = quirks::timer() else {
        return status;
    };
    if status != 0 {
        let now = quirks::raw_clock();
        // SAFETY: the caller's places for two times
        unsafe {
            on_device.write(now);
            on_host.write(now);
        }
    }
    // SAFETY: the time was just written
    unsafe { *on_device += ahead };
    0
}

unsafe extern "system" fn clWaitForEvents(count: u32, events: List) -> c_int {
    if let Some(code) = enter("clWaitForEvents") {
        return code;
    }
    // SAFETY: passed on
    let status = unsafe { real::clWaitForEvents(count, events) };
    // SAFETY: the caller's list; the driver has refused a null one
    let mut list = (0..count as usize).map(|at| unsafe { *events.add(at) });
    let fails = |event| events::failure_of(event).is_some_and(|failure| failure.told & IN_WAIT > 0);
    match status == 0 && list.any(fails) {
        true => IN_WAIT_LIST,
        false => status,
    }
}

unsafe extern "system" fn clGetEventInfo(
    event: Handle,
    name: u32,
    size: usize,
    value: Data,
    size_ret: *mut usize,
) -> c_int {
    if let Some(code) = enter("clGetEventInfo") {
        return code;
    }
    // SAFETY: passed on
    let status = unsafe { real::clGetEventInfo(event, name, size, value, size_ret) };
    if status == 0 && name == EXECUTION_STATUS && !value.is_null() {
        let failure = events::failure_of(event).filter(|failure| failure.told & IN_STATUS > 0);
        let execution = value.cast::<c_int>();
        // SAFETY: the driver has just written the status there
        if let Some(failure) = failure.filter(|_| unsafe { execution.read() } == 0) {
            // SAFETY: as above
            unsafe { execution.write(failure.code) };
        }
    }
    status
}

unsafe extern "system" fn clRetainEvent(event: Handle) -> c_int {
    if let Some(code) = enter("clRetainEvent") {
        return code;
    }
    // SAFETY: passed on
    let status = unsafe { real::clRetainEvent(event) };
    if status == 0 {
        events::retained(event);
    }
    status
}

unsafe extern "system" fn clReleaseEvent(event: Handle) -> c_int {
    if let Some(code) = enter("clReleaseEvent") {
        return code;
    }
    events::released(event);
    // SAFETY: passed on
    unsafe { real::clReleaseEvent(event) }
}

/// A callback that is called another way than by the driver.
struct Told {
    callback: Callback,
    data: Data,
    /// What it is told in place of the driver's status.
    code: Option<c_int>,
}

unsafe extern "system" fn tell(event: Handle, status: c_int, told: Data) {
    // SAFETY: made by `clSetEventCallback`, and the driver calls back once
    let told = unsafe { Box::from_raw(told.cast::<Told>()) };
    let due = Due {
        callback: told.callback,
        event,
        status: told.code.unwrap_or(status),
        data: told.data,
    };
    match quirks::calls_back_inside() {
        true => quirks::run_inside(due),
        // SAFETY: as the program wants it
        false => unsafe { due.run() },
    }
}

unsafe extern "system" fn clSetEventCallback(
    event: Handle,
    kind: c_int,
    callback: Callback,
    data: Data,
) -> c_int {
    if let Some(code) = enter("clSetEventCallback") {
        return code;
    }
    let failure = events::failure_of(event);
    match failure {
        Some(failure) if failure.told & IN_CALLBACK == 0 => return 0,
        // SAFETY: passed on
        None if !quirks::calls_back_inside() => unsafe {
            return real::clSetEventCallback(event, kind, callback, data);
        },
        _ => {}
    }
    let told = Box::new(Told {
        callback,
        data,
        code: failure.map(|failure| failure.code),
    });
    // SAFETY: a callback and what belongs to it
    unsafe { real::clSetEventCallback(event, kind, tell, Box::into_raw(told).cast()) }
}

/// Plans the faults that the environment names, once.
pub(crate) fn plan_from_environment() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let faults = std::env::var(FAULTS).unwrap_or_default();
        for fault in faults.split(',').filter(|fault| !fault.is_empty()) {
            match parse(fault) {
                Some((name, nth, code, repeats)) => LOG.fail(name, nth, code, repeats),
                None => LOG.note(&format!("{FAULTS}: {fault:?} is not CALL:NTH:CODE")),
            }
        }
    });
}

fn parse(fault: &str) -> Option<(&'static str, u64, c_int, bool)> {
    let (name, rest) = fault.split_once(':')?;
    let (nth, code) = rest.split_once(':')?;
    let name = FUNCTIONS.iter().find(|known| **known == name)?;
    let count = nth.trim_end_matches('+');
    Some((name, count.parse().ok()?, code.parse().ok()?, nth != count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_described() {
        assert_eq!(parse("clFlush:3:-5"), Some(("clFlush", 3, -5, false)));
        let none = Some(("clGetDeviceIDs", 1, -1, true));
        assert_eq!(parse("clGetDeviceIDs:1+:-1"), none);
        for wrong in ["clNothing:1:-5", "clFlush:one:-5", "clFlush:1", "clFlush"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_position_of_the_table_is_taken_twice() {
        let mut positions: Vec<_> = replaced().into_iter().map(|(at, _)| at).collect();
        positions.dedup();
        assert_eq!(positions.len(), FUNCTIONS.len());
        assert!(positions.is_sorted());
    }
}
