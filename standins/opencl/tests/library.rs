//! The library as an OpenCL loader loads it: its own platform, calls and faults. What needs a
//! driver behind it is skipped without PoCL.
#![cfg(target_os = "linux")]

use fencepost_sim_opencl::{Control, FUNCTIONS, Tells, library_path};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, Ordering};

type Handle = *mut c_void;

fn path() -> PathBuf {
    library_path().expect("cargo builds the library beside its tests")
}

/// A platform's table, as a loader reads it.
struct Platform {
    handle: Handle,
}

impl Platform {
    /// `None` without a driver behind.
    fn find() -> Option<Platform> {
        // SAFETY: the library does nothing when it is loaded
        let library = std::mem::ManuallyDrop::new(unsafe { Library::new(path()) }.unwrap());
        type Address = unsafe extern "system" fn(*const c_char) -> *const c_void;
        // SAFETY: the types of functions that every driver has
        let get = unsafe {
            let address = library
                .get::<Address>("clGetExtensionFunctionAddress")
                .unwrap();
            let found = address(c"clIcdGetPlatformIDsKHR".as_ptr());
            type Get = unsafe extern "system" fn(u32, *mut Handle, *mut u32) -> c_int;
            std::mem::transmute::<*const c_void, Get>(found)
        };
        let mut handle = null_mut();
        // SAFETY: space for one handle
        match unsafe { get(1, &raw mut handle, null_mut()) } {
            0 => Some(Platform { handle }),
            _ => {
                println!(
                    "SKIPPED: {:?}: PoCL is not installed",
                    std::thread::current()
                );
                None
            }
        }
    }

    /// An entry of the table.
    ///
    /// # Safety
    /// `T` is the type of the function at this position.
    unsafe fn entry<T: Copy>(&self, position: usize) -> T {
        // SAFETY: a platform's first word is its table; the caller vouches for the type
        unsafe {
            let table = *self.handle.cast::<*const *const c_void>();
            std::mem::transmute_copy::<*const c_void, T>(&*table.add(position))
        }
    }
}

/// A context with one device, and a queue on it.
struct Queue {
    platform: Platform,
    context: Handle,
    queue: Handle,
}

impl Queue {
    fn new(platform: Platform) -> Queue {
        type Devices = unsafe extern "system" fn(Handle, u64, u32, *mut Handle, Handle) -> c_int;
        type Context = unsafe extern "system" fn(
            *const isize,
            u32,
            *const Handle,
            Handle,
            Handle,
            *mut c_int,
        ) -> Handle;
        type Create = unsafe extern "system" fn(Handle, Handle, *const u64, *mut c_int) -> Handle;
        let (mut device, mut code) = (null_mut(), 0);
        // SAFETY: the functions at these positions, and places for what they write
        let (context, queue) = unsafe {
            let devices = platform.entry::<Devices>(2);
            let found = devices(
                platform.handle,
                u64::from(u32::MAX),
                1,
                &raw mut device,
                null_mut(),
            );
            assert_eq!(found, 0);
            let create = platform.entry::<Context>(4);
            let code = &raw mut code;
            let context = create(null(), 1, &raw const device, null_mut(), null_mut(), code);
            let create = platform.entry::<Create>(123);
            (context, create(context, device, null(), code))
        };
        assert_eq!(code, 0);
        Queue {
            platform,
            context,
            queue,
        }
    }

    fn mark(&self) -> Result<Handle, c_int> {
        type Marker = unsafe extern "system" fn(Handle, u32, *const Handle, *mut Handle) -> c_int;
        let mut event = null_mut();
        // SAFETY: the function at this position, and a place for an event
        let code =
            unsafe { self.platform.entry::<Marker>(105)(self.queue, 0, null(), &raw mut event) };
        if code == 0 { Ok(event) } else { Err(code) }
    }

    fn user_event(&self) -> Handle {
        type Create = unsafe extern "system" fn(Handle, *mut c_int) -> Handle;
        // SAFETY: the function at this position
        unsafe { self.platform.entry::<Create>(84)(self.context, null_mut()) }
    }

    fn wait(&self, event: Handle) -> c_int {
        type Wait = unsafe extern "system" fn(u32, *const Handle) -> c_int;
        // SAFETY: the function at this position, and one event
        unsafe { self.platform.entry::<Wait>(41)(1, &raw const event) }
    }

    fn status(&self, event: Handle) -> c_int {
        type Info = unsafe extern "system" fn(Handle, u32, usize, Handle, Handle) -> c_int;
        let mut status: c_int = 0;
        // SAFETY: the function at this position, and a place for the status
        let code = unsafe {
            let info = self.platform.entry::<Info>(42);
            info(event, 0x11d3, 4, (&raw mut status).cast(), null_mut())
        };
        assert_eq!(code, 0);
        status
    }

    /// `told` gets the status that the callback is called with.
    fn notify(&self, event: Handle, told: &'static AtomicI32) -> c_int {
        type Callback = unsafe extern "system" fn(Handle, c_int, Handle);
        type Set = unsafe extern "system" fn(Handle, c_int, Callback, Handle) -> c_int;
        unsafe extern "system" fn tell(_: Handle, status: c_int, told: Handle) {
            // SAFETY: the atomic below, which is static
            let told = unsafe { AtomicI32::from_ptr(told.cast()) };
            told.store(status, Ordering::SeqCst);
        }
        // SAFETY: the function at this position
        unsafe { self.platform.entry::<Set>(81)(event, 0, tell, told.as_ptr().cast()) }
    }

    fn release(&self, event: Handle) {
        type Release = unsafe extern "system" fn(Handle) -> c_int;
        // SAFETY: the function at this position
        assert_eq!(unsafe { self.platform.entry::<Release>(44)(event) }, 0);
    }
}

/// All in one test: the faults are those of the whole process.
#[test]
fn chosen_calls_and_events_fail_and_the_rest_is_the_drivers() {
    let Some(platform) = Platform::find() else {
        return;
    };
    let control = Control::load(&path()).unwrap();
    let queue = Queue::new(platform);
    let owned = control.owned_events();

    // A call.
    let marker = "clEnqueueMarkerWithWaitList";
    control.fail_call(marker, 2, -5);
    let first = queue.mark().unwrap();
    assert_eq!(queue.mark(), Err(-5));
    let third = queue.mark().unwrap();
    assert_eq!(control.calls(marker), 3);
    for event in [first, third] {
        assert_eq!((queue.wait(event), queue.status(event)), (0, 0));
        queue.release(event);
    }

    // Events, as three drivers tell of it.
    static EVERYWHERE: AtomicI32 = AtomicI32::new(1);
    static NO_CALLBACK: AtomicI32 = AtomicI32::new(1);
    static COMPLETE: AtomicI32 = AtomicI32::new(1);
    for (tells, told, expected) in [
        (Tells::EVERYWHERE, &EVERYWHERE, (-14, -42, -42)),
        (Tells::NO_CALLBACK, &NO_CALLBACK, (-14, -42, 1)),
        (Tells::COMPLETE, &COMPLETE, (-14, 0, -42)),
    ] {
        control.fail_event(marker, 1, -42, tells);
        let event = queue.mark().unwrap();
        assert_eq!(queue.notify(event, told), 0);
        let seen = (queue.wait(event), queue.status(event));
        // The driver may call back a moment later.
        while expected.2 != 1 && told.load(Ordering::SeqCst) == 1 {
            std::thread::yield_now();
        }
        assert_eq!(
            (seen.0, seen.1, told.load(Ordering::SeqCst)),
            expected,
            "{tells:?}"
        );
        queue.release(event);
    }

    // A call that says that it has succeeded.
    static NEVER: AtomicI32 = AtomicI32::new(1);
    control.fail_call("clSetEventCallback", 1, 0);
    let event = queue.mark().unwrap();
    assert_eq!((queue.notify(event, &NEVER), queue.wait(event)), (0, 0));
    queue.release(event);

    // A lost context, which releases all the same.
    let event = queue.user_event();
    assert_eq!(control.owned_events(), owned + 1);
    control.lose_context(-34);
    assert_eq!(queue.mark(), Err(-34));
    assert!(queue.user_event().is_null());
    queue.release(event);
    assert_eq!(control.owned_events(), owned);
    control.clear_faults();
    queue.release(queue.mark().unwrap());
    assert_eq!(NEVER.load(Ordering::SeqCst), 1);
}

#[test]
fn every_name_is_one_of_opencl() {
    assert!(FUNCTIONS.iter().all(|name| name.starts_with("cl")));
    // SAFETY: the library does nothing when it is loaded
    let library = unsafe { Library::new(path()) }.unwrap();
    type Address = unsafe extern "system" fn(*const c_char) -> *const c_void;
    // SAFETY: the type of the function of this name
    let address = unsafe { library.get::<Address>("clGetExtensionFunctionAddress") }.unwrap();
    let find = |name: &CStr| {
        // SAFETY: a C string
        unsafe { address(name.as_ptr()) }
    };
    assert!(!find(c"clIcdGetPlatformIDsKHR").is_null());
    assert!(find(c"clNoSuchFunction").is_null());
}
