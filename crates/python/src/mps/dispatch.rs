//! Running work on a dispatch queue of another owner.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr::NonNull,
};

type Function = unsafe extern "C" fn(*mut c_void);

// libdispatch, which every program on Apple's systems links.
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

/// Its address is a key, under which each queue stores its own address.
static KEY: u8 = 0;

/// Runs `work` on `queue`, and returns its result. Called on that queue itself, where
/// `dispatch_sync` would deadlock, it runs `work` at once.
///
/// # Safety
/// `queue` is a serial `dispatch_queue_t` that nobody releases meanwhile.
pub(crate) unsafe fn on_queue<R: Send>(
    queue: NonNull<c_void>,
    work: impl FnOnce() -> R + Send,
) -> R {
    let key: *const c_void = (&raw const KEY).cast();
    let queue = queue.as_ptr();
    // SAFETY: the key belongs to this module. Nobody dereferences the key or the value, and the
    // value needs no destructor. Setting it again sets the same value.
    // https://developer.apple.com/documentation/dispatch/dispatch_queue_set_specific
    let on_it_already = unsafe {
        dispatch_queue_set_specific(queue, key, queue, None);
        dispatch_get_specific(key) == queue
    };
    if on_it_already {
        return work();
    }
    let mut call = Call {
        work: Some(work),
        result: None,
    };
    // SAFETY: the function gets the call that it was made for. The call outlives it, because
    // dispatch_sync_f returns after the function. The work and its result are `Send`.
    unsafe { dispatch_sync_f(queue, (&raw mut call).cast(), function_for(&call)) };
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
fn function_for<F: FnOnce() -> R, R>(_: &Call<F, R>) -> Function {
    unsafe extern "C" fn run<F: FnOnce() -> R, R>(call: *mut c_void) {
        // SAFETY: a call of this type, which nobody else uses until dispatch_sync_f returns.
        let call = unsafe { &mut *call.cast::<Call<F, R>>() };
        if let Some(work) = call.work.take() {
            call.result = Some(catch_unwind(AssertUnwindSafe(work)));
        }
    }
    run::<F, R>
}
