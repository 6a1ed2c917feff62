//! The same command buffers written by hand, in an autorelease pool for each, as the library has.

use fencepost::{
    Device,
    metal::{
        device_as_raw,
        objc2::{
            rc::{Retained, autoreleasepool},
            runtime::ProtocolObject,
        },
        objc2_metal::{
            MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandBufferStatus,
            MTLCommandEncoder, MTLCommandQueue, MTLDevice, MTLEvent, MTLResourceOptions,
            MTLSharedEvent,
        },
    },
};

use crate::Stop;

type Object<P> = Retained<ProtocolObject<P>>;

/// A queue and a shared event of a device. For measuring only: nothing orders its command buffers
/// against each other. Use it in an autorelease pool.
pub(super) struct Stream {
    queue: Object<dyn MTLCommandQueue>,
    event: Object<dyn MTLSharedEvent>,
    value: u64,
    scratch: Object<dyn MTLBuffer>,
    last: Option<Object<dyn MTLCommandBuffer>>,
}

/// How many uncompleted command buffers the queue has room for: as many as that of a stream.
const ROOM: usize = 1024 + 64;

/// An error where `call` gave nil.
fn some<T>(call: &str, given: Option<T>) -> Result<T, Stop> {
    given.ok_or_else(|| Stop::Failed(format!("{call} gave nil")))
}

impl Stream {
    pub(super) fn new(device: &Device) -> Result<Stream, Stop> {
        let device = device_as_raw(device)?;
        let queue = device.newCommandQueueWithMaxCommandBufferCount(ROOM);
        let options = MTLResourceOptions::StorageModePrivate
            | MTLResourceOptions::HazardTrackingModeUntracked;
        let scratch = device.newBufferWithLength_options(4, options);
        Ok(Stream {
            queue: some("MTLDevice.newCommandQueue", queue)?,
            event: some("MTLDevice.newSharedEvent", device.newSharedEvent())?,
            value: 0,
            scratch: some("MTLDevice.newBufferWithLength", scratch)?,
            last: None,
        })
    }

    /// A command buffer that fills four bytes and signals the next value. Blocks in Metal where too
    /// many are uncompleted.
    pub(super) fn record_timed(&mut self) -> Result<(), Stop> {
        autoreleasepool(|_| {
            let buffer = some("MTLCommandQueue.commandBuffer", self.queue.commandBuffer())?;
            let encoder = buffer.blitCommandEncoder();
            let encoder = some("MTLCommandBuffer.blitCommandEncoder", encoder)?;
            encoder.fillBuffer_range_value(&self.scratch, (0..4).into(), 0);
            encoder.endEncoding();
            self.value += 1;
            let event: &ProtocolObject<dyn MTLEvent> = ProtocolObject::from_ref(&*self.event);
            buffer.encodeSignalEvent_value(event, self.value);
            buffer.commit();
            self.last = Some(buffer);
            Ok(())
        })
    }

    /// A command buffer that waits for the next value, which the host signals then.
    pub(super) fn wait_and_signal(&mut self) -> Result<(), Stop> {
        autoreleasepool(|_| {
            let buffer = some("MTLCommandQueue.commandBuffer", self.queue.commandBuffer())?;
            self.value += 1;
            let event: &ProtocolObject<dyn MTLEvent> = ProtocolObject::from_ref(&*self.event);
            buffer.encodeWaitForEvent_value(event, self.value);
            buffer.commit();
            self.event.setSignaledValue(self.value);
            self.last = Some(buffer);
            Ok(())
        })
    }

    /// Whether the last one is complete, by its `status`.
    pub(super) fn query(&self) -> bool {
        let last = self.last.as_ref();
        last.is_none_or(|last| last.status() >= MTLCommandBufferStatus::Completed)
    }

    /// `waitUntilCompleted` of the last one.
    pub(super) fn synchronize(&self) {
        if let Some(last) = &self.last {
            last.waitUntilCompleted();
        }
    }
}
