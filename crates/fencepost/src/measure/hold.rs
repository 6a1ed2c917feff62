//! Holds the stream while a batch is queued, and lets it go in time.

use std::{
    ffi::OsStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    contract::Backend,
    device::Device,
    error::Result,
    gate::{Gate, deadlines},
    stream::Stream,
    workers::{Deadline, Expire},
};

/// Why the stream is not held any more, where the function keeps it from being held.
pub(super) const NEVER_RETURNS: &str = "the function did not return while it was; it waits for the \
     device, frees or loads something, or fills the queue";

/// How long to hold a stream for calls that usually take `usual` to queue: five times that, and
/// `least` at least; but no more than `spare` on top, since a function that waits for the device
/// keeps the stream idle for all of it.
pub(super) fn longest(least: Duration, usual: Duration, spare: Duration) -> Duration {
    let enough = usual.saturating_mul(5);
    least.max(enough.min(usual.saturating_add(spare.max(least))))
}

/// A stream that is held. Dropping it lets the stream go.
pub(super) struct Hold {
    closed: Arc<Closed>,
    deadline: Deadline,
}

/// A gate, and who opened it.
///
/// *Invariant: `over` is set before the gate is opened.* Both who hold it set it by one atomic
/// exchange, and only the first one opens the gate. So where [`Hold::end`] is the first, the stream
/// was held until then.
struct Closed {
    gate: Gate,
    over: AtomicBool,
}

impl Closed {
    /// Opens the gate, if nobody has before. Returns whether somebody has.
    fn open(&self) -> bool {
        let was_over = self.over.swap(true, Ordering::AcqRel);
        if !was_over {
            self.gate.open();
        }
        was_over
    }
}

impl Expire for Closed {
    fn expire(&self) {
        self.open();
    }
}

impl Hold {
    /// Holds `stream`, for no longer than `longest`.
    pub(super) fn begin(stream: &Stream, longest: Duration) -> Result<Hold> {
        let closed = Arc::new(Closed {
            // Its limit would fail the stream.
            gate: Gate::with_limit(stream.device(), Duration::MAX)?,
            over: AtomicBool::new(false),
        });
        let expires: Arc<dyn Expire> = closed.clone();
        let now = Instant::now();
        let at = now.checked_add(longest).unwrap_or(now);
        // Before the stream is held: without the thread that ends it, it is not held at all.
        let deadline = deadlines().add(at, Arc::downgrade(&expires))?;
        let hold = Hold { closed, deadline };
        hold.closed.gate.wait(stream)?;
        Ok(hold)
    }

    /// Whether the time is over and the stream was let go.
    pub(super) fn is_over(&self) -> bool {
        self.closed.over.load(Ordering::Acquire)
    }

    /// Lets the stream go. Returns whether it was let go before.
    pub(super) fn end(&self) -> bool {
        self.closed.open()
    }

    /// Why streams of `device` are not to be held in this process.
    pub(super) fn refusal(device: &Device) -> Option<String> {
        match device.backend() {
            Backend::Cuda => refusal_of_cuda(|name| std::env::var_os(name).is_some_and(is_on)),
            _ => None,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.closed.open();
        deadlines().remove(self.deadline);
    }
}

fn is_on(value: impl AsRef<OsStr>) -> bool {
    let value = value.as_ref();
    !value.is_empty() && value != "0"
}

/// With these, each launch waits for the device, or something looks at each launch and may wait.
const TOOLS: [(&str, &str); 9] = [
    ("CUDA_LAUNCH_BLOCKING", "each launch waits for the device"),
    ("CUDA_INJECTION64_PATH", "a tool follows the driver's calls"),
    ("CUDA_INJECTION32_PATH", "a tool follows the driver's calls"),
    ("NVTX_INJECTION64_PATH", "a profiler is attached"),
    ("NSYS_PROFILING_SESSION_ID", "Nsight Systems is attached"),
    (
        "NV_NSIGHT_INJECTION_PORT_BASE",
        "Nsight Compute is attached",
    ),
    (
        "NV_NSIGHT_INJECTION_TRANSPORT_TYPE",
        "Nsight Compute is attached",
    ),
    (
        "NV_SANITIZER_INJECTION_PORT_BASE",
        "compute-sanitizer is attached",
    ),
    (
        "NV_SANITIZER_INJECTION_PORT_RANGE_BEGIN",
        "compute-sanitizer is attached",
    ),
];

fn refusal_of_cuda(is_on: impl Fn(&str) -> bool) -> Option<String> {
    let (name, why) = TOOLS.iter().find(|(name, _)| is_on(name))?;
    Some(format!("{name} is set: {why}"))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn long_calls_are_held_for_long_and_not_for_five_times_as_long() {
        let ms = Duration::from_millis;
        assert_eq!(longest(ms(20), ms(1), ms(200)), ms(20));
        assert_eq!(longest(ms(20), ms(10), ms(200)), ms(50));
        assert_eq!(longest(ms(20), ms(1_000), ms(200)), ms(1_200));
        assert_eq!(longest(ms(20), ms(30), ms(1)), ms(50));
    }

    #[test]
    fn nothing_is_held_under_a_tool_that_may_wait_for_each_launch() {
        assert_eq!(refusal_of_cuda(|_| false), None);
        for (name, _) in TOOLS {
            let why = refusal_of_cuda(|asked| asked == name).unwrap();
            assert!(why.starts_with(name), "{why}");
        }
        assert!(is_on("1") && is_on("/opt/tool.so") && !is_on("0") && !is_on(""));
    }
}
