//! A thread that steps the machine, for code that blocks.

use crate::machine::Machine;
use crate::seed::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, ThreadId};

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

fn step_until(machine: &Machine, stop: &AtomicBool, mut rng: Rng) {
    let stopped = || stop.load(Ordering::SeqCst);
    while !stopped() {
        let seen = machine.changes();
        if !machine.step() {
            machine.stepper_wait(seen, stopped);
        } else if rng.below(4) == 0 {
            // without this, on few cores, the device runs far ahead between two calls of the host
            std::thread::yield_now();
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
