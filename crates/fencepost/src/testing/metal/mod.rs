//! The work that tests put on Metal streams: kernels that write to memory the host sees.
#![allow(unsafe_code)]

mod bytes;
mod kernels;
mod log;
mod memory;

use std::sync::{Arc, OnceLock, Weak};

use kernels::{Dispatch, Kernels, dispatch};
use memory::Memory;

use super::{
    bytes::ByteCounterImpl,
    test_work::{Gate, Log, TestWork},
};
use crate::{
    contract::{DeviceImpl, StreamImpl},
    device::Device,
    error::{Cause, Result},
    host_gate::HostGated,
    metal::{
        device::{self, of},
        gpu::Gpu,
        objects::pooled,
        stream::of_stream,
    },
    place::Place,
    sync::{Mutex, lock},
};

/// The Metal device of this index once more, with streams and a clock of its own.
///
/// # Errors
/// As [`Device::open`].
///
/// ```no_run
/// use fencepost::{Device, testing::metal};
/// assert_ne!(metal::fresh(0)?, Device::open("metal")?);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub fn fresh(index: usize) -> Result<Device> {
    device::make(device::find(index)?, device::name(index)).map(Device::new)
}

/// The work of a device, where it is one of Metal.
pub(super) fn work_of(device: &dyn DeviceImpl) -> Option<Arc<dyn TestWork>> {
    let state = State::of(&of(device).ok()?.gpu);
    Some(Arc::new(MtlWork { state }))
}

/// The work of one device.
struct MtlWork {
    state: Arc<State>,
}

/// What a device has for tests. It lives as long as the work, a log or a byte counter of the device
/// does.
struct State {
    gpu: Arc<Gpu>,
    kernels: OnceLock<Result<Kernels>>,
}

impl State {
    /// The state of this device: the known one if it is alive, so that kernels are compiled once.
    fn of(gpu: &Arc<Gpu>) -> Arc<State> {
        // The key is the address of the device, which no other device has while the state is alive.
        // Weak, since a state keeps its device alive, and Metal's objects with it.
        static STATES: Mutex<Vec<(usize, Weak<State>)>> = Mutex::new(Vec::new());
        let address = Arc::as_ptr(gpu).addr();
        let mut states = lock(&STATES);
        states.retain(|(_, state)| state.strong_count() > 0);
        let known = states.iter().find(|(of, _)| *of == address);
        if let Some(state) = known.and_then(|(_, state)| state.upgrade()) {
            return state;
        }
        let state = Arc::new(State {
            gpu: gpu.clone(),
            kernels: OnceLock::new(),
        });
        states.push((address, Arc::downgrade(&state)));
        state
    }

    /// Compiles the kernels, once.
    fn kernels(&self) -> Result<&Kernels> {
        let compile = || pooled(|| Kernels::new(&self.gpu));
        let compiled = self.kernels.get_or_init(compile);
        compiled.as_ref().map_err(Clone::clone)
    }
}

impl TestWork for MtlWork {
    fn new_log(&self) -> Result<Log> {
        log::new(&self.state)
    }

    fn gate(&self, stream: &dyn StreamImpl, _at: Place) -> Result<Gate> {
        let stream = of_stream(stream)?;
        stream.check("gate")?;
        let gate = stream.add_gate(|| ())?;
        Ok(Gate::new(move || {
            // Behind a failure there is nothing to hold back.
            if let Some((gate, step, ())) = gate {
                step.finish(Ok(()));
                drop(gate);
            }
        }))
    }

    fn append(&self, stream: &dyn StreamImpl, log: &Log, token: u32) -> Result<()> {
        match log::append(of_stream(stream)?, log, token)? {
            true => Ok(()),
            // What is submitted behind a failure never runs.
            false => stream.failure().map_or(Ok(()), Err),
        }
    }

    /// For `amount` rounds of a loop.
    fn spin(&self, stream: &dyn StreamImpl, amount: u64) -> Result<()> {
        let memory = Memory::new(&self.state.gpu, 4)?;
        let work = Dispatch {
            kernel: &self.state.kernels()?.spin,
            memory: &[&memory],
            groups: 1,
            word: amount.try_into().unwrap_or(u32::MAX),
            zeroed: None,
        };
        dispatch(of_stream(stream)?, &work).map(drop)
    }

    /// Fails the stream by the backend's own way: there is no kernel that faults on every GPU. The
    /// tests on the stand-in show what a command buffer does that ends in an error.
    fn fail(&self, stream: &dyn StreamImpl, text: &str) -> Result<()> {
        of_stream(stream)?.fail_from_here(&Cause::new(text));
        Ok(())
    }

    fn byte_counter(&self, capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
        bytes::new(&self.state, capacity)
    }
}
