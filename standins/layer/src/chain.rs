//! The layer's place in the loader's chain: how it is entered, and what comes next.
//!
//! Each device has a table of the next functions, found by the first word of the objects that are
//! pointers: the loader puts the same one into a device, its queues, and its command buffers, and
//! another one into an instance and its physical devices.

use crate::calls::{FUNCTIONS, ours};
use fencepost_sim::lock;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Mutex;

/// A `VkDevice` or any other object that is a pointer.
pub(crate) type Handle = *mut c_void;

type Function = *const c_void;
type GetFunction = unsafe extern "system" fn(Handle, *const c_char) -> Function;

const SUCCESS: c_int = 0;
/// `VK_ERROR_INITIALIZATION_FAILED`
const FAILED: c_int = -3;
/// The version of the interface that this layer speaks.
const VERSION: u32 = 2;

/// `VkNegotiateLayerInterface`
#[repr(C)]
#[derive(Debug)]
pub struct Negotiate {
    kind: c_int,
    next: *mut c_void,
    version: u32,
    instance_functions: Option<GetFunction>,
    device_functions: Option<GetFunction>,
    physical_device_functions: Option<GetFunction>,
}

/// `VkLayerInstanceCreateInfo` and `VkLayerDeviceCreateInfo`: what the loader adds to the infos of
/// an instance and a device.
#[repr(C)]
struct Link {
    kind: c_int,
    next: *mut Link,
    /// `VkLayerFunction`
    function: c_int,
    layer: *mut Layer,
}

/// `VkLayerInstanceLink` and `VkLayerDeviceLink`: the next layer, or the driver.
#[repr(C)]
struct Layer {
    next: *mut Layer,
    instance_functions: GetFunction,
    /// For an instance another function, which is not used here.
    device_functions: Option<GetFunction>,
}

/// `VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO`
const OF_AN_INSTANCE: c_int = 47;
/// `VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO`
const OF_A_DEVICE: c_int = 48;
/// `VK_LAYER_LINK_INFO`
const LINK: c_int = 0;

struct Instance {
    handle: usize,
    functions: GetFunction,
    /// The next `vkDestroyInstance`. Once the chain is made, the loader finds its first one.
    destroy: usize,
}

struct Device {
    functions: GetFunction,
    /// The next `vkDestroyDevice`.
    destroy: usize,
    /// The addresses of the next functions, in the order of [`FUNCTIONS`].
    originals: Vec<usize>,
}

static INSTANCES: Mutex<BTreeMap<usize, Instance>> = Mutex::new(BTreeMap::new());
static DEVICES: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());

/// What tells which device or instance an object is of.
///
/// # Safety
/// It is an object that is a pointer, and alive.
unsafe fn key(object: Handle) -> usize {
    // SAFETY: such objects begin with the loader's pointer
    unsafe { *object.cast::<usize>() }
}

/// The next function of this number, for an object of a device.
///
/// # Safety
/// As [`key`].
pub(crate) unsafe fn original(object: Handle, number: usize) -> Function {
    // SAFETY: the caller vouches for it
    let key = unsafe { key(object) };
    let devices = lock(&DEVICES);
    devices
        .get(&key)
        .map_or(0, |device| device.originals[number]) as Function
}

/// Where the loader says what comes next.
///
/// # Safety
/// `info` is that of an instance or a device, as the loader hands it to a layer.
unsafe fn link(info: *const c_void, kind: c_int) -> Option<*mut Link> {
    // SAFETY: every info begins with its kind and the next one
    let mut link = unsafe { (*info.cast::<Link>()).next };
    while !link.is_null() {
        // SAFETY: as above; one of the loader's has the other fields, too
        unsafe {
            if (*link).kind == kind && (*link).function == LINK {
                return Some(link);
            }
            link = (*link).next;
        }
    }
    None
}

/// The first function that the loader calls: settles on a version, and names the functions that
/// find the others.
///
/// # Safety
/// The structure is as the loader's interface says.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vkNegotiateLoaderLayerInterfaceVersion(
    wanted: *mut Negotiate,
) -> c_int {
    // SAFETY: the caller vouches for it
    let wanted = unsafe { &mut *wanted };
    if wanted.version < VERSION {
        return FAILED;
    }
    wanted.version = VERSION;
    wanted.instance_functions = Some(vkGetInstanceProcAddr);
    wanted.device_functions = Some(vkGetDeviceProcAddr);
    wanted.physical_device_functions = None;
    SUCCESS
}

unsafe extern "system" fn vkGetInstanceProcAddr(instance: Handle, name: *const c_char) -> Function {
    // SAFETY: a C string, as the caller vouches for
    let found = match unsafe { CStr::from_ptr(name) }.to_bytes() {
        b"vkGetInstanceProcAddr" => vkGetInstanceProcAddr as Function,
        b"vkCreateInstance" => vkCreateInstance as Function,
        b"vkDestroyInstance" => vkDestroyInstance as Function,
        b"vkGetDeviceProcAddr" => vkGetDeviceProcAddr as Function,
        b"vkCreateDevice" => vkCreateDevice as Function,
        _ => std::ptr::null(),
    };
    if !found.is_null() || instance.is_null() {
        return found;
    }
    // SAFETY: an instance
    let key = unsafe { key(instance) };
    let next = lock(&INSTANCES).get(&key).map(|known| known.functions);
    // SAFETY: passed on
    let next = next.map_or(std::ptr::null(), |next| unsafe { next(instance, name) });
    // SAFETY: as above
    unsafe { ours_if_there(name, next) }
}

unsafe extern "system" fn vkGetDeviceProcAddr(device: Handle, name: *const c_char) -> Function {
    // SAFETY: a C string, as the caller vouches for
    match unsafe { CStr::from_ptr(name) }.to_bytes() {
        b"vkGetDeviceProcAddr" => return vkGetDeviceProcAddr as Function,
        b"vkDestroyDevice" => return vkDestroyDevice as Function,
        _ => {}
    }
    // SAFETY: a device
    let key = unsafe { key(device) };
    let next = lock(&DEVICES).get(&key).map(|known| known.functions);
    // SAFETY: passed on
    let next = next.map_or(std::ptr::null(), |next| unsafe { next(device, name) });
    // SAFETY: as above
    unsafe { ours_if_there(name, next) }
}

/// Our function of this name in place of the next one; what is not there stays away.
///
/// # Safety
/// `name` is a C string.
unsafe fn ours_if_there(name: *const c_char, next: Function) -> Function {
    // SAFETY: the caller vouches for it
    let name = unsafe { CStr::from_ptr(name) };
    let number = FUNCTIONS
        .iter()
        .position(|known| known.as_bytes() == name.to_bytes());
    match number {
        Some(number) if !next.is_null() => ours()[number],
        _ => next,
    }
}

unsafe extern "system" fn vkCreateInstance(
    info: *const c_void,
    allocator: *const c_void,
    instance: *mut Handle,
) -> c_int {
    type Create = unsafe extern "system" fn(*const c_void, *const c_void, *mut Handle) -> c_int;
    // SAFETY: the loader's own info
    let Some(link) = (unsafe { link(info, OF_AN_INSTANCE) }) else {
        return FAILED;
    };
    // SAFETY: the loader's own link, which each layer moves on for the next one; the next layer's
    // function of this name and type, which it has
    unsafe {
        let functions = (*(*link).layer).instance_functions;
        (*link).layer = (*(*link).layer).next;
        let create = functions(std::ptr::null_mut(), c"vkCreateInstance".as_ptr());
        let create = std::mem::transmute::<Function, Create>(create);
        let result = create(info, allocator, instance);
        if result == SUCCESS {
            let known = Instance {
                handle: *instance as usize,
                functions,
                destroy: functions(*instance, c"vkDestroyInstance".as_ptr()) as usize,
            };
            lock(&INSTANCES).insert(key(*instance), known);
        }
        result
    }
}

unsafe extern "system" fn vkDestroyInstance(instance: Handle, allocator: *const c_void) {
    if instance.is_null() {
        return;
    }
    // SAFETY: an instance
    let key = unsafe { key(instance) };
    let known = lock(&INSTANCES).remove(&key);
    if let Some(known) = known {
        // SAFETY: passed on
        unsafe { destroy(known.destroy, instance, allocator) };
    }
}

unsafe extern "system" fn vkCreateDevice(
    physical: Handle,
    info: *const c_void,
    allocator: *const c_void,
    device: *mut Handle,
) -> c_int {
    type Create =
        unsafe extern "system" fn(Handle, *const c_void, *const c_void, *mut Handle) -> c_int;
    // SAFETY: a physical device
    let key_of_instance = unsafe { key(physical) };
    let of_instance = |known: &Instance| known.handle;
    let instance = lock(&INSTANCES).get(&key_of_instance).map(of_instance);
    // SAFETY: the loader's own info
    let (Some(instance), Some(link)) = (instance, unsafe { link(info, OF_A_DEVICE) }) else {
        return FAILED;
    };
    // SAFETY: as in `vkCreateInstance`
    unsafe {
        let layer = &*(*link).layer;
        let Some(functions) = layer.device_functions else {
            return FAILED;
        };
        (*link).layer = layer.next;
        let create = (layer.instance_functions)(instance as Handle, c"vkCreateDevice".as_ptr());
        let create = std::mem::transmute::<Function, Create>(create);
        let result = create(physical, info, allocator, device);
        if result == SUCCESS {
            let known = Device {
                functions,
                destroy: functions(*device, c"vkDestroyDevice".as_ptr()) as usize,
                originals: originals(functions, *device),
            };
            lock(&DEVICES).insert(key(*device), known);
        }
        result
    }
}

/// The next functions of a device; 0 for what it lacks.
///
/// # Safety
/// `functions` finds those of this device.
unsafe fn originals(functions: GetFunction, device: Handle) -> Vec<usize> {
    let find = |name: &&str| {
        let name = fencepost_sim::ffi::c_name(name);
        // SAFETY: a C string; the caller vouches for the rest
        unsafe { functions(device, name.as_ptr()) as usize }
    };
    FUNCTIONS.iter().map(find).collect()
}

unsafe extern "system" fn vkDestroyDevice(device: Handle, allocator: *const c_void) {
    if device.is_null() {
        return;
    }
    // SAFETY: a device
    let key = unsafe { key(device) };
    let known = lock(&DEVICES).remove(&key);
    if let Some(known) = known {
        // SAFETY: passed on
        unsafe { destroy(known.destroy, device, allocator) };
    }
}

/// # Safety
/// `function` is the address of a function that destroys such an object.
unsafe fn destroy(function: usize, object: Handle, allocator: *const c_void) {
    type Destroy = unsafe extern "system" fn(Handle, *const c_void);
    // SAFETY: the caller vouches for it
    unsafe { std::mem::transmute::<Function, Destroy>(function as Function)(object, allocator) };
}
