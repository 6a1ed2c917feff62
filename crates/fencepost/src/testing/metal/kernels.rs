//! The suite's kernels on Metal.
//!
//! Each piece of work is a command buffer of its own. Metal makes what a completed buffer wrote
//! visible to the host, where the memory is shared between both ([resource storage
//! modes](https://developer.apple.com/documentation/metal/mtlstoragemode/shared)).

use std::ptr::NonNull;

use objc2_foundation::NSString;
use objc2_metal::{
    MTLBlitCommandEncoder, MTLCommandBuffer, MTLCommandEncoder, MTLComputeCommandEncoder,
    MTLComputePipelineState, MTLDevice, MTLLibrary, MTLSize,
};

use super::memory::Memory;
use crate::{
    error::{Error, Result},
    metal::{
        gpu::Gpu,
        objects::{CommandBuffer, Object, nil, pooled},
        stream::MtlStream,
    },
    sync::lock,
};

const SOURCE: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.metal"));

/// A kernel, and what a threadgroup of it has: threads, and bytes of memory.
pub(super) struct Kernel {
    pipeline: Object<dyn MTLComputePipelineState>,
    threads: usize,
    /// naga makes threadgroup memory an argument of the kernel, and the host sets its length: a
    /// multiple of 16, or 0 for none.
    group_bytes: usize,
}

/// The kernels of one device.
pub(super) struct Kernels {
    pub(super) append: Kernel,
    pub(super) histogram: Kernel,
    pub(super) reduce: Kernel,
    pub(super) spin: Kernel,
}

impl Kernels {
    /// Call it in an autorelease pool.
    pub(super) fn new(gpu: &Gpu) -> Result<Kernels> {
        let refused = |call: &'static str, code: isize, text: &NSString| Error::Backend {
            call,
            code: code as i64,
            text: format!("{text}; report it, with the version of the system"),
        };
        let source = NSString::from_str(SOURCE);
        let library = gpu.device.newLibraryWithSource_options_error(&source, None);
        let library = library.map_err(|error| {
            let text = error.localizedDescription();
            refused("MTLDevice.newLibraryWithSource", error.code(), &text)
        })?;
        let kernel = |name: &str, threads, group_bytes| {
            let function = library.newFunctionWithName(&NSString::from_str(name));
            let function =
                function.ok_or_else(|| nil("MTLLibrary.newFunctionWithName", "report it"))?;
            let pipeline = gpu
                .device
                .newComputePipelineStateWithFunction_error(&function);
            let pipeline = pipeline.map_err(|error| {
                let text = error.localizedDescription();
                refused(
                    "MTLDevice.newComputePipelineStateWithFunction",
                    error.code(),
                    &text,
                )
            })?;
            let most = pipeline.maxTotalThreadsPerThreadgroup();
            if most < threads {
                return Err(Error::Unsupported {
                    what: format!(
                        "{name}, which needs {threads} threads in a threadgroup and gets {most} at \
                         most"
                    ),
                    device: gpu.core.name.clone(),
                    remedy: "report it, with the name of the GPU".into(),
                });
            }
            Ok(Kernel {
                pipeline: Object::new(pipeline),
                threads,
                group_bytes,
            })
        };
        Ok(Kernels {
            append: kernel("fencepost_append", 1, 0)?,
            histogram: kernel("fencepost_histogram", 256, 256 * 4)?,
            reduce: kernel("fencepost_reduce", 256, 0)?,
            spin: kernel("fencepost_spin", 1, 0)?,
        })
    }
}

/// One run of a kernel: so many threadgroups, with `word` as its constant. Before it, `zeroed` is
/// filled with zeroes.
pub(super) struct Dispatch<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) memory: &'a [&'a Memory],
    pub(super) groups: usize,
    pub(super) word: u32,
    pub(super) zeroed: Option<&'a Memory>,
}

/// Submits a kernel to `stream`; `Ok(false)` behind a failure. Metal keeps the memory alive until
/// the kernel has run.
pub(super) fn dispatch(stream: &MtlStream, work: &Dispatch<'_>) -> Result<bool> {
    stream.check("dispatch")?;
    let submitted = stream.values.submit(|open| {
        pooled(|| {
            let mut next = lock(&stream.native.next);
            let encode = |buffer: &CommandBuffer| encode(buffer, work);
            let (epoch, before) = (&open.epoch, open.last);
            stream
                .native
                .submit_buffer(&mut next, epoch, before, None, encode)
        })
    });
    Ok(submitted.map_err(|error| stream.named(error))?.is_some())
}

fn encode(buffer: &CommandBuffer, work: &Dispatch<'_>) -> Result<()> {
    if let Some(zeroed) = work.zeroed {
        let encoder = buffer
            .blitCommandEncoder()
            .ok_or_else(|| nil("MTLCommandBuffer.blitCommandEncoder", "free memory"))?;
        encoder.fillBuffer_range_value(&zeroed.buffer, (0..zeroed.bytes).into(), 0);
        encoder.endEncoding();
    }
    let encoder = buffer
        .computeCommandEncoder()
        .ok_or_else(|| nil("MTLCommandBuffer.computeCommandEncoder", "free memory"))?;
    encoder.setComputePipelineState(&work.kernel.pipeline);
    for (index, memory) in work.memory.iter().enumerate() {
        // SAFETY: the kernels stay within their buffers, since they know the sizes.
        unsafe { encoder.setBuffer_offset_atIndex(Some(&memory.buffer), 0, index) };
    }
    // naga's kernels read the sizes of their arrays from here. Each kernel asks for that of its
    // first binding at most, so all entries have that size.
    let sizes = [work.memory.first().map_or(0, |memory| memory.bytes as u32); 3];
    // SAFETY: the words are read during the calls.
    unsafe {
        encoder.setBytes_length_atIndex(NonNull::from(&work.word).cast(), 4, 2);
        encoder.setBytes_length_atIndex(NonNull::from(&sizes).cast(), size_of_val(&sizes), 3);
    }
    if work.kernel.group_bytes > 0 {
        // SAFETY: each kernel has one such argument at most.
        unsafe { encoder.setThreadgroupMemoryLength_atIndex(work.kernel.group_bytes, 0) };
    }
    let size = |width| MTLSize {
        width,
        height: 1,
        depth: 1,
    };
    encoder
        .dispatchThreadgroups_threadsPerThreadgroup(size(work.groups), size(work.kernel.threads));
    encoder.endEncoding();
    Ok(())
}
