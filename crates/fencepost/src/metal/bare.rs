//! The same command buffers written by hand, for measuring what our calls cost beside them.

use objc2::rc::Retained;
use objc2_metal::{
    MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandBufferStatus, MTLCommandEncoder,
    MTLCommandQueue, MTLDevice, MTLResourceOptions,
};

use super::{
    device::of,
    native::{MAX_UNCOMPLETED, SLACK},
    objects::{CommandBuffer, Event, Object, nil, pooled},
};
use crate::{device::Device, error::Result};

/// A queue and a shared event of a device.
///
/// For measuring only: nothing orders it with streams of this crate, nor its own command buffers
/// against each other.
///
/// ```no_run
/// use fencepost::{Device, metal::bare};
/// let mut line = bare::Line::new(&Device::open("metal")?)?;
/// line.record_timed()?;
/// line.synchronize();
/// # Ok::<(), fencepost::Error>(())
/// ```
pub struct Line {
    queue: Object<dyn MTLCommandQueue>,
    event: Event,
    value: u64,
    scratch: Object<dyn MTLBuffer>,
    last: Option<Retained<CommandBuffer>>,
}

impl Line {
    /// With room for as many command buffers as a stream's.
    ///
    /// ```no_run
    /// # use fencepost::{Device, metal::bare};
    /// drop(bare::Line::new(&Device::open("metal")?)?);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn new(device: &Device) -> Result<Line> {
        let gpu = &of(device.imp())?.gpu;
        pooled(|| {
            let queue = gpu
                .device
                .newCommandQueueWithMaxCommandBufferCount(MAX_UNCOMPLETED + SLACK);
            let options = MTLResourceOptions::StorageModePrivate
                | MTLResourceOptions::HazardTrackingModeUntracked;
            let scratch = gpu.device.newBufferWithLength_options(4, options);
            Ok(Line {
                queue: Object::new(
                    queue.ok_or_else(|| nil("MTLDevice.newCommandQueue", "drop streams"))?,
                ),
                scratch: Object::new(
                    scratch.ok_or_else(|| nil("MTLDevice.newBufferWithLength", "free memory"))?,
                ),
                event: gpu.new_event()?,
                value: 0,
                last: None,
            })
        })
    }

    /// A command buffer that fills four bytes and signals the next value. Blocks in Metal where too
    /// many are uncompleted.
    ///
    /// ```no_run
    /// # use fencepost::{Device, metal::bare};
    /// bare::Line::new(&Device::open("metal")?)?.record_timed()?;
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn record_timed(&mut self) -> Result<()> {
        pooled(|| {
            let buffer = self.queue.commandBuffer();
            let buffer =
                buffer.ok_or_else(|| nil("MTLCommandQueue.commandBuffer", "free memory"))?;
            let encoder = buffer
                .blitCommandEncoder()
                .ok_or_else(|| nil("MTLCommandBuffer.blitCommandEncoder", "free memory"))?;
            encoder.fillBuffer_range_value(&self.scratch, (0..4).into(), 0);
            encoder.endEncoding();
            self.value += 1;
            self.event.encode_signal(&buffer, self.value);
            buffer.commit();
            self.last = Some(buffer);
            Ok(())
        })
    }

    /// `status`: whether the last one is complete.
    ///
    /// ```no_run
    /// # use fencepost::{Device, metal::bare};
    /// assert!(bare::Line::new(&Device::open("metal")?)?.query());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn query(&self) -> bool {
        let last = self.last.as_ref();
        last.is_none_or(|last| last.status() >= MTLCommandBufferStatus::Completed)
    }

    /// `waitUntilCompleted` of the last one.
    ///
    /// ```no_run
    /// # use fencepost::{Device, metal::bare};
    /// bare::Line::new(&Device::open("metal")?)?.synchronize();
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn synchronize(&self) {
        if let Some(last) = &self.last {
            pooled(|| last.waitUntilCompleted());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let last = self.last.take();
        pooled(|| drop(last));
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bare::Line")
    }
}
