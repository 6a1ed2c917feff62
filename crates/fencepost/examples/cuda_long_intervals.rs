//! Compares two minutes by events with a kernel that reads the GPU's clock.
//!
//! On a machine with an NVIDIA GPU; the word `kept` leaves out the time without a keeper:
//!
//! `cargo run --release -p fencepost --features cuda --example cuda_long_intervals -- 120 [kept]`
//!
//! A round is a timed marker, a kernel that stores `%globaltimer`, and another timed marker. The
//! rounds whose two markers are closest together count: there the kernel ran a constant time after
//! the marker. The host's clock would not do for this: it runs some millionths slower or faster
//! than the GPU's.

use std::{
    error::Error,
    thread,
    time::{Duration, Instant},
};

use cudarc::{
    driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, LaunchConfig, PushKernelArg},
    nvrtc::Ptx,
};
use fencepost::{Device, Marker, Stream, cuda};

const STAMP: &str = "
.version 6.5
.target sm_70
.address_size 64
.visible .entry stamp(.param .u64 to)
{
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [to];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u64 %rd3, %globaltimer;
    st.global.u64 [%rd2], %rd3;
    ret;
}
";

/// The rounds at each end, and how many of them count.
const ROUNDS: usize = 400;
const COUNT: usize = 20;

struct Round {
    before: Marker,
    /// `%globaltimer`, in nanoseconds.
    stamp: u64,
    /// The nanoseconds between the two markers around the kernel.
    width: f64,
}

fn round(
    stream: &Stream,
    theirs: &std::sync::Arc<CudaStream>,
    kernel: &CudaFunction,
    to: &mut CudaSlice<u64>,
) -> Result<Round, Box<dyn Error>> {
    let before = stream.record_timed()?;
    let mut launch = theirs.launch_builder(kernel);
    launch.arg(&mut *to);
    let one = LaunchConfig {
        grid_dim: (1, 1, 1),
        block_dim: (1, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: the argument is the kernel's, which stores one word.
    unsafe { launch.launch(one) }?;
    let after = stream.record_timed()?;
    after.synchronize()?;
    let width = before.elapsed(&after)?.as_nanos_f64();
    let stamp = theirs.clone_dtoh(&*to)?[0];
    Ok(Round {
        before,
        stamp,
        width,
    })
}

/// The median, and how far the quarter and the three quarters are from it.
fn spread(mut numbers: Vec<f64>) -> (f64, f64, f64) {
    numbers.sort_by(f64::total_cmp);
    let at = |part: f64| numbers[((numbers.len() - 1) as f64 * part) as usize];
    (at(0.5), at(0.25) - at(0.5), at(0.75) - at(0.5))
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds: f64 = std::env::args()
        .nth(1)
        .map_or(Ok(120.0), |arg| arg.parse())?;
    let device = match Device::open("cuda:0") {
        Ok(device) => device,
        Err(error) => {
            println!("needs an NVIDIA GPU: {error}");
            return Ok(());
        }
    };
    let context = CudaContext::new(0)?;
    let theirs = context.new_stream()?;
    let module = match context.load_module(Ptx::from_src(STAMP)) {
        Ok(module) => module,
        Err(error) => {
            println!("needs a driver that runs this kernel: {error}");
            return Ok(());
        }
    };
    let kernel = module.load_function("stamp")?;
    let mut to = theirs.alloc_zeros::<u64>(1)?;
    // SAFETY: a stream of this process's driver. cudarc destroys it when the last `Arc` goes, and
    // ours goes with the last clone of `stream`.
    let stream = unsafe { cuda::stream_from_raw(theirs.cu_stream().cast(), theirs.clone()) }?;
    println!(
        "{}, driver's clock: {}",
        cuda::model(&device)?,
        device.clock()
    );

    let measured = |keep: bool, to: &mut CudaSlice<u64>| -> Result<(), Box<dyn Error>> {
        let keeper = keep.then(|| device.keep_time()).transpose()?;
        let mut ends = Vec::new();
        let begin = Instant::now();
        for pause in [0.5, seconds] {
            thread::sleep(Duration::from_secs_f64(pause));
            let rounds = (0..ROUNDS).map(|_| round(&stream, &theirs, &kernel, to));
            let mut rounds = rounds.collect::<Result<Vec<_>, _>>()?;
            rounds.sort_by(|one, two| one.width.total_cmp(&two.width));
            rounds.truncate(COUNT);
            ends.push(rounds);
        }
        // The keeper's last event comes behind the last marker.
        thread::sleep(Duration::from_millis(500));
        let host = begin.elapsed();
        let (mut off, mut said, mut time) = (Vec::new(), Duration::ZERO, 0.0);
        for start in &ends[0] {
            for end in &ends[1] {
                let told = start.before.elapsed(&end.before)?;
                off.push(told.as_nanos_f64() - (end.stamp as f64 - start.stamp as f64));
                said = said.max(told.uncertainty());
                time = told.as_secs_f64();
            }
        }
        let widths = |rounds: &[Round]| (rounds[0].width, rounds[COUNT - 1].width);
        let (median, low, high) = spread(off);
        println!(
            "{}: {time:.6} s ({host:.1?} in all), off from %globaltimer by {median:.0} ns \
             ({low:+.0}, {high:+.0}), says ± {said:?}; rounds {:?} and {:?} ns wide; steps {:?}",
            if keep { "kept" } else { "alone" },
            widths(&ends[0]),
            widths(&ends[1]),
            device.clock().resolution(),
        );
        drop(keeper);
        Ok(())
    };
    if std::env::args().nth(2).is_none() {
        measured(false, &mut to)?;
    }
    measured(true, &mut to)
}
