//! Reads operations from what libFuzzer made up, and compares a device with the model of the tests.

use fencepost::{Device, Stream};

use model::Op;

#[path = "../../../crates/fencepost/tests/common/model.rs"]
#[allow(dead_code, unreachable_pub)]
mod model;

/// More operations find nothing that these do not, and are slow.
const LONGEST: usize = 80;

/// A fork takes as long as a hundred other operations.
const MOST_FORKS: usize = 1;

/// The operations in these bytes: a kind, then its one or two numbers.
fn operations(bytes: &[u8]) -> Vec<Op> {
    let mut bytes = bytes.iter().map(|&byte| usize::from(byte));
    let (mut ops, mut forks) = (Vec::new(), 0);
    while let (Some(kind), Some(first)) = (bytes.next(), bytes.next()) {
        if ops.len() == LONGEST {
            break;
        }
        let mut second = || bytes.next().unwrap_or(0);
        ops.push(match kind % 14 {
            0 => Op::Work(first),
            1 => Op::Gate(first),
            2 => Op::Open(first),
            3 => Op::Record(first, second()),
            4 => Op::Wait(first, second()),
            5 => Op::Query(first),
            6 => Op::Synchronize(first),
            7 => Op::Replace(first),
            8 => Op::Fail(first),
            9 => Op::ClearError(first),
            10 => Op::Cancel(first),
            11 => Op::Deadline(first),
            12 => Op::Callback(first),
            _ if forks < MOST_FORKS => {
                forks += 1;
                Op::Fork(first)
            }
            _ => Op::Work(first),
        });
    }
    ops
}

/// Runs the operations in `bytes`, and panics where the device differs from the model.
pub fn run(device: &Device, bytes: &[u8], share: impl Fn(&Stream, &Stream) -> bool) {
    let ops = operations(bytes);
    let told = model::run_shared(device, &ops, fencepost_sim::HANG_TIMEOUT, share);
    if let Err(why) = told {
        panic!("{why}\nin {ops:?}");
    }
}
