//! A host stream, an OpenCL queue and a host stream again, each behind the one before by an event.
//!
//! `cargo run --release -p fencepost --features opencl --example opencl_host_order`, on a machine
//! with a driver of OpenCL. PoCL is one that computes on the processor.

use std::{
    error::Error,
    ptr::null_mut,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use fencepost::{Device, Event, opencl};
use opencl3::{
    command_queue::{CL_QUEUE_PROFILING_ENABLE, CommandQueue},
    context::Context,
    device::{CL_DEVICE_TYPE_ALL, Device as ClDevice, get_all_devices},
    kernel::{ExecuteKernel, Kernel},
    memory::{Buffer, CL_MEM_READ_WRITE, ClMem},
    program::Program,
    types::{CL_BLOCKING, CL_NON_BLOCKING},
};

const SQUARES: &str = "
kernel void square(global uint *numbers)
{
    numbers[get_global_id(0)] *= numbers[get_global_id(0)];
}";
const LENGTH: usize = 1 << 16;

fn main() -> Result<(), Box<dyn Error>> {
    let host = Device::open("host")?;
    let (produce, consume) = (host.new_stream()?, host.new_stream()?);
    Device::open("opencl:0")?;

    let device = get_all_devices(CL_DEVICE_TYPE_ALL)?;
    let context = Context::from_device(&ClDevice::new(device[0]))?;
    let queue = || CommandQueue::create_default(&context, CL_QUEUE_PROFILING_ENABLE);
    let (queue, reading) = (queue()?, queue()?);
    let program = Program::create_and_build_from_source(&context, SQUARES, "")?;
    let kernel = Kernel::create(&program, "square")?;
    // SAFETY: without memory of the host.
    let mut buffer = unsafe { Buffer::create(&context, CL_MEM_READ_WRITE, LENGTH, null_mut()) }?;
    // SAFETY: a queue of this process's loader. It is retained, so that it may outlive `queue`.
    let compute = unsafe { opencl::stream_from_raw(queue.get()) }?;
    let (produced, computed) = (Event::new(&host), Event::new(compute.device()));

    let numbers: Arc<Vec<_>> = Arc::new((0..LENGTH).map(|_| AtomicU32::new(0)).collect());
    let filled = numbers.clone();
    produce.launch(move || {
        for (number, value) in filled.iter().zip(1..) {
            number.store(value, Ordering::Relaxed);
        }
    })?;
    produced.record(&produce)?;

    // The queue stands still until the host's work is done, so this is asked for by name. A plain
    // `wait` refuses; `produced.synchronize()` would let this thread wait instead.
    if let Some(marker) = produced.marker() {
        compute.wait_foreign(&marker)?;
    }
    // SAFETY: as long as the buffer; kept until the end, and nobody writes it behind `produced`.
    unsafe { queue.enqueue_write_buffer(&mut buffer, CL_NON_BLOCKING, 0, &numbers, &[]) }?;
    let mut launch = ExecuteKernel::new(&kernel);
    // SAFETY: the argument is that of the kernel, which stays within the buffer.
    unsafe {
        launch.set_arg(&buffer.get());
        launch
            .set_global_work_size(LENGTH)
            .enqueue_nd_range(&queue)?;
    }
    computed.record(&compute)?;

    // A host stream waits for any marker, and blocks no thread meanwhile.
    computed.wait(&consume)?;
    let (tell, told) = mpsc::channel();
    consume.launch(move || {
        let mut squares: Vec<_> = (0..LENGTH).map(|_| AtomicU32::new(0)).collect();
        // SAFETY: as long as the buffer, and the call blocks until they are written.
        let read =
            unsafe { reading.enqueue_read_buffer(&buffer, CL_BLOCKING, 0, &mut squares, &[]) };
        let squares = squares.into_iter().map(AtomicU32::into_inner);
        let sum = || squares.fold(0, |sum: u32, square| sum.wrapping_add(square));
        let _ = tell.send(read.map(|_| sum()));
    })?;
    consume.synchronize()?;

    let expected = (1..=LENGTH as u32).fold(0, |sum: u32, n| sum.wrapping_add(n.wrapping_mul(n)));
    let sum = told.recv()??;
    assert_eq!(sum, expected, "the events kept the order");
    println!("the squares of 1 to {LENGTH} add up to {expected} (modulo 2^32)");
    Ok(())
}
