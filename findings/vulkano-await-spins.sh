#!/bin/sh
# vulkano (Rust): a fence that is awaited is polled without a pause, until the device is done.
#
# `Fence` and `FenceSignalFuture` are futures. A poll asks Vulkan for the fence's status and, if it
# is not signalled, wakes its own task before it returns "pending". So an executor polls it again at
# once, up to two million times a second, and the thread never sleeps. The public documentation says
# that a fence can be awaited, and not how; a comment in the source says it.
#
# Guess before the run: the task is woken once, when the fence is signalled, by a thread that waits.
#
# Why it matters: `.await` costs a core for as long as the GPU works, where the call `wait` sleeps.
# It takes that core from whatever feeds the GPU, and a program that awaits several frames asks for
# each in turn. Call `wait` on a thread made for that.
#
# Seen on 2026-11-29 with vulkano 0.35.2, Rust 1.95, lavapipe of Debian 12's mesa-vulkan-drivers
# 22.3.6, Linux x86-64 (numbers vary). The executor sleeps until it is woken:
#   await: 414 ms, polled 868943 times, CPU time of this thread 409 ms
#   wait: 402 ms, CPU time of this thread 0 ms
set -eu
driver=$(find /usr/share/vulkan/icd.d -name 'lvp_icd*.json' | head -n 1)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/fence/src"
cat >"$dir/fence/Cargo.toml" <<'TOML'
[package]
name = "fence"
version = "0.0.0"
edition = "2021"

[dependencies]
libc = "0.2"
vulkano = "=0.35.2"
TOML
cat >"$dir/fence/src/main.rs" <<'RUST'
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use vulkano::buffer::{Buffer, BufferCreateInfo, BufferUsage};
use vulkano::command_buffer::allocator::StandardCommandBufferAllocator;
use vulkano::command_buffer::{AutoCommandBufferBuilder, CommandBufferUsage};
use vulkano::device::{Device, DeviceCreateInfo, QueueCreateInfo};
use vulkano::instance::{Instance, InstanceCreateInfo};
use vulkano::memory::allocator::{AllocationCreateInfo, StandardMemoryAllocator};
use vulkano::sync::{self, GpuFuture};
use vulkano::VulkanLibrary;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, which sleeps until it is woken. Returns the number of polls.
fn block_on(future: impl Future) -> u64 {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let mut polls = 1;
    while let Poll::Pending = future.as_mut().poll(&mut context) {
        thread::park();
        polls += 1;
    }
    polls
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn main() {
    let library = VulkanLibrary::new().unwrap();
    let instance = Instance::new(library, InstanceCreateInfo::default()).unwrap();
    let physical = instance.enumerate_physical_devices().unwrap().next().unwrap();
    let queue_create_infos = vec![QueueCreateInfo::default()];
    let info = DeviceCreateInfo { queue_create_infos, ..Default::default() };
    let (device, mut queues) = Device::new(physical, info).unwrap();
    let queue = queues.next().unwrap();
    let memory = Arc::new(StandardMemoryAllocator::new_default(device.clone()));
    let info = BufferCreateInfo { usage: BufferUsage::TRANSFER_DST, ..Default::default() };
    let buffer = Buffer::new_slice::<u32>(memory, info, AllocationCreateInfo::default(), 1 << 26);
    let buffer = buffer.unwrap();
    let allocator = StandardCommandBufferAllocator::new(device.clone(), Default::default());
    let mut builder = AutoCommandBufferBuilder::primary(
        Arc::new(allocator),
        queue.queue_family_index(),
        CommandBufferUsage::MultipleSubmit,
    )
    .unwrap();
    for number in 0..10 {
        builder.fill_buffer(buffer.clone(), number).unwrap();
    }
    let fills = builder.build().unwrap();
    let submit = || {
        let start = sync::now(device.clone());
        let run = start.then_execute(queue.clone(), fills.clone()).unwrap();
        run.then_signal_fence_and_flush().unwrap()
    };
    submit().wait(None).unwrap();

    let (start, used) = (Instant::now(), cpu_time());
    let polls = block_on(submit());
    let (lasted, awaiting) = (start.elapsed().as_millis(), (cpu_time() - used).as_millis());
    println!("await: {lasted} ms, polled {polls} times, CPU time of this thread {awaiting} ms");
    let (start, used) = (Instant::now(), cpu_time());
    submit().wait(None).unwrap();
    let (lasted, waiting) = (start.elapsed().as_millis(), (cpu_time() - used).as_millis());
    println!("wait: {lasted} ms, CPU time of this thread {waiting} ms");
    if polls < 10_000 || awaiting < 10 * waiting.max(1) {
        println!("the behaviour has changed");
        std::process::exit(1);
    }
}
RUST
cargo build --quiet --manifest-path "$dir/fence/Cargo.toml" --target-dir "$dir/target"
VK_ICD_FILENAMES="$driver" XDG_RUNTIME_DIR="$dir" "$dir/target/debug/fence"
