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
    /// Moves, maps or gives up memory, or loads what a later launch needs.
    Prepare,
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
    /// Makes an event that is or was recorded where it cannot be seen.
    OpenEvent,
    /// From now on an event may be recorded where it cannot be seen: by a graph, whenever that
    /// runs, or by another process.
    RecordElsewhere,
    /// Records an event behind the work of all streams of a context.
    RecordContext,
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
                | Prepare
                | WaitValue
                | WriteValue
                | MemoryOperations
                | WaitSemaphore
                | SignalSemaphore
        )
    }
}

/// Where a call's stream is, or what it has in place of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    None,
    /// At this offset of the parameters.
    At(u8),
    /// In the structure that the first parameter points to.
    Config,
    /// No stream, but an event at this offset.
    Event(u8),
    /// No stream, but a pointer to `CUgraphNodeParams` at this offset.
    Node(u8),
    /// No stream, but a context, which is the first parameter.
    Context,
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
    row("cuCtxRecordEvent", 755, 0, RecordContext, Event(8)),
    row("cuGreenCtxRecordEvent", 749, 0, RecordContext, Event(8)),
    row(
        "cuGraphAddEventRecordNode",
        589,
        0,
        RecordElsewhere,
        Event(32),
    ),
    row(
        "cuGraphEventRecordNodeSetEvent",
        593,
        0,
        RecordElsewhere,
        Event(8),
    ),
    row(
        "cuGraphExecEventRecordNodeSetEvent",
        595,
        0,
        RecordElsewhere,
        Event(16),
    ),
    row("cuGraphAddNode", 712, 0, RecordElsewhere, Node(32)),
    row("cuGraphAddNode_v2", 723, 0, RecordElsewhere, Node(40)),
    row("cuGraphAddNode_v3", 863, 0, RecordElsewhere, Node(40)),
    row("cuGraphNodeSetParams", 713, 0, RecordElsewhere, Node(8)),
    row("cuGraphNodeSetParams_v2", 864, 0, RecordElsewhere, Node(8)),
    row(
        "cuGraphExecNodeSetParams",
        714,
        0,
        RecordElsewhere,
        Node(16),
    ),
    row("cuIpcGetEventHandle", 334, 0, RecordElsewhere, Event(8)),
    row("cuStreamWaitEvent", 295, 436, Wait, At(0)),
    row("cuLaunchKernel", 307, 442, Launch, At(40)),
    row("cuLaunchKernelEx", 652, 653, Launch, Config),
    row("cuLaunchCooperativeKernel", 477, 478, Launch, At(40)),
    row("cuLaunchGridAsync", 117, 0, Launch, At(16)),
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
    row("cuMemcpy3DBatchAsync", 778, 779, Copy, At(32)),
    row("cuMemcpy3DBatchAsync_v2", 798, 799, Copy, At(24)),
    row("cuMemcpyWithAttributesAsync", 837, 838, Copy, At(32)),
    row("cuMemcpy3DWithAttributesAsync", 839, 840, Copy, At(16)),
    row("cuMemBatchDecompressAsync", 761, 762, Copy, At(32)),
    row("cuMemsetD8Async", 216, 428, Fill, At(24)),
    row("cuMemsetD16Async", 218, 429, Fill, At(24)),
    row("cuMemsetD32Async", 220, 430, Fill, At(24)),
    row("cuMemsetD2D8Async", 222, 431, Fill, At(40)),
    row("cuMemsetD2D16Async", 224, 432, Fill, At(40)),
    row("cuMemsetD2D32Async", 226, 433, Fill, At(40)),
    row("cuMemAllocAsync", 598, 599, Memory, At(16)),
    row("cuMemFreeAsync", 600, 601, Memory, At(8)),
    row("cuMemAllocFromPoolAsync", 611, 612, Memory, At(24)),
    row("cuMemPrefetchAsync", 467, 468, Prepare, At(24)),
    row("cuMemPrefetchAsync_v2", 716, 717, Prepare, At(32)),
    row("cuMemPrefetchBatchAsync", 784, 785, Prepare, At(56)),
    row("cuMemDiscardBatchAsync", 789, 790, Prepare, At(32)),
    row(
        "cuMemDiscardAndPrefetchBatchAsync",
        791,
        792,
        Prepare,
        At(56),
    ),
    row("cuStreamAttachMemAsync", 377, 438, Prepare, At(0)),
    row("cuMemMapArrayAsync", 584, 585, Prepare, At(16)),
    row("cuGraphicsMapResources", 133, 443, Prepare, At(16)),
    row("cuGraphicsUnmapResources", 134, 444, Prepare, At(16)),
    row("cuGraphUpload", 580, 581, Prepare, At(8)),
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
    row("cuCtxSynchronize_v2", 800, 0, Synchronize, Context),
    row("cuStreamCreate", 124, 0, Create, None),
    row("cuStreamCreateWithPriority", 367, 0, Create, None),
    row("cuGreenCtxStreamCreate", 758, 0, Create, None),
    row("cuStreamDestroy", 127, 0, Destroy, At(0)),
    row("cuStreamDestroy_v2", 326, 0, Destroy, At(0)),
    row("cuEventDestroy", 122, 0, DestroyEvent, None),
    row("cuEventDestroy_v2", 325, 0, DestroyEvent, None),
    row("cuIpcOpenEventHandle", 335, 0, OpenEvent, None),
    row("cuEventCreateFromEGLSync", 479, 0, OpenEvent, None),
    row("cuStreamBeginCapture", 495, 496, BeginCapture, At(0)),
    row("cuStreamBeginCapture_v2", 539, 540, BeginCapture, At(0)),
    row("cuStreamBeginCaptureToGraph", 720, 721, BeginCapture, At(0)),
    row(
        "cuStreamBeginRecaptureToGraph",
        846,
        847,
        BeginCapture,
        At(0),
    ),
    row("cuStreamBeginCaptureToCig", 783, 814, BeginCapture, At(0)),
    row("cuStreamEndCapture", 497, 498, EndCapture, At(0)),
    row("cuStreamEndCaptureToCig", 815, 816, EndCapture, At(0)),
    row("cuCtxDestroy", 11, 0, DestroyContext, None),
    row("cuCtxDetach", 13, 0, DestroyContext, None),
    row("cuCtxDestroy_v2", 322, 0, DestroyContext, None),
    row("cuGreenCtxDestroy", 744, 0, Reset, None),
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
            None | Event(_) | Node(_) | Context => return Option::None,
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

    /// The event of a call that has no stream, where that is one of its parameters, or of the node
    /// that they describe. Not of calls that destroy an event, or wait for one.
    ///
    /// # Safety
    /// `params` are the call's parameters, as CUPTI gives them.
    pub(crate) unsafe fn event(&self, params: *const c_void) -> Option<usize> {
        /// `CU_GRAPH_NODE_TYPE_EVENT_RECORD`.
        const EVENT_RECORD: i32 = 7;
        /// `eventRecord.event` in `CUgraphNodeParams`.
        const EVENT_OF_NODE: usize = 16;

        let params = params.cast::<u8>();
        match self.stream {
            // SAFETY: the caller vouches for it
            Event(offset) => Some(unsafe { params.add(offset.into()).cast::<usize>().read() }),
            Node(offset) => {
                // SAFETY: this parameter is a pointer
                let node = unsafe { params.add(offset.into()).cast::<*const u8>().read() };
                // SAFETY: the driver is about to read the structure, which begins with its kind
                let kind = unsafe { node.cast::<i32>().as_ref() };
                // SAFETY: as above, and of this kind
                (kind == Some(&EVENT_RECORD))
                    .then(|| unsafe { node.add(EVENT_OF_NODE).cast::<usize>().read() })
            }
            _ => Option::None,
        }
    }

    /// The context of a call that names one in place of a stream.
    ///
    /// # Safety
    /// `params` are the call's parameters, as CUPTI gives them.
    pub(crate) unsafe fn context(&self, params: *const c_void) -> Option<usize> {
        // SAFETY: the caller vouches for it
        (self.stream == Context).then(|| unsafe { params.cast::<usize>().read() })
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

    /// Calls with a stream or an event that are not looked at, other than quick ones.
    const NOT_FOLLOWED: &[(&str, &[u32])] = &[
        (
            "CUDA 3's, for addresses of 32 bits",
            &[60, 62, 64, 66, 67, 68, 69],
        ),
        ("sets a property of a stream", &[572, 573, 576, 577]),
        (
            "about what a graph waits for, which is not seen",
            &[594, 596],
        ),
        (
            "makes a whole context wait, of whose streams some are yet to be made",
            &[750, 756],
        ),
        (
            "launches on several streams, which CUDA 13 does not have any more",
            &[480],
        ),
        ("asks how a kernel fits the device", &[675, 676]),
    ];

    #[test]
    fn every_call_of_the_drivers_list_is_followed_or_said_not_to_be() {
        let is_in = |ranges: &[(u32, u32)], id| ranges.iter().any(|r| (r.0..=r.1).contains(&id));
        let mut listed = Vec::new();
        let lines = include_str!("driver_calls.txt").lines();
        for line in lines.filter(|line| !line.starts_with('#')) {
            let mut words = line.split(' ');
            let id: u32 = words.next().unwrap().parse().unwrap();
            let name = words.next().unwrap();
            let parameters: Vec<_> = words.collect();
            listed.push(id);
            let is_named = NOT_FOLLOWED.iter().any(|(_, ids)| ids.contains(&id));
            let Some(call) = of(id) else {
                assert!(is_named || is_in(QUICK, id), "{line} is not followed");
                continue;
            };
            assert!(!is_named, "{line} is followed");
            let per_thread = ["_ptsz", "_ptds"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            assert_eq!(call.name, per_thread.unwrap_or(name));
            assert_eq!(call.per_thread == id, per_thread.is_some(), "{line}");
            let at = match call.stream {
                At(offset) => format!("stream@{offset}"),
                Config => "config@0".into(),
                Event(offset) => format!("event@{offset}"),
                Node(offset) => format!("node@{offset}"),
                None | Context => continue,
            };
            assert!(parameters.contains(&&*at), "{line} has no {at}");
        }
        // Of these, CUPTI has no parameters.
        let lacks = [
            "cuCtxSynchronize",
            "cuEventCreateFromEGLSync",
            "cuIpcOpenEventHandle",
        ];
        for call in CALLS.iter().filter(|call| !lacks.contains(&call.name)) {
            let both = [call.id, call.per_thread];
            assert!(
                both.iter().all(|id| *id == 0 || listed.contains(id)),
                "{}",
                call.name
            );
        }
    }

    #[test]
    fn a_graphs_node_that_records_an_event_is_told_from_others() {
        let event = |call: &Call, params: &[usize; 6]| {
            // SAFETY: the parameters are those of the function
            unsafe { call.event(params.as_ptr().cast()) }
        };
        // The node's kind, and what it records; behind it is no event.
        let (records, waits) = ([7_usize, 0, 0x70], [6_usize, 0, 0x70]);
        for (id, at) in [(712, 4), (713, 1), (714, 2), (723, 5), (863, 5), (864, 1)] {
            let call = of(id).unwrap();
            let mut params = [0; 6];
            assert_eq!(event(call, &params), Option::None, "{}", call.name);
            params[at] = waits.as_ptr().expose_provenance();
            assert_eq!(event(call, &params), Option::None, "{}", call.name);
            params[at] = records.as_ptr().expose_provenance();
            assert_eq!(event(call, &params), Some(0x70), "{}", call.name);
        }
        assert_eq!(event(of(595).unwrap(), &[1, 2, 3, 4, 5, 6]), Some(3));
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
