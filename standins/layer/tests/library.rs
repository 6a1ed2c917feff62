//! The library as a Vulkan loader loads it: its place in the chain, its calls and faults. What
//! comes next in the chain is a driver of this test's.

use fencepost_sim_layer::{Control, FUNCTIONS, library_path};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

type Handle = *mut c_void;
type Function = *const c_void;
type GetFunction = unsafe extern "system" fn(Handle, *const c_char) -> Function;

const OUT_OF_DEVICE_MEMORY: c_int = -2;
const DEVICE_LOST: c_int = -4;
const NOT_READY: c_int = 1;

/// The driver's objects: a word each, which tells apart what they belong to.
static INSTANCE: usize = 1;
static DEVICE: usize = 2;
/// How often the driver was called.
static CALLS: AtomicU64 = AtomicU64::new(0);
/// The faults are those of the process.
static ALONE: Mutex<()> = Mutex::new(());

fn handle(object: &'static usize) -> Handle {
    std::ptr::from_ref(object).cast_mut().cast()
}

unsafe extern "system" fn create_instance(
    _info: Function,
    _allocator: Function,
    made: *mut Handle,
) -> c_int {
    // SAFETY: the caller's place for a handle
    unsafe { made.write(handle(&INSTANCE)) };
    0
}

unsafe extern "system" fn create_device(
    _physical: Handle,
    _info: Function,
    _allocator: Function,
    made: *mut Handle,
) -> c_int {
    // SAFETY: the caller's place for a handle
    unsafe { made.write(handle(&DEVICE)) };
    0
}

unsafe extern "system" fn destroy(_object: Handle, _allocator: Function) {}

unsafe extern "system" fn submit(_queue: Handle, _: u32, _: Function, _: u64) -> c_int {
    CALLS.fetch_add(1, Ordering::Relaxed);
    NOT_READY
}

unsafe extern "system" fn wait_idle(_device: Handle) -> c_int {
    CALLS.fetch_add(1, Ordering::Relaxed);
    0
}

/// The driver's functions. It has no timeline semaphores.
unsafe extern "system" fn find(_object: Handle, name: *const c_char) -> Function {
    // SAFETY: a C string, as the layer passes on
    match unsafe { CStr::from_ptr(name) }.to_bytes() {
        b"vkCreateInstance" => create_instance as Function,
        b"vkCreateDevice" => create_device as Function,
        b"vkDestroyInstance" | b"vkDestroyDevice" => destroy as Function,
        b"vkQueueSubmit" => submit as Function,
        b"vkDeviceWaitIdle" => wait_idle as Function,
        _ => null(),
    }
}

#[repr(C)]
struct Layer {
    next: *mut Layer,
    instance_functions: GetFunction,
    device_functions: GetFunction,
}

#[repr(C)]
struct Info {
    kind: c_int,
    next: *mut Info,
    function: c_int,
    layer: *mut Layer,
}

#[repr(C)]
struct Negotiate {
    kind: c_int,
    next: Handle,
    version: u32,
    functions: [Option<GetFunction>; 3],
}

fn path() -> PathBuf {
    library_path().expect("cargo builds the library beside its tests")
}

/// A device behind the layer.
struct Device {
    get: GetFunction,
}

impl Device {
    /// As a loader makes it.
    fn new() -> Device {
        // SAFETY: the library does nothing when it is loaded
        let library = std::mem::ManuallyDrop::new(unsafe { Library::new(path()) }.unwrap());
        let mut settled = Negotiate {
            kind: 1,
            next: null_mut(),
            version: 2,
            functions: [None; 3],
        };
        type Settle = unsafe extern "system" fn(*mut Negotiate) -> c_int;
        // SAFETY: the type of the function of this name
        let settle = unsafe { library.get::<Settle>("vkNegotiateLoaderLayerInterfaceVersion") };
        // SAFETY: a structure as the loader's interface says
        assert_eq!(unsafe { settle.unwrap()(&raw mut settled) }, 0);
        let [of_instances, of_devices, _] = settled.functions.map(|found| found);
        let (of_instances, get) = (of_instances.unwrap(), of_devices.unwrap());
        let made = |kind, parent: Handle, name: &CStr| {
            let mut driver = Layer {
                next: null_mut(),
                instance_functions: find,
                device_functions: find,
            };
            let mut link = Info {
                kind,
                next: null_mut(),
                function: 0,
                layer: &raw mut driver,
            };
            let mut info = Info {
                kind: 1,
                next: &raw mut link,
                function: 0,
                layer: null_mut(),
            };
            let mut made: Handle = null_mut();
            let (info, made_at) = ((&raw mut info).cast(), &raw mut made);
            // SAFETY: the functions of these names, with what a loader gives them
            let code = unsafe {
                let create = of_instances(parent, name.as_ptr());
                if parent.is_null() {
                    type Create = unsafe extern "system" fn(Handle, Handle, *mut Handle) -> c_int;
                    let create = std::mem::transmute::<Function, Create>(create);
                    create(info, null_mut(), made_at)
                } else {
                    type Create =
                        unsafe extern "system" fn(Handle, Handle, Handle, *mut Handle) -> c_int;
                    let create = std::mem::transmute::<Function, Create>(create);
                    create(parent, info, null_mut(), made_at)
                }
            };
            assert_eq!(code, 0);
            made
        };
        assert_eq!(made(47, null_mut(), c"vkCreateInstance"), handle(&INSTANCE));
        // A physical device begins with the same word as its instance.
        assert_eq!(
            made(48, handle(&INSTANCE), c"vkCreateDevice"),
            handle(&DEVICE)
        );
        Device { get }
    }

    fn find(&self, name: &CStr) -> Function {
        // SAFETY: a device and a C string
        unsafe { (self.get)(handle(&DEVICE), name.as_ptr()) }
    }

    fn submit(&self) -> c_int {
        type Submit = unsafe extern "system" fn(Handle, u32, Function, u64) -> c_int;
        // SAFETY: the function of this name
        unsafe {
            let submit = self.find(c"vkQueueSubmit");
            std::mem::transmute::<Function, Submit>(submit)(handle(&DEVICE), 0, null(), 0)
        }
    }

    fn wait_idle(&self) -> c_int {
        type Wait = unsafe extern "system" fn(Handle) -> c_int;
        // SAFETY: the function of this name
        unsafe {
            let wait = self.find(c"vkDeviceWaitIdle");
            std::mem::transmute::<Function, Wait>(wait)(handle(&DEVICE))
        }
    }
}

#[test]
fn calls_pass_through_and_are_counted() {
    let _alone = ALONE.lock();
    let (device, control) = (Device::new(), Control::load(&path()).unwrap());
    let (passed, counted) = (
        CALLS.load(Ordering::Relaxed),
        control.calls("vkQueueSubmit"),
    );
    assert_eq!(device.submit(), NOT_READY);
    assert_eq!(CALLS.load(Ordering::Relaxed), passed + 1);
    assert_eq!(control.calls("vkQueueSubmit"), counted + 1);
}

#[test]
fn what_the_driver_lacks_is_not_there() {
    let _alone = ALONE.lock();
    let device = Device::new();
    assert!(FUNCTIONS.contains(&"vkWaitSemaphores"));
    assert!(device.find(c"vkWaitSemaphores").is_null());
    assert_ne!(device.find(c"vkQueueSubmit"), submit as Function);
}

#[test]
fn a_planned_fault_comes_in_place_of_the_call() {
    let _alone = ALONE.lock();
    let (device, control) = (Device::new(), Control::load(&path()).unwrap());
    let passed = CALLS.load(Ordering::Relaxed);
    control.fail_call("vkQueueSubmit", 2, OUT_OF_DEVICE_MEMORY);
    let codes = [(); 3].map(|()| device.submit());
    assert_eq!(codes, [NOT_READY, OUT_OF_DEVICE_MEMORY, NOT_READY]);
    assert_eq!(CALLS.load(Ordering::Relaxed), passed + 2);
}

#[test]
fn a_lost_device_fails_every_call_and_still_waits_for_its_work() {
    let _alone = ALONE.lock();
    let (device, control) = (Device::new(), Control::load(&path()).unwrap());
    let passed = CALLS.load(Ordering::Relaxed);
    control.lose_devices();
    assert_eq!([(); 2].map(|()| device.submit()), [DEVICE_LOST; 2]);
    assert_eq!(device.wait_idle(), DEVICE_LOST);
    assert_eq!(CALLS.load(Ordering::Relaxed), passed + 1, "the wait alone");
    control.clear_faults();
    assert_eq!(device.wait_idle(), 0);
}
