//! The suite's kernels: how they are built and launched.

use std::ffi::{CStr, c_void};

use crate::{
    error::{Error, Result},
    opencl::{
        context::Context,
        fault::Fault,
        loader::{KernelHandle, MemoryHandle, ProgramHandle, QueueHandle, text},
    },
};

/// The driver compiles it for the device.
const SOURCE: &str = include_str!("kernels.cl");

/// The kernels of one context, built. Never released, as the context itself.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    program: ProgramHandle,
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(super) enum Argument {
    Memory(MemoryHandle),
    Word(u32),
    Long(u64),
}

impl Kernels {
    pub(super) fn build(context: &Context) -> Result<Kernels> {
        let loader = context.loader;
        let failed = |fault| context.failed(fault);
        let (source, length, mut code) = (SOURCE.as_ptr().cast(), SOURCE.len(), 0);
        // SAFETY: one text of that length, which the driver copies; the context is never released.
        let program = unsafe {
            loader.create_program(
                context.raw,
                1,
                &raw const source,
                &raw const length,
                &raw mut code,
            )
        };
        let program = ProgramHandle(program.map_err(failed)?);
        Fault::of("clCreateProgramWithSource", code).map_err(failed)?;
        // SAFETY: the program was just made, for the context of this device; without options and
        // callback.
        let built = unsafe {
            loader.build(
                program,
                1,
                &raw const context.device,
                c"".as_ptr(),
                None,
                std::ptr::null_mut(),
            )
        };
        match built {
            Ok(()) => Ok(Kernels { program }),
            Err(fault) => Err(Error::Backend {
                call: "clBuildProgram",
                code: fault.code().unwrap_or(0).into(),
                text: format!("{fault}; {}", build_log(context, program)),
            }),
        }
    }

    /// Launches the kernel of this name with that many work items, in groups of so many. A kernel
    /// of its own each time: no two threads may set the arguments of one.
    pub(super) fn launch(
        self,
        context: &'static Context,
        queue: QueueHandle,
        name: &CStr,
        items: (usize, usize),
        arguments: &[Argument],
    ) -> Result<(), Fault> {
        let (loader, mut code) = (context.loader, 0);
        // SAFETY: the program is built and never released; the name is a C string.
        let kernel = unsafe { loader.create_kernel(self.program, name.as_ptr(), &raw mut code) }?;
        let kernel = KernelHandle(kernel);
        Fault::of("clCreateKernel", code)?;
        let set_all = || {
            for (index, argument) in arguments.iter().enumerate() {
                let (value, size): (*const c_void, usize) = match argument {
                    Argument::Memory(memory) => {
                        (std::ptr::from_ref(memory).cast(), size_of::<MemoryHandle>())
                    }
                    Argument::Word(word) => (std::ptr::from_ref(word).cast(), size_of::<u32>()),
                    Argument::Long(long) => (std::ptr::from_ref(long).cast(), size_of::<u64>()),
                };
                // SAFETY: the driver copies the value, checks its size, and knows the kernel.
                unsafe { loader.set_argument(kernel, index as u32, size, value) }?;
            }
            // The memory is alive until the kernel has run, as the callers see to.
            context.launch(queue, kernel, items)
        };
        let launched = set_all();
        // SAFETY: ours; the driver keeps it until it has run.
        let _ = unsafe { loader.release_kernel(kernel) };
        launched
    }
}

/// What the compiler says.
fn build_log(context: &Context, program: ProgramHandle) -> String {
    /// `CL_PROGRAM_BUILD_LOG`.
    const BUILD_LOG: u32 = 0x1183;
    let log = text(|size, out, needed| {
        // SAFETY: the program is alive; there is room for `size` bytes.
        unsafe {
            context
                .loader
                .build_info(program, context.device, BUILD_LOG, size, out, needed)
        }
    });
    log.unwrap_or_default()
}
