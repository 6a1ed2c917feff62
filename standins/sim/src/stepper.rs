//! A thread that steps the machine, for code that blocks.

use crate::machine::Machine;
use crate::seed::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

/// A thread that steps the machine until this is dropped. It sleeps while nothing may happen.
///
/// Dropping it waits for the work or handler that its thread is running, unless that work or
/// handler drops it. Pending work stays pending.
#[derive(Debug)]
pub struct Stepper {
    machine: Arc<Machine>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    id: ThreadId,
}

impl Stepper {
    pub(crate) fn spawn(machine: &Arc<Machine>, seed: u64) -> std::io::Result<Stepper> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stepped, stopped) = (machine.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("simulated device".into())
            .spawn(move || step_until(&stepped, &stopped, Rng::new(!seed)))?;
        let id = thread.thread().id();
        Ok(Stepper {
            machine: machine.clone(),
            stop,
            thread: Some(thread),
            id,
        })
    }
}

/// A yield that takes longer gave the core to another program, and not to this one's host threads.
const LONG_YIELD: Duration = Duration::from_millis(1);

/// How many steps follow a long yield without another. On a loaded machine each takes some
/// milliseconds, and a test may take hundreds of thousands of steps.
const STEPS_AFTER_LONG_YIELD: u32 = 1_000;

fn step_until(machine: &Machine, stop: &AtomicBool, mut rng: Rng) {
    let stopped = || stop.load(Ordering::SeqCst);
    let mut steps_without_yield = 0_u32;
    while !stopped() {
        let seen = machine.changes();
        if !machine.step() {
            machine.stepper_wait(seen, stopped);
        } else if steps_without_yield > 0 {
            steps_without_yield -= 1;
        } else if rng.below(4) == 0 {
            // without this, on few cores, the device runs far ahead between two calls of the host
            let begun = Instant::now();
            std::thread::yield_now();
            if begun.elapsed() > LONG_YIELD {
                steps_without_yield = STEPS_AFTER_LONG_YIELD;
            }
        }
    }
}

impl Drop for Stepper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.machine.with(|state| state.touch());
        if std::thread::current().id() == self.id {
            return;
        }
        if let Some(thread) = self.thread.take() {
            // panics of work and handlers are caught in `Machine::step`
            let _ = thread.join();
        }
    }
}
