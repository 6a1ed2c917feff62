//! Times work on a Metal command queue of your own, and orders it with a stream: marks inside your
//! command buffers.
//!
//!     cargo run --release -p fencepost --example metal_command_buffer
//!
//! It has never run on Apple hardware; CI runs it on a stand-in for Metal.

#[cfg(not(any(target_vendor = "apple", metal_sim)))]
fn main() {
    println!("this example needs Metal, which a Mac has");
}

// Brings the stand-in into the link.
#[cfg(metal_sim)]
use fencepost_sim_metal as _;

#[cfg(any(target_vendor = "apple", metal_sim))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    objc2::rc::autoreleasepool(|_| example::run())
}

#[cfg(any(target_vendor = "apple", metal_sim))]
mod example {
    use std::error::Error;

    use fencepost::{Device, metal};
    use objc2::runtime::ProtocolObject;
    use objc2_metal::{
        MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue,
        MTLDevice, MTLResourceOptions,
    };

    const BYTES: usize = 1 << 26;

    pub(super) fn run() -> Result<(), Box<dyn Error>> {
        let device = Device::open("metal")?;
        println!("{device}: {}", device.clock());
        // What is yours already, in your own program.
        let raw = metal::device_as_raw(&device)?;
        let queue = raw.newCommandQueue().ok_or("no command queue")?;
        let memory = raw
            .newBufferWithLength_options(BYTES, MTLResourceOptions::StorageModeShared)
            .ok_or("no memory")?;

        // In your own command buffers, which may overlap on your queue: mark inside of them.
        let first = queue.commandBuffer().ok_or("no command buffer")?;
        fill(&first, &memory, 1)?;
        let start = metal::record_into(&device, &first)?;
        first.commit();
        let start = start.submitted();

        let second = queue.commandBuffer().ok_or("no command buffer")?;
        metal::wait_into(&start, &second)?;
        fill(&second, &memory, 2)?;
        let end = metal::record_into(&device, &second)?;
        second.commit();
        let end = end.submitted();

        // In a stream's order, without thinking of buffers before and after: let the stream make
        // them.
        let stream = device.new_stream()?;
        stream.wait(&end)?;
        let third = metal::command_buffer(&stream)?;
        fill(&third, &memory, 3)?;
        third.commit();
        let last = stream.record_timed()?;

        last.synchronize()?;
        start.synchronize()?;
        println!(
            "the second fill ended {} after the first",
            start.elapsed(&end)?
        );
        println!("the third ended {} after the second", end.elapsed(&last)?);
        // SAFETY: shared memory of that size, on which no work is pending.
        let byte = unsafe { memory.contents().cast::<u8>().as_ptr().read() };
        assert_eq!(byte, 3, "the third came last");
        Ok(())
    }

    fn fill(
        buffer: &ProtocolObject<dyn MTLCommandBuffer>,
        memory: &ProtocolObject<dyn MTLBuffer>,
        value: u8,
    ) -> Result<(), &'static str> {
        let encoder = buffer.blitCommandEncoder().ok_or("no encoder")?;
        encoder.fillBuffer_range_value(memory, (0..BYTES).into(), value);
        encoder.endEncoding();
        Ok(())
    }
}
