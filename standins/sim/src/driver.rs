//! A thread that steps the devices, for code that blocks.

use crate::machine::Machine;
use crate::seed::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, ThreadId};

/// Steps the machine in the background until it is dropped, and sleeps while nothing may happen.
///
/// Dropping it waits for the work or handler that its thread is in, unless it is dropped by that
/// very one; pending work stays pending.
#[derive(Debug)]
pub struct Driver {
    machine: Arc<Machine>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    id: ThreadId,
}

impl Driver {
    pub(crate) fn spawn(machine: &Arc<Machine>, seed: u64) -> std::io::Result<Driver> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stepped, stopped) = (machine.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("simulated device".into())
            .spawn(move || drive(&stepped, &stopped, Rng::new(!seed)))?;
        let id = thread.thread().id();
        Ok(Driver {
            machine: machine.clone(),
            stop,
            thread: Some(thread),
            id,
        })
    }
}

fn drive(machine: &Machine, stop: &AtomicBool, mut rng: Rng) {
    let stopped = || stop.load(Ordering::SeqCst);
    while !stopped() {
        let seen = machine.changes();
        if !machine.step() {
            machine.driver_wait(seen, stopped);
        } else if rng.below(4) == 0 {
            // on few cores the device would otherwise run far ahead between two calls of the host
            std::thread::yield_now();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.machine.with(|state| state.touch());
        if std::thread::current().id() == self.id {
            return;
        }
        if let Some(thread) = self.thread.take() {
            // what it runs is caught where it runs, so there is no panic to pass on
            let _ = thread.join();
        }
    }
}
