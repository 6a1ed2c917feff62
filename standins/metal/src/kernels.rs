//! The compute kernels that the stand-in can run, by the names of their entry points. It compiles
//! nothing.
//!
//! * `fencepost_append`, 1 thread a group: buffer 0 is a log, `count` and `tokens…`; the push
//!   constant is a token, which each thread appends. A full log only counts.
//! * `fencepost_histogram`, 256 threads a group: buffer 0 has packed bytes; buffer 1 has 256 low
//!   and 256 high words, which are 256 counts; the push constant is the number of bytes. It adds
//!   the count of each value of a byte to the low words.
//! * `fencepost_reduce`, one group of 256 threads: buffers 0 and 1 have 256 counts each; the push
//!   constant is unused. It adds the counts of buffer 0 to those of buffer 1, with carry.
//! * `fencepost_spin`, 1 thread a group: buffer 0 has one word; the push constant is the number of
//!   rounds. It takes about a nanosecond per round by the device's clock, and from 1 ms on in real
//!   time too.
//!
//! The histogram counts in threadgroup memory first. naga makes that memory an argument of the
//! kernel, and the host has to set its length, as wgpu does. Without a length a GPU has no such
//! memory.
//!
//! Push constants are in buffer 2. Buffer 3 is naga's `_mslBufferSizes`: the sizes in bytes of the
//! bindings that end in a runtime-sized array, for `arrayLength`. Their order depends on the
//! module, so the check is that one of them is the size of buffer 0.

use crate::memory::Memory;
use fencepost_sim::{Command, SimDevice};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const PUSH_CONSTANTS: usize = 2;
const SIZES: usize = 3;
/// A spin that takes at least this long also takes real time, so that a host can see pending work.
const REAL_TIME_FROM: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    Append,
    Histogram,
    Reduce,
    Spin,
}

/// What an index of the argument table holds.
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) memory: Arc<Memory>,
    pub(crate) offset: usize,
}

impl Binding {
    fn words(&self) -> &[AtomicU32] {
        self.memory.words(self.offset)
    }

    fn length(&self) -> usize {
        self.memory.length().saturating_sub(self.offset)
    }
}

impl Kernel {
    pub(crate) fn named(name: &str) -> Option<Kernel> {
        Some(match name {
            "fencepost_append" => Kernel::Append,
            "fencepost_histogram" => Kernel::Histogram,
            "fencepost_reduce" => Kernel::Reduce,
            "fencepost_spin" => Kernel::Spin,
            _ => return None,
        })
    }

    pub(crate) fn threads(self) -> usize {
        match self {
            Kernel::Append | Kernel::Spin => 1,
            Kernel::Histogram | Kernel::Reduce => 256,
        }
    }

    /// The least number of words in each buffer.
    fn needs(self) -> &'static [usize] {
        match self {
            Kernel::Append => &[1],
            Kernel::Histogram => &[0, 512],
            Kernel::Reduce => &[512, 512],
            Kernel::Spin => &[1],
        }
    }

    /// The number of bytes in each of its threadgroup memory arguments.
    fn threadgroup_memory(self) -> &'static [usize] {
        match self {
            Kernel::Histogram => &[256 * 4],
            Kernel::Append | Kernel::Reduce | Kernel::Spin => &[],
        }
    }

    fn has_runtime_sized_array(self) -> bool {
        self != Kernel::Reduce
    }

    /// The commands of one dispatch, or why its arguments do not fit the kernel.
    pub(crate) fn commands(
        self,
        bound: &BTreeMap<usize, Binding>,
        threadgroup: &BTreeMap<usize, usize>,
        invocations: usize,
        device: &SimDevice,
    ) -> Result<Vec<Command>, String> {
        for (index, bytes) in self.threadgroup_memory().iter().enumerate() {
            let set = threadgroup.get(&index).copied().unwrap_or(0);
            if set < *bytes {
                return Err(format!(
                    "threadgroup memory {index} has {set} bytes, not {bytes}"
                ));
            }
        }
        let needs = self.needs();
        let mut buffers = Vec::new();
        for (index, words) in needs.iter().enumerate() {
            let binding = bound
                .get(&index)
                .ok_or_else(|| format!("nothing is bound at buffer {index}"))?;
            if binding.words().len() < *words {
                return Err(format!("buffer {index} has fewer than {words} words"));
            }
            buffers.push(binding.clone());
        }
        let constant = bound
            .get(&PUSH_CONSTANTS)
            .and_then(|bytes| bytes.words().first())
            .ok_or_else(|| format!("no push constants at buffer {PUSH_CONSTANTS}"))?
            .load(Ordering::SeqCst);
        if self.has_runtime_sized_array() {
            let sizes = bound
                .get(&SIZES)
                .ok_or_else(|| format!("no sizes at buffer {SIZES}"))?;
            let length = buffers[0].length();
            let is_length = |size: &AtomicU32| size.load(Ordering::SeqCst) as usize == length;
            if !sizes.words().iter().any(is_length) {
                return Err(format!("no size at buffer {SIZES} is that of buffer 0"));
            }
        }
        if self == Kernel::Spin {
            return Ok(spin(buffers.swap_remove(0), constant, device));
        }
        Ok(vec![Command::run(move || match self {
            Kernel::Append => append(buffers[0].words(), constant, invocations),
            Kernel::Histogram => {
                histogram(buffers[0].words(), buffers[1].words(), constant as usize)
            }
            Kernel::Reduce => reduce(buffers[0].words(), buffers[1].words()),
            Kernel::Spin => {}
        })])
    }
}

fn append(log: &[AtomicU32], token: u32, times: usize) {
    let Some((count, tokens)) = log.split_first() else {
        return;
    };
    for _ in 0..times {
        let place = count.fetch_add(1, Ordering::SeqCst);
        if let Some(entry) = tokens.get(place as usize) {
            entry.store(token, Ordering::SeqCst);
        }
    }
}

fn histogram(packed: &[AtomicU32], counts: &[AtomicU32], length: usize) {
    let bytes = packed
        .iter()
        .flat_map(|word| word.load(Ordering::SeqCst).to_le_bytes());
    for byte in bytes.take(length) {
        counts[usize::from(byte)].fetch_add(1, Ordering::SeqCst);
    }
}

fn reduce(from: &[AtomicU32], into: &[AtomicU32]) {
    let read = |words: &[AtomicU32], place: usize| {
        let half = |place: usize| u64::from(words[place].load(Ordering::SeqCst));
        half(place) | half(place + 256) << 32
    };
    for place in 0..256 {
        let sum = read(into, place).wrapping_add(read(from, place));
        into[place].store(sum as u32, Ordering::SeqCst);
        into[place + 256].store((sum >> 32) as u32, Ordering::SeqCst);
    }
}

fn spin(word: Binding, rounds: u32, device: &SimDevice) -> Vec<Command> {
    let device = device.clone();
    let time = Duration::from_nanos(rounds.into());
    let begun = Arc::new(OnceLock::new());
    let begin = begun.clone();
    let run = Command::run(move || {
        if let Some(word) = word.words().first() {
            word.fetch_add(rounds, Ordering::SeqCst);
        }
        device.advance(rounds.into());
        let _ = begin.set(Instant::now());
    });
    if time < REAL_TIME_FROM {
        return vec![run];
    }
    let over = move || {
        begun
            .get()
            .is_some_and(|begun: &Instant| begun.elapsed() >= time)
    };
    vec![run, Command::wait_until(over)]
}
