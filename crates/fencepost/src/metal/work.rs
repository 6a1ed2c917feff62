//! The conformance suite's work on Metal streams: kernels that write to memory the host sees.
//!
//! Each piece of work is a command buffer of its own. Metal makes what a completed buffer wrote
//! visible to the host, where the memory is shared between both ([resource storage
//! modes](https://developer.apple.com/documentation/metal/mtlstoragemode/shared)).

use std::{
    any::Any,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use objc2_foundation::NSString;
use objc2_metal::{
    MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandEncoder,
    MTLComputeCommandEncoder, MTLComputePipelineState, MTLDevice, MTLLibrary, MTLResourceOptions,
    MTLSize,
};

use super::{
    gpu::Gpu,
    objects::{CommandBuffer, Object, nil, pooled},
    stream::{MtlStream, of_stream},
};
use crate::{
    contract::StreamImpl,
    error::{Cause, Error, Result},
    host_gate::HostGated,
    testing::{
        TestWork,
        bytes::ByteCounterImpl,
        work::{Gate, Log, LogImpl},
    },
};

const SOURCE: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.metal"));

/// A kernel, and what a group of it has: threads, and bytes of memory.
#[derive(Clone)]
pub(super) struct Kernel {
    pipeline: Object<dyn MTLComputePipelineState>,
    threads: usize,
    /// naga makes workgroup memory an argument of the kernel, whose length the host sets: a
    /// multiple of 16. 0 for none.
    group_bytes: usize,
}

/// The kernels of one device.
#[derive(Clone)]
pub(super) struct Kernels {
    append: Kernel,
    pub(super) histogram: Kernel,
    pub(super) reduce: Kernel,
    spin: Kernel,
}

/// Makes the kernels, once.
pub(super) fn kernels(gpu: &Gpu) -> Result<&Kernels> {
    let made = gpu.kernels.get_or_init(|| pooled(|| Kernels::new(gpu)));
    made.as_ref().map_err(Clone::clone)
}

impl Kernels {
    fn new(gpu: &Gpu) -> Result<Kernels> {
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
                    what: format!("{name}, which wants {threads} threads a group, of {most},"),
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

/// Memory that host and device see, zeroed.
pub(super) struct Memory {
    pub(super) gpu: Arc<Gpu>,
    pub(super) buffer: Object<dyn MTLBuffer>,
    pub(super) bytes: usize,
}

impl Memory {
    /// Room for `bytes`, in whole words.
    pub(super) fn new(gpu: &Arc<Gpu>, bytes: usize) -> Result<Arc<Memory>> {
        gpu.check()?;
        let bytes = bytes.next_multiple_of(4).max(4);
        let options = MTLResourceOptions::StorageModeShared;
        let buffer = pooled(|| gpu.device.newBufferWithLength_options(bytes, options));
        let buffer = buffer.ok_or_else(|| nil("MTLDevice.newBufferWithLength", "free memory"))?;
        let memory = Memory {
            gpu: gpu.clone(),
            buffer: Object::new(buffer),
            bytes,
        };
        // SAFETY: a new buffer of that size, which nobody else knows.
        unsafe { memory.start().write_bytes(0, bytes) };
        Ok(Arc::new(memory))
    }

    /// Where the host sees it.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.buffer.contents().cast()
    }

    /// One word of it.
    pub(super) fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.bytes / 4);
        // SAFETY: within memory that lives as long as `self`, aligned for any word, and read and
        // written as whole words.
        unsafe { AtomicU32::from_ptr(self.start().cast::<u32>().add(index).as_ptr()) }
    }
}

/// One kernel, `groups` threadgroups of it, with `word` to push; in front of it, `zeroed` is filled
/// with zeroes.
pub(super) struct Dispatch<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) memory: &'a [&'a Memory],
    pub(super) groups: usize,
    pub(super) word: u32,
    pub(super) zeroed: Option<&'a Memory>,
}

/// Submits a kernel to `stream`; `Ok(false)` where it lies behind a failure. Metal keeps the memory
/// until it is done.
pub(super) fn dispatch(stream: &MtlStream, work: &Dispatch<'_>) -> Result<bool> {
    stream.run(|buffer| encode(buffer, work))
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
        // SAFETY: the kernels stay within their buffers, whose sizes they are told.
        unsafe { encoder.setBuffer_offset_atIndex(Some(&memory.buffer), 0, index) };
    }
    // The sizes of all bindings without a length, of which each kernel has one at most: its first.
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

const WORDS: usize = 1 << 14;

/// The work of one device.
pub(super) struct MtlWork {
    pub(super) gpu: Arc<Gpu>,
}

impl TestWork for MtlWork {
    fn new_log(&self) -> Result<Log> {
        new_log(&self.gpu)
    }

    fn gate(&self, stream: &dyn StreamImpl) -> Result<Gate> {
        let stream = of_stream(stream)?;
        stream.check("gate")?;
        let held = stream.add_gate(|| ())?;
        Ok(Gate::new(move || {
            // Behind a failure there is nothing to hold back.
            if let Some((gate, step, ())) = held {
                step.finish(Ok(()));
                drop(gate);
            }
        }))
    }

    fn append(&self, stream: &dyn StreamImpl, log: &Log, token: u32) -> Result<()> {
        match append(of_stream(stream)?, log, token)? {
            true => Ok(()),
            // What is submitted behind a failure never runs.
            false => stream.failure().map_or(Ok(()), Err),
        }
    }

    /// For so many rounds of a loop.
    fn spin(&self, stream: &dyn StreamImpl, amount: u64) -> Result<()> {
        spin(of_stream(stream)?, amount.try_into().unwrap_or(u32::MAX))
    }

    /// The stream ends here, by the backend's own way of ending one: no kernel faults on purpose on
    /// every GPU. The stand-in's faults show what a buffer does that ends in an error.
    fn fail(&self, stream: &dyn StreamImpl, text: &str) -> Result<()> {
        of_stream(stream)?.fail_from_here(&Cause::new(text));
        Ok(())
    }

    fn byte_counter(&self, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
        super::bytes::new(&self.gpu, capacity)
    }
}

fn new_log(gpu: &Arc<Gpu>) -> Result<Log> {
    let memory = Memory::new(gpu, WORDS * 4)?;
    Ok(Log::on_device(Arc::new(MtlLog { memory })))
}

/// Writes `token` where it runs in the order; `Ok(false)` behind a failure.
fn append(stream: &MtlStream, log: &Log, token: u32) -> Result<bool> {
    let any: &dyn Any = log.inner();
    let log = any.downcast_ref::<MtlLog>();
    let Some(log) = log.filter(|log| Arc::ptr_eq(&log.memory.gpu, &stream.gpu)) else {
        return Err(Error::Unsupported {
            what: "a log of another device".into(),
            device: stream.gpu.core.name.clone(),
            remedy: "make the log on this device".into(),
        });
    };
    let work = Dispatch {
        kernel: &kernels(&stream.gpu)?.append,
        memory: &[&log.memory],
        groups: 1,
        word: token,
        zeroed: None,
    };
    dispatch(stream, &work)
}

/// Keeps the device busy for some rounds of a loop.
fn spin(stream: &MtlStream, rounds: u32) -> Result<()> {
    let memory = Memory::new(&stream.gpu, 4)?;
    let work = Dispatch {
        kernel: &kernels(&stream.gpu)?.spin,
        memory: &[&memory],
        groups: 1,
        word: rounds,
        zeroed: None,
    };
    dispatch(stream, &work).map(drop)
}

/// A count, and the tokens.
struct MtlLog {
    memory: Arc<Memory>,
}

impl LogImpl for MtlLog {
    fn push(&self, token: u32) {
        let at = self.memory.word(0).fetch_add(1, Ordering::SeqCst) as usize;
        if at < WORDS - 1 {
            self.memory.word(1 + at).store(token, Ordering::SeqCst);
        }
    }

    fn read(&self) -> Result<Vec<u32>> {
        let count = self.memory.word(0).load(Ordering::SeqCst) as usize;
        Ok((0..count.min(WORDS - 1))
            .map(|at| self.memory.word(1 + at).load(Ordering::SeqCst))
            .collect())
    }
}
