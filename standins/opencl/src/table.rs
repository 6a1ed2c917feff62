//! The driver behind: its library, and its table of functions, which ours replace in part.

use crate::calls;
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Once, OnceLock};

/// A `cl_platform_id` or any other object of OpenCL.
pub(crate) type Handle = *mut c_void;

/// `CL_PLATFORM_NOT_FOUND_KHR`: what a driver answers that has nothing to offer.
const NO_PLATFORM: c_int = -1001;

/// Where each object of a driver points first.
type Table = *mut *const c_void;

type GetPlatforms = unsafe extern "system" fn(u32, *mut Handle, *mut u32) -> c_int;
type GetPlatformInfo =
    unsafe extern "system" fn(Handle, u32, usize, *mut c_void, *mut usize) -> c_int;
type GetAddress = unsafe extern "system" fn(*const c_char) -> *const c_void;
type GetFunction = unsafe extern "system" fn(Handle, *const c_char) -> *const c_void;

const FUNCTION_OF_PLATFORM: &CStr = c"clIcdGetFunctionAddressForPlatformKHR";

/// The driver's functions that ours replaced, in the order of [`calls::replaced`].
struct Originals(Vec<*const c_void>);

// SAFETY: addresses of functions of a library that is never unloaded.
unsafe impl Send for Originals {}
// SAFETY: as above; nothing changes them.
unsafe impl Sync for Originals {}

static ORIGINALS: OnceLock<Originals> = OnceLock::new();

/// Done once the table is changed.
static REPLACED: Once = Once::new();

/// The driver's own function, by the number of ours.
pub(crate) fn original(number: usize) -> *const c_void {
    // A call arrives here by way of a table that is changed after this is set.
    ORIGINALS
        .get()
        .map_or(std::ptr::null(), |all| all.0[number])
}

/// The library behind; `None` if there is none.
fn behind() -> Option<&'static Library> {
    static BEHIND: OnceLock<Option<Library>> = OnceLock::new();
    let load = || {
        let named = std::env::var("FENCEPOST_SIM_OPENCL_BEHIND").ok();
        let name = named.or_else(|| {
            let text = std::fs::read_to_string("/etc/OpenCL/vendors/pocl.icd").ok()?;
            Some(text.lines().next()?.trim().to_owned())
        })?;
        // SAFETY: a driver, as the loader would load it
        unsafe { Library::new(name) }.ok()
    };
    BEHIND.get_or_init(load).as_ref()
}

/// A function of the driver behind that is no entry of its table.
fn extension(name: &CStr) -> *const c_void {
    let Some(library) = behind() else {
        return std::ptr::null();
    };
    // SAFETY: the type of the function of this name in every driver
    let Ok(get) = (unsafe { library.get::<GetAddress>(c"clGetExtensionFunctionAddress") }) else {
        return std::ptr::null();
    };
    // SAFETY: a C string
    unsafe { get(name.as_ptr()) }
}

/// The functions of a driver of `cl_khr_icd` 2.0, which loaders of that version take by their
/// names, past the table: ours where there is one.
unsafe extern "system" fn function_of_platform(
    platform: Handle,
    name: *const c_char,
) -> *const c_void {
    // SAFETY: a C string of the loader's
    let wanted = unsafe { CStr::from_ptr(name) };
    let mut ours = calls::FUNCTIONS.iter().zip(calls::replaced());
    if let Some((_, (_, found))) = ours.find(|(known, _)| known.as_bytes() == wanted.to_bytes()) {
        return found;
    }
    let get = extension(FUNCTION_OF_PLATFORM);
    // SAFETY: the type of the function of this name; it was there when the loader asked for ours
    let get = unsafe { std::mem::transmute::<*const c_void, GetFunction>(get) };
    // SAFETY: passed on
    unsafe { get(platform, name) }
}

/// Finds `clIcdGetPlatformIDsKHR` and `clGetPlatformInfo` of this library for the loader, and
/// anything else in the driver behind.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn clGetExtensionFunctionAddress(name: *const c_char) -> *const c_void {
    if name.is_null() {
        return std::ptr::null();
    }
    // SAFETY: the caller vouches for it
    let name = unsafe { CStr::from_ptr(name) };
    match name.to_bytes() {
        b"clIcdGetPlatformIDsKHR" => clIcdGetPlatformIDsKHR as *const c_void,
        _ if name == FUNCTION_OF_PLATFORM && !extension(name).is_null() => {
            function_of_platform as *const c_void
        }
        _ => extension(name),
    }
}

/// The driver's `clGetPlatformInfo`, which some loaders look for by its name.
///
/// # Safety
/// As the driver's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn clGetPlatformInfo(
    platform: Handle,
    name: u32,
    size: usize,
    value: *mut c_void,
    size_ret: *mut usize,
) -> c_int {
    // SAFETY: a platform's first word is its table, whose second entry is this function
    unsafe {
        let table = *platform.cast::<Table>();
        let info = std::mem::transmute::<*const c_void, GetPlatformInfo>(*table.add(1));
        info(platform, name, size, value, size_ret)
    }
}

/// The platforms of the driver behind, with their table changed.
///
/// # Safety
/// As the function of this name in `cl_khr_icd`.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn clIcdGetPlatformIDsKHR(
    count: u32,
    platforms: *mut Handle,
    found: *mut u32,
) -> c_int {
    let get = extension(c"clIcdGetPlatformIDsKHR");
    if get.is_null() {
        return NO_PLATFORM;
    }
    // SAFETY: the function of this name in every driver
    let get = unsafe { std::mem::transmute::<*const c_void, GetPlatforms>(get) };
    let mut first: Handle = std::ptr::null_mut();
    // SAFETY: space for one handle
    if unsafe { get(1, &raw mut first, std::ptr::null_mut()) } == 0 && !first.is_null() {
        // SAFETY: a platform's first word is its table
        let table = unsafe { *first.cast::<Table>() };
        // SAFETY: of the driver
        ORIGINALS.get_or_init(|| unsafe { originals(table) });
        // SAFETY: as above
        REPLACED.call_once(|| unsafe { replace(table) });
        calls::plan_from_environment();
    }
    // SAFETY: passed on
    unsafe { get(count, platforms, found) }
}

/// What the table holds in the places of [`calls`].
///
/// # Safety
/// It is the table of a driver, as the driver made it.
unsafe fn originals(table: Table) -> Originals {
    let replaced = calls::replaced();
    // SAFETY: an entry of the table
    let entry = |&(position, _): &(usize, _)| unsafe { *table.add(position) };
    Originals(replaced.iter().map(entry).collect())
}

/// Puts the functions of [`calls`] into the table.
///
/// # Safety
/// It is the table of a driver, and [`ORIGINALS`] has what it held.
unsafe fn replace(table: Table) {
    let replaced = calls::replaced();
    let last = replaced.iter().map(|(position, _)| *position).max();
    let bytes = (last.unwrap_or(0) + 1) * size_of::<*const c_void>();
    // Where the table is constant it lies in pages that the linker has made read-only.
    // SAFETY: these pages are the driver's data, and stay readable
    unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE).max(1) as usize;
        let start = table as usize / page * page;
        let length = table as usize + bytes - start;
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        libc::mprotect(start as *mut c_void, length, writable);
    }
    for (position, ours) in replaced {
        // SAFETY: an entry of the table
        unsafe { table.add(position).write(ours) };
    }
}
