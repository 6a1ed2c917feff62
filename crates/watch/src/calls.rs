//! The calls of the driver that are followed, by their callback ids of CUPTI, and where the stream
//! is in their parameters: `cupti_driver_cbid.h` and `generated_cuda_meta.h` of CUPTI. Ids never
//! change; an older CUPTI refuses those that it does not know.

use std::ffi::c_void;

use Kind::*;
use Where::*;

/// What a call does, as far as waiting is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Record,
    Wait,
    Launch,
    Host,
    Graph,
    Copy,
    Fill,
    /// Allocates or frees in the order of the stream.
    Memory,
    WaitValue,
    WriteValue,
    /// Waits for values and writes of them, which are not looked at.
    MemoryOperations,
    WaitSemaphore,
    SignalSemaphore,
    /// Submits nothing, but may not return for long.
    Inside,
    InsideEvent,
    Create,
    Destroy,
    DestroyEvent,
    OpenEvent,
    BeginCapture,
    EndCapture,
    DestroyContext,
    Reset,
    /// Ends the life of kernels' names.
    Unload,
}

/// Where a call's stream is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Where {
    None,
    /// At this offset of the parameters.
    At(u8),
    /// In the structure that the first parameter points to.
    Config,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) id: u32,
    /// The id of the same function where 0 names the thread's own default stream; 0: there is none.
    pub(crate) per_thread: u32,
    pub(crate) kind: Kind,
    stream: Where,
}

const fn row(name: &'static str, id: u32, per_thread: u32, kind: Kind, stream: Where) -> Call {
    Call {
        name,
        id,
        per_thread,
        kind,
        stream,
    }
}

pub(crate) static CALLS: &[Call] = &[
    row("cuEventRecord", 119, 441, Record, At(8)),
    row("cuEventRecordWithFlags", 587, 588, Record, At(8)),
    row("cuStreamWaitEvent", 295, 436, Wait, At(0)),
    row("cuLaunchKernel", 307, 442, Launch, At(40)),
    row("cuLaunchKernelEx", 652, 653, Launch, Config),
    row("cuLaunchCooperativeKernel", 477, 478, Launch, At(40)),
    row("cuLaunchHostFunc", 527, 528, Host, At(0)),
    row("cuLaunchHostFunc_v2", 831, 832, Host, At(0)),
    row("cuStreamAddCallback", 346, 437, Host, At(0)),
    row("cuGraphLaunch", 514, 515, Graph, At(8)),
    row("cuMemcpyAsync", 306, 418, Copy, At(24)),
    row("cuMemcpyHtoDAsync_v2", 277, 421, Copy, At(24)),
    row("cuMemcpyDtoHAsync_v2", 279, 422, Copy, At(24)),
    row("cuMemcpyDtoDAsync_v2", 281, 423, Copy, At(24)),
    row("cuMemcpy2DAsync_v2", 289, 424, Copy, At(8)),
    row("cuMemcpy3DAsync_v2", 291, 425, Copy, At(8)),
    row("cuMemcpyPeerAsync", 319, 426, Copy, At(40)),
    row("cuMemcpy3DPeerAsync", 321, 427, Copy, At(8)),
    row("cuMemcpyHtoAAsync_v2", 293, 419, Copy, At(32)),
    row("cuMemcpyAtoHAsync_v2", 283, 420, Copy, At(32)),
    row("cuMemcpyBatchAsync", 776, 777, Copy, At(64)),
    row("cuMemcpyBatchAsync_v2", 796, 797, Copy, At(56)),
    row("cuMemsetD8Async", 216, 428, Fill, At(24)),
    row("cuMemsetD16Async", 218, 429, Fill, At(24)),
    row("cuMemsetD32Async", 220, 430, Fill, At(24)),
    row("cuMemsetD2D8Async", 222, 431, Fill, At(40)),
    row("cuMemsetD2D16Async", 224, 432, Fill, At(40)),
    row("cuMemsetD2D32Async", 226, 433, Fill, At(40)),
    row("cuMemAllocAsync", 598, 599, Memory, At(16)),
    row("cuMemFreeAsync", 600, 601, Memory, At(8)),
    row("cuMemAllocFromPoolAsync", 611, 612, Memory, At(24)),
    row("cuStreamWaitValue32", 458, 459, WaitValue, At(0)),
    row("cuStreamWriteValue32", 460, 461, WriteValue, At(0)),
    row("cuStreamWaitValue32_v2", 659, 660, WaitValue, At(0)),
    row("cuStreamWriteValue32_v2", 663, 664, WriteValue, At(0)),
    row("cuStreamWaitValue64", 473, 474, WaitValue, At(0)),
    row("cuStreamWriteValue64", 475, 476, WriteValue, At(0)),
    row("cuStreamWaitValue64_v2", 661, 662, WaitValue, At(0)),
    row("cuStreamWriteValue64_v2", 665, 666, WriteValue, At(0)),
    row("cuStreamBatchMemOp", 462, 463, MemoryOperations, At(0)),
    row("cuStreamBatchMemOp_v2", 667, 668, MemoryOperations, At(0)),
    row(
        "cuWaitExternalSemaphoresAsync",
        492,
        493,
        WaitSemaphore,
        At(24),
    ),
    row(
        "cuSignalExternalSemaphoresAsync",
        490,
        491,
        SignalSemaphore,
        At(24),
    ),
    row("cuStreamSynchronize", 126, 440, Inside, At(0)),
    row("cuEventSynchronize", 121, 0, InsideEvent, None),
    row("cuCtxSynchronize", 17, 0, Inside, None),
    row("cuCtxSynchronize_v2", 800, 0, Inside, None),
    row("cuStreamCreate", 124, 0, Create, None),
    row("cuStreamCreateWithPriority", 367, 0, Create, None),
    row("cuGreenCtxStreamCreate", 758, 0, Create, None),
    row("cuStreamDestroy", 127, 0, Destroy, At(0)),
    row("cuStreamDestroy_v2", 326, 0, Destroy, At(0)),
    row("cuEventDestroy", 122, 0, DestroyEvent, None),
    row("cuEventDestroy_v2", 325, 0, DestroyEvent, None),
    row("cuIpcOpenEventHandle", 335, 0, OpenEvent, None),
    row("cuStreamBeginCapture", 495, 496, BeginCapture, At(0)),
    row("cuStreamBeginCapture_v2", 539, 540, BeginCapture, At(0)),
    row("cuStreamBeginCaptureToGraph", 720, 721, BeginCapture, At(0)),
    row("cuStreamEndCapture", 497, 498, EndCapture, At(0)),
    row("cuCtxDestroy", 11, 0, DestroyContext, None),
    row("cuCtxDestroy_v2", 322, 0, DestroyContext, None),
    row("cuDevicePrimaryCtxReset", 389, 0, Reset, None),
    row("cuDevicePrimaryCtxReset_v2", 545, 0, Reset, None),
    row("cuModuleUnload", 22, 0, Unload, None),
    row("cuLibraryUnload", 680, 0, Unload, None),
    row("cuModuleLoad", 18, 0, Inside, None),
    row("cuModuleLoadData", 19, 0, Inside, None),
    row("cuModuleLoadDataEx", 20, 0, Inside, None),
    row("cuModuleLoadFatBinary", 21, 0, Inside, None),
    row("cuModuleGetFunction", 23, 0, Inside, None),
    row("cuLibraryLoadData", 678, 0, Inside, None),
    row("cuLibraryLoadFromFile", 679, 0, Inside, None),
    row("cuKernelGetFunction", 683, 0, Inside, None),
    row("cuFuncLoad", 742, 0, Inside, None),
    row("cuMemAlloc_v2", 243, 0, Inside, None),
    row("cuMemAllocPitch_v2", 244, 0, Inside, None),
    row("cuMemAllocManaged", 371, 0, Inside, None),
    row("cuMemFree_v2", 245, 0, Inside, None),
    row("cuMemAllocHost_v2", 294, 0, Inside, None),
    row("cuMemHostAlloc", 39, 0, Inside, None),
    row("cuMemFreeHost", 38, 0, Inside, None),
    row("cuMemHostRegister_v2", 379, 0, Inside, None),
    row("cuMemHostUnregister", 302, 0, Inside, None),
    row("cuMemcpy", 305, 408, Inside, None),
    row("cuMemcpyPeer", 318, 409, Inside, None),
    row("cuMemcpyHtoD_v2", 276, 397, Inside, None),
    row("cuMemcpyDtoH_v2", 278, 398, Inside, None),
    row("cuMemcpyDtoD_v2", 280, 399, Inside, None),
    row("cuMemcpy2D_v2", 287, 405, Inside, None),
    row("cuMemcpy3D_v2", 290, 407, Inside, None),
    row("cuMemsetD8_v2", 249, 411, Inside, None),
    row("cuMemsetD16_v2", 250, 412, Inside, None),
    row("cuMemsetD32_v2", 251, 413, Inside, None),
];

/// `hStream` in `CUlaunchConfig`.
const STREAM_OF_CONFIG: usize = 32;

/// The handle of the thread's own default stream.
pub(crate) const PER_THREAD: usize = 2;

impl Call {
    /// The handle of the stream of this call, with 0 for the legacy default stream.
    ///
    /// # Safety
    /// `params` are the call's parameters, as CUPTI gives them.
    #[inline]
    pub(crate) unsafe fn stream(&self, id: u32, params: *const c_void) -> Option<usize> {
        let params = params.cast::<u8>();
        let handle = match self.stream {
            None => return Option::None,
            // SAFETY: the caller vouches for it
            At(offset) => unsafe { params.add(offset.into()).cast::<usize>().read() },
            Config => {
                // SAFETY: the first parameter is a pointer
                let config = unsafe { params.cast::<*const u8>().read() };
                if config.is_null() {
                    return Option::None;
                }
                // SAFETY: the driver has read, or is about to read, the structure it points to
                unsafe { config.add(STREAM_OF_CONFIG).cast::<usize>().read() }
            }
        };
        Some(match handle {
            0 if id == self.per_thread => PER_THREAD,
            // CU_STREAM_LEGACY
            1 => 0,
            handle => handle,
        })
    }
}

const IDS: usize = 1024;

/// The place in [`CALLS`] by id, plus 1.
static BY_ID: [u8; IDS] = {
    let mut by_id = [0; IDS];
    let mut at = 0;
    while at < CALLS.len() {
        let call = &CALLS[at];
        by_id[call.id as usize] = at as u8 + 1;
        if call.per_thread != 0 {
            by_id[call.per_thread as usize] = at as u8 + 1;
        }
        at += 1;
    }
    by_id
};

#[inline]
pub(crate) fn of(id: u32) -> Option<&'static Call> {
    let at = BY_ID.get(id as usize)?.checked_sub(1)?;
    CALLS.get(usize::from(at))
}

/// The ids of all of them.
pub(crate) fn ids() -> impl Iterator<Item = u32> {
    let both = CALLS.iter().flat_map(|call| [call.id, call.per_thread]);
    both.filter(|&id| id != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_of_one_call() {
        let mut all: Vec<_> = ids().collect();
        all.sort_unstable();
        let many = all.len();
        all.dedup();
        assert_eq!(all.len(), many);
        for call in CALLS {
            assert_eq!(of(call.id).unwrap().name, call.name);
        }
        assert!(of(0).is_none() && of(1 << 20).is_none());
    }

    #[test]
    fn zero_is_the_default_stream_that_the_function_means() {
        let call = of(119).unwrap();
        assert_eq!(call.name, "cuEventRecord");
        let params = [7_usize, 0];
        // SAFETY: an event and a stream are what the function takes
        let stream = |id, params: &[usize; 2]| unsafe { call.stream(id, params.as_ptr().cast()) };
        assert_eq!(stream(119, &params), Some(0));
        assert_eq!(stream(441, &params), Some(PER_THREAD));
        assert_eq!(stream(441, &[7, 1]), Some(0));
        assert_eq!(stream(119, &[7, 0x60]), Some(0x60));
    }
}
