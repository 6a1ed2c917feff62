//! Modules and the kernels that the stand-in knows by name:
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MODULE.html>,
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EXEC.html>.
//!
//! | kernel | parameters | does |
//! |---|---|---|
//! | `fencepost_append` | `u32* log`, `u32 token` | adds the token to a log: `[count, capacity, tokens…]`; counts on when it is full |
//! | `fencepost_histogram` | `u8* data`, `u64 len`, `u64* bins` | counts bytes into 256 bins |
//! | `fencepost_reduce` | `u64* from`, `u64* into` | adds 256 bins to 256 others |
//! | `fencepost_spin` | `u64 ns` | takes that long by the device's clock; from 1 ms on, in truth too |
//! | `fencepost_trap` | | fails with `CUDA_ERROR_LAUNCH_FAILED` |

use crate::boundary::{Out, text};
use crate::codes::{
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_NOT_FOUND, CUresult, Done,
};
use crate::context::Context;
use crate::entry::call;
use crate::memory::Memory;
use crate::stream::CUstream;
use crate::work::Op;
use std::ffi::{c_char, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A key, never a pointer.
pub type CUmodule = usize;
/// A key, never a pointer.
pub type CUfunction = usize;

#[derive(Debug)]
pub(crate) struct Module {
    context: Arc<Context>,
}

#[derive(Clone, Debug)]
pub(crate) struct Function {
    module: CUmodule,
    name: Name,
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Append,
    Histogram,
    Reduce,
    Spin,
    Trap,
}

impl Name {
    fn of(text: &str) -> Option<Name> {
        Some(match text {
            "fencepost_append" => Name::Append,
            "fencepost_histogram" => Name::Histogram,
            "fencepost_reduce" => Name::Reduce,
            "fencepost_spin" => Name::Spin,
            "fencepost_trap" => Name::Trap,
            _ => return None,
        })
    }

    /// The sizes of its parameters.
    fn parameters(self) -> &'static [usize] {
        match self {
            Name::Append => &[8, 4],
            Name::Histogram => &[8, 8, 8],
            Name::Reduce => &[8, 8],
            Name::Spin => &[8],
            Name::Trap => &[],
        }
    }
}

/// A launch: a kernel and its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    name: Name,
    arguments: Vec<u64>,
}

const BINS: usize = 256;
/// The driver thread looks for the end of a wait this often.
const WORTH_IT: Duration = Duration::from_millis(1);

impl Kernel {
    /// How long the kernel holds its stream, for a spin that is worth it: shorter ones only move
    /// the clock on.
    pub(crate) fn held(&self) -> Option<Duration> {
        match (self.name, &self.arguments[..]) {
            (Name::Spin, [ns]) => Some(Duration::from_nanos(*ns)).filter(|time| *time >= WORTH_IT),
            _ => None,
        }
    }

    pub(crate) fn run(&self, memory: &Memory, context: &Context) -> Done {
        match (self.name, self.arguments[..].as_ref()) {
            (Name::Append, [log, token]) => {
                let head = memory.span(*log, 8)?;
                let place = head.word(0)?.fetch_add(1, Ordering::SeqCst) as usize;
                let capacity = head.word(1)?.load(Ordering::SeqCst) as usize;
                if place < capacity {
                    let log = memory.span(*log, 8 + 4 * capacity)?;
                    log.word(2 + place)?.store(*token as u32, Ordering::SeqCst);
                }
                Ok(())
            }
            (Name::Histogram, [data, len, bins]) => {
                let bins = memory.span(*bins, 8 * BINS)?;
                let mut counts = [0; BINS];
                for byte in memory.read(*data, *len as usize)? {
                    counts[usize::from(byte)] += 1;
                }
                for (bin, count) in counts.into_iter().enumerate() {
                    bins.double_word(bin)?.fetch_add(count, Ordering::SeqCst);
                }
                Ok(())
            }
            (Name::Reduce, [from, into]) => {
                let (from, into) = (memory.span(*from, 8 * BINS)?, memory.span(*into, 8 * BINS)?);
                for bin in 0..BINS {
                    let count = from.double_word(bin)?.load(Ordering::SeqCst);
                    into.double_word(bin)?.fetch_add(count, Ordering::SeqCst);
                }
                Ok(())
            }
            (Name::Spin, [ns]) => {
                context.device.advance(*ns);
                Ok(())
            }
            _ => Err(CUDA_ERROR_LAUNCH_FAILED),
        }
    }
}

/// Loads a module: any image will do, and it is not looked at.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleLoadData(module: Out<'_, CUmodule>, image: *const c_void) -> CUresult {
    call("cuModuleLoadData", |face| {
        let module = module.needed()?;
        let context = face.current()?;
        if image.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        face.unsafe_call()?;
        module.put(face.modules.insert(Module { context }));
        Ok(())
    })
}

/// Unloads a module.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: CUmodule) -> CUresult {
    call("cuModuleUnload", |face| {
        face.unsafe_call()?;
        let gone = face
            .modules
            .remove(module, face.recycle)
            .map_err(|missing| face.misused("module", module, missing))?;
        let stale: Vec<_> = face
            .functions
            .iter()
            .filter_map(|(handle, function)| (function.module == module).then_some(handle))
            .collect();
        for function in stale {
            let _ = face.functions.remove(function, face.recycle);
        }
        gone.context.trouble.check()
    })
}

/// A kernel of a module by its name: one of those the stand-in knows.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: Out<'_, CUfunction>,
    module: CUmodule,
    name: *const c_char,
) -> CUresult {
    call("cuModuleGetFunction", |face| {
        let out = function.needed()?;
        let of = face
            .modules
            .get(module)
            .map_err(|missing| face.misused("module", module, missing))?;
        of.context.trouble.check()?;
        // SAFETY: the caller's word
        let name = unsafe { text(name) }?;
        let name = Name::of(&name).ok_or(CUDA_ERROR_NOT_FOUND)?;
        out.put(face.functions.insert(Function { module, name }));
        Ok(())
    })
}

/// Runs a kernel once, whatever the grid.
///
/// # Safety
/// `parameters` holds a pointer to an argument for each parameter of the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    _shared_bytes: c_uint,
    stream: CUstream,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    call("cuLaunchKernel", |face| {
        let function = face
            .functions
            .get(function)
            .map_err(|missing| face.misused("function", function, missing))?
            .clone();
        let sizes = [grid_x, grid_y, grid_z, block_x, block_y, block_z];
        let threads = [block_x, block_y, block_z].map(u64::from);
        let threads = threads.into_iter().fold(1, u64::saturating_mul);
        if sizes.contains(&0) || threads > 1024 || !extra.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let stream = face.stream(stream)?;
        let context = face.stream_ref(stream)?.context.id;
        let module = face
            .modules
            .get(function.module)
            .map_err(|missing| face.misused("module", function.module, missing))?;
        if module.context.id != context {
            return Err(crate::codes::CUDA_ERROR_INVALID_HANDLE);
        }
        let sizes = function.name.parameters();
        if parameters.is_null() && !sizes.is_empty() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        // SAFETY: the caller's word, and the pointer is not null where there are parameters
        let arguments = unsafe { arguments(parameters, sizes) };
        let kernel = Kernel {
            name: function.name,
            arguments,
        };
        face.push(stream, Op::Kernel(kernel)).map(drop)
    })
}

/// # Safety
/// `parameters` holds a pointer to an argument of each of the sizes.
unsafe fn arguments(parameters: *mut *mut c_void, sizes: &[usize]) -> Vec<u64> {
    let argument = |(index, size): (usize, &usize)| {
        // SAFETY: there are as many pointers as sizes
        let argument = unsafe { *parameters.add(index) };
        // SAFETY: each points to an argument of its size; it may lie anywhere
        unsafe {
            match size {
                4 => argument.cast::<u32>().read_unaligned().into(),
                _ => argument.cast::<u64>().read_unaligned(),
            }
        }
    };
    sizes.iter().enumerate().map(argument).collect()
}
