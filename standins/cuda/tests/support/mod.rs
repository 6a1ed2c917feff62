//! Helpers for the tests. Every test has its own machine, and leaves no object on it.

#![allow(dead_code, reason = "no test file uses all of it")]

use fencepost_sim_cuda::codes::{CUDA_SUCCESS, CUresult};
use fencepost_sim_cuda::*;
use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A timeout that only a hang reaches.
pub(crate) const HANG_TIMEOUT: Duration = fencepost_sim::HANG_TIMEOUT;
pub(crate) const TIMING: u32 = 0;
pub(crate) const NO_TIMING: u32 = CU_EVENT_DISABLE_TIMING;

pub(crate) fn control() -> &'static Control {
    static CONTROL: OnceLock<Control> = OnceLock::new();
    CONTROL.get_or_init(Control::linked)
}

#[track_caller]
pub(crate) fn ok(code: CUresult) {
    assert_eq!(code, CUDA_SUCCESS);
}

/// Runs a test with the seeds `0..count` or the one in the environment. The primary context of
/// device 0 is current.
pub(crate) fn with_seeds(count: u64, test: impl Fn(&Session<'_>)) {
    fencepost_sim::with_seeds(count, |seed| with_seed(seed, &test));
}

pub(crate) fn with_seed(seed: u64, test: impl Fn(&Session<'_>)) {
    let session = control().session(seed, 2);
    ok(cuInit(0));
    let context = retain(0);
    ok(cuCtxSetCurrent(context));
    test(&session);
    ok(cuCtxSetCurrent(0));
    for device in 0..2 {
        while is_active(device) {
            ok(cuDevicePrimaryCtxRelease_v2(device));
        }
    }
    assert!(session.wait_idle(HANG_TIMEOUT));
    assert_eq!(session.live(), Live::default());
    assert_eq!(session.violations(), Vec::<String>::new());
}

pub(crate) fn is_active(device: i32) -> bool {
    let (mut flags, mut active) = (9, 9);
    ok(cuDevicePrimaryCtxGetState(
        device,
        Out::to(&mut flags),
        Out::to(&mut active),
    ));
    assert_eq!(flags, 0);
    active == 1
}

pub(crate) trait ExpectViolations {
    fn clear_violations_of(&self, text: &str);
}

impl ExpectViolations for Session<'_> {
    /// Forgets the violations, all of which must contain this text.
    fn clear_violations_of(&self, text: &str) {
        let others: Vec<_> = self
            .violations()
            .into_iter()
            .filter(|violation| !violation.contains(text))
            .collect();
        assert_eq!(others, Vec::<String>::new());
        self.clear_violations();
    }
}

pub(crate) fn retain(device: i32) -> CUcontext {
    let mut context = 0;
    ok(cuDevicePrimaryCtxRetain(Out::to(&mut context), device));
    context
}

pub(crate) fn event(flags: u32) -> CUevent {
    let mut event = 0;
    ok(cuEventCreate(Out::to(&mut event), flags));
    event
}

pub(crate) fn stream() -> CUstream {
    stream_with(CU_STREAM_NON_BLOCKING)
}

pub(crate) fn stream_with(flags: u32) -> CUstream {
    let mut stream = 0;
    ok(cuStreamCreate(Out::to(&mut stream), flags));
    stream
}

pub(crate) fn destroy_events(events: &[CUevent]) {
    events
        .iter()
        .for_each(|&event| ok(cuEventDestroy_v2(event)));
}

pub(crate) fn destroy_streams(streams: &[CUstream]) {
    streams
        .iter()
        .for_each(|&stream| ok(cuStreamDestroy_v2(stream)));
}

pub(crate) fn elapsed(start: CUevent, end: CUevent) -> Result<f32, CUresult> {
    let mut milliseconds = 0.0;
    match cuEventElapsedTime_v2(Out::to(&mut milliseconds), start, end) {
        CUDA_SUCCESS => Ok(milliseconds),
        code => Err(code),
    }
}

/// Words in page-locked memory.
pub(crate) struct Words {
    address: CUdeviceptr,
    count: usize,
}

impl Words {
    pub(crate) fn new(count: usize) -> Words {
        let mut pointer = std::ptr::null_mut();
        ok(cuMemHostAlloc(Out::to(&mut pointer), 4 * count, 0));
        let mut address = 0;
        ok(cuMemHostGetDevicePointer_v2(
            Out::to(&mut address),
            pointer,
            0,
        ));
        let words = Words { address, count };
        (0..count).for_each(|index| words.set(index, 0));
        words
    }

    pub(crate) fn address(&self) -> CUdeviceptr {
        self.address
    }

    pub(crate) fn pointer(&self) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(self.address as usize)
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.count);
        // SAFETY: in bounds, aligned, and not freed before `free`
        unsafe { AtomicU32::from_ptr(self.pointer().cast::<u32>().add(index)) }
    }

    pub(crate) fn get(&self, index: usize) -> u32 {
        self.word(index).load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, index: usize, value: u32) {
        self.word(index).store(value, Ordering::SeqCst);
    }

    pub(crate) fn free(self) {
        ok(cuMemFreeHost(self.pointer()));
    }
}

/// Blocks a stream until the word is set to 1.
pub(crate) fn gate(stream: CUstream, words: &Words, index: usize) {
    let address = words.address() + 4 * index as u64;
    ok(cuStreamWaitValue32_v2(stream, address, 1, 0));
}

pub(crate) fn kernel(name: &std::ffi::CStr) -> (CUmodule, CUfunction) {
    let (mut module, mut function) = (0, 0);
    ok(cuModuleLoadData(
        Out::to(&mut module),
        c"any text".as_ptr().cast(),
    ));
    // SAFETY: a C string
    ok(unsafe { cuModuleGetFunction(Out::to(&mut function), module, name.as_ptr()) });
    (module, function)
}

/// Launches a kernel. An argument of four bytes is read from the first four of its eight.
pub(crate) fn launch(function: CUfunction, stream: CUstream, arguments: &mut [u64]) -> CUresult {
    let mut pointers: Vec<*mut c_void> = arguments
        .iter_mut()
        .map(|argument| std::ptr::from_mut(argument).cast())
        .collect();
    let pointers = pointers.as_mut_ptr();
    // SAFETY: a pointer for each of the kernel's parameters
    unsafe {
        cuLaunchKernel(
            function,
            1,
            1,
            1,
            1,
            1,
            1,
            0,
            stream,
            pointers,
            std::ptr::null_mut(),
        )
    }
}

/// A log to which work appends tokens when it runs.
pub(crate) struct Log {
    words: Words,
    module: CUmodule,
    append: CUfunction,
}

impl Log {
    pub(crate) fn new() -> Log {
        let words = Words::new(66);
        words.set(1, 64);
        let (module, append) = kernel(c"fencepost_append");
        Log {
            words,
            module,
            append,
        }
    }

    pub(crate) fn append(&self, stream: CUstream, token: u32) {
        let arguments = &mut [self.words.address(), token.into()];
        ok(launch(self.append, stream, arguments));
    }

    pub(crate) fn tokens(&self) -> Vec<u32> {
        let count = self.words.get(0) as usize;
        (0..count).map(|index| self.words.get(2 + index)).collect()
    }

    pub(crate) fn free(self) {
        ok(cuModuleUnload(self.module));
        self.words.free();
    }
}
