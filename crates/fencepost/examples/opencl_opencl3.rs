//! Times a kernel that opencl3 launches on a queue of its own.
//!
//! `cargo run --release -p fencepost --features opencl --example opencl_opencl3`, on a machine with
//! a driver of OpenCL. PoCL is one that computes on the processor.

use std::{error::Error, ptr::null_mut};

use fencepost::{Device, Event, opencl};
use opencl3::{
    command_queue::{CL_QUEUE_PROFILING_ENABLE, CommandQueue},
    context::Context,
    device::{CL_DEVICE_TYPE_ALL, Device as ClDevice, get_all_devices},
    kernel::{ExecuteKernel, Kernel},
    memory::{Buffer, CL_MEM_READ_WRITE, ClMem},
    program::Program,
    types::CL_BLOCKING,
};

const SAXPY: &str = "
kernel void saxpy(global float *y, global const float *x, float a)
{
    y[get_global_id(0)] += a * x[get_global_id(0)];
}";
const LENGTH: usize = 1 << 24;

fn main() -> Result<(), Box<dyn Error>> {
    // Ours first: it says what to install where there is no driver.
    Device::open("opencl:0")?;

    let device = get_all_devices(CL_DEVICE_TYPE_ALL)?;
    let context = Context::from_device(&ClDevice::new(device[0]))?;
    // Without this property a queue has no times.
    let queue = CommandQueue::create_default(&context, CL_QUEUE_PROFILING_ENABLE)?;
    let program = Program::create_and_build_from_source(&context, SAXPY, "")?;
    let kernel = Kernel::create(&program, "saxpy")?;
    // SAFETY: without memory of the host, here and in the next line.
    let mut x = unsafe { Buffer::create(&context, CL_MEM_READ_WRITE, LENGTH, null_mut()) }?;
    // SAFETY: as above.
    let mut y = unsafe { Buffer::create(&context, CL_MEM_READ_WRITE, LENGTH, null_mut()) }?;
    for (buffer, value) in [(&mut x, 2.0_f32), (&mut y, 0.0)] {
        let values = vec![value; LENGTH];
        // SAFETY: as long as the buffer, and the call blocks until they are read.
        unsafe { queue.enqueue_write_buffer(buffer, CL_BLOCKING, 0, &values, &[]) }?;
    }

    // SAFETY: a queue of this process's loader. It is retained, so that it may outlive `queue`.
    let stream = unsafe { opencl::stream_from_raw(queue.get()) }?;
    let device = stream.device();
    let (start, end) = (Event::with_timing(device), Event::with_timing(device));
    let rounds = 5;
    for round in 0..rounds {
        start.record(&stream)?;
        let mut launch = ExecuteKernel::new(&kernel);
        // SAFETY: the arguments are those of the kernel, which stays within both buffers.
        unsafe {
            launch.set_arg(&y.get()).set_arg(&x.get()).set_arg(&3.0_f32);
            launch
                .set_global_work_size(LENGTH)
                .enqueue_nd_range(&queue)?;
        }
        end.record(&stream)?;

        let millis = start.elapsed_time(&end)?;
        let bytes = 3.0 * 4.0 * LENGTH as f64;
        println!(
            "round {round}: {millis:.3} ms, {:.1} GB/s",
            bytes / millis / 1e6
        );
    }
    let mut values = vec![0.0_f32; LENGTH];
    // SAFETY: as long as the buffer, and the call blocks until they are written.
    unsafe { queue.enqueue_read_buffer(&y, CL_BLOCKING, 0, &mut values, &[]) }?;
    assert!(values.iter().all(|&y| y == 6.0 * rounds as f32));
    Ok(())
}
