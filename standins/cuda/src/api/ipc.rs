//! Events across processes: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html>,
//! `cuIpc…EventHandle`.

use crate::codes::{
    CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE, CUresult,
};
use crate::entry::call;
use crate::event::Event;
use crate::ffi::Out;
use crate::shared_event::{Name, SharedEvent};
use crate::types::{CU_EVENT_DISABLE_TIMING, CU_EVENT_INTERPROCESS, CUevent, CUipcEventHandle};

/// A handle of an interprocess event for other processes, which they can open.
#[unsafe(no_mangle)]
pub extern "C" fn cuIpcGetEventHandle(
    handle: Out<'_, CUipcEventHandle>,
    event: CUevent,
) -> CUresult {
    call("cuIpcGetEventHandle", |driver| {
        let handle = handle.required()?;
        let event = driver.event(event)?;
        event.context.sticky_error.check()?;
        let shared = event.shared.as_ref().ok_or(CUDA_ERROR_INVALID_HANDLE)?;
        handle.put(shared.name().handle());
        Ok(())
    })
}

/// Opens an event by such a handle. As with CUDA, the process that exported it gets an error,
/// unless a test permits it.
#[unsafe(no_mangle)]
pub extern "C" fn cuIpcOpenEventHandle(
    event: Out<'_, CUevent>,
    handle: CUipcEventHandle,
) -> CUresult {
    call("cuIpcOpenEventHandle", |driver| {
        let event = event.required()?;
        let context = driver.current()?;
        let name = Name::of(&handle).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if name.process == std::process::id() && !driver.ipc_in_one_process {
            return Err(CUDA_ERROR_INVALID_CONTEXT);
        }
        let flags = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING;
        let opened = Event::new(context, flags, Some(SharedEvent::open(name)?));
        event.put(driver.events.insert(opened));
        Ok(())
    })
}
