//! Work on a dispatch queue of somebody else.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr::NonNull,
};

type Function = unsafe extern "C" fn(*mut c_void);

// libdispatch, which every program on Apple's systems is linked with.
unsafe extern "C" {
    fn dispatch_sync_f(queue: *mut c_void, context: *mut c_void, work: Function);
    fn dispatch_queue_set_specific(
        queue: *mut c_void,
        key: *const c_void,
        context: *mut c_void,
        destructor: Option<Function>,
    );
    fn dispatch_get_specific(key: *const c_void) -> *mut c_void;
}

/// Its address is the key under which a queue has its own address.
static KEY: u8 = 0;

/// Runs `work` on `queue`, and returns what it gives. On a thread that is on that queue already,
/// where `dispatch_sync` would wait for itself, it runs at once.
///
/// # Safety
/// `queue` is a serial `dispatch_queue_t` that nobody releases meanwhile.
pub(crate) unsafe fn on_queue<R: Send>(
    queue: NonNull<c_void>,
    work: impl FnOnce() -> R + Send,
) -> R {
    let key: *const c_void = (&raw const KEY).cast();
    let queue = queue.as_ptr();
    // SAFETY: nobody reads through the key, which is ours alone, or through the value, which needs
    // no destructor. Setting it anew sets the same value.
    // https://developer.apple.com/documentation/dispatch/dispatch_queue_set_specific
    let is_here = unsafe {
        dispatch_queue_set_specific(queue, key, queue, None);
        dispatch_get_specific(key) == queue
    };
    if is_here {
        return work();
    }
    let mut call = Call {
        work: Some(work),
        result: None,
    };
    // SAFETY: the function gets the call, of its type, which outlives it, since dispatch_sync_f
    // returns when the function has; both may be used on another thread, being `Send`.
    unsafe { dispatch_sync_f(queue, (&raw mut call).cast(), of(&call)) };
    match call.result {
        Some(Ok(result)) => result,
        Some(Err(panic)) => resume_unwind(panic),
        None => unreachable!("dispatch_sync returns when the work is done"),
    }
}

struct Call<F, R> {
    work: Option<F>,
    result: Option<std::thread::Result<R>>,
}

/// The function that runs a call of this type.
fn of<F: FnOnce() -> R, R>(_: &Call<F, R>) -> Function {
    unsafe extern "C" fn run<F: FnOnce() -> R, R>(call: *mut c_void) {
        // SAFETY: a call of this type, and nobody else's until dispatch_sync_f returns.
        let call = unsafe { &mut *call.cast::<Call<F, R>>() };
        if let Some(work) = call.work.take() {
            call.result = Some(catch_unwind(AssertUnwindSafe(work)));
        }
    }
    run::<F, R>
}
