//! The kernels that the stand-in has, by the names of their entry points. It runs no SPIR-V.
//!
//! * `fencepost_append` appends its push constant to the log in binding 0, `{count, tokens[]}`. If
//!   the log is full, only the count grows.
//! * `fencepost_histogram` counts the packed bytes in binding 0; its push constant is their number.
//!   It adds to the low words of the 512 counts in binding 1.
//! * `fencepost_reduce` adds the 512 counts in binding 0 to those in binding 1. They are 256
//!   numbers of 64 bits: all low words first, then all high words.
//! * `fencepost_spin` runs a linear congruential generator on the word in binding 0, for as many
//!   rounds as its push constant says. A round takes a nanosecond of the device's clock, and no
//!   real time.

use crate::device::Shared;
use crate::memory::Span;
use crate::usage::LOG;
use std::sync::Weak;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    Append,
    Histogram,
    Reduce,
    Spin,
}

const BINS: usize = 256;

impl Kernel {
    pub(crate) fn of(name: &str) -> Option<Kernel> {
        Some(match name {
            "fencepost_append" => Kernel::Append,
            "fencepost_histogram" => Kernel::Histogram,
            "fencepost_reduce" => Kernel::Reduce,
            "fencepost_spin" => Kernel::Spin,
            _ => return None,
        })
    }

    pub(crate) fn bindings(self) -> u32 {
        match self {
            Kernel::Append | Kernel::Spin => 1,
            Kernel::Histogram | Kernel::Reduce => 2,
        }
    }

    pub(crate) fn reads_push_constant(self) -> bool {
        self != Kernel::Reduce
    }

    /// Runs this many workgroups.
    pub(crate) fn run(self, spans: &[Span], push: u32, groups: u32, device: &Weak<Shared>) {
        // one group of a histogram covers all bytes, and the groups of a spin run in parallel
        let times = match self {
            Kernel::Append | Kernel::Reduce => groups,
            Kernel::Histogram | Kernel::Spin => groups.min(1),
        };
        for _ in 0..times {
            if self.once(spans, push, device).is_none() {
                LOG.violation(&format!("{self:?} runs beyond the end of its buffers"));
            }
        }
    }

    /// `None` if a buffer is too short, which is undefined without robustBufferAccess.
    fn once(self, spans: &[Span], push: u32, device: &Weak<Shared>) -> Option<()> {
        match (self, spans) {
            (Kernel::Append, [log]) => {
                let place = log.word(0)?.fetch_add(1, Ordering::SeqCst) as usize;
                if let Some(token) = log.word(1 + place) {
                    token.store(push, Ordering::SeqCst);
                }
            }
            (Kernel::Histogram, [bytes, counts]) => {
                counts.word(2 * BINS - 1)?;
                for index in 0..push as usize {
                    let word = bytes.word(index / 4)?.load(Ordering::SeqCst);
                    let byte = word.to_le_bytes()[index % 4];
                    counts.word(byte.into())?.fetch_add(1, Ordering::SeqCst);
                }
            }
            (Kernel::Reduce, [from, into]) => {
                for bin in 0..BINS {
                    let read = |word: &AtomicU32| u64::from(word.load(Ordering::SeqCst));
                    let number = |span: &Span| {
                        Some(read(span.word(bin)?) | read(span.word(BINS + bin)?) << 32)
                    };
                    let sum = number(from)?.wrapping_add(number(into)?);
                    into.word(bin)?.store(sum as u32, Ordering::SeqCst);
                    let high = (sum >> 32) as u32;
                    into.word(BINS + bin)?.store(high, Ordering::SeqCst);
                }
            }
            (Kernel::Spin, [word]) => {
                let word = word.word(0)?;
                word.store(spin(word.load(Ordering::SeqCst), push), Ordering::SeqCst);
                if let Some(device) = device.upgrade() {
                    device.sim.advance(push.into());
                }
            }
            _ => return None,
        }
        Some(())
    }
}

/// The result of so many rounds of `value * 1664525 + 1013904223`, computed by repeated squaring.
fn spin(mut value: u32, mut rounds: u32) -> u32 {
    let (mut factor, mut term) = (1_664_525_u32, 1_013_904_223_u32);
    while rounds > 0 {
        if rounds & 1 == 1 {
            value = value.wrapping_mul(factor).wrapping_add(term);
        }
        term = term.wrapping_mul(factor).wrapping_add(term);
        factor = factor.wrapping_mul(factor);
        rounds >>= 1;
    }
    value
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_spin_is_the_given_number_of_rounds() {
        for rounds in [0, 1, 2, 3, 1000] {
            let round = |value: u32, _| value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            assert_eq!(super::spin(7, rounds), (0..rounds).fold(7, round));
        }
    }
}
