//! The driver's functions that tests call themselves, apart from the library under test.

use fencepost::{Stream, cuda};

pub(crate) struct Bare(libloading::Library);

impl Bare {
    pub(crate) fn new() -> Bare {
        let name = std::env::var_os("FENCEPOST_CUDA_LIBRARY").unwrap_or("libcuda.so.1".into());
        // SAFETY: the driver, which the library under test has loaded already.
        Bare(unsafe { libloading::Library::new(name) }.unwrap())
    }

    /// The function of this name, with this C signature; `None` if the library has none.
    pub(crate) fn find<T: Copy>(&self, name: &str) -> Option<T> {
        // SAFETY: each caller names the signature of the driver's reference.
        unsafe { self.0.get::<T>(name.as_bytes()) }
            .ok()
            .map(|found| *found)
    }
}

pub(crate) type Handle = *mut std::ffi::c_void;

/// A stream's work, captured into a graph.
pub(crate) struct Graph {
    ready: Handle,
    stream: Handle,
    launch: unsafe extern "system" fn(Handle, Handle) -> i32,
}

impl Graph {
    /// Captures what `work` submits to `stream`, in the global mode, which an unsafe call of any
    /// thread breaks. `None` if the driver has no graphs.
    pub(crate) fn capture(stream: &Stream, work: impl FnOnce()) -> Option<Graph> {
        let bare = Bare::new();
        type Begin = unsafe extern "system" fn(Handle, u32) -> i32;
        type End = unsafe extern "system" fn(Handle, *mut Handle) -> i32;
        type Instantiate = unsafe extern "system" fn(*mut Handle, Handle, u64) -> i32;
        let begin = bare.find::<Begin>("cuStreamBeginCapture_v2")?;
        let end = bare.find::<End>("cuStreamEndCapture")?;
        let instantiate = bare.find::<Instantiate>("cuGraphInstantiateWithFlags")?;
        let launch = bare.find("cuGraphLaunch")?;
        let stream = cuda::stream_as_raw(stream).unwrap();
        // SAFETY: the stream is alive; 0 is the global mode.
        assert_eq!(unsafe { begin(stream, 0) }, 0);
        work();
        let (mut graph, mut ready) = (std::ptr::null_mut(), std::ptr::null_mut());
        make_current(&bare);
        // SAFETY: out-pointers to handles; the stream is alive. Making a graph ready needs a
        // current context, which there is.
        unsafe {
            assert_eq!(
                end(stream, &raw mut graph),
                0,
                "something broke the capture"
            );
            assert_eq!(instantiate(&raw mut ready, graph, 0), 0);
        }
        Some(Graph {
            ready,
            stream,
            launch,
        })
    }

    pub(crate) fn run(&self) {
        // SAFETY: both are alive: nothing destroys them.
        assert_eq!(unsafe { (self.launch)(self.ready, self.stream) }, 0);
    }
}

/// Makes the first device's primary context current in this thread.
pub(crate) fn make_current(bare: &Bare) {
    type Retain = unsafe extern "system" fn(*mut Handle, i32) -> i32;
    type SetCurrent = unsafe extern "system" fn(Handle) -> i32;
    let retain = bare.find::<Retain>("cuDevicePrimaryCtxRetain").unwrap();
    let set_current = bare.find::<SetCurrent>("cuCtxSetCurrent").unwrap();
    let mut context = std::ptr::null_mut();
    // SAFETY: an out-pointer to one handle, which is alive from then on.
    unsafe {
        assert_eq!(retain(&raw mut context, 0), 0);
        assert_eq!(set_current(context), 0);
    }
}

/// The context that is current in this thread, as a number.
pub(crate) fn current_context(bare: &Bare) -> usize {
    type Current = unsafe extern "system" fn(*mut Handle) -> i32;
    let mut context = std::ptr::null_mut();
    // SAFETY: an out-pointer to one handle.
    let code = unsafe { bare.find::<Current>("cuCtxGetCurrent").unwrap()(&raw mut context) };
    assert_eq!(code, 0);
    context.addr()
}
