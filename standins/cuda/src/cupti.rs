//! CUPTI's callbacks, for calls of the driver that a subscriber may ask for.
//!
//! As in CUPTI, there is one subscriber, and it is called before and after a call that it has asked
//! for, on the calling thread and without a lock of the driver.

use crate::codes::{CUDA_SUCCESS, CUresult};
use crate::context::current_handle;
use crate::driver::{in_forked_child, with_driver};
use fencepost_sim::lock;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// `CUpti_CallbackData`.
#[repr(C)]
#[derive(Debug)]
pub struct CallbackData {
    site: c_int,
    function_name: *const c_char,
    params: *const c_void,
    returned: *const CUresult,
    symbol: *const c_char,
    context: usize,
    context_id: u32,
    correlation: *mut u64,
    correlation_id: u32,
}

/// `CUpti_CallbackFunc`.
pub type Callback = unsafe extern "C" fn(*mut c_void, c_int, c_uint, *const CallbackData);

/// `CUPTI_CB_DOMAIN_DRIVER_API`.
const DRIVER_CALLS: c_int = 1;

/// The calls that the stand-in tells of, by CUPTI's callback ids.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    CtxSynchronize = 17,
    ModuleLoadData = 19,
    ModuleUnload = 22,
    MemFreeHost = 38,
    EventRecord = 119,
    EventSynchronize = 121,
    StreamCreate = 124,
    StreamSynchronize = 126,
    MemFree = 245,
    StreamWaitEvent = 295,
    LaunchKernel = 307,
    EventDestroy = 325,
    StreamDestroy = 326,
    StreamCreateWithPriority = 367,
    StreamEndCapture = 497,
    GraphLaunch = 514,
    LaunchHostFunc = 527,
    StreamBeginCapture = 539,
    EventRecordWithFlags = 587,
    StreamWaitValue32 = 659,
    StreamWriteValue32 = 663,
}

impl Call {
    fn name(self) -> &'static CStr {
        match self {
            Call::CtxSynchronize => c"cuCtxSynchronize",
            Call::ModuleLoadData => c"cuModuleLoadData",
            Call::ModuleUnload => c"cuModuleUnload",
            Call::MemFreeHost => c"cuMemFreeHost",
            Call::EventRecord => c"cuEventRecord",
            Call::EventSynchronize => c"cuEventSynchronize",
            Call::StreamCreate => c"cuStreamCreate",
            Call::StreamSynchronize => c"cuStreamSynchronize",
            Call::MemFree => c"cuMemFree_v2",
            Call::StreamWaitEvent => c"cuStreamWaitEvent",
            Call::LaunchKernel => c"cuLaunchKernel",
            Call::EventDestroy => c"cuEventDestroy_v2",
            Call::StreamDestroy => c"cuStreamDestroy_v2",
            Call::StreamCreateWithPriority => c"cuStreamCreateWithPriority",
            Call::StreamEndCapture => c"cuStreamEndCapture",
            Call::GraphLaunch => c"cuGraphLaunch",
            Call::LaunchHostFunc => c"cuLaunchHostFunc",
            Call::StreamBeginCapture => c"cuStreamBeginCapture_v2",
            Call::EventRecordWithFlags => c"cuEventRecordWithFlags",
            Call::StreamWaitValue32 => c"cuStreamWaitValue32_v2",
            Call::StreamWriteValue32 => c"cuStreamWriteValue32_v2",
        }
    }
}

/// The parameters of a call, in their order and with C's layout.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Params<A, B = (), C = ()>(pub(crate) A, pub(crate) B, pub(crate) C);

#[derive(Debug)]
struct Subscriber {
    callback: Callback,
    user: usize,
    /// The callback ids that it has asked for.
    enabled: Vec<c_uint>,
}

static SUBSCRIBER: Mutex<Option<Subscriber>> = Mutex::new(None);
/// Whether there is one.
static SUBSCRIBED: AtomicBool = AtomicBool::new(false);

/// The only subscriber's handle.
pub(crate) const HANDLE: usize = 0x5b5;

/// `false`: there is one already.
pub(crate) fn subscribe(callback: Callback, user: *mut c_void) -> bool {
    let mut subscriber = lock(&SUBSCRIBER);
    if subscriber.is_some() {
        return false;
    }
    *subscriber = Some(Subscriber {
        callback,
        user: user.expose_provenance(),
        enabled: Vec::new(),
    });
    SUBSCRIBED.store(true, Ordering::SeqCst);
    true
}

/// `false`: there is none.
pub(crate) fn unsubscribe() -> bool {
    SUBSCRIBED.store(false, Ordering::SeqCst);
    lock(&SUBSCRIBER).take().is_some()
}

/// `false`: there is no subscriber.
pub(crate) fn enable(on: bool, id: c_uint) -> bool {
    let mut subscriber = lock(&SUBSCRIBER);
    let Some(subscriber) = subscriber.as_mut() else {
        return false;
    };
    subscriber.enabled.retain(|enabled| *enabled != id);
    if on {
        subscriber.enabled.push(id);
    }
    true
}

/// Makes `body` a call that the subscriber is told of. `params` are the call's parameters, laid out
/// as in `generated_cuda_meta.h`; `symbol` is a launch's kernel.
pub(crate) fn traced<P>(
    call: Call,
    params: &P,
    symbol: Option<&CStr>,
    body: impl FnOnce() -> CUresult,
) -> CUresult {
    if !SUBSCRIBED.load(Ordering::SeqCst) || in_forked_child() {
        return body();
    }
    tell(call, params, symbol, None);
    let code = body();
    tell(call, params, symbol, Some(code));
    code
}

fn tell<P>(call: Call, params: &P, symbol: Option<&CStr>, returned: Option<CUresult>) {
    let id = call as c_uint;
    let chosen = lock(&SUBSCRIBER)
        .as_ref()
        .filter(|subscriber| subscriber.enabled.contains(&id))
        .map(|subscriber| (subscriber.callback, subscriber.user));
    let Some((callback, user)) = chosen else {
        return;
    };
    let context = current_handle();
    let id_of = |driver: &mut crate::driver::Driver| driver.context(context).ok().map(|c| c.id);
    let context_id = match context {
        0 => 0,
        _ => with_driver(id_of).ok().flatten().unwrap_or(0) as u32,
    };
    let mut correlation = 0;
    let code = returned.unwrap_or(CUDA_SUCCESS);
    let data = CallbackData {
        site: returned.is_some().into(),
        function_name: call.name().as_ptr(),
        params: std::ptr::from_ref(params).cast(),
        returned: &raw const code,
        symbol: symbol.map_or(std::ptr::null(), CStr::as_ptr),
        context,
        context_id,
        correlation: &raw mut correlation,
        correlation_id: 0,
    };
    // SAFETY: the subscriber vouches for the callback, and the data lives through the call
    unsafe {
        callback(
            std::ptr::with_exposed_provenance_mut(user),
            DRIVER_CALLS,
            id,
            &raw const data,
        );
    }
}
