//! A stand-in for PyTorch's MPS streams, on the stand-in for Metal. It contains nothing of PyTorch
//! or Apple. It exports the functions that PyTorch exports for custom Metal kernels and for its
//! streams, under the same names, and behaves as PyTorch 2.15:
//!
//! - Stream 0 is the default one, and 1 to 32 are the pool. They live as long as the process. Each
//!   thread has a current stream, at first the default one, and all functions mean that.
//! - A stream has a queue, a serial dispatch queue, and one object for its command buffer for life.
//!   That object has only the methods of [`OpenBuffer`], and stands for a new command buffer after
//!   each commit.
//! - An encoder stays open from one operation to the next, as in PyTorch 2.1 to 2.11. The commit
//!   ends it.
//! - The functions may be called on the current stream's dispatch queue only. `torch_off_queue`
//!   counts the calls that are not.
//!
//! Functions whose names begin with `torch_` are for the tests, and mean the current stream too. It
//! has no stand-in for Metal of its own: load it after `fencepost._C`, with the symbols of that
//! module made global.
#![cfg(metal_sim)]
#![allow(missing_docs, non_snake_case, unreachable_pub)]

use std::{
    cell::Cell,
    ffi::c_void,
    ptr::NonNull,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use block2::DynBlock;
use objc2::{
    AnyThread, DefinedClass, define_class, msg_send,
    rc::{Retained, autoreleasepool},
    runtime::{NSObject, ProtocolObject},
};
use objc2_metal::{
    MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandBufferStatus, MTLCommandEncoder,
    MTLCommandQueue, MTLCreateSystemDefaultDevice, MTLDevice, MTLEvent, MTLResourceOptions,
    MTLSharedEvent,
};

type Function = unsafe extern "C" fn(*mut c_void);

unsafe extern "C" {
    fn dispatch_queue_create(label: *const i8, attributes: *const c_void) -> *mut c_void;
    fn dispatch_sync_f(queue: *mut c_void, context: *mut c_void, work: Function);
    fn dispatch_queue_set_specific(
        queue: *mut c_void,
        key: *const c_void,
        context: *mut c_void,
        destructor: Option<Function>,
    );
    fn dispatch_get_specific(key: *const c_void) -> *mut c_void;
}

struct Stream {
    queue: Retained<ProtocolObject<dyn MTLCommandQueue>>,
    open: Retained<OpenBuffer>,
    encoder: Mutex<Option<Retained<ProtocolObject<dyn MTLBlitCommandEncoder>>>>,
    memory: Retained<ProtocolObject<dyn MTLBuffer>>,
    gate: Retained<ProtocolObject<dyn MTLSharedEvent>>,
    /// The last value that the gate was encoded for.
    gates: AtomicU64,
    serial: *mut c_void,
}

// SAFETY: used on its serial dispatch queue only, except the gate, the memory and the dispatch
// queue, which any thread may use.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

static KEY: u8 = 0;
static COMMITS: AtomicU64 = AtomicU64::new(0);
static OFF_QUEUE: AtomicU64 = AtomicU64::new(0);
static GIVES_NIL: AtomicBool = AtomicBool::new(false);

type Root = Retained<ProtocolObject<dyn MTLCommandBuffer>>;

struct Variables {
    root: Mutex<Root>,
}

define_class!(
    /// Stands for an `MPSCommandBuffer`: passes calls on to the present command buffer.
    // SAFETY: NSObject has no requirements on its subclasses.
    #[unsafe(super(NSObject))]
    #[name = "SimMPSCommandBuffer"]
    #[ivars = Variables]
    struct OpenBuffer;

    impl OpenBuffer {
        #[unsafe(method(status))]
        fn status(&self) -> MTLCommandBufferStatus {
            self.root().status()
        }

        #[unsafe(method_id(commandQueue))]
        fn command_queue(&self) -> Retained<ProtocolObject<dyn MTLCommandQueue>> {
            self.root().commandQueue()
        }

        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>> {
            self.root().device()
        }

        #[unsafe(method(addCompletedHandler:))]
        fn add_completed_handler(
            &self,
            block: *mut DynBlock<dyn Fn(NonNull<ProtocolObject<dyn MTLCommandBuffer>>)>,
        ) {
            // SAFETY: the caller's block, which is of the type that this method takes.
            unsafe { self.root().addCompletedHandler(block) };
        }

        #[unsafe(method(encodeWaitForEvent:value:))]
        fn encode_wait(&self, event: &ProtocolObject<dyn MTLEvent>, value: u64) {
            self.root().encodeWaitForEvent_value(event, value);
        }

        #[unsafe(method(encodeSignalEvent:value:))]
        fn encode_signal(&self, event: &ProtocolObject<dyn MTLEvent>, value: u64) {
            self.root().encodeSignalEvent_value(event, value);
        }
    }
);

impl OpenBuffer {
    fn new(root: Root) -> Retained<OpenBuffer> {
        let root = Mutex::new(root);
        let this = OpenBuffer::alloc().set_ivars(Variables { root });
        // SAFETY: NSObject's init.
        unsafe { msg_send![super(this), init] }
    }

    fn root(&self) -> Root {
        lock(&self.ivars().root).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// This thread's current stream; `None` for the default one.
    static CURRENT: Cell<Option<&'static Stream>> = const { Cell::new(None) };
}

/// This thread's current stream.
fn stream() -> &'static Stream {
    CURRENT.get().unwrap_or_else(|| numbered(0))
}

fn numbered(number: usize) -> &'static Stream {
    static STREAMS: [OnceLock<Stream>; 33] = [const { OnceLock::new() }; 33];
    STREAMS[number].get_or_init(|| autoreleasepool(|_| make().expect("the stand-in has a device")))
}

fn make() -> Option<Stream> {
    let device = MTLCreateSystemDefaultDevice()?;
    let queue = device.newCommandQueue()?;
    // SAFETY: a C string, and a queue that nobody releases.
    let serial = unsafe {
        let serial = dispatch_queue_create(
            c"metal gpu stream (stand-in)".as_ptr().cast(),
            std::ptr::null(),
        );
        let key: *const c_void = (&raw const KEY).cast();
        dispatch_queue_set_specific(serial, key, serial, None);
        serial
    };
    Some(Stream {
        open: OpenBuffer::new(queue.commandBuffer()?),
        encoder: Mutex::new(None),
        memory: device.newBufferWithLength_options(4, MTLResourceOptions::StorageModeShared)?,
        gate: device.newSharedEvent()?,
        gates: AtomicU64::new(0),
        queue,
        serial,
    })
}

impl Stream {
    /// Runs `work` on the dispatch queue, in an autorelease pool.
    fn run(&self, mut work: impl FnMut(&Stream)) {
        let mut work: &mut dyn FnMut() = &mut || autoreleasepool(|_| work(self));
        unsafe extern "C" fn call(work: *mut c_void) {
            // SAFETY: the closure below, which outlives this call.
            unsafe { (*work.cast::<&mut dyn FnMut()>())() };
        }
        // SAFETY: dispatch_sync_f returns after the work, so the closure outlives it.
        unsafe { dispatch_sync_f(self.serial, (&raw mut work).cast(), call) };
    }

    /// Counts a call that is not on the dispatch queue.
    fn check_queue(&self) {
        // SAFETY: the key is only compared.
        if unsafe { dispatch_get_specific((&raw const KEY).cast()) } != self.serial {
            OFF_QUEUE.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn end_encoder(&self) {
        if let Some(encoder) = lock(&self.encoder).take() {
            encoder.endEncoding();
        }
    }

    fn commit(&self) {
        self.end_encoder();
        COMMITS.fetch_add(1, Ordering::SeqCst);
        let next = self.queue.commandBuffer().expect("a command buffer");
        let last = std::mem::replace(&mut *lock(&self.open.ivars().root), next);
        last.commit();
    }
}

#[unsafe(export_name = "_ZN5torch3mps18get_command_bufferEv")]
extern "C" fn get_command_buffer() -> *const c_void {
    stream().check_queue();
    match GIVES_NIL.load(Ordering::SeqCst) {
        true => std::ptr::null(),
        false => Retained::as_ptr(&stream().open).cast(),
    }
}

#[unsafe(export_name = "_ZN5torch3mps18get_dispatch_queueEv")]
extern "C" fn get_dispatch_queue() -> *mut c_void {
    stream().serial
}

#[unsafe(export_name = "_ZN5torch3mps6commitEv")]
extern "C" fn commit() {
    stream().check_queue();
    stream().commit();
}

#[unsafe(export_name = "_ZN2at3mps19getCurrentMPSStreamEv")]
extern "C" fn get_current() -> *const c_void {
    std::ptr::from_ref(stream()).cast()
}

/// # Safety
/// Null, or a stream that one of these functions returned.
#[unsafe(export_name = "_ZN2at3mps19setCurrentMPSStreamEPNS0_9MPSStreamE")]
unsafe extern "C" fn set_current(stream: *const c_void) {
    // SAFETY: the caller's promise; streams are never freed.
    CURRENT.set(unsafe { stream.cast::<Stream>().as_ref() });
}

/// As PyTorch's it throws for a number that no stream has: here the process ends.
#[unsafe(export_name = "_ZN2at3mps13getStreamByIDEx")]
extern "C" fn get_by_id(id: i64) -> *const c_void {
    let number = usize::try_from(id).expect("the number of a stream");
    std::ptr::from_ref(numbered(number)).cast()
}

/// Makes the stream of this number this thread's current one.
#[unsafe(no_mangle)]
extern "C" fn torch_select(number: usize) {
    CURRENT.set(Some(numbered(number)));
}

/// The number of this thread's current stream.
#[unsafe(no_mangle)]
extern "C" fn torch_selected() -> usize {
    let is_current = |number: &usize| std::ptr::eq(numbered(*number), stream());
    (0..33).find(is_current).expect("one of the streams")
}

/// An operation: fills the memory with `value`, and leaves its encoder open.
#[unsafe(no_mangle)]
extern "C" fn torch_work(value: u8) {
    stream().run(|stream| {
        let mut encoder = lock(&stream.encoder);
        let encoder = encoder
            .get_or_insert_with(|| stream.open.root().blitCommandEncoder().expect("an encoder"));
        encoder.fillBuffer_range_value(&stream.memory, (0..4).into(), value);
    });
}

/// The value in the memory.
#[unsafe(no_mangle)]
extern "C" fn torch_value() -> u8 {
    // SAFETY: four bytes of shared memory, into which the stand-in copies with atomic stores.
    unsafe {
        stream()
            .memory
            .contents()
            .cast::<u8>()
            .as_ptr()
            .read_volatile()
    }
}

/// Holds back what is encoded from now on until the next commit.
#[unsafe(no_mangle)]
extern "C" fn torch_hold() {
    stream().run(|stream| {
        stream.end_encoder();
        let value = stream.gates.fetch_add(1, Ordering::SeqCst) + 1;
        let gate = ProtocolObject::from_ref(&*stream.gate);
        stream.open.root().encodeWaitForEvent_value(gate, value);
    });
}

/// Opens the gate: what is held back continues.
#[unsafe(no_mangle)]
extern "C" fn torch_open() {
    let stream = stream();
    autoreleasepool(|_| {
        let value = stream.gates.load(Ordering::SeqCst);
        stream.gate.setSignaledValue(value);
    });
}

/// A commit by PyTorch itself.
#[unsafe(no_mangle)]
extern "C" fn torch_commit() {
    stream().run(Stream::commit);
}

/// Calls `work` on the dispatch queue.
#[unsafe(no_mangle)]
extern "C" fn torch_on_queue(work: extern "C" fn()) {
    stream().run(|_| work());
}

#[unsafe(no_mangle)]
extern "C" fn torch_commits() -> u64 {
    COMMITS.load(Ordering::SeqCst)
}

#[unsafe(no_mangle)]
extern "C" fn torch_off_queue() -> u64 {
    OFF_QUEUE.load(Ordering::SeqCst)
}

/// Makes `get_command_buffer` return nil from now on, or no longer.
#[unsafe(no_mangle)]
extern "C" fn torch_give_nil(nil: bool) {
    GIVES_NIL.store(nil, Ordering::SeqCst);
}
