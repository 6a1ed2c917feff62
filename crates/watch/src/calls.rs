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
    /// Waits for all work of a stream, or of a context.
    Synchronize,
    SynchronizeEvent,
    Create,
    Destroy,
    DestroyEvent,
    OpenEvent,
    /// Makes a graph record an event, whenever it runs.
    RecordInGraph,
    BeginCapture,
    EndCapture,
    DestroyContext,
    Reset,
    /// Of a primary context, which is destroyed where it was the last.
    Release,
    /// Ends the life of kernels' names.
    Unload,
}

impl Kind {
    /// Whether such a call submits work to its stream.
    #[inline]
    pub(crate) fn submits(self) -> bool {
        matches!(
            self,
            Record
                | Wait
                | Launch
                | Host
                | Graph
                | Copy
                | Fill
                | Memory
                | WaitValue
                | WriteValue
                | MemoryOperations
                | WaitSemaphore
                | SignalSemaphore
        )
    }
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
    row("cuGraphAddEventRecordNode", 589, 0, RecordInGraph, None),
    row(
        "cuGraphEventRecordNodeSetEvent",
        593,
        0,
        RecordInGraph,
        None,
    ),
    row(
        "cuGraphExecEventRecordNodeSetEvent",
        595,
        0,
        RecordInGraph,
        None,
    ),
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
    row("cuStreamSynchronize", 126, 440, Synchronize, At(0)),
    row("cuEventSynchronize", 121, 0, SynchronizeEvent, None),
    row("cuCtxSynchronize", 17, 0, Synchronize, None),
    row("cuCtxSynchronize_v2", 800, 0, Synchronize, None),
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
    row("cuDevicePrimaryCtxRelease", 387, 0, Release, None),
    row("cuDevicePrimaryCtxRelease_v2", 544, 0, Release, None),
    row("cuModuleUnload", 22, 0, Unload, None),
    row("cuLibraryUnload", 680, 0, Unload, None),
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

/// In place of an id, while a thread is in a call of Vulkan.
pub(crate) const VULKAN: u32 = u32::MAX;
/// The same, of a call that waits for what `vulkan::seen` has of the thread.
pub(crate) const VULKAN_WAIT: u32 = u32::MAX - 1;

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

/// The ids, from and to, of calls that are made often and never block, so that following them would
/// only cost: queries, and what gets or sets a property. Not those of kernels, which may be loaded
/// for it.
const QUICK: &[(u32, u32)] = &[
    (1, 9),
    (14, 16),
    (27, 27),
    (35, 35),
    (40, 40),
    (42, 42),
    (118, 118),
    (120, 120),
    (123, 123),
    (125, 125),
    (135, 135),
    (137, 137),
    (242, 242),
    (246, 247),
    (259, 259),
    (296, 296),
    (299, 299),
    (303, 304),
    (308, 311),
    (323, 324),
    (331, 332),
    (337, 337),
    (368, 370),
    (372, 373),
    (378, 378),
    (391, 392),
    (434, 435),
    (439, 439),
    (450, 450),
    (454, 454),
    (482, 484),
    (499, 500),
    (502, 504),
    (506, 506),
    (509, 512),
    (518, 518),
    (521, 521),
    (524, 526),
    (530, 530),
    (532, 532),
    (534, 538),
    (541, 542),
    (556, 558),
    (569, 571),
    (574, 575),
    (579, 579),
    (589, 590),
    (603, 606),
    (610, 610),
    (617, 618),
    (621, 621),
    (626, 626),
    (629, 632),
    (638, 639),
    (641, 641),
    (644, 644),
    (646, 647),
    (650, 651),
    (669, 669),
    (673, 674),
    (677, 677),
    (689, 695),
    (697, 699),
    (712, 713),
    (723, 727),
    (729, 732),
    (745, 746),
    (752, 752),
    (759, 760),
    (774, 775),
    (780, 781),
    (795, 795),
    (801, 802),
    (804, 805),
    (807, 812),
    (841, 841),
    (860, 860),
    (863, 867),
];

/// How many ids there are in CUPTI 13.5. What came later is not followed.
const KNOWN: u32 = 877;

/// The ids of all calls to follow: those of the table, and any other that may not return for long.
pub(crate) fn ids() -> impl Iterator<Item = u32> {
    let is_quick = |id: u32| QUICK.iter().any(|&(from, to)| (from..=to).contains(&id));
    (1..KNOWN).filter(move |&id| of(id).is_some() || !is_quick(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_of_one_call() {
        let both = CALLS.iter().flat_map(|call| [call.id, call.per_thread]);
        let mut all: Vec<_> = both.filter(|&id| id != 0).collect();
        assert!(all.iter().all(|&id| ids().any(|followed| followed == id)));
        all.sort_unstable();
        let many = all.len();
        all.dedup();
        assert_eq!(all.len(), many);
        const EVENT_QUERY: u32 = 120;
        const MODULE_LOAD: u32 = 19;
        assert!(ids().all(|id| id != EVENT_QUERY) && ids().any(|id| id == MODULE_LOAD));
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
