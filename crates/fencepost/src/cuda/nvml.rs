//! How many GPUs CUDA would show, asked of NVIDIA's management library. That one initialises no
//! CUDA: a process that has asked can still be forked, and its children can use CUDA.
//!
//! NVML does not know `CUDA_VISIBLE_DEVICES`, so that is parsed here, by the rules of [CUDA's
//! guide](https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables):
//! indices, or UUIDs that may be shortened; the first that names no GPU ends the list. Whatever
//! these rules do not settle has no answer here, nor has a GPU that is split (MIG): only the driver
//! knows then.

use std::ffi::{CStr, OsString, c_char, c_int, c_uint, c_void};

use crate::fork::{Lock, Once};

/// The environment variable that names a library to load in place of NVML.
const LIBRARY_VARIABLE: &str = "FENCEPOST_NVML_LIBRARY";

const LIBRARY: &str = if cfg!(windows) {
    "nvml.dll"
} else {
    "libnvidia-ml.so.1"
};

type Status = c_int;
/// An `nvmlDevice_t`.
type Handle = *mut c_void;

/// The functions of [NVML](https://docs.nvidia.com/deploy/nvml-api/) that are called.
struct Nvml {
    init: unsafe extern "C" fn() -> Status,
    shutdown: unsafe extern "C" fn() -> Status,
    count: unsafe extern "C" fn(*mut c_uint) -> Status,
    handle: unsafe extern "C" fn(c_uint, *mut Handle) -> Status,
    uuid: unsafe extern "C" fn(Handle, *mut c_char, c_uint) -> Status,
    /// Drivers from before MIG have none.
    mig_mode: Option<unsafe extern "C" fn(Handle, *mut c_uint, *mut c_uint) -> Status>,
}

/// `NVML_DEVICE_UUID_V2_BUFFER_SIZE`.
const UUID_BYTES: usize = 96;
/// `NVML_ERROR_NOT_SUPPORTED`: of a GPU that cannot be split.
const NOT_SUPPORTED: Status = 3;

/// How many GPUs CUDA would show to this process; `None` where only the driver can tell. `replaced`
/// says that another library stands for the driver, of whose GPUs the system's NVML knows nothing.
pub(super) fn count(replaced: bool) -> Option<usize> {
    let named = std::env::var_os(LIBRARY_VARIABLE).filter(|name| !name.is_empty());
    if replaced && named.is_none() {
        return None;
    }
    let visible = match std::env::var_os("CUDA_VISIBLE_DEVICES") {
        Some(list) => Some(list.into_string().ok()?),
        None => None,
    };
    let gpus = nvml(named)?.gpus()?;
    visible_of(visible.as_deref(), &gpus)
}

/// The library, which is never unloaded.
fn nvml(named: Option<OsString>) -> Option<&'static Nvml> {
    static NVML: Once<Option<Nvml>> = Once::new();
    let load = || {
        let path = named.unwrap_or_else(|| LIBRARY.into());
        // SAFETY: loading runs the library's initialisers. The default is the system's own; the
        // variable is set by whoever runs the process, as LD_PRELOAD would be.
        let library = unsafe { libloading::Library::new(path) }.ok()?;
        // SAFETY: functions of these names have these types:
        // https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
        let nvml = unsafe {
            Nvml {
                init: *library.get(b"nvmlInit_v2\0").ok()?,
                shutdown: *library.get(b"nvmlShutdown\0").ok()?,
                count: *library.get(b"nvmlDeviceGetCount_v2\0").ok()?,
                handle: *library.get(b"nvmlDeviceGetHandleByIndex_v2\0").ok()?,
                uuid: *library.get(b"nvmlDeviceGetUUID\0").ok()?,
                mig_mode: library
                    .get(b"nvmlDeviceGetMigMode\0")
                    .ok()
                    .map(|found| *found),
            }
        };
        std::mem::forget(library);
        Some(nvml)
    };
    // A child that was forked inside has to do without.
    NVML.get_or_try_make(|| Ok::<_, ()>(load()), || ())
        .ok()?
        .as_ref()
}

impl Nvml {
    /// The UUIDs of all GPUs; `None` where one is split, or where a call fails.
    fn gpus(&self) -> Option<Vec<String>> {
        // NVML has locks of its own, which a child that was forked inside would find held.
        static CALLS: Lock = Lock::new();
        let _alone = CALLS.lock().ok()?;
        struct Shutdown<'a>(&'a Nvml);
        impl Drop for Shutdown<'_> {
            fn drop(&mut self) {
                // SAFETY: ends what `init` began. NVML counts its users in a process.
                let _ = unsafe { (self.0.shutdown)() };
            }
        }
        // SAFETY: takes nothing.
        done(unsafe { (self.init)() })?;
        let _shutdown = Shutdown(self);
        let mut count = 0;
        // SAFETY: `count` is an unsigned int.
        done(unsafe { (self.count)(&raw mut count) })?;
        (0..count).map(|index| self.gpu(index)).collect()
    }

    fn gpu(&self, index: c_uint) -> Option<String> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` is one handle.
        done(unsafe { (self.handle)(index, &raw mut handle) })?;
        if let Some(mig_mode) = self.mig_mode {
            let (mut current, mut pending) = (0, 0);
            // SAFETY: the handle was just given; the others are unsigned ints.
            match unsafe { mig_mode(handle, &raw mut current, &raw mut pending) } {
                0 if current == 0 => {}
                NOT_SUPPORTED => {}
                _ => return None,
            }
        }
        let mut uuid: [c_char; UUID_BYTES] = [0; UUID_BYTES];
        // SAFETY: the handle was just given; there is room for that many bytes, and the last one
        // stays zero.
        done(unsafe { (self.uuid)(handle, uuid.as_mut_ptr(), UUID_BYTES as c_uint - 1) })?;
        // SAFETY: it ends with a zero.
        let uuid = unsafe { CStr::from_ptr(uuid.as_ptr()) };
        Some(uuid.to_str().ok()?.to_owned())
    }
}

fn done(status: Status) -> Option<()> {
    (status == 0).then_some(())
}

/// How many of the GPUs with these UUIDs (`GPU-…`) the list of `CUDA_VISIBLE_DEVICES` shows; `None`
/// where that is not settled.
fn visible_of(list: Option<&str>, gpus: &[String]) -> Option<usize> {
    let Some(list) = list else {
        return Some(gpus.len());
    };
    let mut seen = Vec::new();
    for token in list.split(',').map(str::trim) {
        let found = match token {
            "" if seen.is_empty() && list.trim().is_empty() => break,
            _ if token.starts_with("GPU-") => {
                let named = |uuid: &&String| {
                    let head = uuid.get(..token.len());
                    head.is_some_and(|head| head.eq_ignore_ascii_case(token))
                };
                let mut all = gpus.iter().filter(named);
                // A prefix of several names none.
                match (all.next(), all.next()) {
                    (Some(uuid), None) => gpus.iter().position(|other| other == uuid),
                    _ => None,
                }
            }
            _ => match token.parse::<i64>() {
                Ok(number) if token.starts_with('+') || number.to_string() != token => return None,
                Ok(number) => usize::try_from(number).ok().filter(|i| *i < gpus.len()),
                Err(_) => return None,
            },
        };
        match found {
            None => break,
            // Not settled: drivers refuse such a list, or count one GPU twice.
            Some(index) if seen.contains(&index) => return None,
            Some(index) => seen.push(index),
        }
    }
    Some(seen.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_visible_devices_is_read_as_the_driver_reads_it() {
        let gpus = ["GPU-aabb0000-1", "GPU-aabb1111-2", "GPU-cc000000-3"].map(String::from);
        for (list, shown) in [
            (None, Some(3)),
            (Some(""), Some(0)),
            (Some(" "), Some(0)),
            (Some("-1"), Some(0)),
            (Some("0"), Some(1)),
            (Some("2,0"), Some(2)),
            (Some(" 2 , 1"), Some(2)),
            (Some("0,-1,1"), Some(1)),
            (Some("0,3,1"), Some(1)),
            (Some("3"), Some(0)),
            (Some("GPU-cc"), Some(1)),
            (Some("GPU-CC,GPU-aabb0"), Some(2)),
            (Some("GPU-aabb"), Some(0)),
            (Some("GPU-cc,GPU-dd,GPU-aabb1"), Some(1)),
            (Some("GPU-aabb0000-1-and-more"), Some(0)),
            // Only the driver knows.
            (Some("0,0"), None),
            (Some("GPU-cc,GPU-cc0"), None),
            (Some("0,,1"), None),
            (Some("MIG-12345678"), None),
            (Some("MIG-GPU-aabb0000/1/0"), None),
            (Some("NoDevFiles"), None),
            (Some("00"), None),
            (Some("+1"), None),
            (Some("1x"), None),
            (Some("99999999999999999999"), None),
        ] {
            assert_eq!(visible_of(list, &gpus), shown, "{list:?}");
        }
    }
}
