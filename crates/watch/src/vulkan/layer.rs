//! The loader's interface to layers, version 2:
//! <https://github.com/KhronosGroup/Vulkan-Loader/blob/main/docs/LoaderLayerInterface.md>.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char, c_void},
};

use ash::vk::{self, Handle as _};

use super::{functions, seen::SEEN};
use crate::{callback::guarded, lock::Lock, watcher};

type Found = unsafe extern "system" fn();

/// `VkNegotiateLayerInterface`.
#[repr(C)]
#[derive(Debug)]
pub struct Negotiation {
    kind: i32,
    next: *mut c_void,
    version: u32,
    get_instance_proc_addr: Option<vk::PFN_vkGetInstanceProcAddr>,
    get_device_proc_addr: Option<vk::PFN_vkGetDeviceProcAddr>,
    get_physical_device_proc_addr: Option<Found>,
}

/// `LAYER_NEGOTIATE_INTERFACE_STRUCT`.
const NEGOTIATION: i32 = 1;
/// The version of the interface that is implemented here.
const VERSION: u32 = 2;
/// `VK_LAYER_LINK_INFO`.
const LINK: i32 = 0;

/// `VkLayerInstanceCreateInfo` and `VkLayerDeviceCreateInfo`, as far as they are used.
#[repr(C)]
struct CreateInfo<L> {
    kind: vk::StructureType,
    next: *const c_void,
    function: i32,
    link: *mut L,
}

/// `VkLayerInstanceLink`.
#[repr(C)]
struct InstanceLink {
    next: *mut InstanceLink,
    get_instance_proc_addr: vk::PFN_vkGetInstanceProcAddr,
    get_physical_device_proc_addr: Option<Found>,
}

/// `VkLayerDeviceLink`.
#[repr(C)]
struct DeviceLink {
    next: *mut DeviceLink,
    get_instance_proc_addr: vk::PFN_vkGetInstanceProcAddr,
    get_device_proc_addr: vk::PFN_vkGetDeviceProcAddr,
}

/// The structure of this kind that the loader has put into the chain behind `next`.
///
/// # Safety
/// `next` begins a chain of Vulkan's structures, and `L` is the link of that kind.
unsafe fn find_link<L>(
    mut next: *const c_void,
    kind: vk::StructureType,
) -> Option<*mut CreateInfo<L>> {
    while !next.is_null() {
        let info = next.cast::<CreateInfo<L>>();
        // SAFETY: every structure of the chain begins with its kind and the next one
        let (found, after) = unsafe { ((*info).kind, (*info).next) };
        // SAFETY: of this kind, the structure has a function
        if found == kind && unsafe { (*info).function } == LINK {
            return Some(info.cast_mut());
        }
        next = after;
    }
    None
}

/// An instance, with the next layer's functions. They are found while it is made: later, the loader
/// may answer with those of the first layer.
#[derive(Clone, Copy)]
pub(super) struct Instance {
    handle: vk::Instance,
    get: vk::PFN_vkGetInstanceProcAddr,
    destroy: Option<vk::PFN_vkDestroyInstance>,
    properties: Option<vk::PFN_vkGetPhysicalDeviceProperties>,
}

impl Instance {
    /// # Safety
    /// The handle is one that the next layer has just made, and `get` is that layer's.
    unsafe fn of(handle: vk::Instance, get: vk::PFN_vkGetInstanceProcAddr) -> Instance {
        // SAFETY: the instance is alive, and the name a C string
        let find = |name: &CStr| unsafe { get(handle, name.as_ptr()) };
        // SAFETY: Vulkan declares the functions of these names with these types
        unsafe {
            type Properties = vk::PFN_vkGetPhysicalDeviceProperties;
            Instance {
                handle,
                get,
                destroy: find(c"vkDestroyInstance")
                    .map(|found| std::mem::transmute::<Found, vk::PFN_vkDestroyInstance>(found)),
                properties: find(c"vkGetPhysicalDeviceProperties")
                    .map(|found| std::mem::transmute::<Found, Properties>(found)),
            }
        }
    }
}

pub(super) static INSTANCES: Lock<BTreeMap<usize, Instance>> = Lock::new(BTreeMap::new());

/// Called by Vulkan's loader for a layer.
///
/// # Safety
/// The pointer is to a structure of that kind.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vkNegotiateLoaderLayerInterfaceVersion(
    negotiation: *mut Negotiation,
) -> vk::Result {
    // SAFETY: the loader vouches for it
    let Some(negotiation) = (unsafe { negotiation.as_mut() }) else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    if negotiation.kind != NEGOTIATION || negotiation.version < VERSION {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    }
    negotiation.version = VERSION;
    negotiation.get_instance_proc_addr = Some(get_instance_proc_addr);
    negotiation.get_device_proc_addr = Some(get_device_proc_addr);
    negotiation.get_physical_device_proc_addr = None;
    vk::Result::SUCCESS
}

/// The layer's own function of an instance's, by the name of the one that it stands for.
fn of_instance(name: &CStr) -> vk::PFN_vkVoidFunction {
    // SAFETY: whoever asks for a function by its name calls it with its type
    unsafe {
        Some(match name.to_bytes() {
            b"vkGetInstanceProcAddr" => {
                std::mem::transmute::<vk::PFN_vkGetInstanceProcAddr, Found>(get_instance_proc_addr)
            }
            b"vkGetDeviceProcAddr" => {
                std::mem::transmute::<vk::PFN_vkGetDeviceProcAddr, Found>(get_device_proc_addr)
            }
            b"vkCreateInstance" => {
                std::mem::transmute::<vk::PFN_vkCreateInstance, Found>(create_instance)
            }
            b"vkDestroyInstance" => {
                std::mem::transmute::<vk::PFN_vkDestroyInstance, Found>(destroy_instance)
            }
            b"vkCreateDevice" => {
                std::mem::transmute::<vk::PFN_vkCreateDevice, Found>(create_device)
            }
            _ => return None,
        })
    }
}

unsafe extern "system" fn get_instance_proc_addr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the caller passes a C string
    let text = unsafe { CStr::from_ptr(name) };
    if let Some(found) = of_instance(text) {
        return Some(found);
    }
    if instance.is_null() {
        return None;
    }
    // SAFETY: the instance is alive
    let key = unsafe { functions::key(instance) };
    let next = INSTANCES.lock().get(&key).copied()?;
    // SAFETY: the next layer has made it
    let found = unsafe { (next.get)(next.handle, name) }?;
    functions::in_place_of(text).or(Some(found))
}

unsafe extern "system" fn get_device_proc_addr(
    device: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the caller passes a C string
    let text = unsafe { CStr::from_ptr(name) };
    if text == c"vkGetDeviceProcAddr" {
        return of_instance(text);
    }
    // SAFETY: the device is alive
    let next = unsafe { functions::device_of(device) }?;
    // SAFETY: the next layer has made it
    let found = unsafe { (next.get)(next.handle, name) }?;
    functions::in_place_of(text).or(Some(found))
}

unsafe extern "system" fn create_instance(
    info: *const vk::InstanceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    instance: *mut vk::Instance,
) -> vk::Result {
    let kind = vk::StructureType::LOADER_INSTANCE_CREATE_INFO;
    // SAFETY: the loader passes such a structure
    let Some(link) = (unsafe { find_link::<InstanceLink>((*info).p_next, kind) }) else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: the loader has written the link, and the next layer takes the one behind it
    let get = unsafe {
        let get = (*(*link).link).get_instance_proc_addr;
        (*link).link = (*(*link).link).next;
        get
    };
    // SAFETY: the name is a C string, and no instance is needed to make one
    let create = unsafe { get(vk::Instance::null(), c"vkCreateInstance".as_ptr()) };
    let Some(create) = create else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    guarded(watcher::start_vulkan);
    // SAFETY: Vulkan declares this function so; the arguments are the caller's
    let result = unsafe {
        let create = std::mem::transmute::<Found, vk::PFN_vkCreateInstance>(create);
        create(info, allocator, instance)
    };
    if result == vk::Result::SUCCESS {
        // SAFETY: the call has made it
        let (made, key) = unsafe { (Instance::of(*instance, get), functions::key(*instance)) };
        INSTANCES.lock().insert(key, made);
    }
    result
}

unsafe extern "system" fn destroy_instance(
    instance: vk::Instance,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    if instance.is_null() {
        return;
    }
    // SAFETY: the instance is alive
    let key = unsafe { functions::key(instance) };
    let next = INSTANCES.lock().remove(&key);
    if let Some(destroy) = next.and_then(|next| next.destroy) {
        // SAFETY: the arguments are the caller's
        unsafe { destroy(instance, allocator) };
    }
}

unsafe extern "system" fn create_device(
    physical: vk::PhysicalDevice,
    info: *const vk::DeviceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    device: *mut vk::Device,
) -> vk::Result {
    let kind = vk::StructureType::LOADER_DEVICE_CREATE_INFO;
    // SAFETY: the loader passes such a structure, and the physical device is alive
    let (link, key) = unsafe {
        let link = find_link::<DeviceLink>((*info).p_next, kind);
        (link, functions::key(physical))
    };
    let instance = INSTANCES.lock().get(&key).copied();
    let (Some(link), Some(instance)) = (link, instance) else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: the loader has written the link, and the next layer takes the one behind it
    let (get_of_instance, get) = unsafe {
        let of = &*(*link).link;
        (*link).link = of.next;
        (of.get_instance_proc_addr, of.get_device_proc_addr)
    };
    // SAFETY: the instance is alive, and the name a C string
    let create = unsafe { get_of_instance(instance.handle, c"vkCreateDevice".as_ptr()) };
    let Some(create) = create else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: Vulkan declares this function so; the arguments are the caller's
    let result = unsafe {
        let create = std::mem::transmute::<Found, vk::PFN_vkCreateDevice>(create);
        create(physical, info, allocator, device)
    };
    if result == vk::Result::SUCCESS {
        // SAFETY: the physical device is alive
        let model = unsafe { model(&instance, physical) };
        let number = SEEN.lock().created_device(model);
        // SAFETY: the call has made the device
        unsafe { functions::add(number, *device, get) };
    }
    result
}

/// The name of a physical device.
///
/// # Safety
/// It is one of the instance.
unsafe fn model(instance: &Instance, physical: vk::PhysicalDevice) -> String {
    let Some(properties) = instance.properties else {
        return String::new();
    };
    let mut facts = vk::PhysicalDeviceProperties::default();
    // SAFETY: the pointer is to such a structure
    unsafe { properties(physical, &raw mut facts) };
    let model = facts.device_name_as_c_str();
    model.map_or_else(
        |_| String::new(),
        |model| model.to_string_lossy().into_owned(),
    )
}
