//! The work that tests put on wgpu's queue: kernels that write to memory the host sees.
#![allow(unsafe_code)]

mod memory;

use std::{
    any::Any,
    sync::{Arc, OnceLock, atomic::Ordering},
};

use memory::Shared;

use super::{
    bytes::{ByteCounterImpl, no_counter},
    test_work::{Gate, Log, LogImpl, TestWork},
};
use crate::{
    contract::{DeviceImpl, StreamImpl},
    device::Device,
    error::{Cause, Error, Result},
    place::Place,
    wgpu30::{
        device::{self, as_wgpu, stream_as_wgpu},
        gpu::Gpu,
        stream::WgpuStream,
    },
};

/// The device of a queue that goes without signals of this crate and polls, as on APIs that have no
/// such signals.
///
/// # Errors
/// As [`stream`](crate::wgpu30::stream).
///
/// ```no_run
/// # fn f(device: &wgpu::Device, queue: &wgpu::Queue) -> fencepost::Result<()> {
/// # use fencepost::wgpu30::wgpu;
/// let device = fencepost::testing::wgpu30::polled(device, queue)?;
/// # Ok(())
/// # }
/// ```
pub fn polled(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Device> {
    device::polled(device, queue).map(Device::new)
}

/// The work of a device, where it is one of wgpu.
pub(super) fn work_of(device: &dyn DeviceImpl) -> Option<Arc<dyn TestWork>> {
    let device = as_wgpu(device).ok()?;
    let new = || Arc::new(WgpuWork::new(&device.gpu)) as _;
    let kept = device.test_work.get_or_init(new).clone();
    Some(kept.downcast::<WgpuWork>().ok()?)
}

/// The work of one device.
struct WgpuWork {
    gpu: Arc<Gpu>,
    kernels: OnceLock<Result<Arc<Kernels>>>,
}

struct Kernels {
    gpu: Arc<Gpu>,
    append: wgpu::ComputePipeline,
    gate: wgpu::ComputePipeline,
    spin: wgpu::ComputePipeline,
}

impl Kernels {
    fn new(gpu: &Arc<Gpu>) -> Result<Arc<Kernels>> {
        gpu.scoped("wgpu::Device::create_compute_pipeline", || {
            let module = gpu
                .device
                .create_shader_module(wgpu::ShaderModuleDescriptor {
                    label: Some("fencepost"),
                    source: wgpu::ShaderSource::Wgsl(include_str!("kernels.wgsl").into()),
                });
            let pipeline = |name| {
                let wanted = wgpu::ComputePipelineDescriptor {
                    label: Some(name),
                    layout: None,
                    module: &module,
                    entry_point: Some(name),
                    compilation_options: wgpu::PipelineCompilationOptions::default(),
                    cache: None,
                };
                gpu.device.create_compute_pipeline(&wanted)
            };
            Arc::new(Kernels {
                append: pipeline("fencepost_append"),
                gate: pipeline("fencepost_gate"),
                spin: pipeline("fencepost_spin"),
                gpu: gpu.clone(),
            })
        })
    }

    /// Submits a kernel over `words`, with one word given; `false` behind a failure.
    fn dispatch(
        &self,
        stream: &WgpuStream,
        kernel: &wgpu::ComputePipeline,
        words: &Shared,
        given: u32,
    ) -> Result<bool> {
        let device = &self.gpu.device;
        let work = self.gpu.scoped("wgpu::Device::create_buffer", || {
            let argument = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("fencepost"),
                size: 4,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: true,
            });
            if let Ok(mut view) = argument.get_mapped_range_mut(..) {
                view.copy_from_slice(&given.to_le_bytes());
            }
            argument.unmap();
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("fencepost"),
                layout: &kernel.get_bind_group_layout(0),
                entries: &[entry(0, &words.buffer), entry(1, &argument)],
            });
            let mut encoder = device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(kernel);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(1, 1, 1);
            drop(pass);
            encoder.finish()
        })?;
        Ok(stream.run(work))
    }
}

fn entry(binding: u32, buffer: &wgpu::Buffer) -> wgpu::BindGroupEntry<'_> {
    wgpu::BindGroupEntry {
        binding,
        resource: buffer.as_entire_binding(),
    }
}

impl WgpuWork {
    fn new(gpu: &Arc<Gpu>) -> WgpuWork {
        WgpuWork {
            gpu: gpu.clone(),
            kernels: OnceLock::new(),
        }
    }

    /// Makes the kernels, once.
    fn kernels(&self) -> Result<&Arc<Kernels>> {
        let made = self.kernels.get_or_init(|| Kernels::new(&self.gpu));
        made.as_ref().map_err(Clone::clone)
    }
}

impl TestWork for WgpuWork {
    fn new_log(&self) -> Result<Log> {
        Ok(Log::on_device(Arc::new(WgpuLog {
            words: Shared::new(&self.gpu.device, WORDS)?,
        })))
    }

    /// A kernel that runs until the host writes a word: a wait for a signal that is not submitted
    /// is invalid on wgpu's queue.
    fn gate(&self, stream: &dyn StreamImpl, _at: Place) -> Result<Gate> {
        if self.gpu.device.adapter_info().driver == "llvmpipe" {
            return Err(Error::Unsupported {
                what: "holding a stream with a kernel: lavapipe ends the kernel's loop by itself"
                    .into(),
                device: self.gpu.core.name.clone(),
                remedy: "take another driver, such as SwiftShader".into(),
            });
        }
        let kernels = self.kernels()?;
        let words = Shared::new(&self.gpu.device, 1)?;
        kernels.dispatch(stream_as_wgpu(stream)?, &kernels.gate, &words, 0)?;
        Ok(Gate::new(move || {
            words.words()[0].store(1, Ordering::SeqCst);
        }))
    }

    fn append(&self, stream: &dyn StreamImpl, log: &Log, token: u32) -> Result<()> {
        let log: &dyn Any = log.inner();
        let log = log
            .downcast_ref::<WgpuLog>()
            .ok_or_else(|| Error::Unsupported {
                what: "a log of another device".into(),
                device: self.gpu.core.name.clone(),
                remedy: "make the log on this device".into(),
            })?;
        let kernels = self.kernels()?;
        let wgpu = stream_as_wgpu(stream)?;
        match kernels.dispatch(wgpu, &kernels.append, &log.words, token)? {
            true => Ok(()),
            // What is submitted behind a failure never runs.
            false => stream.failure().map_or(Ok(()), Err),
        }
    }

    /// `amount` is the number of rounds of a loop.
    fn spin(&self, stream: &dyn StreamImpl, amount: u64) -> Result<()> {
        let kernels = self.kernels()?;
        let words = Shared::new(&self.gpu.device, 1)?;
        let rounds = amount.try_into().unwrap_or(u32::MAX);
        let stream = stream_as_wgpu(stream)?;
        kernels
            .dispatch(stream, &kernels.spin, &words, rounds)
            .map(drop)
    }

    /// Fails the stream in the way in which the backend fails one behind a failed wait. A real
    /// fault would lose the whole device.
    fn fail(&self, stream: &dyn StreamImpl, text: &str) -> Result<()> {
        stream_as_wgpu(stream)?.fail_from_here(&Cause::new(text));
        Ok(())
    }

    fn shares_order(&self, one: &dyn StreamImpl, two: &dyn StreamImpl) -> bool {
        match (stream_as_wgpu(one), stream_as_wgpu(two)) {
            (Ok(one), Ok(two)) => Arc::ptr_eq(&one.gpu, &two.gpu),
            _ => false,
        }
    }

    fn byte_counter(&self, _capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
        Err(no_counter(&self.gpu.core.name))
    }
}

const WORDS: usize = 1 << 14;

/// The memory of a log: a count, and the tokens.
struct WgpuLog {
    words: Shared,
}

impl LogImpl for WgpuLog {
    fn push(&self, token: u32) {
        let words = self.words.words();
        let at = words[0].fetch_add(1, Ordering::SeqCst) as usize;
        if at < WORDS - 1 {
            words[1 + at].store(token, Ordering::SeqCst);
        }
    }

    fn read(&self) -> Result<Vec<u32>> {
        let words = self.words.words();
        let count = words[0].load(Ordering::SeqCst) as usize;
        let tokens = words[1..].iter().take(count);
        Ok(tokens.map(|word| word.load(Ordering::SeqCst)).collect())
    }
}
