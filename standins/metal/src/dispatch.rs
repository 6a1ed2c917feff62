//! Dispatch queues. A serial queue has a thread. A global queue starts one for each piece of work.
//!
//! <https://developer.apple.com/documentation/dispatch>

use crate::{report, runtime};
use fencepost_sim::lock;
use objc2::rc::{Allocated, Retained, autoreleasepool};
use objc2::runtime::NSObject;
use objc2::{AnyThread, ClassType, DefinedClass, define_class, msg_send};
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{Builder, ThreadId};

pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// How much work has been sent to workers and is not done.
static BUSY: AtomicUsize = AtomicUsize::new(0);
/// How much work has ever been sent to workers.
static ACCEPTED: AtomicU64 = AtomicU64::new(0);

pub(crate) fn is_idle() -> bool {
    BUSY.load(Ordering::SeqCst) == 0
}

pub(crate) fn accepted() -> u64 {
    ACCEPTED.load(Ordering::SeqCst)
}

/// A value that moves to another thread although its type does not permit it.
///
/// objc2 cannot know whether another thread may call a block. The methods that take one are
/// `unsafe`, and their callers vouch for it.
pub(crate) struct Carried<T>(pub(crate) T);

// SAFETY: it holds only what callers of unsafe methods pass for use on other threads
unsafe impl<T> Send for Carried<T> {}
// SAFETY: as above
unsafe impl<T> Sync for Carried<T> {}

impl<T> Carried<T> {
    /// A method, since a closure that names the field would capture the field alone.
    pub(crate) fn into_inner(self) -> T {
        self.0
    }
}

/// Runs work on other threads. Cheap to clone. The thread of a serial worker ends once the last
/// clone is dropped and its work is done.
#[derive(Clone)]
pub(crate) enum Worker {
    Serial(Arc<Serial>),
    Concurrent,
}

pub(crate) struct Serial {
    work: Mutex<Sender<Work>>,
    thread: ThreadId,
    specifics: Specifics,
}

/// The values that `dispatch_queue_set_specific` stores with a queue, by the addresses of their
/// keys.
type Specifics = Arc<Mutex<HashMap<usize, usize>>>;

thread_local! {
    /// The values of the queue whose work this thread runs.
    static SPECIFICS: RefCell<Option<Specifics>> = const { RefCell::new(None) };
}

impl Worker {
    pub(crate) fn serial(name: &str) -> io::Result<Worker> {
        let (sender, receiver) = channel::<Work>();
        let specifics = Specifics::default();
        let here = specifics.clone();
        let thread = Builder::new().name(name.replace('\0', "")).spawn(move || {
            SPECIFICS.set(Some(here));
            for work in receiver {
                perform(work);
            }
        })?;
        Ok(Worker::Serial(Arc::new(Serial {
            work: Mutex::new(sender),
            thread: thread.thread().id(),
            specifics,
        })))
    }

    pub(crate) fn send(&self, work: Work) {
        ACCEPTED.fetch_add(1, Ordering::SeqCst);
        BUSY.fetch_add(1, Ordering::SeqCst);
        let sent = match self {
            // the thread, which has the receiver, outlives the sender
            Worker::Serial(serial) => lock(&serial.work).send(work).is_ok(),
            Worker::Concurrent => {
                let name = "global dispatch queue (stand-in)".into();
                Builder::new()
                    .name(name)
                    .spawn(move || perform(work))
                    .is_ok()
            }
        };
        if !sent {
            BUSY.fetch_sub(1, Ordering::SeqCst);
            report::violation("work was lost: there is no thread for it");
        }
    }

    fn is_here(&self) -> bool {
        match self {
            Worker::Serial(serial) => serial.thread == std::thread::current().id(),
            Worker::Concurrent => false,
        }
    }
}

fn perform(work: Work) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| autoreleasepool(|_| work()))) {
        report::violation(&format!(
            "a panic left a block, which ends the process on macOS: {}",
            text_of(&*panic)
        ));
    }
    BUSY.fetch_sub(1, Ordering::SeqCst);
}

pub(crate) fn text_of(panic: &(dyn Any + Send)) -> &str {
    match panic.downcast_ref::<&str>() {
        Some(text) => text,
        None => panic
            .downcast_ref::<String>()
            .map_or("no text", String::as_str),
    }
}

pub(crate) struct QueueVariables {
    worker: Worker,
    label: CString,
}

define_class!(
    /// A dispatch queue, which is an object in Objective-C.
    // SAFETY: NSObject has no requirements on its subclasses
    #[unsafe(super(NSObject))]
    #[name = "OS_dispatch_queue"]
    #[ivars = QueueVariables]
    pub(crate) struct DispatchQueue;

    impl DispatchQueue {
        #[unsafe(method_id(init))]
        fn init_forbidden(_this: Allocated<Self>) -> Option<Retained<Self>> {
            report::violation("a dispatch queue is made by dispatch_queue_create");
            None
        }
    }
);

impl DispatchQueue {
    fn make(worker: Worker, label: &CStr) -> Retained<DispatchQueue> {
        let label = label.to_owned();
        let this = DispatchQueue::alloc().set_ivars(QueueVariables { worker, label });
        // SAFETY: NSObject's init
        unsafe { msg_send![super(this), init] }
    }

    pub(crate) fn serial(label: &CStr) -> Option<Retained<DispatchQueue>> {
        let worker = Worker::serial(&label.to_string_lossy()).ok()?;
        Some(DispatchQueue::make(worker, label))
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.ivars().worker
    }
}

type Function = unsafe extern "C" fn(*mut c_void);

#[unsafe(no_mangle)]
extern "C" fn dispatch_queue_create(
    label: *const c_char,
    _attributes: *const c_void,
) -> *mut DispatchQueue {
    // a null label is allowed
    let label = match label.is_null() {
        true => c"",
        // SAFETY: the caller passes a C string
        false => unsafe { CStr::from_ptr(label) },
    };
    DispatchQueue::serial(label).map_or(std::ptr::null_mut(), Retained::into_raw)
}

#[unsafe(no_mangle)]
extern "C" fn dispatch_get_global_queue(_identifier: isize, _flags: usize) -> *const DispatchQueue {
    static GLOBAL: OnceLock<Carried<Retained<DispatchQueue>>> = OnceLock::new();
    let global = GLOBAL.get_or_init(|| {
        let queue = DispatchQueue::make(Worker::Concurrent, c"global");
        runtime::make_permanent(Retained::as_ptr(&queue).cast());
        Carried(queue)
    });
    Retained::as_ptr(&global.0)
}

#[unsafe(no_mangle)]
extern "C" fn dispatch_queue_get_label(queue: &DispatchQueue) -> *const c_char {
    queue.ivars().label.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn dispatch_retain(object: *mut c_void) {
    runtime::objc_retain(object);
}

#[unsafe(no_mangle)]
extern "C" fn dispatch_release(object: *mut c_void) {
    runtime::objc_release(object);
}

#[unsafe(no_mangle)]
extern "C" fn dispatch_async_f(queue: &DispatchQueue, context: *mut c_void, function: Function) {
    let context = Carried(context);
    queue.worker().send(Box::new(move || {
        let context = context.into_inner();
        // SAFETY: the caller's function with the caller's argument, called once on another thread
        unsafe { function(context) };
    }));
}

#[unsafe(no_mangle)]
extern "C" fn dispatch_sync_f(queue: &DispatchQueue, context: *mut c_void, function: Function) {
    if queue.worker().is_here() {
        report::violation(
            "dispatch_sync to the queue that the caller runs on, which never returns",
        );
        return;
    }
    let (done, over) = channel();
    let context = Carried(context);
    queue.worker().send(Box::new(move || {
        let context = context.into_inner();
        // SAFETY: the caller's function with the caller's argument, called once while it waits
        unsafe { function(context) };
        // the caller waits below
        let _ = done.send(());
    }));
    // an error means that the work panicked, which `perform` has reported
    let _ = over.recv();
}

/// For serial queues only. The destructor is never called.
#[unsafe(no_mangle)]
extern "C" fn dispatch_queue_set_specific(
    queue: &DispatchQueue,
    key: *const c_void,
    context: *mut c_void,
    _destructor: Option<Function>,
) {
    match queue.worker() {
        Worker::Serial(serial) => {
            lock(&serial.specifics).insert(key.addr(), context.expose_provenance());
        }
        Worker::Concurrent => report::violation("a global queue takes no specifics"),
    }
}

#[unsafe(no_mangle)]
extern "C" fn dispatch_get_specific(key: *const c_void) -> *mut c_void {
    let found = SPECIFICS.with_borrow(|specifics| {
        let specifics = specifics.as_ref()?;
        lock(specifics).get(&key.addr()).copied()
    });
    std::ptr::with_exposed_provenance_mut(found.unwrap_or(0))
}

pub(crate) fn register() {
    DispatchQueue::class();
}
