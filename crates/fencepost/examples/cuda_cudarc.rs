//! Times a kernel that cudarc launches on a stream of its own.
//!
//! `cargo run --release -p fencepost --features cuda --example cuda_cudarc`, on a machine with an
//! NVIDIA GPU.

use std::error::Error;

use cudarc::{
    driver::{CudaContext, LaunchConfig, PushKernelArg},
    nvrtc::Ptx,
};
use fencepost::{Device, Event, cuda};

/// `y[i] += a * x[i]`.
const SAXPY: &str = "
.version 6.5
.target sm_70
.address_size 64
.visible .entry saxpy(.param .u64 y, .param .u64 x, .param .f32 a, .param .u32 n)
{
    .reg .pred %p<2>;
    .reg .f32 %f<5>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [y];
    ld.param.u64 %rd2, [x];
    ld.param.f32 %f1, [a];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra DONE;
    cvta.to.global.u64 %rd3, %rd1;
    cvta.to.global.u64 %rd4, %rd2;
    mul.wide.u32 %rd5, %r5, 4;
    add.s64 %rd6, %rd3, %rd5;
    add.s64 %rd7, %rd4, %rd5;
    ld.global.f32 %f2, [%rd7];
    ld.global.f32 %f3, [%rd6];
    fma.rn.f32 %f4, %f1, %f2, %f3;
    st.global.f32 [%rd6], %f4;
DONE:
    ret;
}
";
const LENGTH: u32 = 1 << 26;

fn main() -> Result<(), Box<dyn Error>> {
    // Ours first: without a driver it gives an error, where cudarc would panic.
    let device = Device::open("cuda:0")?;

    let context = CudaContext::new(0)?;
    let theirs = context.new_stream()?;
    let kernel = context
        .load_module(Ptx::from_src(SAXPY))?
        .load_function("saxpy")?;
    let x = theirs.clone_htod(&vec![2.0_f32; LENGTH as usize])?;
    let mut y = theirs.alloc_zeros::<f32>(LENGTH as usize)?;

    // SAFETY: a stream of this process's driver. cudarc destroys it when the last `Arc` goes, and
    // ours goes with the last clone of `stream`.
    let stream = unsafe { cuda::stream_from_raw(theirs.cu_stream().cast(), theirs.clone()) }?;
    assert_eq!(
        stream.device(),
        &device,
        "cudarc works in the primary context, as we do"
    );

    let (start, end) = (Event::with_timing(&device), Event::with_timing(&device));
    let rounds = 5;
    for round in 0..rounds {
        start.record(&stream)?;
        let mut launch = theirs.launch_builder(&kernel);
        launch.arg(&mut y).arg(&x).arg(&3.0_f32).arg(&LENGTH);
        // SAFETY: the arguments are those of the kernel, which stays within both buffers.
        unsafe { launch.launch(LaunchConfig::for_num_elems(LENGTH)) }?;
        end.record(&stream)?;

        let millis = start.elapsed_time(&end)?;
        let bytes = 3.0 * 4.0 * f64::from(LENGTH);
        println!(
            "round {round}: {millis:.3} ms, {:.0} GB/s",
            bytes / millis / 1e6
        );
    }
    let y = theirs.clone_dtoh(&y)?;
    assert!(y.iter().all(|&y| y == 6.0 * rounds as f32));
    Ok(())
}
