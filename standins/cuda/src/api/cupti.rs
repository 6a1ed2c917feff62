//! CUPTI: <https://docs.nvidia.com/cupti/main/main.html#callback-api>, and the library that the
//! driver loads while it initializes.

use crate::cupti::{Callback, HANDLE, enable, subscribe, unsubscribe};
use crate::ffi::Out;
use crate::log::LOG;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Once;

const SUCCESS: c_int = 0;
const INVALID_PARAMETER: c_int = 1;
const MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED: c_int = 39;

/// Begins a subscription. There is at most one.
#[unsafe(no_mangle)]
pub extern "C" fn cuptiSubscribe(
    subscriber: Out<'_, usize>,
    callback: Option<Callback>,
    user: *mut c_void,
) -> c_int {
    let (Ok(subscriber), Some(callback)) = (subscriber.required(), callback) else {
        return INVALID_PARAMETER;
    };
    match subscribe(callback, user) {
        true => {
            subscriber.put(HANDLE);
            SUCCESS
        }
        false => MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED,
    }
}

/// Ends the subscription.
#[unsafe(no_mangle)]
pub extern "C" fn cuptiUnsubscribe(subscriber: usize) -> c_int {
    match subscriber == HANDLE && unsubscribe() {
        true => SUCCESS,
        false => INVALID_PARAMETER,
    }
}

/// Asks for the callbacks of one call, or no more for them.
#[unsafe(no_mangle)]
pub extern "C" fn cuptiEnableCallback(
    on: c_uint,
    subscriber: usize,
    _domain: c_int,
    id: c_uint,
) -> c_int {
    match subscriber == HANDLE && enable(on != 0, id) {
        true => SUCCESS,
        false => INVALID_PARAMETER,
    }
}

/// Asks for all callbacks of the domain, or no more for any.
#[unsafe(no_mangle)]
pub extern "C" fn cuptiEnableDomain(on: c_uint, subscriber: usize, domain: c_int) -> c_int {
    if subscriber != HANDLE {
        return INVALID_PARAMETER;
    }
    // the stand-in has no callbacks of other domains
    let all = if domain == 1 { 1..1024 } else { 0..0 };
    for id in all {
        enable(on != 0, id);
    }
    SUCCESS
}

/// Ends everything that CUPTI does in the process.
#[unsafe(no_mangle)]
pub extern "C" fn cuptiFinalize() -> c_int {
    unsubscribe();
    SUCCESS
}

/// The text of an error.
#[unsafe(no_mangle)]
pub extern "C" fn cuptiGetResultString(_code: c_int, text: Out<'_, *const c_char>) -> c_int {
    text.put(c"an error of the stand-in".as_ptr());
    SUCCESS
}

/// Loads the library that `CUDA_INJECTION64_PATH` names, and calls its `InitializeInjection`.
pub(crate) fn inject() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Some(path) = std::env::var_os("CUDA_INJECTION64_PATH") else {
            return;
        };
        // SAFETY: whoever has set the variable vouches for the library
        let library = unsafe { libloading::Library::new(path) };
        let library = match library {
            Ok(library) => Box::leak(Box::new(library)),
            Err(error) => return LOG.violation(&format!("CUDA_INJECTION64_PATH: {error}")),
        };
        // SAFETY: a library for injection has this function with this type
        let initialize =
            unsafe { library.get::<unsafe extern "C" fn() -> c_int>(b"InitializeInjection\0") };
        if let Ok(initialize) = initialize {
            // SAFETY: as above
            unsafe { initialize() };
        }
    });
}
